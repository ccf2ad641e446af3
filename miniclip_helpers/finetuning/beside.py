"""Heads in closed form beside the fine-tuned ones, where both towers are locked: two different opinions on the same features.

Steps move the heads that know the world before; the closed form starts from the new pairs alone. On hold-outs of Flickr8k (500 photos to learn from,
eight draws) the tuned heads alone gave R@1 45 and 42, the closed form alone 50 and 41, half of each 54 and 46.
"""

import copy
import dataclasses

from ..encoders import load_encoder
from ..model import ConcatHead, TwoTowers
from ..training.locked import ClosedForm, beside, features_of, measure, similarity, with_scale

SHRINKS = [(10.0, 3.0), (20.0, 3.0), (10.0, 6.0), (20.0, 6.0), (5.0, 3.0), (40.0, 3.0)]  # image and text; the first unless validation says otherwise
SHARE = 0.5  # of the tuned heads in the cosine


def fits(model):
    """Whether both towers are locked ones of this package, and both heads hold weights."""
    locked = all(getattr(tower, "pretrained", False) and getattr(tower, "locked", False) for tower in (model.image_tower, model.text_tower))
    return locked and not hasattr(model, "whole") and all(list(head.parameters()) for head in (model.image_head, model.text_head))


def looking_twice(model):
    """`model` with an image tower that sees each picture whole and in a larger centre, where it has such a tower; the heads are the same."""
    tower = model.image_tower
    if tower.name != "efficientnet-lite0" or tower.options.get("mode") == "both":
        return model
    found = TwoTowers(load_encoder(tower.name, **tower.options | {"mode": "both"}), model.text_tower, copy.deepcopy(model.image_head),
                      copy.deepcopy(model.text_head), logit_scale=model.logit_scale.item(), name=model.name)
    return found.eval()


def add_closed_form(tuned, train, val=None):
    """The `FineTuned` with heads in closed form beside its own, fitted on `train`; the shrinkage is chosen on `val` where there is one.

    Its own heads alone are kept where `val` likes them better.
    """
    towers, heads = (tuned.model.image_tower, tuned.model.text_tower), (tuned.model.image_head, tuned.model.text_head)
    pairs, rows, best = ClosedForm(*towers, features_of(*towers, train), start=heads), [], None
    part = features_of(*towers, val) if val is not None and len(val) else None
    for image_shrink, text_shrink in SHRINKS[: None if part else 1]:
        model, found = pairs.model(image_shrink, text_shrink, SHARE), {"score": 0.0}
        if part:
            found = measure(with_scale(model, part)[0], part.owner)
        else:
            model.log_logit_scale.data.copy_(tuned.model.log_logit_scale)
        rows.append({"stage": "closed form", "step": len(rows), "image_shrink": image_shrink, "text_shrink": text_shrink} | found)
        if best is None or found["score"] > best[1]["score"]:
            best = model, found
    if part and best[1]["score"] < measure(similarity(tuned.model, part), part.owner)["score"]:
        return dataclasses.replace(tuned, rows=tuned.rows + rows)
    best[0].name = tuned.model.name
    return dataclasses.replace(tuned, model=best[0], rows=tuned.rows + rows, after=best[1] if part else tuned.after, kept="closed form beside")


def fitted_beside(before, after):
    """Whether `after` is `before` with heads in closed form beside its own."""
    return all(isinstance(new, ConcatHead) and len(new.heads) == 2 and new.heads[1].kind == old.kind and new.heads[1].options == old.options
               for new, old in ((after.image_head, before.image_head), (after.text_head, before.text_head)))


def interpolated(before, after, alpha, mix):
    """Between `before` (0) and `after` (1): the share of the closed form grows with alpha, and so do the steps of the tuned heads.

    mix: function of (head before, head after) that interpolates their weights.
    """
    heads = []
    for old, new, tower in ((before.image_head, after.image_head, after.image_tower), (before.text_head, after.text_head, after.text_tower)):
        share = 1 - alpha * (1 - new.options["parts"][1]["share"])
        heads.append(beside(new.heads[0], mix(old, new.heads[1]), tower.width, share))
    model = TwoTowers(after.image_tower, after.text_tower, *heads, name=after.name)
    start, end = before.log_logit_scale.data, after.log_logit_scale.data
    model.log_logit_scale.data.copy_(start + alpha * (end - start))
    return model.eval()
