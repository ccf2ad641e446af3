"""Ranks and what is made of them: R@K, MRR, median and mean rank, top-k accuracy. Ties have a rule."""

import numpy as np

from ..errors import UsageError

DIRECTIONS = ("image_to_text", "text_to_image")
TIES = ("half", "optimistic", "pessimistic")


def checked(similarity, owner):
    """The two as arrays; a `UsageError` where they do not fit or hold what cannot be ranked."""
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


def _rank(scores, right, wrong=None, ties="half"):
    """Rank of each row's right score among its competitors: 1 + how many are better + what the ties cost."""
    better = (scores > right[:, None]) if wrong is None else ((scores > right[:, None]) & wrong)
    if ties == "optimistic":
        return 1 + better.sum(1)
    equal = (scores == right[:, None]) if wrong is None else ((scores == right[:, None]) & wrong)
    tied = equal.sum(1) - (1 if wrong is None else 0)
    return 1 + better.sum(1) + (tied if ties == "pessimistic" else (tied + 1) // 2)


def _check_ties(ties):
    if ties not in TIES:
        raise UsageError(f"expected ties one of {', '.join(TIES)}, found {ties!r}")


def ranks(similarity, owner, block=512, ties="half"):
    """The rank of the right answer to each query, from 1.

    similarity: (n_images, n_captions). owner: (n_captions,) integers. Returns {"image_to_text": (n_images,), "text_to_image":
    (n_captions,)}. A tie with a wrong answer costs half a place, rounded up: a model that says the same of everything must not
    win. ties="optimistic" lets every tie be won, "pessimistic" lost: they are there to show how much hangs on ties, "half" is the
    one to report. Captions of the same image never compete with each other.
    """
    _check_ties(ties)
    similarity, owner = checked(similarity, owner)
    images, captions = similarity.shape
    by_image = np.empty(images, dtype=np.int64)
    for start in range(0, images, block):
        rows = similarity[start : start + block]
        own = owner[None, :] == np.arange(start, start + len(rows))[:, None]
        best = np.where(own, rows, -np.inf).max(1)
        by_image[start : start + block] = _rank(rows, best, ~own, ties)
    by_text = np.empty(captions, dtype=np.int64)
    for start in range(0, captions, block):
        columns = similarity[:, start : start + block].T
        right = columns[np.arange(len(columns)), owner[start : start + block]]
        by_text[start : start + block] = _rank(columns, right, ties=ties)
    return {"image_to_text": by_image, "text_to_image": by_text}


def summarise(rank, ks=(1, 5, 10)):
    """Ranks (Q,) to {"R@K": share with rank <= K, "MRR": mean of 1 / rank, "MedR": median rank, "MeanR": mean rank}."""
    rank = np.asarray(rank)
    report = {f"R@{k}": float((rank <= k).mean()) for k in ks}
    return report | {"MRR": float((1 / rank).mean()), "MedR": float(np.median(rank)), "MeanR": float(rank.mean())}


def retrieval_metrics(similarity, owner, ks=(1, 5, 10), ties="half"):
    """R@K, MRR, MedR and mean rank in both directions, as fractions and places.

    similarity (n_images, n_captions), rows are images; owner (n_captions,) the image of each caption. A K above the number of
    candidates counts as all of them. ties: as in `ranks`. Returns {"image_to_text": {"R@1", ..., "MRR", "MedR", "MeanR"},
    "text_to_image": {...}}.
    """
    return {direction: summarise(rank, ks) for direction, rank in ranks(similarity, owner, ties=ties).items()}


def target_ranks(scores, targets, ties="half"):
    """The rank of each row's right column, from 1. scores: (N, C). targets: (N,) integers. ties: as in `ranks`."""
    _check_ties(ties)
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise UsageError(f"expected scores (N, C) and targets (N,), found {scores.shape} and {targets.shape}")
    if not scores.size or not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= scores.shape[1]:
        raise UsageError(f"expected targets to be integers, columns of scores {scores.shape}, found {targets.dtype} {targets[:5]}")
    if not np.isfinite(scores).all():
        raise UsageError("scores hold NaN or infinity: look for a zero vector or a model that diverged")
    return _rank(scores, scores[np.arange(len(scores)), targets], ties=ties)


def top_k_accuracy(scores, targets, ks=(1, 5)):
    """Share of rows whose right column is among the K best. scores: (N, C). targets: (N,) columns. A tie costs, as in `ranks`.

    Returns {"top-1": ..., "top-5": ...}. A K above C counts as all columns.
    """
    rank = target_ranks(scores, targets)
    return {f"top-{k}": float((rank <= k).mean()) for k in ks}
