"""WiSE-FT: between the weights before and after fine-tuning lie models that keep most of both. Source: Wortsman et al. 2022."""

import copy
import math

import torch

from ..errors import UsageError
from .beside import fitted_beside, interpolated
from .hub import HubTower, model_copy, opened
from .methods import SIDES, tower_of

KEEP = 0.95


def check_alpha(alpha):
    if not (isinstance(alpha, (int, float)) and math.isfinite(alpha) and 0 <= alpha <= 1):
        raise UsageError(f"expected alpha between 0 (the model before) and 1 (the model after), found {alpha}")


def interpolate(before, after, alpha):
    """The model with weights (1 - alpha) * before + alpha * after, for all weights that are numbers with a fraction; alpha 0 gives before, 1 after.

    Both stay as they are. Where `after` has heads in closed form beside those of `before`, their share grows with alpha. Raises `UsageError` for an
    alpha outside [0, 1] and for models of different shape.
    """
    check_alpha(alpha)
    before, after = opened(before), opened(after)
    if fitted_beside(before, after):
        if alpha == 0:
            return model_copy(before, SIDES).eval()
        return interpolated(before, after, float(alpha), lambda old, new: mix(old, new, alpha))
    shared = [side for side in SIDES if _same_tower(tower_of(before, side), tower_of(after, side))]
    for side in set(SIDES) - set(shared):
        _unfold(tower_of(before, side), tower_of(after, side))
    apart = tuple(f"{side}_tower." for side in shared)
    start, end = ({key: value for key, value in model.state_dict().items() if not key.startswith(apart)} for model in (before, after))
    _check_shapes(start, end)
    mixed = model_copy(after, shared)
    mixed.load_state_dict(lerped(start, end, alpha), strict=False)
    return mixed.eval()


def lerped(start, end, alpha):
    """The state between two, tensor by tensor; what is no number with a fraction comes from `end`."""
    return {key: torch.lerp(start[key], value, float(alpha)) if value.is_floating_point() else value for key, value in end.items()}


def mix(before, after, alpha):
    """A module of the kind of both, its weights between theirs."""
    mixed = copy.deepcopy(after)
    mixed.load_state_dict(lerped(before.state_dict(), after.state_dict(), alpha))
    return mixed


def _same_tower(before, after):
    """Whether both are one published tower whose weights nobody has touched: nothing lies between them."""
    told = [tuple(getattr(tower, about, None) for about in ("locked", "name", "options")) for tower in (before, after)]
    return told[0] == told[1] and told[0][0] and not isinstance(before, HubTower)


def _unfold(*towers):
    """Towers out of pinned files are read at first use: where one of two is there, both must be, to be compared."""
    if any("_net" in tower._modules for tower in towers):
        for tower in towers:
            getattr(tower, "net", None)


def _check_shapes(start, end):
    shapes = [{key: tuple(value.shape) for key, value in state.items()} for state in (start, end)]
    if shapes[0] == shapes[1]:
        return
    other = sorted(key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key))
    told = "; ".join(f"{key}: {shapes[0].get(key, 'absent')} before, {shapes[1].get(key, 'absent')} after" for key in other[:3])
    raise UsageError(f"the two models differ in the shape of {len(other)} of their weights ({told}); interpolate between a model and its own fine-tuned copy")


def wise_curve(before, after, alphas, target_score, other_score):
    """Rows {"alpha", "target", "other"} along the straight line from `before` (0) to `after` (1).

    target_score, other_score: functions of a model: what it was fine-tuned for, and what it should not forget; higher is better. Choose on
    validation data: a point chosen on test data is a point that has seen them.
    """
    rows = []
    for alpha in alphas:
        model = interpolate(before, after, float(alpha))
        rows.append({"alpha": float(alpha), "target": float(target_score(model)), "other": float(other_score(model))})
    return rows


def choose_alpha(rows, keep=KEEP):
    """The alpha with the best target score among those that keep at least `keep` of the other score at alpha 0; of equals the smallest."""
    if not 0 <= keep <= 1:
        raise UsageError(f"expected keep between 0 and 1, found {keep}")
    start = [row for row in rows if row["alpha"] == 0]
    if not start:
        raise UsageError("the curve has no row at alpha 0, and so nothing to compare with; begin the alphas with 0")
    allowed = [row for row in rows if row["other"] >= keep * start[0]["other"]]
    return max(allowed, key=lambda row: (row["target"], -row["alpha"]))["alpha"]
