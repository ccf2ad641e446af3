"""What a run is asked for, checked before anything is read; and what follows from it, once it is known what the towers bring."""

import dataclasses

from ..encoders import IMAGE_ENCODERS, TEXT_ENCODERS
from ..errors import UsageError, unknown
from .config import TrainConfig
from .presets import get_preset

EPOCHS, RATE, DIM = 30, 1e-3, 128
POLISH_EPOCHS, POLISH_RATE = 10, 1e-4  # from the closed form on: small steps
UNLOCKED_RATE = 1e-4  # published weights learn in small steps, too
VAL_SIZE = 0.1
STEPS = ("loss", "epochs", "batch_size", "learning_rate", "patience")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was asked for. None everywhere means: as the preset says, and without one, as fits the towers."""

    image_encoder: str | None = None
    text_encoder: str | None = None
    loss: str | None = None
    epochs: int | None = None
    seed: int = 0
    preset: str | None = None
    unlock: bool | None = None
    pretrained: bool | None = None
    size: int | None = None
    dim: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    captions: str | None = None
    refit: bool = True  # heads in closed form, once chosen, are fitted on the validation images as well

    def __post_init__(self):
        for kind, name, known in (("image encoder", self.image_encoder, IMAGE_ENCODERS), ("text encoder", self.text_encoder, TEXT_ENCODERS)):
            if name is not None and name not in known:
                raise unknown(kind, name, known)
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"expected at least one epoch, found {self.epochs}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"expected a seed of at least 0 and below 2**63, found {self.seed}")
        if self.dim is not None and self.dim < 2:
            raise UsageError(f"expected a shared space of at least 2 dimensions, found {self.dim}")
        if self.captions not in (None, "all", "first"):
            raise unknown("choice of captions", self.captions, ("all", "first"))
        if self.size is not None and self.image_encoder is None and self.preset is None:
            raise UsageError("size is that of an image encoder which you name; without one, mini's looks at 224 pixels")
        self._check_pretrained()
        self.config(False, False)  # says what is out of range

    @property
    def recipe(self):
        """The preset, or None."""
        return None if self.preset is None else get_preset(self.preset)

    @property
    def names(self):
        """(image encoder, text encoder); None for `mini`'s."""
        recipe = self.recipe
        return (self.image_encoder or (recipe and recipe.image_encoder), self.text_encoder or (recipe and recipe.text_encoder))

    def _check_pretrained(self):
        image, text = self.names
        if self.pretrained is not None and image == "small-cnn" and text in ("bag-of-words", "bilstm", "transformer"):
            raise UsageError(f"neither {image} nor {text} has published weights: both start from zero; leave pretrained out")
        if self.pretrained is False and self.unlock:
            raise UsageError("unlock and pretrained=False (--no-pretrained) exclude each other: what starts from zero always learns")

    @property
    def unlocked(self):
        """Whether published weights learn."""
        return self.unlock if self.unlock is not None else bool(self.recipe and self.recipe.unlock)

    @property
    def first_captions(self):
        """Whether only the first caption of each image is used."""
        return (self.captions or (self.recipe.captions if self.recipe else "all")) == "first"

    @property
    def wants_steps(self):
        """Whether gradient steps were asked for in so many words: closed-form heads are then where they start."""
        return any(getattr(self, name) is not None for name in STEPS)

    def config(self, polish, fine):
        """The `TrainConfig`. polish: the heads come in closed form first. fine: published weights learn."""
        recipe = self.recipe
        settings = {"epochs": POLISH_EPOCHS if polish else EPOCHS, "learning_rate": POLISH_RATE if polish else UNLOCKED_RATE if fine else RATE}
        settings |= recipe.settings if recipe else {}
        settings |= {name: getattr(self, name) for name in STEPS if getattr(self, name) is not None}
        return TrainConfig(seed=self.seed, **settings)

    def asked(self):
        """All of it as plain JSON, for the folder of the run."""
        return dataclasses.asdict(self)
