"""Exercises of notebook 02: a class vector from many prompts, the best k, an accuracy with its interval, how likely a temperature makes the truth."""

import numpy as np
import torch
import torch.nn.functional as F

from .core import Exercise, Wrong, array, call, compare

Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


def prompt_ensemble(text_features):
    unit = F.normalize(text_features, dim=-1)
    return F.normalize(unit.mean(dim=1), dim=-1)


def grade_prompt_ensemble(answer, random):
    """Sentence vectors of very different length; sums are made by loops over classes and templates. C, T and D all differ."""
    classes, templates, width = (int(n) for n in random.permutation([4, 5, 6])[:3])
    lengths = random.uniform(0.3, 6, size=(classes, templates, 1))
    features = torch.tensor(random.normal(size=(classes, templates, width)) * lengths, dtype=torch.float32)
    x = features.double().numpy()
    unit = np.array([[row / sum(v * v for v in row) ** 0.5 for row in rows] for rows in x])
    total = np.array([sum(rows[t] for t in range(templates)) for rows in unit])
    norm = lambda v, axis=-1: v / np.sqrt((v ** 2).sum(axis, keepdims=True))  # noqa: E731
    over = "The mean runs over the classes. It must run over the templates of one class: dim=1."
    compare(call(answer, features), norm(total), [
        (total / templates, "The mean of unit vectors is shorter than 1, the shorter the less the prompts agree. Normalise once more, after the mean."),
        (total, "This is the sum, and its length is not 1. Normalise it."),
        (x.mean(1), "Nothing is normalised. Each sentence gets length 1 before the mean, each class vector after it."),
        (norm(x.mean(1)), "The sentences are not normalised before the mean: a sentence with a long vector counts for more than the others, whatever it says."),
        (norm(x[:, 0]), "Only the first template is used: that is one prompt, not an ensemble."),
        (norm(x[:, -1]), "Only the last template is used: that is one prompt, not an ensemble."),
        (unit, "Each sentence has length 1 now. The mean over the templates is missing: one vector per class, (C, D)."),
        (norm(unit.mean(0)), over), (unit.mean(0), over), (norm(x.mean(0)), over),
        (norm(norm(x, 1).mean(1)), "The first normalisation runs over the wrong axis: each sentence, a row of D numbers, gets length 1: dim=-1."),
        (norm(total, 0), "The last normalisation runs over the wrong axis: each class vector, a row, gets length 1: dim=-1."),
        (norm(unit.max(1)), "You took the largest entry in each place. Take the mean."),
        (norm(np.median(unit, axis=1)), "You took the median in each place. Take the mean."),
        (norm(total).T, "The result is turned on its side: rows are classes, (C, D)."),
    ], what="the class vectors")


def top_k(logits, labels, k):
    values, columns = logits.softmax(dim=-1).topk(min(k, len(labels)), dim=-1)
    return [[(labels[c], float(p)) for p, c in zip(row, places)] for row, places in zip(values, columns)]


def _softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _pairs(found, pictures, labels):
    """The learner's lists of (label, probability) as columns (N, k) and probabilities (N, k)."""
    try:
        rows = [[(label, float(value)) for label, value in row] for row in found]
    except (TypeError, ValueError):
        raise Wrong(f"Expected a list per picture, each of pairs (label, probability), found {str(found)[:80]}") from None
    if len(rows) != pictures:
        raise Wrong(f"Expected {pictures} lists, one per picture, found {len(rows)}.")
    strange = [label for row in rows for label, _ in row if label not in labels]
    if strange:
        raise Wrong(f"Expected the labels themselves, found {strange[0]!r}. Look the position up in `labels`.")
    if len({len(row) for row in rows}) != 1:
        raise Wrong("Each picture gets equally many labels.")
    return np.array([[labels.index(label) for label, _ in row] for row in rows]), np.array([[value for _, value in row] for row in rows])


def grade_top_k(answer, random):
    """Fewer pictures than labels, distinct logits; then a k above the number of labels."""
    pictures, count, k = int(random.integers(2, 4)), int(random.integers(6, 9)), int(random.integers(3, 5))
    labels = [str(label) for label in random.permutation(["cat", "dog", "owl", "key", "drum", "pear", "ship", "moon", "hat"])[:count]]
    x = random.permuted(np.tile(np.arange(count) / 2.0, (pictures, 1)), axis=1) + random.uniform(0, 0.3, size=(pictures, count))
    logits, p = torch.tensor(x, dtype=torch.float64), _softmax(x)
    order = np.array([sorted(range(count), key=lambda c: -row[c]) for row in x])
    columns, values = _pairs(call(answer, logits, labels, k), pictures, labels)
    take = lambda table, places: np.take_along_axis(table, places, axis=1)  # noqa: E731
    best = order[:, :k]
    compare(columns, best, [
        (best[:, ::-1], "The right labels, worst first: argsort sorts upwards, and its last k end with the winner. Best first is asked for."),
        (order[:, ::-1][:, :k], "These are the worst labels. argsort sorts upwards: the best stand at its end."),
        (order, f"These are all labels. The best {k} are asked for."),
        (order[:, :1], f"Only the best one. The best {k} are asked for."),
        (order[:, 1 : k + 1], "The best one is missing: slices begin at 0."),
        (np.tile(np.arange(k), (pictures, 1)), "These are the first labels of the list, unsorted. Sort each picture's row by its logits."),
        (np.tile(order[0, :k], (pictures, 1)), "Every picture gets the labels of the first one. Each row has its own order."),
    ], what="the labels (as their places in the list)")
    right, among = take(p, best), take(x, best)
    compare(values, right, [
        (among, "The labels are right, but these are the logits. Probabilities are asked for: a softmax over the labels."),
        (100 * right, "These are percentages. Probabilities from 0 to 1 are asked for."),
        (_softmax(among), "The softmax runs over the best k alone, so that they add up to 1. Take it over all labels first, and choose afterwards."),
        (take(_softmax(x, 0), best), "The softmax runs over the pictures. Each picture shares its own probability among the labels: dim=-1."),
        (take(_softmax(p), best), "The softmax was taken twice, which flattens everything. Once is enough."),
        (take(1 / (1 + np.exp(-x)), best), "This is a sigmoid, a yes or no for each label by itself. A softmax is asked for."),
        (np.log(right), "These are logarithms of probabilities. Take the softmax, not the log-softmax."),
        (right / right.sum(1, keepdims=True), "You divided by the sum of the best k, so that they add up to 1. What the other labels get belongs to the sum too."),
    ], what="the probabilities")
    few = labels[:2]
    columns, _ = _pairs(call(answer, logits[:, :2], few, 5), pictures, few)
    if columns.shape != (pictures, 2):
        raise Wrong("With k = 5 and two labels there are two answers: k counts as at most the number of labels.")


def accuracy_interval(predictions, targets):
    n = len(targets)
    share = float((np.asarray(predictions) == np.asarray(targets)).mean())
    spread = 1.96**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = 1.96 / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    return share, middle - half, middle + half


def _wilson(hits, n, z=Z):
    """The two shares p for which the found share lies exactly z standard errors of p away: the roots of a quadratic."""
    roots = np.roots([n + z * z, -(2 * hits + z * z), hits * hits / n])
    return hits / n, *sorted(float(root.real) for root in roots)


def grade_accuracy_interval(answer, random):
    """A few right, many right, all right. The expected ends are the roots of the quadratic that defines them."""
    n = int(random.integers(20, 160))
    for share in (float(random.uniform(0.1, 0.4)), float(random.uniform(0.6, 0.9)), 1.0):
        hits = max(1, min(round(share * n), n - 1)) if share < 1 else n
        targets = random.integers(0, 10, size=n)
        predictions = np.where(random.permutation(n) < hits, targets, (targets + random.integers(1, 10, size=n)) % 10)
        a, low, high = expected = _wilson(hits, n)
        wald = lambda z, root: (a, a - z * root, a + z * root)  # noqa: B023, E731
        error = (a * (1 - a) / n) ** 0.5
        found = array(call(answer, predictions, targets), "accuracy, low and high")
        if found.shape != (3,):
            raise Wrong(f"Return three numbers: accuracy, low, high. Found shape {found.shape}.")
        compare(found, expected, [
            (wald(1.96, error), "This is accuracy +- 1.96 standard errors. It says +- 0 when all are right, and can leave 0 to 1. Wilson's formula mends both."),
            (np.clip(wald(1.96, error), 0, 1), "This is accuracy +- 1.96 standard errors, cut at 0 and 1: still +- 0 when all are right. Take Wilson's formula."),
            (wald(1.0, error), "This is one standard error to each side, and not Wilson's formula. z = 1.96 for 95 %."),
            (_wilson(hits, n, 1.0), "This is one standard error to each side: a 68 % interval. z = 1.96 for 95 %."),
            (_wilson(hits, n, 1.644854), "This is a 90 % interval. z = 1.96 for 95 %."),
            (_wilson(hits, n, 2.575829), "This is a 99 % interval. z = 1.96 for 95 %."),
            (wald(1.96, (a * (1 - a)) ** 0.5), "You took the spread of one picture. The mean of n pictures spreads less: divide the variance by n."),
            (100 * np.array(expected), "These are percentages. Shares from 0 to 1 are asked for."),
            ((hits, n * low, n * high), "These are counts. Divide by n."),
            ((1 - a, 1 - high, 1 - low), "This is the share of mistakes. The share of right answers is asked for."),
            ((a, high, low), "low and high have changed places."),
            ((low, a, high), "The order is accuracy, low, high."),
            (((low + high) / 2, low, high), "The interval is right. But the accuracy is hits / n: the middle of the interval lies a little nearer to one half."),
        ], what="accuracy, low, high", rtol=1e-4, atol=1e-5)


def mean_surprise(cosines, targets, temperatures):
    rows = torch.arange(len(targets))
    return [float(-(cosines / t).log_softmax(dim=-1)[rows, targets].mean()) for t in temperatures]


def grade_mean_surprise(answer, random):
    """Cosines whose right column is often the best; sums of exponentials by NumPy in float64. One temperature so small that exp overflows."""
    pictures, count = int(random.integers(6, 10)), int(random.integers(4, 6))
    targets = random.integers(0, count, size=pictures)
    cosines = random.uniform(-0.1, 0.2, size=(pictures, count))
    cosines[np.arange(pictures), targets] += random.uniform(0, 0.3, size=pictures)
    temperatures = [0.02, 0.05, 0.1, 0.3, 1.0]
    log_p = lambda t, axis=-1: np.log(_softmax(cosines / t, axis))[np.arange(pictures), targets]  # noqa: E731
    each = lambda use: [float(use(t)) for t in temperatures]  # noqa: E731
    expected = each(lambda t: -log_p(t).mean())
    right = (cosines.argmax(1) == targets).mean()
    best = float(temperatures[int(np.argmin(expected))])
    found = array(call(answer, torch.tensor(cosines), torch.tensor(targets), temperatures), "a number per temperature")
    compare(found, expected, [
        (each(lambda t: -np.log(_softmax(cosines * t))[np.arange(pictures), targets].mean()), "You multiplied by the temperature. Divide: a low temperature is a sharp choice."),
        (each(lambda t: log_p(t).mean()), "The sign is turned: surprise is minus the log-probability, never below 0."),
        (each(lambda t: -log_p(t).sum()), "You summed over the pictures. Take the mean."),
        (each(lambda t: np.exp(log_p(t)).mean()), "This is the mean probability of the right label. The logarithm, with a minus, is missing."),
        (each(lambda t: -np.log(np.exp(log_p(t)).mean())), "First the logarithm of each picture's probability, then the mean; not the other way round."),
        (each(lambda t: -log_p(t, 0).mean()), "The softmax runs over the pictures. Each picture shares its probability among the labels: dim=-1."),
        (each(lambda t: -np.log(_softmax(cosines / t).max(1)).mean()),
         "You took the best label's probability, not the right label's: a model that is sure of nonsense would win. Use `targets`."),
        (each(lambda t: right), "This is the accuracy, and no temperature changes it: dividing by t keeps the order of the labels. Take the probability of the right label."),
        (each(lambda t: _softmax(cosines / t).max(1).mean()), "This is the mean confidence, which is highest at the lowest temperature whatever is true. Use `targets`."),
        (each(lambda t: -(cosines / t)[np.arange(pictures), targets].mean()), "The denominator of the softmax is missing: the other labels must count against it."),
        (best, "This is the best temperature. Return the mean surprise at each of them."),
        (each(lambda t: -log_p(t).mean() / np.log(2)), "These are bits. The natural logarithm is asked for."),
        (each(lambda t: -log_p(1.0).mean()), "The temperature is not used."),
    ], what="the mean surprise per temperature", rtol=1e-4, atol=1e-6)
    sharp = array(call(answer, torch.tensor([[0.9, 0.1]]), torch.tensor([1]), [1e-4]), "a number per temperature")
    if not np.isfinite(sharp).all():
        raise Wrong("At a temperature of 0.0001 the exponentials overflow, or a probability becomes 0. log_softmax, or cross_entropy, stays finite.")


EXERCISES = (
    Exercise(
        "02.prompt_ensemble", "one class vector from many prompts", points=2, minutes=6, level="core", needs="unit rows (notebook 01), a mean over an axis",
        hints=("Three steps: unit sentences, their mean within each class, unit class vectors.",
               "text_features is (C, T, D). Sentences lie along the last axis, templates along axis 1.",
               "F.normalize(text_features, dim=-1), then .mean(dim=1), then F.normalize(..., dim=-1)"),
        grade=grade_prompt_ensemble, reference=prompt_ensemble,
        explanation="The mean of directions is a direction only if each has the same length to begin with. Prompts that agree leave a long mean, prompts that quarrel a "
                    "short one; the second normalisation removes that, so that no class wins for having prompts that agree. The mean happens among vectors, not among "
                    "probabilities, so the C class vectors are all that need be kept (Radford et al. 2021, section 3.1.4).",
        passed="Many sentences, one direction, and each picture still costs one matrix product."),
    Exercise(
        "02.top_k", "the best labels and their probabilities, best first", points=2, minutes=8, level="core", needs="softmax, topk or argsort",
        hints=("First the softmax over all labels of a picture, then the choice of the best.",
               "logits.softmax(dim=-1).topk(k) gives values and columns, best first. k must not exceed the number of labels.",
               "[[(labels[c], float(p)) for p, c in zip(row, places)] for row, places in zip(values, columns)]"),
        grade=grade_top_k, reference=top_k,
        explanation="A softmax is a share among what is offered, so the order of the two steps matters: a softmax over the five best would make them add up to 100 % and hide that "
                    "ninety-five others were on offer. topk sorts best first; argsort sorts upwards, and its last five begin with the fifth best.",
        passed="Best first, and the probabilities are shares among all labels."),
    Exercise(
        "02.accuracy_interval", "an accuracy and how far to trust it", points=2, minutes=8, level="core", needs="mean, square root",
        hints=("accuracy is the mean of predictions == targets. The interval needs that share p, the number n, and z = 1.96.",
               "With s = z * z / n: the middle is (p + s / 2) / (1 + s).",
               "Half the width is z / (1 + s) * sqrt(p * (1 - p) / n + s / (4 * n))."),
        grade=grade_accuracy_interval, reference=accuracy_interval,
        explanation="Wilson asked in 1927: which true shares would make what we saw no more than 1.96 standard errors unusual? The standard error is that of the true "
                    "share, not of the found one, so the interval stays inside 0 to 1 and does not shrink to nothing when all or none are right.",
        passed="No accuracy without n and an interval, ever again."),
    Exercise(
        "02.mean_surprise", "how surprising a temperature makes the truth", points=2, minutes=8, level="stretch", needs="log-softmax, indexing",
        hints=("For each temperature: divide the cosines by it, log-softmax over the labels, pick the right label of each picture, mean, minus.",
               "log_p[torch.arange(N), targets] picks one entry per row.",
               "F.cross_entropy(cosines / t, targets) is all of it in one call."),
        grade=grade_mean_surprise, reference=mean_surprise,
        explanation="The mean of minus log-probability punishes the model for being sure and wrong more than for being unsure and wrong. So its lowest point lies where "
                    "confidence matches accuracy. The accuracy itself cannot choose a temperature: it does not change with it.",
        passed="The temperature at the lowest point is the calibrated one."),
)
