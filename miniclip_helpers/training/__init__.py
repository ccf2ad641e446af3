"""Training: `TrainConfig`, `train_step`, and `fit`, a generator that yields one record per step."""

from .batches import PairBatches
from .config import TrainConfig
from .heads import CanonicalMaps, canonical_maps, pair_statistics
from .loop import Record, build_optimizer, fit, schedule, train_step
from .machine import Machine
from .presets import PRESETS
from .run import train_run

__all__ = [
    "PRESETS", "CanonicalMaps", "Machine", "PairBatches", "Record", "TrainConfig", "build_optimizer", "canonical_maps", "fit", "pair_statistics", "schedule",
    "train_run", "train_step",
]
