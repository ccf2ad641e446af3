"""What a training run is told: ten numbers and names, frozen."""

import dataclasses

from ..errors import UsageError
from ..losses import get_loss


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of `fit`.

    epochs: passes over the images, each with one of its captions. batch_size: pairs per step, of all processes together; the other pairs are the negatives.
    learning_rate: the peak. warmup: share of the steps that climb to it; a cosine falls to zero after. weight_decay: not on biases,
    norms and the temperature. clip_norm: the longest gradient. patience: epochs without a better validation before it stops, 0 for
    never. loss: a key of `losses.LOSSES`. margin: what a margin loss asks for.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: float = 0.1
    clip_norm: float = 1.0
    patience: int = 0
    loss: str = "clip"
    margin: float = 0.2
    seed: int = 0

    def __post_init__(self):
        get_loss(self.loss)
        limits = {"epochs": (1, None), "batch_size": (2, None), "learning_rate": (0, 1e9), "weight_decay": (0, None), "warmup": (0, 1),
                  "clip_norm": (1e-9, None), "patience": (0, None)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if name in ("epochs", "batch_size", "patience") and value != int(value if abs(value) < float("inf") else 0):
                raise UsageError(f"expected {name} as a whole number, found {value}")
            if not value >= low or (high is not None and value > high):
                raise UsageError(f"expected {name} of at least {low}{f' and at most {high}' if high else ''}, found {value}")
        if not abs(self.margin) < float("inf") or not self.weight_decay < float("inf"):
            raise UsageError(f"expected a finite margin and weight_decay, found {self.margin} and {self.weight_decay}")
