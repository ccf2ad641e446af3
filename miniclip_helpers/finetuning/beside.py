"""Heads in closed form beside the fine-tuned ones, where both towers are locked: two different opinions on the same features.

Steps move the heads that know the world before; the closed form starts from the new pairs alone. Together they find more than either does; half of
each was chosen on hold-outs among training photos. tests/benchmarks/bench_finetune.py measures the whole.
"""

import dataclasses

from ..encoders import load_encoder
from ..model import ConcatHead, TwoTowers
from ..training.locked import ClosedForm, beside, features_of, measure, with_scale

SHRINKS = [(10.0, 3.0), (20.0, 3.0), (10.0, 6.0), (20.0, 6.0), (5.0, 3.0), (40.0, 3.0)]  # image and text; the first unless validation says otherwise
SHARE = 0.5  # of the tuned heads in the cosine


def fits(model):
    """Whether both towers are locked ones of this package, and both heads hold weights."""
    locked = all(getattr(tower, "pretrained", False) and getattr(tower, "locked", False) for tower in (model.image_tower, model.text_tower))
    return locked and not hasattr(model, "whole") and all(list(head.parameters()) for head in (model.image_head, model.text_head))


def _second_view(tower):
    """(tower, columns of the fitted heads, columns of the tuned ones): a tower that also sees each picture larger, behind what it saw before."""
    if tower.name != "efficientnet-lite0" or tower.options.get("mode") != "squash":
        return tower, (0, tower.width), (0, tower.width)
    wider = load_encoder(tower.name, **tower.options | {"mode": "apart"})
    return wider, (tower.width, wider.width), (0, tower.width)


def add_closed_form(tuned, train, val=None):
    """The `FineTuned` with heads in closed form beside its own, fitted on `train`; the shrinkage is chosen on `val` where there is one.

    The fitted heads see each picture twice, whole and larger, the tuned ones see what they saw. These alone are kept where `val` likes them better.
    """
    image_tower, *columns = _second_view(tuned.model.image_tower)
    text_tower, rows, best = tuned.model.text_tower, [], None
    pairs = ClosedForm(tuned.model.image_tower, text_tower, _columns(features_of(image_tower, text_tower, train), columns[0]))
    part = features_of(image_tower, text_tower, val) if val is not None and len(val) else None
    for image_shrink, text_shrink in SHRINKS[: None if part else 1]:
        image_head, text_head = pairs.heads(image_shrink, text_shrink)
        model = TwoTowers(image_tower, text_tower, beside(image_head, tuned.model.image_head, columns, SHARE),
                          beside(text_head, tuned.model.text_head, [(0, text_tower.width)] * 2, SHARE), name=tuned.model.name).eval()
        found = measure(with_scale(model, part)[0], part.owner) if part else {"score": 0.0}
        rows.append({"stage": "closed form", "step": len(rows), "image_shrink": image_shrink, "text_shrink": text_shrink} | found)
        if best is None or found["score"] > best[1]["score"]:
            best = model, found
    if part is None:
        best[0].log_logit_scale.data.copy_(tuned.model.log_logit_scale)
    elif best[1]["score"] < tuned.after["score"]:
        return dataclasses.replace(tuned, rows=tuned.rows + rows)
    return dataclasses.replace(tuned, model=best[0], rows=tuned.rows + rows, after=best[1] if part else tuned.after, kept="closed form beside")


def _columns(features, columns):
    return dataclasses.replace(features, images=features.images[:, slice(*columns)])


def fitted_beside(before, after):
    """Whether `after` is `before` with heads in closed form beside its own."""
    return all(isinstance(new, ConcatHead) and len(new.heads) == 2 and new.heads[1].kind == old.kind and new.heads[1].options == old.options
               for new, old in ((after.image_head, before.image_head), (after.text_head, before.text_head)))


def interpolated(before, after, alpha, mix):
    """Between `before` (0) and `after` (1): the share of the closed form grows with alpha, and so do the steps of the tuned heads.

    mix: function of (head before, head after) that interpolates their weights.
    """
    heads = []
    for old, new in ((before.image_head, after.image_head), (before.text_head, after.text_head)):
        parts = new.options["parts"]
        heads.append(beside(new.heads[0], mix(old, new.heads[1]), [part["columns"] for part in parts], 1 - alpha * (1 - parts[1]["share"])))
    model = TwoTowers(after.image_tower, after.text_tower, *heads, name=after.name)
    start, end = before.log_logit_scale.data, after.log_logit_scale.data
    model.log_logit_scale.data.copy_(start + alpha * (end - start))
    return model.eval()
