"""The bank of notebook 02."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bank import cases, check_verdict


def unit(x, dim=-1):
    return x / x.norm(dim=dim, keepdim=True)


def looped_ensemble(features):
    out = []
    for rows in features:
        total = torch.zeros(rows.shape[-1])
        for row in rows:
            total += row / row.norm()
        out.append(total / total.norm())
    return torch.stack(out)


def sorted_top_k(logits, labels, k):
    found = []
    for row in logits.tolist():
        whole = sum(math.exp(value) for value in row)
        found.append(sorted(((label, math.exp(value) / whole) for label, value in zip(labels, row)), key=lambda pair: -pair[1])[:k])
    return found


def argsort_top_k(logits, labels, k, places=lambda order, k: order[::-1][:k], prepare=lambda x: x.softmax(-1), after=lambda p: p):
    p, found = prepare(logits).numpy(), []
    for row, raw in zip(p, logits.numpy()):
        chosen = places(np.argsort(raw), k)
        found.append([(labels[c], v) for c, v in zip(chosen, after(row[chosen]))])
    return found


def wilson_by_hand(predictions, targets, z=1.96):
    n, hits = len(targets), int(np.sum(predictions == targets))
    centre, root = hits + z * z / 2, z * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return hits / n, (centre - root) / (n + z * z), (centre + root) / (n + z * z)


def helper_interval(predictions, targets):
    from miniclip_helpers import metrics

    return np.array([np.mean(predictions == targets), *metrics.proportion_interval(int((predictions == targets).sum()), len(targets))])


def wald(predictions, targets, z=1.96, clip=False, divide=True):
    p = np.mean(predictions == targets)
    half = z * math.sqrt(p * (1 - p) / (len(targets) if divide else 1))
    found = (p, p - half, p + half)
    return np.clip(found, 0, 1) if clip else found


def surprise(cosines, targets, temperatures, scale=lambda c, t: c / t, reduce=lambda picked: -picked.mean(), dim=-1):
    rows = torch.arange(len(targets))
    return [reduce(scale(cosines, t).log_softmax(dim)[rows, targets]).item() for t in temperatures]


def naive_surprise(cosines, targets, temperatures):
    found = []
    for t in temperatures:
        e = (cosines / t).exp()
        found.append(-(e / e.sum(1, keepdim=True))[torch.arange(len(targets)), targets].log().mean())
    return found


BANK = {
    "02.prompt_ensemble": {
        "right": [looped_ensemble, lambda x: unit(unit(x).sum(1)), lambda x: F.normalize(torch.einsum("ctd,ct->cd", x, 1 / x.norm(dim=2)), dim=1)],
        "wrong": [
            ("Normalise once more", lambda x: unit(x).mean(1)),
            ("not normalised before the mean", lambda x: unit(x.mean(1))),
            ("Nothing is normalised", lambda x: x.mean(1)),
            ("over the classes", lambda x: unit(unit(x).mean(0))),
            ("Only the first template", lambda x: unit(x[:, 0])),
            ("mean over the templates is missing", unit),
            ("first normalisation runs over the wrong axis", lambda x: unit(unit(x, 1).mean(1))),
            ("last normalisation runs over the wrong axis", lambda x: unit(unit(x).mean(1), 0)),
            ("largest entry", lambda x: unit(unit(x).amax(1))),
            ("This is the sum", lambda x: unit(x).sum(1)),
            ("forget `return`", lambda x: None),
        ],
    },
    "02.top_k": {
        "right": [sorted_top_k, argsort_top_k, lambda logits, labels, k: argsort_top_k(logits, labels, k, lambda order, k: np.flip(order)[:k])],
        "wrong": [
            ("worst first", lambda x, names, k: argsort_top_k(x, names, k, lambda order, k: order[-k:])),
            ("worst labels", lambda x, names, k: argsort_top_k(x, names, k, lambda order, k: order[:k])),
            ("these are the logits", lambda x, names, k: argsort_top_k(x, names, k, prepare=lambda x: x)),
            ("best k alone", lambda x, names, k: argsort_top_k(x, names, k, prepare=lambda x: x, after=lambda v: np.exp(v) / np.exp(v).sum())),
            ("softmax runs over the pictures", lambda x, names, k: argsort_top_k(x, names, k, prepare=lambda x: x.softmax(0))),
            ("percentages", lambda x, names, k: argsort_top_k(x, names, k, after=lambda v: 100 * v)),
            ("labels themselves", lambda x, names, k: [list(zip(i.tolist(), v.tolist())) for v, i in zip(*x.softmax(-1).topk(k))]),
            ("sigmoid", lambda x, names, k: argsort_top_k(x, names, k, prepare=lambda x: x.sigmoid())),
            ("first labels of the list", lambda x, names, k: [list(zip(names[:k], row[:k])) for row in x.softmax(-1).tolist()]),
            ("Every picture gets", lambda x, names, k: [[(names[c], float(row[c])) for c in x[0].topk(min(k, len(names))).indices] for row in x.softmax(-1)]),
            ("one per picture", lambda x, names, k: argsort_top_k(x[:1], names, k)),
            ("pairs (label, probability)", lambda x, names, k: [names[:k] for _ in x]),
            ("out of range", lambda x, names, k: [[(names[c], float(row[c])) for c in row.topk(k).indices] for row in x.softmax(-1)]),
        ],
    },
    "02.accuracy_interval": {
        "right": [wilson_by_hand, helper_interval, lambda p, t: list(wilson_by_hand(p, t, 1.9599640))],
        "wrong": [
            ("1.96 standard errors", wald),
            ("1.96 standard errors", lambda p, t: wald(p, t, clip=True)),
            ("one standard error", lambda p, t: wilson_by_hand(p, t, 1.0)),
            ("90 % interval", lambda p, t: wilson_by_hand(p, t, 1.645)),
            ("divide the variance by n", lambda p, t: wald(p, t, divide=False)),
            ("percentages", lambda p, t: 100 * np.array(wilson_by_hand(p, t))),
            ("share of mistakes", lambda p, t: (lambda a, low, high: (1 - a, 1 - high, 1 - low))(*wilson_by_hand(p, t))),
            ("changed places", lambda p, t: (lambda a, low, high: (a, high, low))(*wilson_by_hand(p, t))),
            ("The order is accuracy", lambda p, t: (lambda a, low, high: (low, a, high))(*wilson_by_hand(p, t))),
            ("middle of the interval", lambda p, t: (lambda a, low, high: ((low + high) / 2, low, high))(*wilson_by_hand(p, t))),
            ("three numbers", lambda p, t: np.mean(p == t)),
        ],
    },
    "02.mean_surprise": {
        "right": [surprise, lambda c, y, ts: [F.cross_entropy(c / t, y).item() for t in ts],
                  lambda c, y, ts: torch.stack([((c / t).logsumexp(1) - (c / t)[torch.arange(len(y)), y]).mean() for t in ts])],
        "wrong": [
            ("You multiplied", lambda c, y, ts: surprise(c, y, ts, lambda c, t: c * t)),
            ("sign is turned", lambda c, y, ts: surprise(c, y, ts, reduce=lambda v: v.mean())),
            ("summed over the pictures", lambda c, y, ts: surprise(c, y, ts, reduce=lambda v: -v.sum())),
            ("softmax runs over the pictures", lambda c, y, ts: surprise(c, y, ts, dim=0)),
            ("logarithm, with a minus, is missing", lambda c, y, ts: surprise(c, y, ts, reduce=lambda v: v.exp().mean())),
            ("not the other way round", lambda c, y, ts: surprise(c, y, ts, reduce=lambda v: -v.exp().mean().log())),
            ("sure of nonsense", lambda c, y, ts: surprise(c, c.argmax(1), ts)),
            ("This is the accuracy", lambda c, y, ts: [(c.argmax(1) == y).double().mean().item() for _ in ts]),
            ("mean confidence", lambda c, y, ts: [(c / t).softmax(1).amax(1).mean().item() for t in ts]),
            ("overflow", naive_surprise),
            ("mean surprise at each", lambda c, y, ts: ts[int(np.argmin(surprise(c, y, ts)))]),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_references_are_the_helpers():
    """What the exercises ask for is what the package computes."""
    from miniclip_helpers import checks, metrics, zero_shot

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    labels = list("abcdefg")
    assert checks.exercise("02.top_k").reference(logits, labels, 4) == zero_shot.top_labels(logits.softmax(-1), labels, 4)
    predictions, targets = np.array([1, 2, 3, 4, 5]), np.array([1, 2, 3, 0, 0])
    found = checks.exercise("02.accuracy_interval").reference(predictions, targets)
    np.testing.assert_allclose(found[1:], metrics.proportion_interval(3, 5), atol=1e-4)
