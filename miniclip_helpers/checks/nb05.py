"""Exercises of notebook 05: accuracy when names repeat, pooling at the last real token, and the diagnostic that finds a collapse."""

import numpy as np
import torch

from .core import Exercise, Wrong, call, compare


def name_accuracy(scores, name, own, k):
    found, first = np.unique(name, return_index=True)
    one_each = scores[:, first]
    right = scores[np.arange(len(scores)), own]
    rank = 1 + (one_each > right[:, None]).sum(1)
    return float((rank <= k).mean())


def _catalogue(random):
    """Scores of pictures for a catalogue in which names repeat: equal names have equal scores, as equal texts do."""
    names, pictures, k = int(random.integers(12, 18)), int(random.integers(40, 60)), int(random.integers(2, 5))
    name = random.permutation([*range(names), *random.choice(names, size=names // 2, replace=False), *[0] * 4, *[1] * 3])
    own = random.integers(0, len(name), size=pictures)
    by_name = random.normal(size=(pictures, names))
    by_name[np.arange(pictures), name[own]] += 1.0  # a model that knows something
    return by_name[:, name], name, own, k, by_name


def _counted(scores, name, own, k, by_name):
    """The accuracy, counted name by name, and what each mistake would find in its place."""
    rows, best = range(len(own)), np.argsort(-scores, axis=1, kind="stable")

    def columns(order):
        return float(np.mean([own[row] in order[row, :k] for row in rows]))

    def names(order):
        return float(np.mean([name[own[row]] in name[order[row, :k]] for row in rows]))

    ahead = np.array([sum(by_name[row] > by_name[row, name[own[row]]]) for row in rows])  # how many names score better
    precision = float((name[best[:, :k]] == name[own][:, None]).mean())
    wrong = [columns(best), names(best), names(best[:, ::-1]), columns(best[:, ::-1]), *(float(np.mean(ahead < depth)) for depth in (k + 1, k - 1, 1)), precision]
    return float(np.mean(ahead < k)), wrong


def grade_name_accuracy(answer, random):
    """The share of pictures whose name is among the K best different names; drawn anew until each mistake has a number of its own."""
    while True:
        *given, by_name = _catalogue(random)
        expected, wrong = _counted(*given, by_name)
        if len({round(value, 9) for value in (expected, *wrong)}) == 1 + len(wrong):
            break
    scores, name, own, k = given
    found = call(answer, scores, name, own, k)
    compare(found, expected, [
        (wrong[0], "You ask for the picture's own column. A twin with the same name says the same, and is as right: compare names, not columns."),
        (wrong[1], "You take the K best columns, and a name that stands five times fills five of the places. K different names are asked for: one column of each."),
        (wrong[2], "The columns are sorted upwards, so you look at the worst. The best scores are the largest."),
        (wrong[3], "The columns are sorted upwards, so you look at the worst. The best scores are the largest."),
        (wrong[4], "One place too many: the best name has rank 1, and rank K still counts. If nobody is ahead the rank is 1, not 0."),
        (wrong[5], "One place too few: a name of rank K is among the K best."),
        (wrong[6], "This is the accuracy at 1. Use k."),
        (wrong[7], "You count what share of the K answers is right. One right answer among the K is all that is asked for."),
        (expected * len(own), "You counted the pictures. Divide by how many there are."),
        (100 * expected, "A percentage. Give the share, from 0 to 1."),
        (1 - expected, "This is the share of misses."),
    ], what="the accuracy", rtol=1e-9, atol=1e-9)


def last_token_pooling(states, mask):
    last = mask.long().sum(dim=1) - 1
    return states[torch.arange(len(states)), last]


def grade_last_token_pooling(answer, random):
    """Texts of several lengths, one as long as the batch and one of a single token; what is taken is compared row by row."""
    batch, longest, width = int(random.integers(5, 8)), int(random.integers(6, 9)), int(random.integers(3, 6))
    lengths = random.permutation([longest, 1, 2, *random.integers(3, longest, size=batch - 3)])
    mask = torch.tensor(np.arange(longest) < lengths[:, None])
    states = torch.tensor(random.normal(size=(batch, longest, width)), dtype=torch.float32, requires_grad=True)
    found = call(answer, states, mask)
    x, keep = states.detach().double().numpy(), mask.numpy()
    pick = lambda places: np.stack([x[row, place] for row, place in enumerate(places)])  # noqa: E731
    total = (x * keep[..., None]).sum(1)
    compare(found, pick(lengths - 1), [
        (x[:, 0], "This is the first token. In a causal model it has seen nothing but itself: whatever follows, it says the same."),
        (x[:, -1], "This is the last position, and that is padding in all but the longest texts. Count the real tokens of each row: mask.sum(1)."),
        (x[:, longest - 2], "This is the same place in each row. The texts end at different places: count the real tokens of each."),
        (pick(np.minimum(lengths, longest - 1)), "One place too far, on the first padding: positions count from 0, so the last of n tokens stands at n - 1."),
        (pick(np.maximum(lengths - 2, 0)), "One place too early: with n real tokens the last stands at n - 1."),
        (pick(lengths - 2), "One place too early: with n real tokens the last stands at n - 1 (and -1 is the end of the row)."),
        (total / lengths[:, None], "This is the mean over the real tokens. It is a good pooling too, but the last token is asked for."),
        (x.mean(1), "This is the mean over all positions, padding included."),
        (total, "This is the sum over the real tokens. One of them is asked for, the last."),
        (np.where(keep[:, -1:], x[:, -1], 0), "Where a row is padded you return zeros: the padding was blanked, and then the last position taken all the same."),
        (np.where(keep[..., None], x, -np.inf).max(1), "This is the largest value of each feature. One token is asked for, whole."),
        (lambda: x[:, int(lengths.max()) - 1], "You counted once for the whole batch. Each row has its own length."),
        (lambda: np.stack([x[:, place] for place in lengths - 1], 1), "states[:, last] takes each of the places out of each row. Pair them: states[torch.arange(B), last]."),
    ], what="the pooled states", rtol=1e-5, atol=1e-6)
    if not getattr(found, "requires_grad", False):
        raise Wrong("The values are right, but the gradient is lost (numpy, .detach() or .item()): the text tower could not learn. Stay in torch.")




def diagnostic(embeddings):
    spread = embeddings.var(dim=0, unbiased=False).sum().sqrt()
    different = len(torch.unique((embeddings * 1000).round(), dim=0))
    return float(spread), different


def _batch(random, kinds, rows, width):
    """(rows, width) unit rows of `kinds` kinds, with rounding noise, as a network's outputs have."""
    centre = random.normal(size=width)
    base = random.normal(size=(kinds, width)) + (0 if kinds == 1 else random.uniform(0.5, 1.5)) * centre
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    places = random.permutation([*range(kinds), *random.integers(0, kinds, size=rows - kinds)])
    return base[places] + random.normal(size=(rows, width)) * 1e-9


def grade_diagnostic(answer, random):
    """A healthy batch or one of three kinds, then one in which all rows are alike; the count is known from how the batch was made."""
    rows, width = int(random.integers(12, 20)), int(random.integers(8, 16))
    for kinds in (int(random.choice([3, rows])), 1):
        while True:
            x = _batch(random, kinds, rows, width)
            sure = all(len(np.unique((x * 10**d).round(), axis=0)) == kinds for d in (3, 4, 5))  # no value on the edge of a rounding
            if sure and (kinds == 1 or _apart(x)):
                break
        _judge_diagnostic(call(answer, torch.tensor(x)), x, kinds)


def _apart(x):
    """Whether the right spread and the mistakes in it are different numbers in this batch, so that each gets its own hint."""
    length, spread = np.linalg.norm(x.mean(0)), np.sqrt(x.var(0).sum())
    values = np.sort([spread, spread**2, spread * np.sqrt(len(x) / (len(x) - 1)), x.std(1).mean(), x.std(), x.std(0).mean(), x.std(0).sum(), 1, length, 1 - length])
    return np.diff(values).min() > 5e-3


def _judge_diagnostic(found, x, kinds):
    """The spread by distances from the mean, then the count."""
    try:
        spread, different = found
    except (TypeError, ValueError):
        raise Wrong("Return two numbers: the spread, and how many different rows there are.") from None
    rows, width = x.shape
    expected = np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())
    across = x.std(1)
    compare(spread, expected, what="the spread", rtol=1e-3, atol=1e-3, mistakes=[
        (across.mean(), "This is the spread inside each row. It looks healthy even when all rows are the same. Compare the rows with each other: dim=0."),
        (np.sqrt((across**2).sum()), "This is the spread inside each row. It looks healthy even when all rows are the same. Compare the rows with each other: dim=0."),
        (np.sqrt((across**2).mean() * width), "This is the spread inside each row. It looks healthy even when all rows are the same. Compare the rows with each other: dim=0."),
        (x.std(), "You mixed all numbers of the table. Take the deviation of each column over the batch, dim=0."),
        (expected**2, "These are the summed variances. Take the root, so that it is a length."),
        (x.std(0).mean(), "This is the mean of the standard deviations, and shrinks as rows grow longer. Add up the variances, then take the root."),
        (x.std(0).sum(), "You added the standard deviations. Add their squares, then take the root, as for a length."),
        (np.sqrt((x**2).sum(1).mean()), "The mean is not taken off, so every batch of unit rows has spread 1."),
        (np.linalg.norm(x.mean(0)), "This is the length of the mean row: 1 when all rows are the same, small when they spread. The other way round."),
        (expected * np.sqrt(rows / (rows - 1)), "You divided by B - 1. Here the batch is all there is: divide by B (unbiased=False)."),
        (1 - np.linalg.norm(x.mean(0)), "You took the length of the mean from 1. The spread is the root of the summed variances."),
    ])
    compare(different, kinds, what="the number of different rows", rtol=0, atol=0.01, mistakes=[
        (len(np.unique(x, axis=0)), "Rows that differ in the eighth decimal are counted as different. Round first: what differs by less than a thousandth is the same."),
        (len(np.unique((x * 1000).round())), "These are the different numbers. Count different rows: torch.unique(..., dim=0)."),
        (len(np.unique(x.round(), axis=0)), "You rounded to whole numbers, and unit rows are smaller than that. Round to thousandths."),
        (kinds / rows, "This is the share. Give the number."),
        (rows, "This is the number of rows. How many of them are different?"),
        (rows - kinds, "These are the repetitions. Count the different rows."),
    ])


EXERCISES = (
    Exercise(
        "05.name_accuracy", "accuracy when names repeat", points=2, minutes=10, level="core", needs="sorting, np.unique, the rank of notebook 04",
        hints=("A catalogue with twins has more columns than names. Keep one column for each name before you rank.",
               "np.unique(name, return_index=True) also gives the first column of each name; equal names have equal scores, so any of their columns will do.",
               "right = scores[np.arange(N), own]; rank = 1 + (scores[:, first] > right[:, None]).sum(1); the answer is (rank <= k).mean()"),
        grade=grade_name_accuracy, reference=name_accuracy,
        explanation="Equal texts have equal embeddings, so no model can tell twins apart; counting the twin as wrong only measures how many twins there are. "
                    "Ranking different names also keeps K honest: otherwise one name that stands sixteen times takes sixteen of the hundred places.",
        passed="A twin is a right answer, and takes one place only."),
    Exercise(
        "05.last_token_pooling", "the last real token", points=2, minutes=6, level="core", needs="boolean masks, indexing with two lists",
        hints=("How many real tokens has each row? The mask knows.",
               "mask.sum(1) - 1 is the place of the last real token, one number per row.",
               "Pair row and place: states[torch.arange(len(states)), last]"),
        grade=grade_last_token_pooling, reference=last_token_pooling,
        explanation="In a causal model a position sees itself and what stands before it. Only the last real token has read the whole text; the first has read "
                    "nothing but itself, and behind the last there is padding. CLIP's own text tower pools at its end mark for the same reason.",
        passed="The one token that has read everything."),
    Exercise(
        "05.diagnostic", "has it collapsed?", points=2, minutes=8, level="core", needs="variance over an axis, torch.unique",
        hints=("Compare the rows with each other, not the numbers inside a row: variances over dim=0.",
               "spread: the variance of each column over the batch (unbiased=False), added up, then the root. different: round to thousandths, then torch.unique with dim=0.",
               "embeddings.var(dim=0, unbiased=False).sum().sqrt(), len(torch.unique((embeddings * 1000).round(), dim=0))"),
        grade=grade_diagnostic, reference=diagnostic,
        explanation="For unit rows the spread runs from 0, all the same, to 1, no common direction; it is the root of 1 minus the squared length of the mean. "
                    "It finds a collapse to one point. A collapse to three points far apart has a healthy spread, so the different rows are counted too. "
                    "Both need no labels and one batch.",
        passed="Two numbers that find a dead tower before the first epoch is over."),
)
