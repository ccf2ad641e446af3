"""Two opinions, one model: how much of the cosine the heads of `mini` keep beside those that were fitted on somebody's own photos."""

from ..errors import UsageError
from ..model import ConcatHead, TwoTowers
from .locked import beside


def reshare(model, share):
    """The model that `train` wrote with `mini`'s towers, its cosine mixed anew: `share` for `mini`'s heads, the rest for the fitted ones.

    share 1 orders everything as `mini` does, 0 as the fitted heads alone. `train` itself takes a third. The model that comes in stays as it is.
    Choose the share on validation: of what was learned, and of what should not be forgotten.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"expected a share between 0 and 1, found {share}")
    heads = []
    for head in (model.image_head, model.text_head):
        if not isinstance(head, ConcatHead) or len(head.heads) != 2:
            raise UsageError("this model has no heads of `mini` beside its own; give one that `miniclip train` wrote, with its usual towers")
        heads.append(beside(*head.heads, [part["columns"] for part in head.options["parts"]], share))
    mixed = TwoTowers(model.image_tower, model.text_tower, *heads, name=model.name)
    mixed.log_logit_scale.data.copy_(model.log_logit_scale.data)
    return mixed.eval()
