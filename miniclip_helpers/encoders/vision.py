"""ResNet-18 and -50, MobileNetV2 (torchvision), ViT (transformers): published weights where they are on this machine, else from zero."""

import torch
from torch import nn

from ..errors import UsageError, unknown
from ..images import HALF, Preprocess
from .base import LibraryTower
from .language import own_options, unpublished
from .pooling import check_pooling, pool
from .weights import hub_at_hand, hub_load, resolve, torchvision_file, torchvision_state

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and spread of ImageNet's pixels: what torchvision's weights were trained on
PIXELS = {"imagenet": IMAGENET, "half": (HALF, HALF)}
PUBLISHED_SIZE, ZERO_SIZE = 224, 64


class VisionTower(LibraryTower):
    """What the image towers of libraries share. Pictures, squashed to `size` x `size` pixels, to (B, width).

    pretrained: True for the published weights, trained on ImageNet-1k (locked until `unlock`), False for a start from zero, None for
    whatever is on this machine. size: pixels; None for 224 with published weights and 64 from zero, which a CPU can train.
    pixels: "imagenet" (mean 0, spread 1 over ImageNet) or "half" (values in [-1, 1]); None for what the weights were trained with,
    "half" from zero.
    """

    published_pixels = "imagenet"

    def set_up(self, pretrained, size, pixels):
        """Fill in what depends on where the weights come from."""
        size = size or (PUBLISHED_SIZE if pretrained else ZERO_SIZE)
        pixels = pixels or (self.published_pixels if pretrained else "half")
        if pixels not in PIXELS:
            raise unknown(f"pixels of {self.name}", pixels, PIXELS)
        if not isinstance(size, int) or not 16 <= size <= 1024:
            raise UsageError(f"expected a size from 16 to 1024 pixels, found {size!r}")
        self.options |= {"size": size, "pixels": pixels}
        mean, std = PIXELS[pixels]
        self.preprocess = Preprocess(size=size, mean=mean, std=std, mode="squash")

    def prepare(self, images):
        return self.preprocess.batch(images)


class TorchvisionTower(VisionTower):
    """A convolutional network of torchvision without its classifier: the mean over space of its last map."""

    maker, enum, member = "", "", "IMAGENET1K_V1"

    def __init__(self, pretrained=None, size=None, pixels=None):
        super().__init__()
        import torchvision

        weights = getattr(torchvision.models, self.enum)[self.member]
        taken = resolve(pretrained, lambda: torchvision_file(weights).is_file())
        self.set_up(taken, size, pixels)
        net = getattr(torchvision.models, self.maker)(weights=None)
        if taken:
            net.load_state_dict(torchvision_state(weights, self.name))
        self.width = self.without_classifier(net)
        self.place(net.to(memory_format=torch.channels_last), taken, f"published weights ({weights})" if taken else "from zero")

    def without_classifier(self, net):
        """Take the classifier off; returns the width of what it saw."""
        width, net.fc = net.fc.in_features, nn.Identity()
        return width

    def forward(self, batch):
        return self.net(batch.contiguous(memory_format=torch.channels_last))  # the faster layout on a CPU


class ResNet18(TorchvisionTower):
    """He et al. 2016; 11.2 M parameters; (B, 3, S, S) to (B, 512)."""

    name, maker, enum = "resnet18", "resnet18", "ResNet18_Weights"


class ResNet50(TorchvisionTower):
    """He et al. 2016; 23.5 M parameters; (B, 3, S, S) to (B, 2048)."""

    name, maker, enum, member = "resnet50", "resnet50", "ResNet50_Weights", "IMAGENET1K_V2"


class MobileNetV2(TorchvisionTower):
    """Sandler et al. 2018; 2.2 M parameters; (B, 3, S, S) to (B, 1280)."""

    name, maker, enum, member = "mobilenetv2", "mobilenet_v2", "MobileNet_V2_Weights", "IMAGENET1K_V2"

    def without_classifier(self, net):
        width, net.classifier = net.classifier[1].in_features, nn.Identity()
        return width


class ViT(VisionTower):
    """Dosovitskiy et al. 2021: a picture as a row of patches behind a CLS token. (B, 3, S, S) to (B, width).

    From zero a small random configuration (`layers`, `heads`, `hidden`), with patches of 8 pixels up to 96 pixels and of 16 above;
    published: ViT-B/16, 12 layers, 768 wide. weights: a name of the hub, or a folder in its format. pooling: "cls" or "mean" (of the patches).
    """

    name, published, published_pixels = "vit", "google/vit-base-patch16-224", "half"

    def __init__(self, pretrained=None, size=None, pixels=None, weights=None, pooling="cls", layers=4, heads=4, hidden=128, patch=None, config=None):
        check_pooling("vit", pooling, ("cls", "mean"))
        super().__init__(weights=weights, pooling=pooling, layers=layers, heads=heads, hidden=hidden, patch=patch, config=config)
        from transformers.models.vit.modeling_vit import ViTModel

        source = weights or self.published
        taken = resolve(False if config and pretrained is None else pretrained, lambda: hub_at_hand(source))
        self.set_up(taken, size, pixels)
        if taken:
            net = hub_load(ViTModel, source, "vit", use_safetensors=True, add_pooling_layer=False)
            self.place(net, True, f"published weights ({source})")
        else:
            self.place(ViTModel(self._config(), add_pooling_layer=False), False, unpublished(config))
        self.width = self.net.config.hidden_size

    def _config(self):
        from transformers.models.vit.configuration_vit import ViTConfig

        o = self.options
        o["patch"] = o["patch"] or (8 if o["size"] <= 96 else 16)
        if o["size"] % o["patch"] and not o["config"]:
            raise UsageError(f"expected a size that the patches divide, found {o['size']} pixels in patches of {o['patch']}")
        small = {"hidden_size": o["hidden"], "num_hidden_layers": o["layers"], "num_attention_heads": o["heads"], "intermediate_size": 4 * o["hidden"],
                 "image_size": o["size"], "patch_size": o["patch"]}
        config = ViTConfig(**small)
        config.update(o["config"] or {})
        return config

    def own_options(self):
        return own_options(self)

    def forward(self, batch):
        other = batch.shape[-1] != self.net.config.image_size
        states = self.net(pixel_values=batch, interpolate_pos_encoding=other).last_hidden_state  # (B, 1 + patches, width)
        if self.options["pooling"] == "cls":
            return states[:, 0]
        return pool(states[:, 1:], torch.ones_like(states[:, 1:, 0], dtype=torch.bool), "mean")
