"""The bank of notebook 07."""

import numpy as np
import pytest
import scipy.stats
import torch
from bank import cases, check_verdict

from miniclip_helpers import checks, metrics


def by_rankdata(scores, right):
    """Right: the smallest and the largest rank that ties allow, the middle rounded up."""
    rows = np.arange(len(scores))
    low, high = (scipy.stats.rankdata(-scores, method=method, axis=1)[rows, right] for method in ("min", "max"))
    return np.ceil((low + high) / 2)


def by_torch(scores, right):
    scores, right = torch.as_tensor(scores), torch.as_tensor(right)
    own = scores.gather(1, right[:, None])
    return 1 + (scores > own).sum(1) + (scores == own).sum(1) // 2


def counted(cost):
    """An answer to 07.ranks with another cost of ties."""

    def answer(scores, right):
        own = scores[np.arange(len(scores)), right][:, None]
        return 1 + (scores > own).sum(1) + cost((scores == own).sum(1) - 1)

    return answer


def in_order(scores, right):
    return np.argsort(-scores, axis=1, kind="stable").argsort(1)[np.arange(len(right)), right] + 1


def by_membership(similarity, owner, k):
    """Right: with ranks, and as a dict."""
    rank = metrics.ranks(similarity, owner)
    return {"image_to_text": np.mean(rank["image_to_text"] <= k), "text_to_image": np.mean(rank["text_to_image"] <= k)}


def by_topk(similarity, owner, k):
    similarity, owner = torch.as_tensor(similarity), torch.as_tensor(owner)
    by_image = (owner[similarity.topk(k, 1).indices] == torch.arange(len(similarity))[:, None]).any(1).double().mean()
    return torch.stack([by_image, (similarity.topk(k, 0).indices == owner).any(0).double().mean()])


def recalled(reduce="any", first=False, numbering=True, sign=-1, extra=0, turn=False, divide=None, percent=1):
    """An answer to 07.recall with one thing done otherwise."""

    def answer(similarity, owner, k):
        images, k = len(similarity), k + extra
        place = (sign * similarity).argsort(1).argsort(1)
        mine = owner == np.arange(images)[:, None]
        if first:
            keep = np.zeros_like(owner, dtype=bool)
            keep[np.unique(owner, return_index=True)[1]] = True
            mine = mine & keep
        if not numbering:
            mine = np.eye(images, len(owner), dtype=bool)
        by_image = {"any": lambda: ((place < k) & mine).any(1), "all": lambda: ((place < k) | ~mine).all(1), "share": lambda: ((place < k) & mine).sum(1) / mine.sum(1)}[reduce]().mean()
        found = ((sign * similarity).argsort(0)[:k] == owner).any(0)
        by_text = {None: found.mean(), "images": found.sum() / images, "any": np.mean([found[owner == i].any() for i in range(images)])}[divide]
        return percent * np.array([by_text, by_image] if turn else [by_image, by_text])

    return answer


def kept_first(similarity, owner, k):
    first = np.unique(owner, return_index=True)[1]
    return recalled()(similarity[:, first], owner[first], k)


def by_counts(hits, owner, drawn):
    """Right: how often each picture stands in a draw, as two products."""
    counts = np.array([np.bincount(draw, minlength=owner.max() + 1) for draw in drawn])
    share = (counts @ np.bincount(owner, hits)) / (counts @ np.bincount(owner))
    return tuple(np.percentile(share, (2.5, 97.5)))


def by_lists(hits, owner, drawn):
    captions = [np.flatnonzero(owner == image) for image in range(owner.max() + 1)]
    return np.quantile([hits[np.concatenate([captions[image] for image in draw])].mean() for draw in drawn], [0.025, 0.975])


def shares(hits, owner, drawn):
    return np.bincount(owner, hits)[drawn].sum(1) / np.bincount(owner)[drawn].sum(1)


def ends(values, low=0.025):
    return np.quantile(values, [low, 1 - low])


def bell(of_the_mean=False):
    def answer(hits, owner, drawn):
        found = shares(hits, owner, drawn)
        half = 1.96 * found.std() / (np.sqrt(len(found)) if of_the_mean else 1)
        return found.mean() - half, found.mean() + half

    return answer


def formula(hits, owner, drawn):
    half = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / len(hits))
    return hits.mean() - half, hits.mean() + half


def masked(hits, owner, drawn):
    return ends([hits[np.isin(owner, draw)].mean() for draw in drawn])


def spread(before, after, owner, signs):
    """Right: signs handed to the captions of each picture."""
    flipped = (signs[:, owner] * (after - before)).mean(1)
    return np.mean(np.append(np.abs(flipped) >= abs((after - before).mean()) - 1e-12, True))


def p_by_loop(before, after, owner, signs):
    found, count = abs(sum(after) - sum(before)), 1
    for row in signs:
        count += abs(sum(sign * (after[owner == image] - before[owner == image]).sum() for image, sign in enumerate(row))) >= found - 1e-9
    return torch.tensor(count / (len(signs) + 1), dtype=torch.float64)


def p_with(gained=lambda b, a, o: np.bincount(o, a - b), far=lambda drawn, total: abs(drawn) >= abs(total) - 1e-9, add=(1, 1), turn=lambda p: p):
    """An answer to 07.p_value with one thing done otherwise."""

    def answer(before, after, owner, signs):
        each = gained(before, after, owner)
        return turn((add[0] + far(signs @ each, each.sum()).sum()) / (add[1] + len(signs)))

    return answer


def per_caption(before, after, owner, signs):
    difference = after - before
    drawn = np.tile(signs, 1 + len(owner) // signs.shape[1])[:, : len(owner)] @ difference
    return (1 + (abs(drawn) >= abs(difference.sum()) - 1e-9).sum()) / (1 + len(signs))


BANK = {
    "07.ranks": {
        "right": [by_rankdata, by_torch, counted(lambda tied: np.ceil(tied / 2)), lambda s, r: metrics.target_ranks(s, r).tolist()],
        "wrong": [
            ("count from 0", lambda s, r: by_rankdata(s, r) - 1),
            ("counted as wins", counted(lambda tied: 0)),
            ("counted as losses", counted(lambda tied: tied)),
            ("rounded down", counted(lambda tied: tied // 2)),
            ("not a place", counted(lambda tied: tied / 2)),
            ("ties with itself", counted(lambda tied: (tied + 2) // 2)),
            ("worst candidate", lambda s, r: by_rankdata(-s, r)),
            ("order of their columns", in_order),
            ("*who* stands at place j", lambda s, r: np.argsort(-s, axis=1, kind="stable")[np.arange(len(r)), r]),
            ("who came first", lambda s, r: s.argmax(1)),
            ("for every candidate", lambda s, r: (-s).argsort(1).argsort(1)),
            ("forget `return`", lambda s, r: None),
        ],
    },
    "07.recall": {
        "right": [by_membership, by_topk, recalled()],
        "wrong": [
            ("wrong way round", recalled(turn=True)),
            ("when *one* of its captions", recalled(divide="any")),
            ("only the first caption of an image counts", recalled(first=True)),
            ("threw the others away", kept_first),
            ("average the share", recalled(reduce="share")),
            ("*all* captions", recalled(reduce="all")),
            ("two numberings", recalled(numbering=False)),
            ("*worst*", recalled(sign=1)),
            ("divide by the number of captions", recalled(divide="images")),
            ("In percent", recalled(percent=100)),
            ("R@1 whatever K", lambda s, o, k: recalled()(s, o, 1)),
            ("one candidate too many", recalled(extra=1)),
            ("Two are asked for", lambda s, o, k: recalled()(s, o, k)[0]),
        ],
    },
    "07.interval": {
        "right": [by_counts, by_lists],
        "wrong": [
            ("numbers of *pictures*", lambda h, o, d: ends(h[d].mean(1))),
            ("average over pictures first", lambda h, o, d: ends((np.bincount(o, h) / np.bincount(o))[d].mean(1))),
            ("counts once", masked),
            ("middle 90 %", lambda h, o, d: ends(shares(h, o, d), 0.05)),
            ("smallest to the largest", lambda h, o, d: (shares(h, o, d).min(), shares(h, o, d).max())),
            ("bell curve", bell()),
            ("surer for nothing", bell(of_the_mean=True)),
            ("never looks at `drawn`", formula),
            ("low one first", lambda h, o, d: ends(shares(h, o, d))[::-1]),
            ("In percent", lambda h, o, d: 100 * ends(shares(h, o, d))),
            ("Two ends", lambda h, o, d: shares(h, o, d).mean()),
            ("shares of all draws", shares),
        ],
    },
    "07.p_value": {
        "right": [spread, p_by_loop, p_with()],
        "wrong": [
            ("Then p is never 0", p_with(add=(0, 0))),
            ("not to the number of rows", p_with(add=(1, 0))),
            ("One side only", p_with(far=lambda drawn, total: drawn >= total - 1e-9)),
            (">=, not >", p_with(far=lambda drawn, total: abs(drawn) > abs(total) + 1e-9)),
            ("1 - p", p_with(turn=lambda p: 1 - p)),
            ("signs to captions", per_caption),
            ("averaged within each picture", p_with(gained=lambda b, a, o: np.bincount(o, a - b) / np.bincount(o))),
            ("This is the gain", lambda b, a, o, s: (a - b).mean()),
            ("Doubled", p_with(turn=lambda p: 2 * p)),
            ("per row of signs", lambda b, a, o, s: s @ np.bincount(o, a - b)),
            ("matmul", lambda b, a, o, s: (abs(s @ (a - b)) >= 0).mean()),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_references_are_the_package_s():
    """Each reference against the helper that the notebook goes on with."""
    random = np.random.default_rng(0)
    owner = random.permutation(np.repeat(np.arange(20), random.integers(1, 6, 20)))
    similarity = (random.normal(size=(20, len(owner))) + (owner == np.arange(20)[:, None])).round(1)
    found = metrics.ranks(similarity, owner)
    np.testing.assert_array_equal(checks.exercise("07.ranks").reference(similarity.T, owner), found["text_to_image"])
    similarity += 1e-6 * random.normal(size=similarity.shape)  # no ties: argsort has no rule for them
    figures = metrics.retrieval_metrics(similarity, owner, ks=(3,))
    np.testing.assert_allclose(checks.exercise("07.recall").reference(similarity, owner, 3), [figures[direction]["R@3"] for direction in metrics.DIRECTIONS])
    hits = (found["text_to_image"] == 1).astype(float)
    low, high = checks.exercise("07.interval").reference(hits, owner, random.integers(0, 20, (20_000, 20)))
    assert metrics.bootstrap_interval(found["text_to_image"], 1, owner, draws=20_000) == pytest.approx((low, high), abs=0.01)
    after = (random.random(len(owner)) < 0.7).astype(float)
    p = checks.exercise("07.p_value").reference(hits, after, owner, random.choice([-1, 1], (20_000, 20)))
    assert metrics.sign_flip_test(hits, after, owner) == pytest.approx(p, abs=0.01)
