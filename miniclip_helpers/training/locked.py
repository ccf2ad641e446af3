"""Heads on locked towers: the features are computed once, the heads come in closed form, what is open is chosen on validation.

Where the towers see what `mini`'s see, its own heads stay beside the fitted ones, as a third of the cosine: they know things that some hundred
photos cannot teach. What is close to everybody, a hub, is charged for it, see `model.HubHead`. After the choice the heads are fitted again, on
training and validation pictures together: the validation part then has chosen, and teaches as well. tests/benchmarks/bench_heads.py measures it all.
"""

import dataclasses
import functools

import torch
from torch.nn import functional as F

from .. import embedding, metrics, runtime
from ..encoders import load_encoder
from ..errors import DataError
from ..model import BlockHead, ConcatHead, TwoTowers, load_saved
from .heads import canonical_maps, fill, pair_statistics
from .text_head import corrected

IMAGE_SHRINK, TEXT_SHRINK = (20.0, 10.0, 40.0), (3.0, 1.5, 6.0)  # in units of the mean variance; the first of each unless validation says otherwise
MINI_SHARE = 1 / 3  # of the cosine
HUBS = (0.5, 1.0, 0.0)  # how much of the closeness to everybody is taken off; the first unless validation says otherwise
BANK = 4096  # training vectors kept of each side to tell hubs by, at most: a file of some megabytes, however many pictures there are
SCALE_PICTURES = 2048  # that tell the logit scale where no validation part does: all pairs of 50,000 pictures would need 10 GB
SCALES = [5 * 1.05**step for step in range(62)]  # logit scales from 5 to 98


@dataclasses.dataclass(frozen=True)
class Features:
    """What the towers say of one part: images (N, W), texts (M, V), owner (M,) the image of each text."""

    images: torch.Tensor
    texts: torch.Tensor
    owner: torch.Tensor


def locked_towers():
    """`train`'s towers: those of `mini`, and two larger relatives of its image tower beside; the picture is looked at twice."""
    return load_encoder("efficientnet-lite-trio", mode="both"), load_encoder("minilm")


def features_of(image_tower, text_tower, dataset):
    """`Features` of a dataset, from the cache where they are there. Raises `DataError`, with the pictures and captions, where they are not numbers."""
    found = Features(embedding.image_features(image_tower, dataset), embedding.text_features(text_tower, dataset.all_captions), torch.from_numpy(dataset.owner))
    return check_finite(found, dataset.names, dataset.all_captions)


def check_finite(part, names=None, captions=None):
    """`part`, or a `DataError` that lists the rows whose features hold NaN or infinity. names, captions: what to call them."""
    wrong = []
    for rows, said, what in ((part.images, names, "picture"), (part.texts, captions, "caption")):
        bad = (~torch.isfinite(rows).all(1)).nonzero()[:, 0].tolist()
        wrong += [f"{what} {said[row]!r}" if said is not None else f"{what} in row {row}" for row in bad]
    if wrong:
        raise DataError(f"the features of {len(wrong)} of {len(part.images) + len(part.texts)} pictures and captions hold NaN or infinity; expected numbers. "
                        "Look for damaged weights or a tower that diverged; if the towers are sound, empty the feature cache (MINICLIP_CACHE) and encode anew", wrong)
    return part


def joined(*parts):
    """The `Features` of several parts as one."""
    starts = torch.tensor([0, *(len(part.images) for part in parts)]).cumsum(0)
    return Features(torch.cat([part.images for part in parts]), torch.cat([part.texts for part in parts]),
                    torch.cat([part.owner + start for part, start in zip(parts, starts)]))


def spread_out(part, count):
    """`part`, or `count` pictures of it at even distances, with all their captions."""
    if len(part.images) <= count:
        return part
    rows = torch.arange(count) * len(part.images) // count
    place = torch.full((len(part.images),), -1)
    place[rows] = torch.arange(count)
    kept = place[part.owner] >= 0
    return Features(part.images[rows], part.texts[kept], place[part.owner[kept]])


def block_heads(maps, image_widths, text_width):
    """The two linear heads that hold these canonical maps."""
    dim = maps.image_map.shape[1]
    image_head, text_head = BlockHead(image_widths, dim), BlockHead([text_width], dim, rooted=False)
    return fill(image_head, maps.image_mean, maps.image_map), fill(text_head, maps.text_mean, maps.text_map)


def beside(head, other, columns, share):
    """Two heads side by side: their cosines are summed with weights 1 - share and share. columns: [first, after] of the features that each sees."""
    parts = [{"kind": h.kind, "options": h.options, "columns": list(c), "share": s} for h, c, s in zip((head, other), columns, (1 - share, share), strict=True)]
    both = ConcatHead(parts)
    for place, part in enumerate((head, other)):
        both.heads[place].load_state_dict(part.state_dict())
    return both


def mini_heads(image_tower, text_tower):
    """The heads of `mini` if these are its towers, or begin with what its towers see, else None."""
    if image_tower.name not in ("efficientnet-lite0", "efficientnet-lite-trio") or text_tower.name != "minilm":
        return None
    mini = load_saved(runtime.data_dir() / "mini")
    return mini.image_head, mini.text_head


def similarity(model, part):
    """Cosines (N, M) of all images with all texts of a part, without gradients."""
    images, texts = embeddings(model, part)
    return images @ texts.T


def embeddings(model, part):
    """(N, D) and (M, D): the unit rows of a part's images and texts, without gradients."""
    with torch.no_grad():
        return model.project_images(part.images), model.project_texts(part.texts)


def measure(cosines, owner):
    """Retrieval figures of a part as one flat dict, and "score": the mean of both directions' MRR, which moves with every rank."""
    found = metrics.retrieval_metrics(cosines.numpy(), owner.numpy())
    flat = {f"val_{direction}_{key}": found[direction][key] for direction in found for key in ("R@1", "R@5", "R@10", "MRR")}
    return {"score": sum(found[direction]["MRR"] for direction in found) / 2} | flat


def best_scale(cosines, owner):
    """(logit scale, loss): the one of `SCALES` under which the right image of each text is most likely; the first of equal ones. Cosines (N, M) are finite."""
    losses = [F.cross_entropy(scale * cosines.T, owner).item() for scale in SCALES]
    place = losses.index(min(losses))
    return SCALES[place], losses[place]


class ClosedForm:
    """What a set of pairs says about two locked towers: from here on, any shrinkage is a small problem.

    The heads of `mini` stay beside the fitted ones where these towers see what its towers see.
    """

    def __init__(self, image_tower, text_tower, train):
        self.towers, self.train = (image_tower, text_tower), train
        self.widths = getattr(image_tower, "block_widths", [image_tower.width])
        self.statistics = pair_statistics(BlockHead(self.widths, 1).blocks(train.images), F.normalize(train.texts, dim=-1), train.owner)

    @functools.cached_property
    def start(self):
        """`mini`'s heads, or None; read only where they are used."""
        return mini_heads(*self.towers)

    def heads(self, image_shrink, text_shrink):
        """The fitted heads alone."""
        return block_heads(canonical_maps(self.statistics, image_shrink, text_shrink), self.widths, self.towers[1].width)

    def model(self, image_shrink, text_shrink):
        """The model with these shrinkages, hubs not corrected; the starting heads have MINI_SHARE of the cosine."""
        heads = self.heads(image_shrink, text_shrink)
        if self.start:
            both = zip(heads, self.start, self.towers, strict=True)
            heads = [beside(head, other, [(0, tower.width), (0, columns_of(other))], MINI_SHARE) for head, other, tower in both]
        return TwoTowers(*self.towers, *heads).eval()


def columns_of(head):
    """How many columns a `ConcatHead` sees, counted from the first."""
    return max(part["columns"][1] for part in head.options["parts"])


def correct_hubs(model, train, strengths=HUBS):
    """{strength: `model` whose heads take off that much of how close a vector lies to the other side's vectors of `train`}; at 0 it is `model` itself.

    At most `BANK` vectors of each side are kept, evenly spread. The logit scale grows with the rows' length, so that it stays what it was for the cosine.
    """
    images, texts = (rows[torch.linspace(0, len(rows) - 1, min(len(rows), BANK)).round().long()] for rows in embeddings(model, train))
    found = {}
    for strength in strengths:
        heads = [corrected(head, side, bank, strength=strength) for head, side, bank in zip((model.image_head, model.text_head), ("image", "text"), (texts, images))]
        found[strength] = TwoTowers(model.image_tower, model.text_tower, *heads, model.logit_scale.item() * (1 + 2 * strength), model.name).eval() if strength else model
    return found


def best_correction(model, train, val=None):
    """`model` with the strength of `correct_hubs` that `val` likes best; without `val` with the usual one. For heads that have learned by steps."""
    tried = correct_hubs(model, train)
    return tried[HUBS[0] if val is None else max(tried, key=lambda strength: measure(similarity(tried[strength], val), val.owner)["score"])]


def with_scale(model, part):
    """`model` with the logit scale under which `part` is most likely, its cosines and the loss."""
    cosines = similarity(model, part)
    scale, loss = best_scale(cosines, part.owner)
    with torch.no_grad():
        model.log_logit_scale.fill_(torch.tensor(scale).log())
    return cosines, scale, loss


def fit_closed_form(image_tower, text_tower, train, val=None, image_shrinks=IMAGE_SHRINK, text_shrinks=TEXT_SHRINK, hubs=HUBS, refit=True):
    """The model with the best closed-form heads, and the history: one row per setting tried.

    train, val: `Features`. The setting with the best mean reciprocal rank on `val` is taken, the default where nothing beats it or
    there is no `val`. hubs: the strengths of the correction to try, (0.0,) for none. refit: with the setting and the logit scale that `val` chose, fit
    the heads on both parts together; `val` is then no part that the model has not seen. Nothing here is random.
    Raises `DataError` where features hold NaN or infinity.
    """
    for part in (train, val):
        if part is not None:
            check_finite(part)
    pairs, best, rows = ClosedForm(image_tower, text_tower, train), None, []
    for image_shrink, text_shrink in [(a, b) for a in image_shrinks for b in text_shrinks][: None if val else 1]:
        for strength, model in correct_hubs(pairs.model(image_shrink, text_shrink), train, hubs if val else hubs[:1]).items():
            cosines, scale, loss = with_scale(model, val or spread_out(train, SCALE_PICTURES))
            found = measure(cosines, val.owner) if val else {"score": 0.0}
            setting = {"image_shrink": image_shrink, "text_shrink": text_shrink, "hubs": strength, "loss": loss, "logit_scale": scale}
            rows.append({"stage": "closed form", "step": len(rows)} | setting | found)
            if best is None or found["score"] > best[0]:
                best = found["score"], len(rows) - 1, model
    model, again = best[2], bool(refit and val)
    if again:
        model = fitted_again(pairs.towers, joined(train, val), rows[best[1]])
    return model, [row | {"best": place == best[1], "refit": again and place == best[1]} for place, row in enumerate(rows)]


def fitted_again(towers, part, setting):
    """The model of a setting, one row of the history, fitted on `part`; the logit scale is the one that the setting had on pictures it did not see."""
    strength = setting["hubs"]
    model = correct_hubs(ClosedForm(*towers, part).model(setting["image_shrink"], setting["text_shrink"]), part, (strength,))[strength]
    with torch.no_grad():
        model.log_logit_scale.fill_(torch.tensor(setting["logit_scale"]).log())
    return model
