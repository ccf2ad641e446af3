"""Fine-tuning itself: a copy of a model, one or two stages of steps, and the model that comes out."""

import dataclasses
import time

import torch

from ..errors import UsageError
from ..model import TwoTowers
from ..training import TrainConfig, fit, loop
from . import methods
from .hub import own_copy
from .inputs import Inputs, Learner, check_data

KEPT = {"best": "the best epoch", "start": "the model as it came", "heads": "what the heads' stage gave", "last": "the last step",
        "last good": "the last whole epoch, or the start"}


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What came out. `model` is whole again (LoRA is merged), in evaluation mode; the model that went in is as it was.

    rows: one flat dict per step, with the validation in the last of each epoch. before, after: the validation figures of the model that went in and
    of `model`, {} without validation. kept: "best" epoch, "start" (no epoch was better than the model that went in), "heads" (lp-ft: than its heads),
    "last" (no validation), or "last good" (it was stopped). learned, weights: how many numbers could change, and how many there are. stopped: why it ended early, or None.
    """

    model: TwoTowers
    rows: list
    before: dict
    after: dict
    kept: str
    method: str
    config: TrainConfig
    learned: int
    weights: int
    seconds: float
    stopped: str | None = None


class Diverged(loop.Diverged):
    """As in training, and `result` is the `FineTuned` with the last good state."""

    def __init__(self, message, result=None):
        super().__init__(message)
        self.result = result


class Tuning:
    """A fine-tuning about to begin: `steps` takes them and yields a `Record` of each, `result` gives the model.

    model: a `TwoTowers`, which stays as it is. train, val: datasets; where the method is "heads" also `training.locked.Features`. method: a name of
    `METHODS`. config: a `TrainConfig`, by default that of the method; for "lp-ft" that of the second stage, and heads_config that of the first. sides:
    "image", "text" or both; a side that is left out stays as it is, and its features are computed once. rank, targets: for LoRA, see `add_lora`.
    checkpoint: a file, written after each epoch of the last stage and gone on from when it is there.
    """

    def __init__(self, model, train, val=None, method="heads", config=None, *, sides="both", rank=methods.RANK, targets=None, checkpoint=None, heads_config=None):
        methods.check_method(method)
        self.method, self.sides, self.rank, self.targets = method, methods.check_sides(sides), rank, targets
        if targets is not None and method != "lora":
            raise UsageError(f"targets say where LoRA goes; the method is {method}")
        if rank < 1:
            raise UsageError(f"expected a rank of at least 1, found {rank}")
        self.val = val if val is not None and (not hasattr(val, "captions") or len(val)) else None
        check_data(train)
        if self.val is not None:
            check_data(self.val, "val")
        self.learning = () if method == "heads" else self.sides
        self.model, self.adapters, self.learner, self.validate = own_copy(model, self.learning), {}, None, None
        self.config, self.checkpoint, self.train = config or methods.default_config(method, self.model), checkpoint, train
        same = {name: getattr(self.config, name) for name in ("seed", "loss", "margin")}
        self.heads_config = heads_config or dataclasses.replace(methods.default_config("heads", self.model), **same)
        if method in ("heads", "lp-ft"):
            methods.check_heads(self.model, self.sides)
        if method == "lora":
            methods.lora_names(self.model, self.sides, targets)  # a wrong name is told before anything is encoded
        self.rows, self.before, self.kept, self.learned, self.stopped, self.seconds = [], None, "last", 0, None, 0.0

    def steps(self):
        """Train, and yield a `Record` per step. However it ends, the model holds the best weights by validation, the start included.

        Raises `Diverged` at a loss that is not a number; the last good state is kept.
        """
        begin = time.monotonic()
        try:
            if self.method == "lp-ft":
                yield from self._stage("heads", (), self.heads_config, None)
            yield from self._stage(self.method, self.learning, self.config, self.checkpoint)
        finally:
            self.seconds += time.monotonic() - begin

    def _begin(self, stage, learning):
        """Let the stage's weights learn; the learner, its inputs and its validation."""
        methods.free_heads(self.model, self.sides)
        if stage == "lora":
            self.adapters = methods.add_lora(self.model, learning, self.rank, self.targets, self.config.seed)
            methods.free_heads(self.model, ())
        else:
            for side in learning:
                methods.release(methods.tower_of(self.model, side))
        self.learner = Learner(self.model, learning).eval()
        self.learned = methods.count(p for p in self.learner.parameters() if p.requires_grad)
        inputs = Inputs(self.model, self.train, learning)
        self.validate = Inputs(self.model, self.val, learning).validation(self.learner) if self.val is not None else None
        return inputs

    def _stage(self, stage, learning, config, checkpoint):
        """The steps of one stage, and afterwards the better of its best epoch and its start."""
        batches = self._begin(stage, learning).batches(config.batch_size)
        first = self.validate() if self.validate else {}
        self.before = first if self.before is None else self.before
        start, failed = weights_of(self.learner), None
        try:
            for record in fit(self.learner, batches, config, self.validate, checkpoint):
                self.rows.append(row_of(stage, record))
                yield record
        except GeneratorExit:  # the caller has seen enough
            self._settle(stage, start, first, False)
            raise
        except loop.Diverged as error:
            failed = error
        self._settle(stage, start, first, failed is not None)
        if failed:
            step = self.rows[-1]["step"] + 1 if self.rows and self.rows[-1]["stage"] == stage else 0
            self.stopped = (f"{failed} ({KEPT[self.kept]}). {self.method} was stopped in step {step} with a learning rate of {config.learning_rate:g}: "
                            f"try {config.learning_rate / 10:g} or less, a longer warm-up, or fewer weights that learn")
            raise Diverged(self.stopped) from failed

    def _settle(self, stage, start, first, failed):
        """`fit` left the best epoch in the model, or the last good one where there is no validation: put the start back where that was better."""
        self.kept, now = "last good" if failed else "last", weights_of(self.learner)
        sound = all(torch.isfinite(value).all() for value in now.values())  # the last step of an epoch may overflow, and only the next one tells
        untouched = failed and all(torch.equal(value, start[name]) for name, value in now.items())
        if self.validate and sound and not untouched:
            self.kept = "best"
            untouched = not self.validate()["score"] >= first["score"]
        if untouched or not sound:
            put_back(self.learner, start)
            self.kept = "heads" if stage == "lp-ft" else "start"

    def result(self):
        """The `FineTuned` of what was trained so far: LoRA merged, everything in evaluation mode."""
        after = self.validate() if self.validate else {}
        if self.adapters:
            methods.merge_lora(self.model, self.adapters)
            self.adapters = {}
        for side in methods.SIDES:
            methods.head_of(self.model, side).requires_grad_(True)
            methods.body_of(methods.tower_of(self.model, side))  # read a tower that only its cached features stood for: its weights count, too
        model = self.model.eval()
        return FineTuned(model, self.rows, self.before or {}, after, self.kept, self.method, self.config, self.learned, methods.count(model.parameters()),
                         self.seconds, self.stopped)


def row_of(stage, record):
    """A `Record` as one flat dict."""
    found = {key: value for key, value in dataclasses.asdict(record).items() if key != "validation"}
    return {"stage": stage} | found | (record.validation or {})


def weights_of(learner):
    """A copy of the weights that learn."""
    return {name: p.detach().clone() for name, p in learner.named_parameters() if p.requires_grad}


def put_back(learner, weights):
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def steps(tuning):
    """The steps of a `Tuning`, one `Record` each: the loop stays in the caller's hands."""
    yield from tuning.steps()


def fine_tune(model, train, val=None, method="heads", config=None, **options):
    """Fine-tune a copy of `model` on a dataset. Returns a `FineTuned`; `model` stays as it is. For the arguments see `Tuning`.

    Raises `UsageError` and `DataError` for what cannot work, and `Diverged` at a loss that is not a number: its `result` is the `FineTuned` with the last
    good state.
    """
    tuning = Tuning(model, train, val, method, config, **options)
    try:
        for _ in tuning.steps():
            pass
    except Diverged as error:
        error.result = tuning.result()
        raise
    return tuning.result()
