"""Evaluate a model on a dataset, in both directions, with intervals and the chance level beside every number; compare two; look at single answers."""

import dataclasses

import numpy as np

from . import embedding, metrics
from .errors import DataError, UsageError
from .metrics.blocks import whole
from .metrics.intervals import checked_groups
from .metrics.ranking import checked, checked_ranks

KS = (1, 5, 10)
WHOLE = 2**25  # numbers of a similarity that may be held at once, 128 MB: all of Flickr8k's test, six times
WHICH = ("all", "right at 1", "wrong at 1", "rank > 10", "worst")


def _embeddings(model, dataset):
    """(N, D) and (M, D), unit rows, of every picture and every caption."""
    without = [name for name, row in zip(dataset.names, dataset.captions) if not row]
    if without:
        raise DataError(f"{len(without)} of {len(dataset)} pictures of {dataset.name} have no caption; evaluation needs one each", without)
    return embedding.image_embeddings(model, dataset), embedding.text_embeddings(model, dataset.all_captions)


def similarity(model, dataset):
    """Cosines (n_images, n_captions) of every picture with every caption of the dataset."""
    images, texts = _embeddings(model, dataset)
    return (images @ texts.T).numpy()


def cosines(model, dataset):
    """`similarity` where it is small, else `metrics.Cosines`, which serve in its place and are never whole in memory."""
    images, texts = _embeddings(model, dataset)
    return (images @ texts.T).numpy() if len(images) * len(texts) <= WHOLE else metrics.Cosines(images.numpy(), texts.numpy())


def report(matrix, owner, ks=KS, seed=0):
    """Metrics, 95 % intervals (bootstrap over images) and chance of a similarity (n_images, n_captions), a matrix or `metrics.Cosines`."""
    matrix = metrics.as_scores(matrix)
    keep, found = [f"R@{k}" for k in ks] + ["MRR", "MedR"], metrics.ranks(matrix, owner)
    images, captions = matrix.shape
    points = {direction: metrics.summarise(rank, ks) for direction, rank in found.items()}
    return {"n_images": int(images), "n_captions": int(captions)} | {
        direction: {key: points[direction][key] for key in keep} for direction in metrics.DIRECTIONS
    } | {"interval95": metrics.rank_intervals(found, owner, ks, seed=seed), "chance": metrics.chance(images, owner, ks)}


def evaluate(model, dataset, seed=0, ks=KS):
    """The report of a model on a dataset: what `miniclip evaluate --json` writes, fractions between 0 and 1.

    {"n_images", "n_captions", "image_to_text": {"R@1", "R@5", "R@10", "MRR", "MedR"}, "text_to_image": {...}, "interval95":
    {direction: {"R@1": [low, high], ..., "MRR", "MedR"}}, "chance": {direction: {"R@1": ..., "MRR", "MeanR"}}}. ks: (1, 100) adds R@100.
    """
    return report(cosines(model, dataset), np.asarray(dataset.owner), ks, seed)


def as_table(found):
    """The report as a pandas table that reads well: a row per direction, R@K in percent with interval and chance."""
    import pandas

    rows = {}
    for direction in metrics.DIRECTIONS:
        row = {}
        for key, value in found[direction].items():
            if key.startswith("R@"):
                low, high = found["interval95"][direction][key]
                row[f"{key} %"] = f"{100 * value:.1f} [{100 * low:.0f}, {100 * high:.0f}]"
            else:
                row[key] = f"{value:.2f}" if key == "MRR" else f"{value:g}"
        row["chance R@1 %"] = f"{100 * found['chance'][direction]['R@1']:.2f}"
        rows[direction.replace("_", " ")] = row
    return pandas.DataFrame(rows).T


def compare(before, after, owner, k=1, seed=0):
    """Two models asked the same: {direction: {"before", "after", "gain", "interval95", "p"}} of R@K, paired, whole images drawn.

    before, after: similarity (n_images, n_captions) or `metrics.Cosines` of both, rows and columns in the same order. p: `metrics.sign_flip_test`.
    """
    k = whole(k, "k")
    before, after = metrics.as_scores(before), metrics.as_scores(after)
    if before.shape != after.shape:
        raise UsageError(f"expected the same pictures and captions from both models, found {before.shape} and {after.shape}")
    first, second, found = metrics.ranks(before, owner), metrics.ranks(after, owner), {}
    for direction in metrics.DIRECTIONS:
        hits, groups = (first[direction] <= k, second[direction] <= k), None if direction == "image_to_text" else owner
        gain, low, high = metrics.paired_interval(*hits, groups, seed=seed)
        found[direction] = {"before": float(hits[0].mean()), "after": float(hits[1].mean()), "gain": gain, "interval95": [low, high],
                            "p": metrics.sign_flip_test(*hits, groups, seed=seed)}
    return found


def by_group(rank, labels, owner=None, k=1, seed=0):
    """R@K of each group of queries: {label: {"n", "R@K", "interval95", "MedR"}}, in the order of the labels' first appearance.

    rank: (Q,). labels: Q labels, such as the length of each caption. owner: (Q,) the image of each query, drawn whole.
    """
    rank, labels, k = checked_ranks(rank), list(labels), whole(k, "k")
    if len(labels) != len(rank):
        raise UsageError(f"expected one label per rank, found {len(labels)} labels and {len(rank)} ranks")
    owner, found = np.arange(len(rank)) if owner is None else checked_groups(owner, len(rank)), {}
    for label in dict.fromkeys(labels):
        own = np.array([other == label for other in labels])
        found[label] = {"n": int(own.sum()), f"R@{k}": float((rank[own] <= k).mean()), "MedR": float(np.median(rank[own])),
                        "interval95": list(metrics.bootstrap_interval(rank[own], k, owner[own], seed=seed))}
    return found


@dataclasses.dataclass(frozen=True)
class Answer:
    """One candidate that a query was given: the place in the dataset, its score, and whether it is right."""

    candidate: int
    score: float
    right: bool


def answers(matrix, owner, direction, query, count=5):
    """The best `count` answers to one query, best first. direction: "image_to_text" (query: an image) or "text_to_image" (query: a caption).

    Candidates are captions or images; a `count` above their number gives all. Equal scores stand in the order of the candidates, a right one last of its
    equals, as a tie is not won.
    """
    if direction not in metrics.DIRECTIONS:
        raise UsageError(f"expected a direction among {', '.join(metrics.DIRECTIONS)}, found {direction!r}")
    scores, owner = checked(matrix, owner)
    if isinstance(query, bool) or not isinstance(query, (int, np.integer)) or not 0 <= query < scores.shape[direction == "text_to_image"]:
        raise UsageError(f"expected a query from 0 to {scores.shape[direction == 'text_to_image'] - 1}, found {query!r}")
    scores = scores.row(query) if direction == "image_to_text" else scores.column(query)
    right = owner == query if direction == "image_to_text" else np.arange(len(scores)) == owner[query]
    order = np.lexsort((np.arange(len(scores)), right, -scores))[: whole(count, "count")]
    return [Answer(int(place), float(scores[place]), bool(right[place])) for place in order]


def select(rank, which="all"):
    """The queries (rows) to look at: "all", "right at 1", "wrong at 1", "rank > 10" in their own order; "worst": all, the worst rank first."""
    rank = np.asarray(rank)
    if which not in WHICH:
        raise UsageError(f"expected one of {', '.join(map(repr, WHICH))}, found {which!r}")
    if which == "worst":
        return np.argsort(-rank, kind="stable")
    return np.flatnonzero({"all": rank > 0, "right at 1": rank == 1, "wrong at 1": rank > 1, "rank > 10": rank > 10}[which])
