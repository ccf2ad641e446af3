"""Heads on locked towers: the features are computed once, the heads come in closed form, their shrinkage is chosen on validation.

Where both towers are those of `mini`, its own heads stay beside the fitted ones, as a third of the cosine: they know things that
some hundred photos cannot teach. On validation photos that gave 1.2 to 2.8 points (mean of R@1 and MRR) over the fitted heads alone.
"""

import dataclasses
import functools

import torch
from torch.nn import functional as F

from .. import embedding, metrics, runtime
from ..encoders import load_encoder
from ..encoders.efficientnet import BLOCKS
from ..model import BlockHead, ConcatHead, TwoTowers, load_saved
from .heads import canonical_maps, fill, pair_statistics

IMAGE_SHRINK, TEXT_SHRINK = (20.0, 10.0, 40.0), (3.0, 1.5, 6.0)  # in units of the mean variance; the first of each unless validation says otherwise
MINI_SHARE = 1 / 3  # of the cosine
SCALES = [5 * 1.05**step for step in range(62)]  # logit scales from 5 to 98


@dataclasses.dataclass(frozen=True)
class Features:
    """What the towers say of one part: images (N, W), texts (M, V), owner (M,) the image of each text."""

    images: torch.Tensor
    texts: torch.Tensor
    owner: torch.Tensor


def locked_towers():
    """`mini`'s towers; the picture is looked at twice."""
    return load_encoder("efficientnet-lite0", mode="both"), load_encoder("minilm")


def features_of(image_tower, text_tower, dataset):
    """`Features` of a dataset, from the cache where they are there."""
    return Features(embedding.image_features(image_tower, dataset), embedding.text_features(text_tower, dataset.all_captions), torch.from_numpy(dataset.owner))


def block_heads(maps, image_widths, text_width):
    """The two linear heads that hold these canonical maps."""
    dim = maps.image_map.shape[1]
    image_head, text_head = BlockHead(image_widths, dim), BlockHead([text_width], dim, rooted=False)
    return fill(image_head, maps.image_mean, maps.image_map), fill(text_head, maps.text_mean, maps.text_map)


def beside(head, other, columns, share):
    """Two heads side by side: their cosines are summed with weights 1 - share and share. columns: [first, after] of the features that each sees."""
    parts = [{"kind": h.kind, "options": h.options, "columns": list(c), "share": s} for h, c, s in zip((head, other), columns, (1 - share, share), strict=True)]
    joined = ConcatHead(parts)
    for place, part in enumerate((head, other)):
        joined.heads[place].load_state_dict(part.state_dict())
    return joined


def mini_heads(image_tower, text_tower):
    """The heads of `mini` if these are its towers, else None."""
    if (image_tower.name, text_tower.name) != ("efficientnet-lite0", "minilm"):
        return None
    mini = load_saved(runtime.data_dir() / "mini")
    return mini.image_head, mini.text_head


def similarity(model, part):
    """Cosines (N, M) of all images with all texts of a part, without gradients."""
    with torch.no_grad():
        return model.project_images(part.images) @ model.project_texts(part.texts).T


def measure(cosines, owner):
    """Retrieval figures of a part as one flat dict, and "score": the mean of both directions' MRR, which moves with every rank."""
    found = metrics.retrieval_metrics(cosines.numpy(), owner.numpy())
    flat = {f"val_{direction}_{key}": found[direction][key] for direction in found for key in ("R@1", "R@5", "R@10", "MRR")}
    return {"score": sum(found[direction]["MRR"] for direction in found) / 2} | flat


def best_scale(cosines, owner):
    """(logit scale, loss): the one of `SCALES` under which the right image of each text is most likely."""
    losses = [F.cross_entropy(scale * cosines.T, owner).item() for scale in SCALES]
    place = losses.index(min(losses))
    return SCALES[place], losses[place]


class ClosedForm:
    """What a set of pairs says about two locked towers: from here on, any shrinkage is a small problem.

    The heads of `mini` stay beside the fitted ones where these are its towers.
    """

    def __init__(self, image_tower, text_tower, train):
        self.towers = image_tower, text_tower
        self.widths = list(BLOCKS.values()) if image_tower.name == "efficientnet-lite0" else [image_tower.width]
        self.statistics = pair_statistics(BlockHead(self.widths, 1).blocks(train.images), F.normalize(train.texts, dim=-1), train.owner)

    @functools.cached_property
    def start(self):
        """`mini`'s heads, or None; read only where they are used."""
        return mini_heads(*self.towers)

    def heads(self, image_shrink, text_shrink):
        """The fitted heads alone."""
        return block_heads(canonical_maps(self.statistics, image_shrink, text_shrink), self.widths, self.towers[1].width)

    def model(self, image_shrink, text_shrink):
        """The model with these shrinkages; the starting heads have MINI_SHARE of the cosine."""
        heads = self.heads(image_shrink, text_shrink)
        if self.start:
            heads = [beside(head, other, [(0, tower.width)] * 2, MINI_SHARE) for head, other, tower in zip(heads, self.start, self.towers, strict=True)]
        return TwoTowers(*self.towers, *heads).eval()


def with_scale(model, part):
    """`model` with the logit scale under which `part` is most likely, its cosines and the loss."""
    cosines = similarity(model, part)
    scale, loss = best_scale(cosines, part.owner)
    with torch.no_grad():
        model.log_logit_scale.fill_(torch.tensor(scale).log())
    return cosines, scale, loss


def fit_closed_form(image_tower, text_tower, train, val=None, image_shrinks=IMAGE_SHRINK, text_shrinks=TEXT_SHRINK):
    """The model with the best closed-form heads, and the history: one row per setting tried.

    train, val: `Features`. The setting with the best mean reciprocal rank on `val` is taken, the default where nothing beats it or
    there is no `val`. Nothing here is random.
    """
    pairs, best, rows = ClosedForm(image_tower, text_tower, train), None, []
    for image_shrink, text_shrink in [(a, b) for a in image_shrinks for b in text_shrinks][: None if val else 1]:
        model = pairs.model(image_shrink, text_shrink)
        cosines, scale, loss = with_scale(model, val or train)
        found = measure(cosines, val.owner) if val else {"score": 0.0}
        setting = {"image_shrink": image_shrink, "text_shrink": text_shrink, "loss": loss, "logit_scale": scale}
        rows.append({"stage": "closed form", "step": len(rows)} | setting | found)
        if best is None or found["score"] > best[0]:
            best = found["score"], len(rows) - 1, model
    return best[2], [row | {"best": place == best[1]} for place, row in enumerate(rows)]
