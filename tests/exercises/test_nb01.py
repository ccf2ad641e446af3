"""The bank of notebook 01. Torch answers, some written with NumPy habits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bank import cases, check_verdict


def unit(x, dim=-1):
    return x / x.norm(dim=dim, keepdim=True)


def einsum_logits(image, text, log_scale):
    return torch.einsum("id,td->it", unit(image), unit(text)) * torch.exp(log_scale)


def looped_norm(features):
    out = torch.empty_like(features)
    for row in range(len(features)):
        out[row] = features[row] / torch.sqrt((features[row] ** 2).sum())
    return out


def logsumexp_loss(image, text, scale):
    m = scale * image @ text.T
    return (m.logsumexp(1) + m.logsumexp(0) - 2 * m.diagonal()).mean() / 2


def naive_softmax_loss(image, text, scale):
    e = (scale * image @ text.T).exp()
    return -((e / e.sum(1, keepdim=True)).diagonal().log().mean() + (e / e.sum(0)).diagonal().log().mean()) / 2


def one_way(image, text, scale):
    m = scale * image @ text.T
    return F.cross_entropy(m, torch.arange(len(m)))


def both(image, text, scale, reduction="mean", prepare=lambda m: m):
    m = scale * image @ text.T
    target = torch.arange(len(m))
    return F.cross_entropy(prepare(m), target, reduction=reduction) + F.cross_entropy(prepare(m.T), target, reduction=reduction)


def looped_target(groups):
    rows = [[float(a == b) for b in groups] for a in groups]
    return [[value / sum(row) for value in row] for row in rows]


def same(groups):
    return (groups[:, None] == groups[None, :]).float()


def no_self(groups):
    table = same(groups) - torch.eye(len(groups))
    return table / table.sum(1, keepdim=True).clamp_min(1)


BANK = {
    "01.l2_normalise": {
        "right": [lambda x: F.normalize(x, dim=1), looped_norm, lambda x: (x.T / (x * x).sum(1).sqrt()).T],
        "wrong": [
            ("Nothing has changed", lambda x: x),
            ("wrong axis", lambda x: unit(x, dim=0)),
            ("one length for the whole batch", lambda x: x / x.norm()),
            ("squared length", lambda x: x / (x * x).sum(-1, keepdim=True)),
            ("L1", lambda x: F.normalize(x, p=1, dim=-1)),
            ("softmax", lambda x: x.softmax(-1)),
            ("standardising", lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)),
            ("These are the lengths", lambda x: x.norm(dim=-1)),
            (("divided by the length of a row", "RuntimeError"), lambda x: x / x.norm(dim=-1)),
        ],
    },
    "01.logits": {
        "right": [einsum_logits, lambda i, t, s: s.exp() * F.cosine_similarity(i[:, None], t[None], dim=-1),
                  lambda i, t, s: (F.normalize(i).numpy() @ F.normalize(t).numpy().T) * np.exp(s.item())],
        "wrong": [
            ("rows are not normalised: long", lambda i, t, s: s.exp() * i @ t.T),
            ("exp is missing: log", lambda i, t, s: s * unit(i) @ unit(t).T),
            ("exp was applied twice", lambda i, t, s: s.exp().exp() * unit(i) @ unit(t).T),
            ("wrong axis", lambda i, t, s: s.exp() * unit(i, 0) @ unit(t, 0).T),
            ("already 1 / temperature", lambda i, t, s: unit(i) @ unit(t).T / s.exp()),
            ("Only the pictures", lambda i, t, s: s.exp() * unit(i) @ t.T),
            ("Only the texts", lambda i, t, s: s.exp() * i @ unit(t).T),
            ("Rows are texts", lambda i, t, s: s.exp() * unit(t) @ unit(i).T),
            ("already a softmax", lambda i, t, s: (s.exp() * unit(i) @ unit(t).T).softmax(-1)),
            ("These are the cosines", lambda i, t, s: unit(i) @ unit(t).T),
            ("RuntimeError", lambda i, t, s: s.exp() * unit(i).T @ unit(t)),
        ],
    },
    "01.clip_loss": {
        "right": [logsumexp_loss, lambda i, t, s: both(i, t, s) / 2,
                  lambda i, t, s: -((s * i @ t.T).log_softmax(1) + (s * i @ t.T).log_softmax(0)).diagonal().mean() / 2],
        "wrong": [
            ("One direction only", one_way),
            ("batch of pictures only", lambda i, t, s: one_way(t, i, s)),
            ("not 2 log N", lambda i, t, s: both(i, t, s)),
            ("summed over the batch", lambda i, t, s: both(i, t, s, "sum") / 2),
            ("scale is missing", lambda i, t, s: both(i, t, 1.0) / 2),
            ("already 1 / temperature", lambda i, t, s: both(i, t, 1 / s) / 2),
            ("already exponentiated", lambda i, t, s: both(i, t, s.exp()) / 2),
            ("has one inside", lambda i, t, s: both(i, t, s, prepare=lambda m: m.softmax(-1)) / 2),
            ("sign", lambda i, t, s: -both(i, t, s) / 2),
            ("gradient is lost", lambda i, t, s: (both(i, t, s) / 2).item()),
            ("gradient is lost", lambda i, t, s: both(i.detach(), t.detach(), s) / 2),
            ("overflows", naive_softmax_loss),
            ("only pulls", lambda i, t, s: -(s * (i * t).sum(1)).mean()),
        ],
    },
    "01.multi_positive_target": {
        "right": [looped_target, lambda g: F.normalize(same(g), p=1, dim=1), lambda g: (same(g).numpy() / same(g).numpy().sum(1)[:, None])],
        "wrong": [
            ("calls a second picture", lambda g: torch.eye(len(g))),
            ("diagonal target as numbers", lambda g: torch.arange(len(g))),
            ("rows add up to more than 1", same),
            ("divided by the batch size", lambda g: same(g) / len(g)),
            ("whole table", lambda g: same(g) / same(g).sum()),
            ("left out", no_self),
            ("softmax", lambda g: same(g).softmax(1)),
            ("These are the wrong answers", lambda g: 1 - same(g)),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_references_are_the_helpers():
    """What the exercises ask for is what the package computes."""
    from miniclip_helpers import checks, losses

    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(6, 5, generator=generator), dim=-1) for _ in range(2))
    torch.testing.assert_close(checks.exercise("01.clip_loss").reference(image, text, 9.0), losses.clip_loss(image, text, 9.0))
    groups = torch.tensor([3, 1, 3, 0, 3, 1])
    target, logits = checks.exercise("01.multi_positive_target").reference(groups), 9 * image @ text.T
    by_hand = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(by_hand, losses.multi_positive_loss(image, text, 9.0, groups))
