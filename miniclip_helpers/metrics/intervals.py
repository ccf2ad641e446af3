"""How sure a number is: Wilson's interval of a share, and the bootstrap of any statistic of ranks, over whole images."""

import numpy as np

from ..errors import UsageError
from .blocks import whole
from .ranking import checked_ranks, ranks

STATISTICS = ("MRR", "MedR", "MeanR")
NUMBERS = 2**22  # of a block of draws, each with a row of its own: bounds the memory


def checked_groups(groups, size):
    """`groups` as an array (size,), None for none; a `UsageError` where there are more or fewer."""
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (size,):
        raise UsageError(f"expected as many groups as queries, ({size},), found {groups.shape}")
    return groups


def drawn_counts(many, size, draws, seed):
    """Yield blocks of draws: how often each of `many` groups stands in each of them, (b, many). Groups are drawn whole; size: of the longest row that a draw needs."""
    random, block = np.random.default_rng(seed), max(1, NUMBERS // max(many, size))
    for start in range(0, draws, block):
        yield random.multinomial(many, np.full(many, 1 / many), size=min(block, draws - start))


def drawn(statistics, groups, size, draws, seed):
    """Each statistic, a function of (counts (b, G), group (Q,)) that gives (b,), in each draw: list of (draws,)."""
    draws = whole(draws, "draws")
    _, group = np.unique(np.arange(size) if groups is None else np.asarray(groups), return_inverse=True)
    found = [[of(counts, group) for of in statistics] for counts in drawn_counts(group.max() + 1, size, draws, seed)]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def means(values, counts, group):
    """The mean of values (Q,) in each draw: (b,)."""
    return (counts @ np.bincount(group, values)) / (counts @ np.bincount(group))


def _medians(rank, counts, group):
    """The median rank in each draw: (b,). The ranks are sorted; a draw says how often each counts."""
    order = np.argsort(rank, kind="stable")
    until = counts[:, group[order]].cumsum(1)  # (b, Q): how many ranks lie at or before each
    middle = [np.searchsorted(row, [(row[-1] - 1) // 2, row[-1] // 2], side="right") for row in until]
    return np.asarray(rank)[order][np.array(middle)].mean(1)


def _statistic(rank, statistic):
    """A function of (counts (b, G), group (Q,)) that gives the statistic of each draw: (b,)."""
    if statistic == "MedR":
        return lambda counts, group: _medians(rank, counts, group)
    if callable(statistic):
        return lambda counts, group: np.array([float(statistic(np.repeat(rank, row[group]))) for row in counts])
    if isinstance(statistic, str) and statistic not in STATISTICS:
        raise UsageError(f"expected a statistic among {', '.join(STATISTICS)}, a whole number K for R@K, or a function of ranks, found {statistic!r}")
    at = 1 if statistic is None else statistic
    values = {"MRR": lambda: 1 / rank, "MeanR": lambda: rank.astype(float)}.get(statistic, lambda: (rank <= whole(at, "K of R@K")).astype(float))()
    return lambda counts, group: means(values, counts, group)


def _check_level(level):
    if not 0 < level < 1:
        raise UsageError(f"expected a level above 0 and below 1, like 0.95, found {level}")


def percentiles(values, level):
    """(low, high): the middle `level`, between 0 and 1, of the drawn values."""
    _check_level(level)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(rank, statistic=None, groups=None, level=0.95, draws=2000, seed=0):
    """A percentile bootstrap interval (low, high) of a statistic of ranks.

    rank: (Q,). statistic: an int K for R@K (R@1 by default), "MRR", "MedR", "MeanR", or a function of the ranks of one draw. groups:
    (Q,) the image of each query; whole images are drawn, because captions of one image succeed and fail together. Of one image alone the interval has no width.
    Raises a `UsageError` for ranks below 1, NaN, a K below 1, a level outside 0 to 1. Source: Efron 1979.
    """
    rank = checked_ranks(rank)
    groups = checked_groups(groups, len(rank))
    return percentiles(drawn([_statistic(rank, statistic)], groups, len(rank), draws, seed)[0], level)


def rank_intervals(found, owner, ks=(1, 5, 10), level=0.95, draws=2000, seed=0):
    """95 % intervals of what `ranks` found, images drawn: {"image_to_text": {"R@1": [low, high], ..., "MRR": ..., "MedR": ...}, ...}.

    found: {direction: ranks}. owner: (n_captions,) the image of each caption.
    """
    statistics, intervals = {f"R@{k}": k for k in ks} | {"MRR": "MRR", "MedR": "MedR"}, {}
    for direction, rank in found.items():
        values = drawn([_statistic(rank, kind) for kind in statistics.values()], None if direction == "image_to_text" else owner, len(rank), draws, seed)
        intervals[direction] = {key: list(percentiles(drawn_, level)) for key, drawn_ in zip(statistics, values, strict=True)}
    return intervals


def retrieval_intervals(similarity, owner, ks=(1, 5, 10), level=0.95, draws=2000, seed=0):
    """`rank_intervals` of a similarity (n_images, n_captions) or `Cosines`."""
    return rank_intervals(ranks(similarity, owner), owner, ks, level, draws, seed)


def proportion_interval(hits, n, level=0.95):
    """Wilson's interval of a share: `hits` right of `n`. Returns (low, high) in [0, 1]. Source: Wilson 1927.

    >>> [round(x, 3) for x in proportion_interval(25, 64)]
    [0.281, 0.513]
    """
    from scipy.stats import norm

    if not 0 <= hits <= n or not 1 <= n < np.inf:
        raise UsageError(f"expected 0 <= hits <= n and n >= 1, found hits {hits}, n {n}")
    _check_level(level)
    z = norm.ppf(0.5 + level / 2)
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))
