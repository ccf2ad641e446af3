"""Two towers, two heads, a temperature. `TwoTowers` is every model of this package: built here, pretrained, or fitted."""

from .heads import HEADS, BlockHead, ConcatHead, ConseHead, Head, HubHead, Identity, LinearHead, MlpHead, build_head
from .saving import load_saved, save_model
from .two_towers import MAX_LOGIT_SCALE, TwoTowers

__all__ = [
    "BlockHead", "ConcatHead", "ConseHead", "HEADS", "Head", "HubHead", "Identity", "LinearHead", "MAX_LOGIT_SCALE", "MlpHead", "TwoTowers", "build_head", "load_saved",
    "save_model",
]
