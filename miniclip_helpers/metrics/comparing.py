"""Two models that were asked the same queries: the interval of the difference, and two tests of "no difference"."""

import numpy as np

from ..errors import UsageError
from .blocks import finite_real, whole
from .intervals import NUMBERS, checked_groups, drawn, means, percentiles

ROUNDING = 1e-12  # of a sum of differences, as a share of their sizes: draws nearer than this are as large
BLOCK = 1000  # permutations at a time at most: bounds the memory


def _paired(before, after):
    before, after = finite_real(before, "scores of the one model"), finite_real(after, "scores of the other model")
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise UsageError(f"expected one score per query from both models, found {before.shape} and {after.shape}")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.abs(before).sum() + np.abs(after).sum()):
            raise UsageError("the scores are so large that their sum is no number any more; divide all of them by the largest")
    return before, after


def paired_interval(before, after, groups=None, level=0.95, draws=2000, seed=0):
    """A bootstrap interval of mean(after) - mean(before) of two models asked the same queries: (gain, low, high).

    before, after: (Q,) hits (0 or 1) or any score per query. groups: (Q,) the image of each query; whole images are drawn, the same
    for both models, so that easy and hard images cancel; of one image alone it has no width. Source: Efron and Tibshirani 1993.
    """
    before, after = _paired(before, after)
    groups = checked_groups(groups, len(before))
    gains, = drawn([lambda counts, group: means(after - before, counts, group)], groups, len(before), draws, seed)
    return float((after - before).mean()), *percentiles(gains, level)


def sign_flip_test(before, after, groups=None, draws=10_000, seed=0):
    """The two-sided p value of "which model is which makes no difference": a permutation test on paired scores.

    before, after: (Q,) hits or scores per query. groups: (Q,) the image of each query. If the models were the same, each image's
    difference could as well have the other sign: signs are drawn, whole images at a time, and p is the share of draws whose mean
    difference is at least as large as the one found. The draw found counts too, so p is at least 1 / (draws + 1), and 1 where nothing
    differs. The unit of the scores makes no difference. Source: Fisher 1935.
    """
    before, after = _paired(before, after)
    groups, draws = checked_groups(groups, len(before)), whole(draws, "draws")
    _, group = np.unique(np.arange(len(before)) if groups is None else groups, return_inverse=True)
    gained = np.bincount(group, after - before)
    gained = gained[gained != 0]  # an image without a difference adds nothing, whatever its sign
    random, found, extreme = np.random.default_rng(seed), abs(gained.sum()) - ROUNDING * np.abs(gained).sum(), 1
    block = max(1, min(BLOCK, NUMBERS // max(1, len(gained))))
    for start in range(0, draws, block):
        signs = random.integers(0, 2, (min(block, draws - start), len(gained))) * 2 - 1
        extreme += int((np.abs(signs @ gained) >= found).sum())
    return extreme / (draws + 1)


def mcnemar_test(before, after):
    """McNemar's exact test for hits: (only_before, only_after, p), two-sided. Only queries on which the models differ tell anything.

    before, after: (Q,) hits, 0 or 1, one independent query per image; where an image asks several queries, take `sign_flip_test`
    with groups. Source: McNemar 1947.
    """
    from scipy.stats import binomtest

    before, after = _paired(before, after)
    if not np.isin(before, (0, 1)).all() or not np.isin(after, (0, 1)).all():
        raise UsageError("McNemar's test counts hits: expected 0 or 1 per query; for other scores take sign_flip_test")
    lost, won = int((before > after).sum()), int((after > before).sum())
    return lost, won, float(binomtest(won, lost + won).pvalue) if lost + won else 1.0
