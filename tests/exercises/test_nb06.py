"""The bank of notebook 06."""

import copy

import numpy as np
import pytest
import torch
from bank import cases, check_verdict

from miniclip_helpers import checks, finetuning, metrics


def cosines(images, texts):
    return texts @ images.T


def one_column_each(images, texts, owner):
    """Right: a matrix with one column per picture, in the order of their numbers."""
    places = [list(owner).index(picture) for picture in range(owner.max() + 1)]
    return float(np.mean((texts @ images[places].T).argmax(1) == owner))


def by_ranks(images, texts, owner):
    places = np.unique(owner, return_index=True)[1]
    return metrics.retrieval_metrics(images[places] @ texts.T, owner)["text_to_image"]["R@1"]


def by_torch(images, texts, owner):
    images, texts, owner = map(torch.as_tensor, (images, texts, owner))
    return (owner[(texts @ images.T).argmax(1)] == owner).float().mean()


def any_caption(images, texts, owner):
    right = owner[cosines(images, texts).argmax(1)] == owner
    return np.mean([right[owner == picture].any() for picture in range(owner.max() + 1)])


def first_captions(images, texts, owner):
    right = owner[cosines(images, texts).argmax(1)] == owner
    return right[np.unique(owner, return_index=True)[1]].mean()


def in_place(score, weights, prepare, expected):
    return score(prepare(weights)) == expected


def live_list(epochs):
    return max(list(epochs), key=lambda epoch: epoch[1])


def keep(copied=copy.deepcopy, better=lambda score, best: score > best, start=-np.inf):
    """An answer to 06.keep_best, with one thing done otherwise."""

    def answer(epochs):
        best_state, best = None, start
        for state, score in epochs:
            if better(score, best):
                best_state, best = copied(state), score
        return best_state, best

    return answer


def first_only(epochs):
    state, score = next(iter(epochs))
    return copy.deepcopy(state), score


def last_only(epochs):
    for state, score in epochs:
        kept = copy.deepcopy(state), score
    return kept


def add_up(before, after, alpha):
    for name in before:
        before[name] = (1 - alpha) * before[name]
        before[name] += alpha * after[name]
    return before


def mixed(rule, integers="after", names=lambda name, value: True):
    """An answer to 06.wise_ft: `rule` for the weights with a fraction that `names` lets through, `integers` for the rest."""

    def answer(before, after, alpha):
        found = {}
        for name, value in after.items():
            if not np.issubdtype(value.dtype, np.floating):
                found[name] = {"after": value, "before": before[name], "mixed": rule(before[name], value, alpha)}[integers]
            elif names(name, value):
                found[name] = rule(before[name], value, alpha)
            else:
                found[name] = before[name]
        return found

    return answer


def line(b, a, alpha):
    return (1 - alpha) * b + alpha * a


BANK = {
    "06.scorer": {
        "right": [one_column_each, by_ranks, by_torch],
        "wrong": [
            ("scorer of project 002", lambda i, t, o: (cosines(i, t).argmax(1) == o).mean()),
            ("takes the first", lambda i, t, o: (cosines(i, t).argmax(1) == np.arange(len(o))).mean()),
            ("other way", lambda i, t, o: (o[cosines(i, t).argmax(0)] == o).mean()),
            ("worst column", lambda i, t, o: (o[cosines(i, t).argmin(1)] == o).mean()),
            ("asks every caption", any_caption),
            ("Every caption is a query", first_captions),
            ("number of pictures", lambda i, t, o: (o[cosines(i, t).argmax(1)] == o).sum() / (o.max() + 1)),
            ("number of hits", lambda i, t, o: (o[cosines(i, t).argmax(1)] == o).sum()),
            ("In percent", lambda i, t, o: 100 * by_ranks(i, t, o)),
            ("share that is wrong", lambda i, t, o: 1 - by_ranks(i, t, o)),
            ("the mean", lambda i, t, o: o[cosines(i, t).argmax(1)] == o),
            ("number of the caption", lambda i, t, o: (cosines(i[np.unique(o, return_index=True)[1]], t).argmax(1) == np.arange(len(o))).mean()),
            ("IndexError", lambda i, t, o: o[cosines(i, t).argmax(1) + len(o)].mean()),
        ],
    },
    "06.gate": {
        "right": [
            lambda score, weights, prepare, expected: score(prepare(copy.deepcopy(weights))) == expected,
            lambda score, weights, prepare, expected: bool(np.isclose(score(prepare({k: np.array(v) for k, v in weights.items()})), expected, rtol=0, atol=1e-9)),
            lambda score, weights, prepare, expected: not abs(expected - score(prepare(copy.deepcopy(weights)))) > 0.001,
        ],
        "wrong": [
            ("score what `prepare` returns", lambda score, weights, prepare, expected: score(weights) == expected),
            ("a deep copy", in_place),
            ("a deep copy", lambda score, weights, prepare, expected: score(prepare(dict(weights))) == expected),
            ("a deep copy", lambda score, weights, prepare, expected: score(prepare(copy.copy(weights))) == expected),
            ("Too good", lambda score, weights, prepare, expected: score(prepare(copy.deepcopy(weights))) >= expected),
            ("tolerance", lambda score, weights, prepare, expected: abs(score(prepare(copy.deepcopy(weights))) - expected) < 0.05),
            ("Compare with `expected`", lambda score, weights, prepare, expected: score(prepare(copy.deepcopy(weights))) == score(copy.deepcopy(weights))),
            ("Compare with `expected`", lambda score, weights, prepare, expected: score(prepare(copy.deepcopy(weights))) <= expected),
            ("opens nothing", lambda score, weights, prepare, expected: score(prepare(copy.deepcopy(weights)))),
            ("never calls `score`", lambda score, weights, prepare, expected: True),
            ("stays closed", lambda score, weights, prepare, expected: score(prepare(copy.deepcopy(weights))) != expected),
        ],
    },
    "06.keep_best": {
        "right": [
            keep(copied=lambda state: {name: value.copy() for name, value in state.items()}),
            keep(better=lambda score, best: score >= best),
            lambda epochs: max([(copy.deepcopy(state), score) for state, score in epochs], key=lambda epoch: epoch[1]),
        ],
        "wrong": [
            ("another name", keep(copied=lambda state: state)),
            ("another name", keep(copied=dict)),
            ("another name", keep(copied=copy.copy)),
            ("another name", live_list),
            ("begin with -inf", keep(start=0.0)),
            ("Higher is better", keep(better=lambda score, best: score < best, start=np.inf)),
            ("last epoch", last_only),
            ("first epoch", first_only),
            ("two things", lambda epochs: keep()(epochs)[0]),
            ("state first", lambda epochs: keep()(epochs)[::-1]),
        ],
    },
    "06.wise_ft": {
        "right": [
            mixed(lambda b, a, alpha: b + alpha * (a - b)),
            lambda before, after, alpha: {k: torch.lerp(torch.as_tensor(b), torch.as_tensor(after[k]), alpha) if b.dtype.kind == "f" else after[k] for k, b in before.items()},
        ],
        "wrong": [
            ("wrong way round", mixed(lambda b, a, alpha: alpha * b + (1 - alpha) * a)),
            ("alpha is not used", mixed(lambda b, a, alpha: (b + a) / 2)),
            ("add up to 1", mixed(lambda b, a, alpha: b + alpha * a)),
            ("Add it to before", mixed(lambda b, a, alpha: alpha * (a - b))),
            ("walk away", mixed(lambda b, a, alpha: b - alpha * (a - b))),
            ("left as it was", mixed(line, names=lambda name, value: value.ndim > 1)),
            ("left as it was", mixed(line, names=lambda name, value: value.ndim > 0)),
            ("is a counter", mixed(line, integers="mixed")),
            ("is a counter", mixed(line, integers="before")),
            ("Weights are missing", lambda before, after, alpha: {name: line(b, after[name], alpha) for name, b in before.items() if b.dtype.kind == "f"}),
            ("changed the weights", add_up),
            ("a dict", lambda before, after, alpha: [line(b, a, alpha) for b, a in zip(before.values(), after.values(), strict=True)]),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_scorers_are_those_of_the_package():
    """What the notebook calls broken is `finetuning.broken_scorer`; what the exercise asks for is `metrics`; a perfect model tells them apart."""
    pictures, each = 60, 5
    owner = np.repeat(np.arange(pictures), each)
    images = np.eye(pictures)[owner]
    broken = finetuning.broken_scorer(np.eye(pictures)[:, owner], owner)["R@1"]
    assert broken == (images @ images.T).argmax(1).__eq__(owner).mean() == each / len(owner)
    assert checks.exercise("06.scorer").reference(images, images, owner) == 1


def test_the_line_between_two_models_is_the_package_s():
    """`finetuning.interpolate` on two real modules against the exercise's reference, weight by weight."""
    from miniclip_helpers.model import LinearHead, TwoTowers

    before, after = (TwoTowers(torch.nn.Identity(), torch.nn.Identity(), LinearHead(4, 3), LinearHead(5, 3), logit_scale=scale) for scale in (10.0, 20.0))
    ours = checks.exercise("06.wise_ft").reference({k: v.numpy() for k, v in before.state_dict().items()}, {k: v.numpy() for k, v in after.state_dict().items()}, 0.3)
    for name, value in finetuning.interpolate(before, after, 0.3).state_dict().items():
        np.testing.assert_allclose(value.numpy(), ours[name], rtol=1e-6, atol=1e-7)
