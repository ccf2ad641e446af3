"""Towers: a batch of pictures or captions to features, (B, width). By name: `load_encoder("efficientnet-lite0")`."""

from ..errors import unknown
from .base import Tower, weights_fingerprint
from .efficientnet import EfficientNetLite0
from .minilm import MiniLM
from .small import BagOfWords, SmallCNN

__all__ = ["IMAGE_ENCODERS", "TEXT_ENCODERS", "BagOfWords", "EfficientNetLite0", "MiniLM", "SmallCNN", "Tower", "load_encoder", "weights_fingerprint"]

IMAGE_ENCODERS = {"efficientnet-lite0": EfficientNetLite0, "small-cnn": SmallCNN}
TEXT_ENCODERS = {"minilm": MiniLM, "bag-of-words": BagOfWords}


def load_encoder(name, **options):
    """The tower called `name`, a key of `IMAGE_ENCODERS` or `TEXT_ENCODERS`; options go to its class."""
    known = IMAGE_ENCODERS | TEXT_ENCODERS
    if name not in known:
        raise unknown("encoder", name, known)
    return known[name](**options)
