"""The training loop: `train_step` is one step, `fit` yields a record of each, so that a notebook owns a visible loop."""

import copy
import dataclasses
import math
import time

import torch

from .. import runtime
from ..errors import MiniclipError, ModelError
from ..losses import clip_loss_local, get_loss
from ..model import MAX_LOGIT_SCALE
from .machine import ALONE

LARGEST_LOG_SCALE = math.log(MAX_LOGIT_SCALE) - 1e-6
DIVERGED = "is not a number any more: lower the learning rate, or warm up for longer; the last good state is kept"


class Diverged(MiniclipError):
    """A loss, a gradient or an embedding is not a number any more."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What one step did. `validation` is set after the last step of an epoch: whatever the caller's function returned."""

    step: int
    epoch: int
    loss: float
    logit_scale: float
    learning_rate: float
    grad_norm: float
    seconds: float
    validation: dict | None = None
    best: bool = False


def schedule(step, steps, warmup):
    """The factor on the learning rate at `step` of `steps`: a straight climb over the share `warmup`, then a cosine to zero.

    >>> [round(schedule(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    climb = math.ceil(warmup * steps)
    if step < climb:
        return (step + 1) / climb
    return 0.5 * (1 + math.cos(math.pi * (step - climb) / max(1, steps - climb)))


def build_optimizer(model, config):
    """AdamW over what is trainable; no weight decay on biases, norms and the temperature, which have fewer than two dimensions."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
              {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0}]
    fused = all(p.device.type in ("cpu", "cuda") for p in trainable)  # one pass over the weights in place of many: small steps are much quicker
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)


def loss_of(config, images, texts, scale, groups, bias=None):
    """The configured loss of a batch of embeddings."""
    loss = get_loss(config.loss)
    if config.loss in ("multi-positive", "chunked-multi-positive", "multi-view"):
        return loss(images, texts, scale, groups)
    if config.loss in ("siglip", "chunked-siglip"):
        return loss(images, texts, scale, -10.0 if bias is None else bias)
    return loss(images, texts, config.margin) if config.loss == "margin" else loss(images, texts, scale)


def clamp_scale(model):
    """Keep a model's temperature, where it has one, within its limit as a weight: beyond it the clamp of the forward pass leaves no gradient to come back with."""
    if hasattr(model, "log_logit_scale"):
        with torch.no_grad():
            model.log_logit_scale.clamp_(max=LARGEST_LOG_SCALE)


def loss_across(config, images, texts, scale, groups, machine):
    """The configured loss of what all processes embedded, as a share: the mean over the processes is the loss of the whole batch."""
    if machine.processes == 1:
        return loss_of(config, images, texts, scale, groups)
    all_images, all_texts = machine.gathered(images, texts)
    if config.loss == "clip":
        return clip_loss_local(images, texts, all_images, all_texts, scale, machine.rank)
    return loss_of(config, all_images, all_texts, scale, machine.gathered(groups)[0]) + 0 * scale  # a margin knows none, and DDP waits for every gradient


def train_step(model, batch, optimizer, config, machine=ALONE):
    """One step: two encodings, the loss, backward, clip, step. Returns (loss, gradient norm before clipping).

    model: called as model(images, texts) -> (image_embeddings, text_embeddings, logit_scale). batch: (images, texts, groups), with several
    processes this one's share. Raises `Diverged` at a loss or a gradient that is not finite, before any weight has changed.
    """
    images, texts, groups = batch
    optimizer.zero_grad(set_to_none=True)
    if machine.chunk:
        loss = _cached(model, batch, config, machine)
    else:
        image_embeddings, text_embeddings, scale = machine.called(model)(images, texts)  # (B, D), (B, D), ()
        loss = loss_across(config, image_embeddings, text_embeddings, scale, groups, machine)
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], config.clip_norm)
    loss, norm = machine.mean(loss.detach().clone()).item(), norm.item()
    for what, value in (("loss", loss), ("gradient", norm)):
        if not math.isfinite(value):  # clipping by it has made every gradient NaN
            raise Diverged(f"the {what} {DIVERGED}")
    optimizer.step()
    clamp_scale(model)
    return loss, norm


def _cached(model, batch, config, machine):
    """Forward and backward in chunks."""
    from .gradient_cache import gradient_cached_step

    images, texts, groups = batch
    loss = gradient_cached_step(machine.called(model), images, texts, lambda *rows: loss_across(config, *rows, groups, machine), machine.chunk)
    machine.average(model)
    return loss


class _State:
    """All that a run needs to go on: weights, optimizer, random numbers, where it is, and the best weights so far."""

    def __init__(self, model, config):
        self.model, self.optimizer, self.generator = model, build_optimizer(model, config), runtime.generator(config.seed)
        self.step, self.epoch, self.score, self.waited, self.best = 0, 0, -math.inf, 0, None

    def to_dict(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state(),
                "numbers": {"step": self.step, "epoch": self.epoch, "score": self.score, "waited": self.waited}, "best": self.best,
                "torch": torch.random.get_rng_state()}

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.random.set_rng_state(state["torch"])
        vars(self).update(state["numbers"], best=state["best"])


def save_checkpoint(state, path, config):
    """Write a run's state, whole or not at all."""
    with runtime.writing(path, kept="the run up to the epoch before is kept, add --resume to go on") as temporary, open(temporary, "wb") as file:
        torch.save(state.to_dict() | {"config": dataclasses.asdict(config)}, file)


def load_checkpoint(path, config):
    """Read a run's state; a `ModelError` when it is damaged or belongs to other settings."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        old = state["config"]
    except Exception as error:  # a cut file fails in many ways
        raise ModelError(f"the checkpoint '{path}' cannot be read ({type(error).__name__}); remove it to start again") from error
    other = [name for name, value in dataclasses.asdict(config).items() if old.get(name) != value]
    if other:
        raise ModelError(f"the checkpoint '{path}' was made with another {', '.join(other)}; use the same settings, or another folder")
    return state


def fit(model, batches, config, validate=None, checkpoint=None, machine=ALONE):
    """Train, and yield a `Record` per step. Afterwards, however it ends, the model holds its best weights by validation; where it
    diverged without any, those of the last whole epoch, or of the start.

    batches: `PairBatches`, or anything with a length and `epoch(generator)`. validate: function of no arguments that returns a dict with
    "score", higher is better; called in evaluation mode after each epoch, in process 0 alone. checkpoint: a file; written after each epoch,
    and gone on from when it is there: the records that follow, and the weights, are those of a run that was never interrupted, whatever the
    number of processes. machine: a `Machine`; by default here, where the model lies. Raises `Diverged`, and `LostProcess` where another process is gone.
    """
    with machine.told(), machine:
        machine.check(model, batches)
        machine.place(model)
        try:
            yield from _fit(model, batches, config, validate, checkpoint, machine)
        finally:
            machine.release(model)
            model.eval()


def _fit(model, batches, config, validate, checkpoint, machine):
    state, steps, begin = _State(model, config), config.epochs * len(batches), time.monotonic()
    held = machine.shared(lambda: load_checkpoint(checkpoint, config) if checkpoint is not None and checkpoint.exists() else None)
    if held is not None:
        state.load(held)
    good = copy.deepcopy(model.state_dict())
    try:
        while state.epoch < config.epochs and not (config.patience and state.waited >= config.patience):
            yield from _epoch(state, batches, config, steps, validate, begin, machine)
            check_sound(model, state.step)
            if checkpoint is not None and machine.first:
                save_checkpoint(state, checkpoint, config)
            if validate is None:
                good = copy.deepcopy(model.state_dict())
    except MiniclipError:
        model.load_state_dict(good)  # what a diverging epoch left behind is of no use
        raise
    finally:
        if state.best is not None:
            model.load_state_dict(state.best)


def check_sound(model, steps):
    """Raise `Diverged` where a weight is not finite: the last step of an epoch may overflow, and no loss tells."""
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise Diverged(f"after {steps} steps the weight {name} {DIVERGED}")


def _epoch(state, batches, config, steps, validate, begin, machine):
    """One epoch: a record per step; the last one carries the validation."""
    state.model.train()
    machine.seed(config.seed, state.epoch)
    last = state.step + len(batches) - 1
    for batch in machine.epoch(batches, state.generator):
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(state.step, steps, config.warmup)
        try:
            loss, norm = train_step(state.model, batch, state.optimizer, config, machine)
        except Diverged as error:
            raise Diverged(f"step {state.step} of {steps}, learning rate {state.optimizer.param_groups[0]['lr']:.3g}: {error}") from error
        record = Record(state.step, state.epoch, loss, state.model.logit_scale.item(), state.optimizer.param_groups[0]["lr"], norm, time.monotonic() - begin)
        if state.step == last:
            state.epoch += 1
            if validate is not None:
                record = _validated(state, record, validate, machine)
        state.step += 1
        yield record


def _validated(state, record, validate, machine):
    """Validate, keep a deep copy of the best weights, count how long there was no better."""
    state.model.eval()
    with torch.no_grad():
        found = machine.shared(validate)
    state.model.train()
    better = found["score"] > state.score
    if better:
        state.score, state.waited, state.best = float(found["score"]), 0, copy.deepcopy(state.model.state_dict())
    else:
        state.waited += 1
    return dataclasses.replace(record, validation=found, best=better)
