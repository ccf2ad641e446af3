"""A text head against locked image vectors: captions learn to find pictures that were encoded once, and never change.

The map is a regularised CCA in closed form. Beside it each vector carries how close it lies to everything that was seen in training: what is
close to everybody, a hub, would else be the first answer to questions that it does not fit. In either direction that is
`metrics.inverted_softmax` (Smith et al. 2017) with a bank of training vectors alone (Bogolin et al. 2022), put into the vectors themselves.
"""

import numpy as np
import torch
from torch.nn import functional as F

from .. import metrics, runtime
from ..errors import UsageError
from ..model import BlockHead, HubHead, Identity
from .heads import canonical_maps, fill, pair_statistics

IMAGE_SHRINK, TEXT_SHRINK, SHARPNESS = 1.0, 5.0, 10.0  # chosen by cross-validation among 1,213 pictures; near them the figures are flat
SIDES = ("image", "text")


def checked(text_features, image_embeddings, owner):
    """The three as tensors, or a `UsageError`: (M, V) and (N, D) floats, (M,) the image of each text, and every image with a text."""
    texts, images = torch.as_tensor(text_features).float(), torch.as_tensor(image_embeddings).float()
    owner = torch.as_tensor(owner).long()
    if texts.ndim != 2 or images.ndim != 2 or owner.shape != texts.shape[:1]:
        raise UsageError(f"expected text features (M, V), image embeddings (N, D) and one owner per text, found {tuple(texts.shape)}, {tuple(images.shape)} "
                         f"and {tuple(owner.shape)}")
    if len(owner) and not 0 <= owner.min() <= owner.max() < len(images):
        raise UsageError(f"expected owners from 0 to {len(images) - 1}, found {owner.min().item()} to {owner.max().item()}")
    if not (torch.isfinite(texts).all() and torch.isfinite(images).all()):
        raise UsageError("the features hold NaN or infinity: look for a tower that diverged or a file that is damaged")
    return texts, images, owner


def linear_heads(text_features, image_embeddings, owner, image_shrink=IMAGE_SHRINK, text_shrink=TEXT_SHRINK):
    """(image head, text head): canonical directions, one linear map on each side, without the correction for hubs.

    text_features: (M, V) of the captions. image_embeddings: (N, D) unit rows. owner: (M,) the image of each caption. The shrinkages are in units of
    the mean variance of their side, as in `canonical_maps`. Nothing here is random.
    """
    texts, images, owner = checked(text_features, image_embeddings, owner)
    maps = canonical_maps(pair_statistics(F.normalize(images, dim=-1), F.normalize(texts, dim=-1), owner), image_shrink, text_shrink)
    dim = maps.image_map.shape[1]
    blocks = [BlockHead([rows.shape[1]], dim, rooted=False) for rows in (images, texts)]
    return fill(blocks[0], maps.image_mean, maps.image_map), fill(blocks[1], maps.text_mean, maps.text_map)


def fit_text_head(text_features, image_embeddings, owner, correct=SIDES, image_shrink=IMAGE_SHRINK, text_shrink=TEXT_SHRINK, sharpness=SHARPNESS):
    """(image head, text head) for `TwoTowers` whose image tower gives these vectors: `linear_heads`, corrected for hubs.

    The image vectors stay as they are; their head is a fixed linear map and, where "image" is in `correct`, each picture's closeness to the training
    captions. correct: the sides to correct, of `SIDES`. Nothing is taken from the captions or pictures that are asked later: each row is
    projected alone. `text_features`, `image_embeddings`, `owner`, and the shrinkages: as in `linear_heads`.
    """
    if unknown := set(correct) - set(SIDES):
        raise UsageError(f"expected sides to correct out of {SIDES}, found {sorted(unknown)}")
    if sharpness <= 0:
        raise UsageError(f"expected a sharpness above 0, found {sharpness}")
    heads = linear_heads(text_features, image_embeddings, owner, image_shrink, text_shrink)
    texts, images, _ = checked(text_features, image_embeddings, owner)
    with torch.no_grad():
        unit = {side: F.normalize(head(rows), dim=-1) for side, head, rows in zip(SIDES, heads, (images, texts), strict=True)}
    return tuple(corrected(head, side, unit[other] if side in correct else unit[other][:0], sharpness)
                 for head, side, other in zip(heads, SIDES, reversed(SIDES), strict=True))


def corrected(head, side, bank, sharpness=SHARPNESS, strength=1.0):
    """`head` inside a `HubHead` with this bank, (R, dim) unit rows of the other side. side: "image" or "text"."""
    whole = HubHead({"kind": head.kind, "options": head.options}, bank.shape[1], side, len(bank), sharpness, strength)
    whole.head.load_state_dict(head.state_dict())
    whole.bank.copy_(bank)
    return whole.eval()


def into_image_space(image_head, text_head):
    """(identity, text head) that score by the cosine with the image vectors as they are; out of `linear_heads`. The text head is (V,) to (D,).

    Picture v and caption t of linear heads have the dot product (v - mean) A . B t. Its first factor moves to the other side, and what the mean adds,
    a number that differs from caption to caption, is taken off along the mean picture, which is about as near to every picture. The length of
    (v - mean) A, which a cosine would divide by, is lost.
    """
    with torch.no_grad():
        back = text_head.weight.double() @ image_head.weight.double().T  # (V, D)
        mean = image_head.mean.double()[:, None]  # (D, 1)
        weight = back - (back @ mean) @ mean.T / mean.square().sum()
        return Identity(), fill(BlockHead([len(weight)], len(mean), rooted=False), text_head.mean, weight.float())


def cosines(heads, image_embeddings, text_features):
    """(N, M) cosines under a pair of heads (image, text), without gradients."""
    with torch.no_grad():
        rows = [F.normalize(head(torch.as_tensor(features).float()), dim=-1) for head, features in zip(heads, (image_embeddings, text_features), strict=True)]
    return (rows[0] @ rows[1].T).numpy()


def cross_validated(fit, text_features, image_embeddings, owner, folds=5, seed=0):
    """What a way of fitting finds on pictures that it did not see: the mean of `metrics.retrieval_metrics` over the folds.

    fit: function (text_features, image_embeddings, owner) -> (image head, text head). The pictures, each with all its captions, are dealt into `folds`
    parts by `seed`; each part is asked once, by heads that were fitted on the others. A part is a smaller gallery than the whole: its figures are
    higher than a test on all pictures would give, and serve to compare.
    """
    texts, images, owner = checked(text_features, image_embeddings, owner)
    if not 2 <= folds <= len(images) // 2:
        raise UsageError(f"expected 2 to {len(images) // 2} folds of {len(images)} images, found {folds}")
    part = torch.empty(len(images), dtype=torch.long)
    part[torch.randperm(len(images), generator=runtime.generator(seed))] = torch.arange(len(images)) % folds
    found = []
    for fold in range(folds):
        inside = [_select(part == fold, texts, images, owner), _select(part != fold, texts, images, owner)]
        asked, seen = inside
        found.append(metrics.retrieval_metrics(cosines(fit(*seen), asked[1], asked[0]), asked[2].numpy()))
    return {way: {name: float(np.mean([one[way][name] for one in found])) for name in found[0][way]} for way in found[0]}


def _select(chosen, texts, images, owner):
    """The texts, images and owners of the images where `chosen` (N,) is true, the owners counted anew."""
    said = chosen[owner]
    return texts[said], images[chosen], (chosen.cumsum(0) - 1)[owner[said]]
