"""The bank of notebook 09."""

import numpy as np
import pytest
import torch
from bank import cases, check_verdict

from miniclip_helpers import checks, saliency


def questions(place=lambda number, random: number % 2, false="exchanged", colours=None, chance=0.5, ordered=True, state=lambda place: place, order=lambda a, b: (a, b)):
    """An answer to 09.probe, with one thing done otherwise."""

    def answer(nouns, palette, random):
        asked = []
        for i, first in enumerate(nouns):
            for second in nouns if ordered else nouns[i + 1 :]:
                if first == second:
                    continue
                one, other = colours(palette) if colours else (str(c) for c in random.choice(palette, size=2, replace=False))
                one, other = order(one, other)
                true = f"a {one} {first} and a {other} {second}"
                wrong = {"exchanged": f"a {other} {first} and a {one} {second}", "same": true, "other words": f"a {other} {first} and a {other} {second}",
                         "turned": f"a {other} {second} and a {one} {first}"}[false]
                right = place(len(asked), random)
                asked.append(({first: one, second: other}, [true, wrong] if right == 0 else [wrong, true], state(right)))
        return asked, chance(len(asked), len(nouns)) if callable(chance) else chance

    return answer


def no_colours_in_words(nouns, colours, random):
    asked, chance = questions()(nouns, colours, random)
    return [(scene, [f"a {list(scene)[0]} and a {list(scene)[1]}", f"a {list(scene)[1]} and a {list(scene)[0]}"], right) for scene, _, right in asked], chance


def rate(before, with_word, with_nonsense, right, written):
    """Right, with counts."""
    known = np.flatnonzero(before == right)
    return (np.sum(with_word[known] == written[known]) - np.sum(with_nonsense[known] == written[known])) / len(known)


def rate_by_torch(before, with_word, with_nonsense, right, written):
    before, with_word, with_nonsense, right, written = map(torch.as_tensor, (before, with_word, with_nonsense, right, written))
    known = before == right
    return ((with_word == written).float() - (with_nonsense == written).float())[known].mean()


def cam_by_torch(maps, gradients):
    return saliency.cam(torch.as_tensor(maps), torch.as_tensor(gradients))


def cam_by_einsum(maps, gradients):
    found = np.einsum("chw,c->hw", maps, gradients.mean((1, 2))).clip(0)
    return found / found.max() if found.any() else found


def cam(weights=lambda g: g.mean((1, 2))[:, None, None], cut=lambda x: np.maximum(x, 0), scale=lambda x: x / max(x.max(), 1e-12)):
    return lambda maps, gradients: scale(cut((weights(gradients) * maps).sum(0)))


BANK = {
    "09.probe": {
        "right": [
            questions(),
            questions(place=lambda number, random: (number + 1) % 2, chance=lambda asked, nouns: 1 / 2),
            lambda nouns, colours, random: ([*questions()(nouns, colours, random)[0][::-1]], 0.5),
        ],
        "wrong": [
            ("always stands at place 0", questions(place=lambda number, random: 0)),
            ("always stands at place 1", questions(place=lambda number, random: 1)),
            ("whoever always says the same", questions(place=lambda number, random: int(number == 2))),
            ("are the same", questions(false="same")),
            ("do not hold the same words", questions(false="other words")),
            ("Both captions are true", questions(false="turned")),
            ("you call number", questions(state=lambda place: 1 - place)),
            ("one over the number of questions", questions(chance=lambda asked, nouns: 1 / asked)),
            ("one over the number of nouns", questions(chance=lambda asked, nouns: 1 / nouns)),
            ("In percent", questions(chance=50)),
            ("not always wrong", questions(chance=0)),
            ("one colour", questions(colours=lambda palette: (palette[0], palette[0]))),
            ("same two colours", questions(colours=lambda palette: sorted(palette, reverse=True)[:2])),
            ("first in the alphabet", questions(order=lambda a, b: tuple(sorted((a, b))))),
            ("ordered pair", questions(ordered=False)),
            ("No caption says", no_colours_in_words),
            ("two things", lambda nouns, colours, random: questions()(nouns, colours, random)[0]),
            ("three things", lambda nouns, colours, random: ([(row[1], row[2]) for row in questions()(nouns, colours, random)[0]], 0.5)),
            ("you call number", questions(state=lambda place: place + 1)),
            ("0 or 1", questions(state=lambda place: place + 2)),
            ("0 or 1", questions(state=lambda place: bool(place))),
        ],
    },
    "09.attack": {
        "right": [rate, rate_by_torch],
        "wrong": [
            ("forgot the control", lambda b, w, n, r, s: np.mean((w == s)[b == r])),
            ("did not know even before", lambda b, w, n, r, s: np.mean(w == s) - np.mean(n == s)),
            ("Two things are missing", lambda b, w, n, r, s: np.mean(w == s)),
            ("wrong now", lambda b, w, n, r, s: np.mean((w != r)[b == r]) - np.mean((n != r)[b == r])),
            ("every wrong answer", lambda b, w, n, r, s: np.mean((w != r)[b == r])),
            ("divide by all pictures", lambda b, w, n, r, s: np.mean((w == s) & (b == r)) - np.mean((n == s) & (b == r))),
            ("number of pictures", lambda b, w, n, r, s: np.sum((w == s) & (b == r)) - np.sum((n == s) & (b == r))),
            ("sign is turned", lambda b, w, n, r, s: -rate(b, w, n, r, s)),
            ("In percent", lambda b, w, n, r, s: 100 * rate(b, w, n, r, s)),
            ("purer than it is", lambda b, w, n, r, s: np.mean((w == s)[(b == r) & (n != s)])),
            ("One value per picture", lambda b, w, n, r, s: (w == s) & (b == r)),
        ],
    },
    "09.grad_cam": {
        "right": [cam_by_torch, cam_by_einsum],
        "wrong": [
            ("largest value is not 1", cam(scale=lambda x: x)),
            ("negative values", lambda m, g: cam(cut=lambda x: x)(m, g)),
            ("absolute value", cam(cut=np.abs)),
            ("cut off before adding", lambda m, g: (lambda x: x / max(x.max(), 1e-12))(np.maximum(g.mean((1, 2))[:, None, None] * m, 0).sum(0))),
            ("place by place", cam(weights=lambda g: g)),
            ("cut off before adding", cam(weights=lambda g: np.maximum(g.mean((1, 2)), 0)[:, None, None])),
            ("over the channels", cam(weights=lambda g: g.mean(0)[None])),
            ("gradient plays no part", lambda m, g: m.sum(0) / m.sum(0).max()),
            ("divide 0 by 0", cam(scale=lambda x: x / x.max())),
            ("shape", lambda m, g: cam()(m, g)[None]),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_package_s_map_is_the_reference_s():
    random = np.random.default_rng(3)
    maps, gradients = random.random((6, 7, 7)), random.normal(size=(6, 7, 7))
    np.testing.assert_allclose(saliency.cam(torch.tensor(maps), torch.tensor(gradients)).numpy(), checks.exercise("09.grad_cam").reference(maps, gradients), rtol=1e-6)
