"""Which weights learn, by method: the heads; low-rank updates (LoRA); everything."""

import dataclasses

import torch

from ..errors import UsageError, unknown
from ..training import TrainConfig

METHODS = ("heads", "lp-ft", "lora", "full")
SIDES = ("image", "text")
RANK = 4
ALPHA = 2  # LoRA's scaling, lora_alpha / rank
DEFAULTS = {  # what the method's last stage runs with; the more weights learn, the smaller the steps
    "heads": TrainConfig(epochs=40, learning_rate=3e-3, patience=8),
    "lp-ft": TrainConfig(epochs=5, batch_size=64, learning_rate=1e-5, patience=2),
    "lora": TrainConfig(epochs=10, batch_size=64, learning_rate=3e-3, patience=3),
    "full": TrainConfig(epochs=5, batch_size=64, learning_rate=1e-5, patience=2),
}
HUB_RATES = {"heads": 1e-4, "lora": 2e-4}  # projections that hundreds of millions of pairs have shaped want smaller steps than heads out of some thousand


def default_config(method, model=None):
    """The `TrainConfig` that a method runs with when none is given. model: hub models take smaller steps."""
    check_method(method)
    hub = hasattr(model, "whole") and method in HUB_RATES
    return dataclasses.replace(DEFAULTS[method], learning_rate=HUB_RATES[method]) if hub else DEFAULTS[method]


def check_method(method):
    if method not in METHODS:
        raise unknown("method", method, METHODS)


def check_sides(sides):
    """The sides that learn, as a tuple in their usual order. "both" is both."""
    sides = SIDES if sides == "both" else (sides,) if isinstance(sides, str) else tuple(sides)
    for side in sides:
        if side not in SIDES:
            raise unknown("side", side, (*SIDES, "both"))
    if not sides:
        raise UsageError("expected at least one side that learns, image or text, found none")
    return tuple(side for side in SIDES if side in sides)


def tower_of(model, side):
    return getattr(model, f"{side}_tower")


def head_of(model, side):
    return getattr(model, f"{side}_head")


def body_of(tower):
    """The network inside a tower, where it keeps one apart."""
    return tower.net if isinstance(getattr(tower, "net", None), torch.nn.Module) else tower


def free_heads(model, sides):
    """Let the heads of `sides` learn, and no other; the temperature always does."""
    for side in SIDES:
        head_of(model, side).requires_grad_(side in sides)
    model.log_logit_scale.requires_grad_(True)


def check_heads(model, sides):
    """Refuse a model whose heads on `sides` hold no weights."""
    bare = [side for side in sides if not list(head_of(model, side).parameters())]
    if bare:
        raise UsageError(f"'{model.name}' has no head with weights on the {' and '.join(bare)} side; use the method lora or full")


def lora_layers(module):
    """{name: layer} of what LoRA can be put on: linear layers and 1 x 1 convolutions, which are linear layers at every place of a picture."""
    def fits(layer):
        return isinstance(layer, torch.nn.Linear) or (isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1)

    return {name: layer for name, layer in module.named_modules() if fits(layer)}


def lora_names(model, sides, targets=None):
    """{side: full names of the layers that LoRA goes on}. targets: names or their ends ("query", "value"); None takes every one that fits.

    Raises `UsageError` for a target that no side has, and lists those there are.
    """
    there = {side: lora_layers(body_of(tower_of(model, side))) for side in sides}
    if not any(there.values()):
        raise UsageError(f"'{model.name}' has no linear layer that LoRA could be put on; use the method heads or full")
    if targets is None:
        return {side: list(layers) for side, layers in there.items()}
    targets = [targets] if isinstance(targets, str) else list(targets)
    for target in targets:
        if not any(_ends(name, target) for layers in there.values() for name in layers):
            known = list(dict.fromkeys(name.split(".")[-1] for layers in there.values() for name in layers))
            raise unknown(f"LoRA target on the {' and '.join(sides)} side of '{model.name}'", target, known)
    if not targets:
        raise UsageError("expected at least one LoRA target, found an empty list; None takes every layer that fits")
    return {side: [name for name in layers if any(_ends(name, target) for target in targets)] for side, layers in there.items()}


def _ends(name, target):
    return name == target or name.endswith(f".{target}")


def add_lora(model, sides, rank=RANK, targets=None, seed=0):
    """Put low-rank updates W + (alpha / rank) B A beside the named layers of the towers: A and B learn, W stays. B starts at zero, so nothing
    changes at first. Returns {side: the adapter} for `merge_lora`. Source: Hu et al. 2021, through peft.
    """
    from peft import LoraConfig, LoraModel

    if rank < 1:
        raise UsageError(f"expected a rank of at least 1, found {rank}")
    adapters = {}
    with torch.random.fork_rng():  # A is drawn from the global state
        torch.manual_seed(seed)
        for side, names in lora_names(model, sides, targets).items():
            if names:
                config = LoraConfig(r=rank, lora_alpha=ALPHA * rank, target_modules=names, lora_dropout=0.0, bias="none")
                adapters[side] = LoraModel(body_of(tower_of(model, side)), config, "default")
    return adapters


def merge_lora(model, adapters):
    """Add the low-rank updates to the weights: the tower has its old layers again, and nothing of LoRA is left."""
    for side, adapter in adapters.items():
        adapter.merge_and_unload()
        tower = tower_of(model, side)
        vars(body_of(tower)).pop("peft_config", None)
        release(tower)


def release(tower):
    """Let a tower learn. It stays so: a tower whose weights are no longer the pinned ones must not be taken for one that is locked."""
    if hasattr(tower, "unlock"):
        tower.unlock()
    return tower.requires_grad_(True)


def count(parameters):
    return sum(p.numel() for p in parameters)
