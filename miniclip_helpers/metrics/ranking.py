"""Ranks and what is made of them: R@K, MRR, median and mean rank, top-k accuracy. Ties have a rule."""

import numpy as np

from ..errors import UsageError
from .blocks import as_scores, blocks_of, finite, finite_real, whole

DIRECTIONS = ("image_to_text", "text_to_image")
TIES = ("half", "optimistic", "pessimistic")


def checked(similarity, owner):
    """The two, as `Cosines` or `Whole` and as an array; a `UsageError` where they do not fit or hold what cannot be ranked."""
    similarity, owner = as_scores(similarity), np.asarray(owner)
    shape = similarity.shape
    if len(shape) != 2 or owner.ndim != 1 or shape[1] != len(owner):
        raise UsageError("expected similarity (n_images, n_captions) and owner (n_captions,), found "
                         f"{shape} and {owner.shape}; rows are images: transpose if yours are captions")
    if not shape[0] or not shape[1]:
        raise UsageError(f"expected at least one image and one caption, found {shape}")
    if not np.issubdtype(owner.dtype, np.integer) or owner.min() < 0 or owner.max() >= shape[0]:
        raise UsageError(f"expected owner to hold rows 0 to {shape[0] - 1}, found {owner.dtype} {owner.min()} to {owner.max()}")
    without = shape[0] - len(np.unique(owner))
    if without:
        raise UsageError(f"{without} image(s) own no caption: leave them out of the evaluation")
    return finite(similarity), owner


def _check_ties(ties):
    if ties not in TIES:
        raise UsageError(f"expected ties one of {', '.join(TIES)}, found {ties!r}")


def _count(found, axis):
    """How many are true along an axis; as bytes, which NumPy adds four times faster than truth values."""
    return found.view(np.uint8).sum(axis, dtype=np.uint32).astype(np.int64)


def _placed(better, tied, ties):
    """1 + how many are better + what the ties cost."""
    return 1 + better + {"optimistic": 0, "half": (tied + 1) // 2, "pessimistic": tied}[ties]


def ranks(similarity, owner, block=None, ties="half"):
    """The rank of the right answer to each query, from 1.

    similarity: (n_images, n_captions), or `Cosines`, which are never whole in memory. owner: (n_captions,) integers. Returns
    {"image_to_text": (n_images,), "text_to_image": (n_captions,)}. A tie with a wrong answer costs half a place, rounded up: a model
    that says the same of everything must not win. ties="optimistic" lets every tie be won, "pessimistic" lost: they are there to
    show how much hangs on ties, "half" is the one to report. Captions of the same image never compete with each other.
    block: rows at a time, by default as many as make some megabytes. Raises a `UsageError` for scores that hold NaN or infinity, owners that are no rows, and
    images without a caption.
    """
    _check_ties(ties)
    scores, owner = checked(similarity, owner)
    order = np.argsort(owner, kind="stable")  # captions, those of one image side by side
    first = np.searchsorted(owner[order], np.arange(scores.shape[0] + 1))
    own_of = lambda start, rows: order[first[start] : first[start + len(rows)]]  # noqa: E731
    right = np.empty(len(owner), dtype=scores.dtype)  # (M,) each caption with its image
    for start, rows in blocks_of(scores, block):
        own = own_of(start, rows)
        right[own] = rows[owner[own] - start, own]
    best = np.maximum.reduceat(right[order], first[:-1])  # (N,) each image with its nearest caption
    counts = [np.zeros((2, size), dtype=np.int64) for size in scores.shape]  # better and equal ones, of each image and of each caption
    for start, rows in blocks_of(scores, block):
        own, part = own_of(start, rows), slice(start, start + len(rows))
        mine = owner[own] - start
        for kind, compare in enumerate((np.greater, np.equal)[: 1 if ties == "optimistic" else 2]):
            found = compare(rows, best[part, None])
            counts[0][kind, part] = _count(found, 1) - np.bincount(mine, found[mine, own], minlength=len(rows)).astype(np.int64)
            found = compare(rows, right)
            counts[1][kind] += _count(found, 0)
            counts[1][kind, own] -= found[mine, own]  # its own image is no rival
    return {direction: _placed(*found, ties) for direction, found in zip(DIRECTIONS, counts, strict=True)}


def summarise(rank, ks=(1, 5, 10)):
    """Ranks (Q,) to {"R@K": share with rank <= K, "MRR": mean of 1 / rank, "MedR": median rank, "MeanR": mean rank}. ks: whole numbers from 1."""
    rank = checked_ranks(rank)
    report = {f"R@{k}": float((rank <= whole(k, "K of R@K")).mean()) for k in ks}
    return report | {"MRR": float((1 / rank).mean()), "MedR": float(np.median(rank)), "MeanR": float(rank.mean())}


def checked_ranks(rank):
    """Ranks (Q,) as an array; a `UsageError` where there is none, or one of them is below 1 or not finite."""
    given = np.asarray(rank)
    rank = finite_real(rank, "ranks")
    if rank.ndim != 1 or not len(rank) or rank.min() < 1:
        raise UsageError(f"expected at least one rank (Q,), all from 1, found {rank.shape}" + (f", from {rank.min():g} on" if rank.size else ""))
    return given


def retrieval_metrics(similarity, owner, ks=(1, 5, 10), ties="half"):
    """R@K, MRR, MedR and mean rank in both directions, as fractions and places.

    similarity (n_images, n_captions) or `Cosines`, rows are images; owner (n_captions,) the image of each caption. ks: whole numbers from 1; a K above the
    number of candidates counts as all of them. ties: as in `ranks`. Returns {"image_to_text": {"R@1", ..., "MRR", "MedR", "MeanR"},
    "text_to_image": {...}}.
    """
    return {direction: summarise(rank, ks) for direction, rank in ranks(similarity, owner, ties=ties).items()}


def target_ranks(scores, targets, ties="half"):
    """The rank of each row's right column, from 1. scores: (N, C) finite, or `Cosines`. targets: (N,) integers. ties: as in `ranks`.

    A single column gives rank 1 to all. Raises a `UsageError` for NaN, infinity, targets that are no columns, and no rows at all.
    """
    _check_ties(ties)
    scores, targets = as_scores(scores), np.asarray(targets)
    shape = scores.shape
    if len(shape) != 2 or targets.shape != shape[:1]:
        raise UsageError(f"expected scores (N, C) and targets (N,), found {shape} and {targets.shape}")
    if not all(shape) or not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= shape[1]:
        raise UsageError(f"expected targets to be integers, columns of scores {shape}, found {targets.dtype} {targets[:5]}")
    found = []
    for start, rows in blocks_of(finite(scores)):
        right = rows[np.arange(len(rows)), targets[start : start + len(rows)], None]
        found.append(_placed(_count(rows > right, 1), _count(rows == right, 1) - 1, ties))
    return np.concatenate(found)


def top_k_accuracy(scores, targets, ks=(1, 5)):
    """Share of rows whose right column is among the K best. scores: (N, C). targets: (N,) columns. A tie costs, as in `ranks`.

    Returns {"top-1": ..., "top-5": ...}. ks: whole numbers from 1; a K above C counts as all columns.
    """
    rank = target_ranks(scores, targets)
    return {f"top-{k}": float((rank <= whole(k, "k of top-k")).mean()) for k in ks}
