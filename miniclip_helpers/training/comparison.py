"""What several seeds of one pair of towers found, and a table of such pairs: shares with their intervals, time and size beside them."""

import dataclasses
import time

import numpy as np

from .. import metrics


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One pair of towers, trained under S seeds and asked the same T questions.

    rank: (S, T) the rank of the right answer, from 1. seconds: of training, per seed. learned: weights that learn. loss: of the last steps.
    last: whatever the caller keeps of the last run.
    """

    rank: np.ndarray
    seconds: float = float("nan")
    learned: int = 0
    loss: float = float("nan")
    last: object = None

    def share(self, k=100):
        """(share of ranks up to k, low, high): the mean over the seeds, and its 95 % interval.

        The interval draws questions, each with its answers under all seeds: the same question is hard for all of them.
        """
        seeds, asked = self.rank.shape
        low, high = metrics.bootstrap_interval(self.rank.ravel(), k, groups=np.tile(np.arange(asked), seeds))
        return float((self.rank <= k).mean()), low, high

    def seeds(self, k=100):
        """(lowest, highest) of the seeds' own shares."""
        shares = (self.rank <= k).mean(1)
        return float(shares.min()), float(shares.max())


def comparison_table(rows, k=100):
    """{label: Comparison} as a pandas table of strings: top-1 and top-k, the interval over questions and the range over seeds of the latter."""
    import pandas

    lines = {}
    for label, found in rows.items():
        (value, low, high), (least, most) = found.share(k), found.seeds(k)
        lines[label] = {"top-1": f"{found.share(1)[0]:.1%}", f"top-{k}": f"{value:.1%}", "95 % interval": f"{low:.1%} to {high:.1%}",
                        "lowest to highest seed": f"{least:.1%} to {most:.1%}", "seconds": f"{found.seconds:.1f}", "weights that learn": f"{found.learned / 1e6:.2f} M"}
    return pandas.DataFrame.from_dict(lines, orient="index")


def percent_table(shares):
    """Shares as a pandas table of percentages: {column: {row: share}}, or {(learning rate, width, batch): share} with a row per learning rate."""
    import pandas

    if isinstance(next(iter(shares)), tuple):
        found = pandas.Series(shares, index=pandas.MultiIndex.from_tuples(shares, names=["learning rate", "width", "batch"])).unstack(["width", "batch"])
    else:
        found = pandas.DataFrame(shares)
    return found.map("{:.1%}".format)


def quickest(work, *inputs, times=3):
    """The seconds that work(*inputs) takes, the least of several times: what the others took longer, the machine spent elsewhere."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        work(*inputs)
        spent.append(time.perf_counter() - start)
    return min(spent)
