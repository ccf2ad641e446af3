"""How sure a number is: Wilson's interval of a share, and the bootstrap of any statistic of ranks, over whole images."""

import numpy as np

from ..errors import UsageError
from .ranking import ranks

STATISTICS = ("MRR", "MedR", "MeanR")
BLOCK = 250  # draws at a time where each needs a row of its own: bounds the memory


def drawn_counts(groups, size, draws, seed):
    """How often each group stands in each draw: counts (draws, G), and the group of each query (Q,). Groups are drawn whole."""
    _, group = np.unique(np.arange(size) if groups is None else np.asarray(groups), return_inverse=True)
    many = group.max() + 1
    return np.random.default_rng(seed).multinomial(many, np.full(many, 1 / many), size=draws), group


def means(values, counts, group):
    """The mean of values (Q,) in each draw: (draws,)."""
    return (counts @ np.bincount(group, values)) / (counts @ np.bincount(group))


def _medians(rank, counts, group):
    """The median rank in each draw: (draws,). The ranks are sorted once; a draw says how often each counts."""
    order = np.argsort(rank, kind="stable")
    sorted_rank, sorted_group, found = rank[order], group[order], np.empty(len(counts))
    for start in range(0, len(counts), BLOCK):
        until = counts[start : start + BLOCK][:, sorted_group].cumsum(1)  # (block, Q): how many ranks lie at or before each
        for row, total in enumerate(until[:, -1]):
            middle = np.searchsorted(until[row], [(total - 1) // 2, total // 2], side="right")
            found[start + row] = sorted_rank[middle].mean()
    return found


def _drawn(rank, statistic, counts, group):
    """The statistic in each draw: (draws,)."""
    if statistic == "MedR":
        return _medians(rank, counts, group)
    if statistic == "MRR":
        return means(1 / rank, counts, group)
    if statistic == "MeanR":
        return means(rank.astype(float), counts, group)
    if callable(statistic):
        return np.array([float(statistic(np.repeat(rank, row[group]))) for row in counts])
    if isinstance(statistic, str):
        raise UsageError(f"expected a statistic among {', '.join(STATISTICS)}, a whole number K for R@K, or a function of ranks, found {statistic!r}")
    return means((rank <= (1 if statistic is None else int(statistic))).astype(float), counts, group)


def percentiles(values, level):
    """(low, high): the middle `level` of the drawn values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(rank, statistic=None, groups=None, level=0.95, draws=2000, seed=0):
    """A percentile bootstrap interval (low, high) of a statistic of ranks.

    rank: (Q,). statistic: an int K for R@K (R@1 by default), "MRR", "MedR", "MeanR", or a function of the ranks of one draw. groups:
    (Q,) the image of each query; whole images are drawn, because captions of one image succeed and fail together. Source: Efron 1979.
    """
    rank = np.asarray(rank)
    if rank.ndim != 1 or not len(rank) or (groups is not None and len(groups) != len(rank)):
        raise UsageError(f"expected at least one rank (Q,) and as many groups, found {rank.shape} and {None if groups is None else len(groups)}")
    counts, group = drawn_counts(groups, len(rank), draws, seed)
    return percentiles(_drawn(rank, statistic, counts, group), level)


def retrieval_intervals(similarity, owner, ks=(1, 5, 10), level=0.95, draws=2000, seed=0):
    """95 % intervals in both directions, images drawn: {"image_to_text": {"R@1": [low, high], ..., "MRR": ..., "MedR": ...}, ...}."""
    found, statistics = {}, {f"R@{k}": k for k in ks} | {"MRR": "MRR", "MedR": "MedR"}
    for direction, rank in ranks(similarity, owner).items():
        counts, group = drawn_counts(None if direction == "image_to_text" else owner, len(rank), draws, seed)
        found[direction] = {key: list(percentiles(_drawn(rank, statistic, counts, group), level)) for key, statistic in statistics.items()}
    return found


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
