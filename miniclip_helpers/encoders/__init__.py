"""Towers: a batch of pictures or captions to features, (B, width). By name: `load_encoder("efficientnet-lite0")`."""

import inspect

from ..errors import UsageError, unknown
from .base import Tower, weights_fingerprint
from .efficientnet import EfficientNetLite0, EfficientNetLiteTrio
from .language import BERT, GPT2
from .minilm import MiniLM
from .pooling import POOLINGS, pool
from .sequence import BiLSTM, SmallTransformer
from .small import BagOfWords, SmallCNN
from .tensors import check_finite, read_tensors
from .vision import MobileNetV2, ResNet18, ResNet50, ViT

__all__ = [
    "IMAGE_ENCODERS", "POOLINGS", "TEXT_ENCODERS", "BERT", "BagOfWords", "BiLSTM", "EfficientNetLite0", "EfficientNetLiteTrio", "GPT2", "MiniLM", "MobileNetV2", "ResNet18",
    "ResNet50", "SmallCNN", "SmallTransformer", "Tower", "ViT", "check_finite", "load_encoder", "pool", "read_tensors", "weights_fingerprint",
]

IMAGE_ENCODERS = {tower.name: tower for tower in (ResNet18, ResNet50, MobileNetV2, EfficientNetLite0, EfficientNetLiteTrio, ViT, SmallCNN)}
TEXT_ENCODERS = {tower.name: tower for tower in (BiLSTM, SmallTransformer, BERT, GPT2, MiniLM, BagOfWords)}


def load_encoder(name, **options):
    """The tower called `name`, a key of `IMAGE_ENCODERS` or `TEXT_ENCODERS`; options go to its class.

    pretrained: for those with published weights, True (must have them), False (from zero) or None (whatever is on this machine; nothing
    is fetched unasked). Weights that start from zero are drawn from torch's global state: `torch.manual_seed` first.

    >>> load_encoder("gpt2", pretrained=False, pooling="last-token", vocabulary=["a", "dog"]).width
    128
    """
    known = IMAGE_ENCODERS | TEXT_ENCODERS
    if name not in known:
        raise unknown("encoder", name, known)
    try:
        inspect.signature(known[name]).bind(**options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(known[name]).parameters)
        raise UsageError(f"{name}: {error}; its options are: {takes}") from error
    return known[name](**options)
