"""Retrieval metrics, pure NumPy. Rows are images, columns are captions; `owner[c]` is the image that caption c describes.

Two images, four captions, owner [0, 0, 1, 1]:

>>> similarity = [[0.9, 0.1, 0.5, 0.2],
...               [0.3, 0.4, 0.6, 0.1]]
>>> ranks(similarity, [0, 0, 1, 1])["image_to_text"].tolist()     # image 0: its best caption is first; image 1 too
[1, 1]
>>> ranks(similarity, [0, 0, 1, 1])["text_to_image"].tolist()     # captions 1 and 3 prefer the wrong image
[1, 2, 1, 2]

The protocol of Karpathy and Fei-Fei 2015 that everyone reports: text to image asks each caption for its one image; image to
text asks each image, and the best ranked of its captions counts.
"""

import re

import numpy as np

from .errors import UsageError

DIRECTIONS = ("image_to_text", "text_to_image")


def _checked(similarity, owner):
    similarity = np.asarray(similarity)
    owner = np.asarray(owner)
    if similarity.ndim != 2 or owner.ndim != 1 or similarity.shape[1] != len(owner):
        raise UsageError("expected similarity (n_images, n_captions) and owner (n_captions,), found "
                         f"{similarity.shape} and {owner.shape}; rows are images: transpose if yours are captions")
    if not similarity.size:
        raise UsageError(f"expected at least one image and one caption, found {similarity.shape}")
    if not np.issubdtype(owner.dtype, np.integer) or owner.min() < 0 or owner.max() >= len(similarity):
        raise UsageError(f"expected owner to hold rows 0 to {len(similarity) - 1}, found {owner.dtype} {owner.min()} to {owner.max()}")
    if len(np.unique(owner)) != len(similarity):
        raise UsageError(f"{len(similarity) - len(np.unique(owner))} image(s) own no caption: leave them out of the evaluation")
    if not np.isfinite(similarity).all():
        raise UsageError("similarity holds NaN or infinity: look for a zero vector or a model that diverged")
    return similarity, owner


def _rank(scores, right, wrong=None):
    """Rank of each row's right score among its competitors: 1 + how many are better + half the ties, rounded up."""
    better = (scores > right[:, None]) if wrong is None else ((scores > right[:, None]) & wrong)
    equal = (scores == right[:, None]) if wrong is None else ((scores == right[:, None]) & wrong)
    ties = equal.sum(1) - (1 if wrong is None else 0)
    return 1 + better.sum(1) + (ties + 1) // 2


def ranks(similarity, owner, block=512):
    """The rank of the right answer to each query, from 1.

    similarity: (n_images, n_captions). owner: (n_captions,) integers. Returns {"image_to_text": (n_images,), "text_to_image":
    (n_captions,)}. A tie with a wrong answer costs half a place, rounded up: a model that says the same of everything must not
    win. Captions of the same image never compete with each other.
    """
    similarity, owner = _checked(similarity, owner)
    images, captions = similarity.shape
    by_image = np.empty(images, dtype=np.int64)
    for start in range(0, images, block):
        rows = similarity[start : start + block]
        own = owner[None, :] == np.arange(start, start + len(rows))[:, None]
        best = np.where(own, rows, -np.inf).max(1)
        by_image[start : start + block] = _rank(rows, best, ~own)
    by_text = np.empty(captions, dtype=np.int64)
    for start in range(0, captions, block):
        columns = similarity[:, start : start + block].T
        right = columns[np.arange(len(columns)), owner[start : start + block]]
        by_text[start : start + block] = _rank(columns, right)
    return {"image_to_text": by_image, "text_to_image": by_text}


def summarise(rank, ks=(1, 5, 10)):
    """Ranks (Q,) to {"R@K": share with rank <= K, "MRR": mean of 1 / rank, "MedR": median rank, "MeanR": mean rank}."""
    rank = np.asarray(rank)
    report = {f"R@{k}": float((rank <= k).mean()) for k in ks}
    return report | {"MRR": float((1 / rank).mean()), "MedR": float(np.median(rank)), "MeanR": float(rank.mean())}


def retrieval_metrics(similarity, owner, ks=(1, 5, 10)):
    """R@K, MRR, MedR and mean rank in both directions, as fractions and places.

    similarity (n_images, n_captions), rows are images; owner (n_captions,) the image of each caption. A K above the number of
    candidates counts as all of them. Returns {"image_to_text": {"R@1", ..., "MRR", "MedR"}, "text_to_image": {...}}.
    """
    return {direction: summarise(rank, ks) for direction, rank in ranks(similarity, owner).items()}


def bootstrap_interval(rank, statistic=None, groups=None, level=0.95, draws=2000, seed=0):
    """A percentile bootstrap interval (low, high) of a statistic of ranks.

    rank: (Q,). statistic: function of (draws, Q)-weighted hits; by default R@1, or an int K for R@K. groups: (Q,) the image of
    each query; whole images are drawn, because captions of one image succeed and fail together. Source: Efron 1979.
    """
    k = 1 if statistic is None else int(statistic)
    hits = (np.asarray(rank) <= k).astype(float)
    groups = np.arange(len(hits)) if groups is None else np.asarray(groups)
    _, group = np.unique(groups, return_inverse=True)
    won, asked = np.bincount(group, hits), np.bincount(group)
    random = np.random.default_rng(seed)
    count = random.multinomial(len(won), np.full(len(won), 1 / len(won)), size=draws)  # (draws, images)
    values = (count @ won) / (count @ asked)
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def retrieval_intervals(similarity, owner, ks=(1, 5, 10), level=0.95, draws=2000, seed=0):
    """95 % intervals of each R@K in both directions: {"image_to_text": {"R@1": [low, high], ...}, ...}."""
    rank = ranks(similarity, owner)
    groups = {"image_to_text": None, "text_to_image": np.asarray(owner)}
    return {direction: {f"R@{k}": list(bootstrap_interval(rank[direction], k, groups[direction], level, draws, seed)) for k in ks}
            for direction in DIRECTIONS}


def chance(n_images, owner, ks=(1, 5, 10)):
    """R@K of a random order: K / n_images for text to image; for image to text the chance that any of its captions is in K.

    owner: (n_captions,). Image to text is hypergeometric: 1 - C(M - m, K) / C(M, K), the mean over images with m captions.
    """
    from scipy.stats import hypergeom

    owner = np.asarray(owner)
    captions = len(owner)
    per_image = np.bincount(owner, minlength=n_images)
    return {
        "image_to_text": {f"R@{k}": float((1 - hypergeom.pmf(0, captions, per_image, min(k, captions))).mean()) for k in ks},
        "text_to_image": {f"R@{k}": min(k, n_images) / n_images for k in ks},
    }


def proportion_interval(hits, n, level=0.95):
    """Wilson's interval of a share: `hits` right of `n`. Returns (low, high) in [0, 1]. Source: Wilson 1927.

    >>> [round(x, 3) for x in proportion_interval(25, 64)]
    [0.281, 0.513]
    """
    from scipy.stats import norm

    if not 0 <= hits <= n or n < 1:
        raise UsageError(f"expected 0 <= hits <= n and n >= 1, found hits {hits}, n {n}")
    z = norm.ppf(0.5 + level / 2)
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def bag_of_words_similarity(queries, gallery):
    """Cosine of word counts: (len(queries), len(gallery)). The baseline that never sees a picture."""
    split = [re.findall(r"\w+", text.lower()) for text in [*queries, *gallery]]
    column = {word: number for number, word in enumerate(sorted({word for row in split for word in row}))}
    counts = np.zeros((len(split), max(1, len(column))))
    for row, found in enumerate(split):
        np.add.at(counts[row], [column[word] for word in found], 1)
    counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)
    return counts[: len(queries)] @ counts[len(queries) :].T


def top_k_accuracy(scores, targets, ks=(1, 5)):
    """Share of rows whose right column is among the K best. scores: (N, C). targets: (N,) columns. A tie costs, as in `ranks`.

    Returns {"top-1": ..., "top-5": ...}. A K above C counts as all columns.
    """
    rank = target_ranks(scores, targets)
    return {f"top-{k}": float((rank <= k).mean()) for k in ks}


def target_ranks(scores, targets):
    """The rank of each row's right column, from 1. scores: (N, C). targets: (N,) integers. Ties cost half a place, rounded up."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise UsageError(f"expected scores (N, C) and targets (N,), found {scores.shape} and {targets.shape}")
    if not scores.size or not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= scores.shape[1]:
        raise UsageError(f"expected targets to be integers, columns of scores {scores.shape}, found {targets.dtype} {targets[:5]}")
    if not np.isfinite(scores).all():
        raise UsageError("scores hold NaN or infinity: look for a zero vector or a model that diverged")
    return _rank(scores, scores[np.arange(len(scores)), targets])


def calibration_table(probabilities, targets, bins=10):
    """Confidence and accuracy per bin of confidence: {"confidence", "accuracy", "count"}, each (bins,); empty bins hold NaN.

    probabilities: (N, C), rows sum to 1. targets: (N,). Confidence is the best column's probability. Source: Guo et al. 2017.
    """
    probabilities, targets = np.asarray(probabilities, dtype=float), np.asarray(targets)
    if probabilities.ndim != 2 or not np.allclose(probabilities.sum(1), 1, atol=1e-3) or probabilities.min() < 0:
        raise UsageError("expected probabilities (N, C) whose rows sum to 1; take a softmax over the labels first")
    right, confidence = probabilities.argmax(1) == targets, probabilities.max(1)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = {name: np.bincount(place, values, minlength=bins) / count for name, values in (("confidence", confidence), ("accuracy", right))}
    return mean | {"count": count}


def expected_calibration_error(probabilities, targets, bins=10):
    """The mean distance of confidence and accuracy over the bins, weighted by their pictures; in [0, 1]. Source: Guo et al. 2017."""
    table = calibration_table(probabilities, targets, bins)
    full = table["count"] > 0
    gap = np.abs(table["confidence"] - table["accuracy"])[full]
    return float((gap * table["count"][full]).sum() / table["count"].sum())


def paired_interval(before, after, groups=None, level=0.95, draws=2000, seed=0):
    """A bootstrap interval of mean(after) - mean(before) of two models asked the same queries: (gain, low, high).

    before, after: (Q,) hits (0 or 1) or any score per query. groups: (Q,) the image of each query; whole images are drawn, the same
    for both models, so that easy and hard images cancel. Source: Efron and Tibshirani 1993.
    """
    before, after = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise UsageError(f"expected one score per query from both models, found {before.shape} and {after.shape}")
    _, group = np.unique(np.arange(len(before)) if groups is None else np.asarray(groups), return_inverse=True)
    gained, asked = np.bincount(group, after - before), np.bincount(group)
    count = np.random.default_rng(seed).multinomial(len(gained), np.full(len(gained), 1 / len(gained)), size=draws)
    values = (count @ gained) / (count @ asked)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float((after - before).mean()), float(low), float(high)


def modality_gap(image_embeddings, text_embeddings):
    """The distance between the mean image vector and the mean text vector. (N, D), (M, D) unit rows; from 0 to 2. Source: Liang et al. 2022."""
    return float(np.linalg.norm(np.asarray(image_embeddings).mean(0) - np.asarray(text_embeddings).mean(0)))
