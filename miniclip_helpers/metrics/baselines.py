"""What a number is compared with: a random order in closed form, and words alone."""

import re

import numpy as np

from ..errors import UsageError
from .blocks import whole
from .ranking import target_ranks


def chance(n_images, owner, ks=(1, 5, 10)):
    """R@K, MRR and mean rank of a random order: R@K is K / n_images for text to image; for image to text the chance that any of its captions is in K.

    owner: (n_captions,). Image to text is hypergeometric: 1 - C(M - m, K) / C(M, K), the mean over images with m captions. Captions of
    one image do not compete, so its rank is 1 + the wrong captions before its first own one. ks: whole numbers from 1. Raises a `UsageError` where an owner is
    no image, or an image owns no caption.
    """
    from scipy.stats import hypergeom

    owner, n_images, ks = _owners(owner), whole(n_images, "n_images"), [whole(k, "K of R@K") for k in ks]
    captions = len(owner)
    per_image = np.bincount(owner, minlength=n_images)
    if len(per_image) > n_images or not per_image.all():
        raise UsageError(f"expected each of {n_images} images to own a caption, found owners {owner.min()} to {owner.max()}, {int((per_image > 0).sum())} of them different")
    by_image = {f"R@{k}": float((1 - hypergeom.pmf(0, captions, per_image, min(k, captions))).mean()) for k in ks}
    by_text = {f"R@{k}": min(k, n_images) / n_images for k in ks}
    later = {many: _survival(captions, many) for many in np.unique(per_image)}
    mean = {"MRR": lambda s: float((-np.diff(s, append=0) / np.arange(1, len(s) + 1)).sum()), "MeanR": lambda s: float(s.sum())}
    by_image |= {key: float(np.mean([of(later[many]) for many in per_image])) for key, of in mean.items()}
    return {"image_to_text": by_image, "text_to_image": by_text | {key: of(_survival(n_images, 1)) for key, of in mean.items()}}


def _owners(owner):
    """(M,) whole numbers from 0, one at least, or a `UsageError`."""
    owner = np.asarray(owner)
    if owner.ndim != 1 or not len(owner) or not np.issubdtype(owner.dtype, np.integer) or owner.min() < 0:
        raise UsageError(f"expected owner to hold the number of an image, from 0, for each caption, found {owner.dtype} {owner.shape}, like {owner.ravel()[:5]}")
    return owner


def _survival(candidates, own):
    """P(rank >= r) for r = 1, 2, ... of the first own candidate in a random order: (candidates - own + 1,)."""
    before = np.arange(candidates - own)
    return np.concatenate([[1.0], np.cumprod((candidates - own - before) / (candidates - before))])


def bag_of_words_similarity(queries, gallery, vocabulary=None):
    """Cosine of word counts: (len(queries), len(gallery)). The baseline that never sees a picture.

    vocabulary: the words that count, such as those of the training captions; every word by default. A text without any such word
    has cosine 0 with everything; so has an empty one.
    """
    for texts in (queries, gallery):
        if isinstance(texts, str):
            raise UsageError(f"expected lists of texts, found one string; write [{texts[:30]!r}]")
    split = [re.findall(r"\w+", text.lower()) for text in [*queries, *gallery]]
    known = {word for row in split for word in row} if vocabulary is None else set(vocabulary)
    split = [[word for word in row if word in known] for row in split]
    column = {word: number for number, word in enumerate(sorted(known))}
    counts = np.zeros((len(split), max(1, len(column))))
    for row, found in enumerate(split):
        np.add.at(counts[row], [column[word] for word in found], 1)
    counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)
    return counts[: len(queries)] @ counts[len(queries) :].T


def caption_baseline(captions, owner, vocabulary=None, ties="half"):
    """Ranks (M,), text to image, of a scorer that knows each picture by its *other* captions only, and sees no picture.

    captions: M texts. owner: (M,) the image of each; each image needs two. A query's similarity with an image is the best bag-of-words
    cosine with a caption of that image, the query itself left out. vocabulary: as in `bag_of_words_similarity`. So it measures how much
    captions of one image repeat each other's words. It is no rival of a model: it has a second caption where the model has a picture.
    """
    owner = _owners(owner)
    if len(captions) != len(owner):
        raise UsageError(f"expected one owner per caption, found {len(captions)} captions and {len(owner)} owners")
    if (np.bincount(owner) < 2).any():
        raise UsageError("each image needs at least two captions, numbered from 0: one asks, another one answers for the picture")
    cosines = bag_of_words_similarity(captions, captions, vocabulary)
    np.fill_diagonal(cosines, -1)  # a caption must not find itself
    best = np.full((len(owner), owner.max() + 1), -1.0)
    for image in range(best.shape[1]):
        best[:, image] = cosines[:, owner == image].max(1)
    return target_ranks(best, owner, ties)
