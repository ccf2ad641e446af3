"""Two opinions, one model: how much of the cosine the heads of `mini` keep beside those that were fitted on somebody's own photos."""

import torch

from ..errors import UsageError
from ..model import ConcatHead, HubHead, TwoTowers
from .locked import beside
from .text_head import corrected


def reshare(model, share):
    """The model that `train` wrote with its usual towers, its cosine mixed anew: `share` for `mini`'s heads, the rest for the fitted ones.

    share 1 is `mini` alone, 0 the fitted heads alone; a correction for hubs stays, by the same training vectors, mixed anew. `train` itself takes a third.
    The model that comes in stays as it is. Choose the share on validation that the model was not fitted on (`train` with refit=False, --no-refit): of what
    was learned, and of what should not be forgotten.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"expected a share between 0 and 1, found {share}")
    heads = []
    for head in (model.image_head, model.text_head):
        inner = head.head if isinstance(head, HubHead) else head
        if not isinstance(inner, ConcatHead) or len(inner.heads) != 2:
            raise UsageError("this model has no heads of `mini` beside its own; give one that `miniclip train` wrote, with its usual towers")
        mixed = beside(*inner.heads, [part["columns"] for part in inner.options["parts"]], share)
        heads.append(_corrected_alike(head, inner, mixed, share) if inner is not head else mixed)
    mixed = TwoTowers(model.image_tower, model.text_tower, *heads, name=model.name)
    mixed.log_logit_scale.data.copy_(model.log_logit_scale.data)
    return mixed.eval()


def _corrected_alike(head, inner, mixed, share):
    """`mixed` inside a `HubHead` like `head`: the vectors of its bank, two parts side by side, get the new shares."""
    shares = [part["share"] for part in inner.options["parts"]]
    if not min(shares):
        raise UsageError("one of the two opinions has no share in this model's correction for hubs; give the model that `miniclip train` wrote itself")
    first = inner.heads[0].options["dim"]
    parts = head.bank.split([first, head.bank.shape[1] - first], dim=1)
    bank = torch.cat([part * (new / old) ** 0.5 for part, new, old in zip(parts, (1 - share, share), shares, strict=True)], 1)
    return corrected(mixed, head.options["side"], bank, head.options["sharpness"], head.options["strength"])
