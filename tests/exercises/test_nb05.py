"""The bank of notebook 05."""

import numpy as np
import pytest
import torch
from bank import cases, check_verdict

from miniclip_helpers import checks, metrics


def counted_names(scores, name, own, k):
    """Name by name, with Python's own sorting."""
    hits = 0
    for row, place in zip(scores, own, strict=True):
        best = {}
        for value, label in zip(row, name, strict=True):
            best[label] = max(value, best.get(label, -np.inf))
        ranked = sorted(best, key=best.get, reverse=True)
        hits += name[place] in ranked[:k]
    return hits / len(own)


def with_the_metric(scores, name, own, k):
    labels, first, column = np.unique(name, return_index=True, return_inverse=True)
    return metrics.top_k_accuracy(scores[:, first], column[own], (k,))[f"top-{k}"]


def order(scores):
    return np.argsort(-scores, axis=1, kind="stable")


def own_columns(scores, name, own, k):
    return np.mean([place in row[:k] for row, place in zip(order(scores), own, strict=True)])


def names_in_columns(scores, name, own, k):
    return np.mean([name[place] in name[row[:k]] for row, place in zip(order(scores), own, strict=True)])


def worst_columns(scores, name, own, k):
    return names_in_columns(-scores, name, own, k)


def looped_last(states, mask):
    return torch.stack([row[keep][-1] for row, keep in zip(states, mask, strict=True)])


def gathered_last(states, mask):
    last = (mask.int() * torch.arange(mask.shape[1])).argmax(1)
    return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]


def by_distance(embeddings):
    different = []
    for row in embeddings:
        if not any((row - other).norm() < 1e-3 for other in different):
            different.append(row)
    spread = (embeddings - embeddings.mean(0)).square().sum(1).mean().sqrt()
    return spread, len(different)


def by_the_mean(embeddings):
    return [(1 - embeddings.mean(0).square().sum()).clamp_min(0) ** 0.5, len({tuple(row) for row in np.round(embeddings.numpy(), 3) + 0.0})]


def different(x):
    return len(torch.unique((x * 1000).round(), dim=0))


def spread(x):
    return x.var(0, unbiased=False).sum().sqrt()


BANK = {
    "05.name_accuracy": {
        "right": [counted_names, with_the_metric],
        "wrong": [
            ("compare names, not columns", own_columns),
            ("K different names", names_in_columns),
            ("sorted upwards", worst_columns),
            ("One place too many", lambda s, name, own, k: counted_names(s, name, own, k + 1)),
            ("One place too few", lambda s, name, own, k: counted_names(s, name, own, k - 1)),
            ("accuracy at 1", lambda s, name, own, k: counted_names(s, name, own, 1)),
            ("what share of the K answers", lambda s, name, own, k: (name[order(s)[:, :k]] == name[own][:, None]).mean()),
            ("Divide by how many", lambda s, name, own, k: counted_names(s, name, own, k) * len(own)),
            ("percentage", lambda s, name, own, k: 100 * counted_names(s, name, own, k)),
        ],
    },
    "05.last_token_pooling": {
        "right": [looped_last, gathered_last, lambda states, mask: states[range(len(states)), mask.sum(1) - 1]],
        "wrong": [
            ("first token", lambda states, mask: states[:, 0]),
            ("This is the last position", lambda states, mask: states[:, -1]),
            ("One place too far", lambda states, mask: states[torch.arange(len(states)), mask.sum(1).clamp(max=mask.shape[1] - 1)]),
            ("stopped", lambda states, mask: states[torch.arange(len(states)), mask.sum(1)]),
            ("One place too early", lambda states, mask: states[torch.arange(len(states)), (mask.sum(1) - 2).clamp_min(0)]),
            ("mean over the real tokens", lambda states, mask: (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)),
            ("padding included", lambda states, mask: states.mean(1)),
            ("you return zeros", lambda states, mask: (states * mask[..., None])[:, -1]),
            ("Pair them", lambda states, mask: states[:, mask.sum(1) - 1]),
            ("gradient is lost", lambda states, mask: looped_last(states.detach(), mask)),
        ],
    },
    "05.diagnostic": {
        "right": [by_distance, by_the_mean],
        "wrong": [
            ("inside each row", lambda x: (x.std(1, unbiased=False).mean(), different(x))),
            ("all numbers of the table", lambda x: (x.std(unbiased=False), different(x))),
            ("Take the root", lambda x: (spread(x) ** 2, different(x))),
            ("mean of the standard deviations", lambda x: (x.std(0, unbiased=False).mean(), different(x))),
            ("mean is not taken off", lambda x: (x.square().sum(1).mean().sqrt(), different(x))),
            ("The other way round", lambda x: (x.mean(0).norm(), different(x))),
            ("divided by B - 1", lambda x: (x.var(0).sum().sqrt(), different(x))),
            ("eighth decimal", lambda x: (spread(x), len(torch.unique(x, dim=0)))),
            ("different numbers", lambda x: (spread(x), len(torch.unique((x * 1000).round())))),
            ("share", lambda x: (spread(x), different(x) / len(x))),
            ("two numbers", spread),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_references_are_what_the_package_does():
    """The pooling as the towers pool, the accuracy as the metric counts it; the diagnostic at its two limits."""
    from miniclip_helpers.encoders import pool

    states, mask = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) < torch.tensor([6, 1, 3, 5])[:, None]
    torch.testing.assert_close(checks.exercise("05.last_token_pooling").reference(states, mask), pool(states, mask, "last-token"))
    diagnose = checks.exercise("05.diagnostic").reference
    assert diagnose(torch.eye(4)[[2, 2, 2]]) == (0.0, 1)
    found, count = diagnose(torch.cat([torch.eye(4), -torch.eye(4)]))
    assert found == pytest.approx(1) and count == 8
