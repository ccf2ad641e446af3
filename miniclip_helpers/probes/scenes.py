"""Probes of how things stand together: how many, where, near or far, with which colour, or not at all. Two things that `mini` can name, put into one picture."""

import itertools

import numpy as np

from .core import Probe
from .pictures import OBJECTS, SIZE, cut_out, fitted, landscape, paper, place, tinted

NUMBERS = ("two", "three", "four", "five", "six")
COLOURS = {"red": (225, 35, 30), "green": (40, 165, 60), "blue": (35, 75, 225), "yellow": (245, 215, 40)}


def a(noun):
    """"an otter", "a red mug"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def shuffled(random, right, wrong):
    """(choices, place of the right one): a place that can be guessed would be no question."""
    choices = [right, *wrong]
    order = random.permutation(len(choices))
    return [choices[i] for i in order], int(np.flatnonzero(order == 0)[0])


def assemble(name, question, rows, groups=None, control=None, says=""):
    """A `Probe` out of rows (picture, (choices, right))."""
    pictures, answers = zip(*rows, strict=True)
    choices, right = zip(*answers, strict=True)
    return Probe(name, question, list(pictures), list(choices), np.array(right), groups, control, says)


def pairs(random, size, of=tuple(OBJECTS)):
    """`size` unordered pairs of different things, and for each a third thing that is in neither."""
    every = list(itertools.combinations(of, 2))
    drawn = [every[i] for i in random.permutation(len(every))[:size]]
    return [(*(pair if random.random() < 0.5 else pair[::-1]), str(random.choice([noun for noun in of if noun not in pair]))) for pair in drawn]


def scattered(random, noun, count):
    """A picture with so many copies of a thing, in cells of a 3 x 3 grid, each turned over or not and a little off its cell's middle."""
    from PIL import ImageOps

    picture, cell = paper(), SIZE // 3
    thing = fitted(cut_out(noun), cell - 14, cell - 14)
    for number in random.choice(9, size=count, replace=False):
        top, left = (divmod(int(number), 3) * np.array([1, 1])) * cell + random.integers(0, 13, size=2)
        copy = ImageOps.mirror(thing) if random.random() < 0.5 else thing
        place(picture, copy, (int(left), int(top), int(left) + cell - 13, int(top) + cell - 13))
    return picture


def counting(seed=0, size=20):
    """Two to six copies of one thing, five pictures per thing. Chance 1/5; the control asks of the same pictures which thing it is, also among five."""
    random, rows, naming, groups = np.random.default_rng(seed), [], [], []
    for noun in random.permutation(list(OBJECTS))[:size]:
        for place_, number in enumerate(NUMBERS):
            picture = scattered(random, noun, place_ + 2)
            others = random.choice([other for other in OBJECTS if other != noun], size=4, replace=False)
            rows.append((picture, shuffled(random, f"{number} {noun}s", [f"{other} {noun}s" for other in NUMBERS if other != number])))
            naming.append((picture, shuffled(random, f"{number} {noun}s", [f"{number} {other}s" for other in others])))
            groups.append(str(noun))
    control = assemble("which thing", "the same pictures: which thing is it?", naming, groups)
    return assemble("counting", "how many are there, two to six?", rows, groups, control, "More copies also fill more of the picture, which helps whoever cannot count.")


def _either(random, one, other):
    """One of two phrasings, functions of two nouns, by the toss of a coin: what stands first must tell nothing."""
    return one if random.random() < 0.5 else other


def _pair_probe(name, question, asked, control_question, size, seed, draw, says=""):
    """A probe on pairs of things. draw(random, first, second, third): (picture, true caption, the same words the other way round, the control's wrong caption).

    The control's right caption is the true one, unless draw gives (right, wrong) for the control.
    """
    random, rows, swapped, groups = np.random.default_rng(seed), [], [], []
    for one, other, third in pairs(random, size):
        for first, second in ((one, other), (other, one)):
            picture, true, turned, control = draw(random, first, second, third)
            right, wrong = control if isinstance(control, tuple) else (true, control)
            rows.append((picture, shuffled(random, true, [turned])))
            swapped.append((picture, shuffled(random, right, [wrong])))
            groups.append(f"{one} and {other}")
    return assemble(name, question, rows, groups, assemble(asked, control_question, swapped, groups), says)


def side_by_side(left, right):
    """Two cut-outs next to each other. Returns the picture and the two boxes."""
    picture, half = paper(), SIZE // 2
    boxes = [place(picture, thing, (start + 6, 40, start + half - 6, SIZE - 40)) for thing, start in ((left, 0), (right, half))]
    return picture, boxes


def position(seed=0, size=60):
    """Two things side by side: which stands to the left? Both arrangements of each pair, and half of the captions say "to the right"."""

    def draw(random, first, second, third):
        picture, _ = side_by_side(cut_out(first), cut_out(second))
        say = _either(random, lambda left, right: f"{a(left)} to the left of {a(right)}", lambda left, right: f"{a(right)} to the right of {a(left)}")
        return picture, say(first, second), say(second, first), say(first, third)

    return _pair_probe("position", "which of two things stands to the left?", "which pair", "the same pictures: which second thing?", size, seed, draw)


def depth(seed=0, size=60):
    """One thing large and low on a meadow, another one small and near the horizon: which is near, which is far?"""

    def draw(random, first, second, third):
        picture, left = landscape(), bool(random.random() < 0.5)
        place(picture, cut_out(second), (150, 72, 206, 114) if left else (18, 72, 74, 114))
        place(picture, cut_out(first), (8, 96, 134, 216) if left else (90, 96, 216, 216))
        say = _either(random, lambda near, far: f"{a(near)} close by and {a(far)} far away", lambda near, far: f"{a(far)} far away and {a(near)} close by")
        return picture, say(first, second), say(second, first), say(first, third)

    return _pair_probe("near and far", "which of two things is near, which far away?", "which far thing", "the same pictures: which thing is far away?", size, seed, draw)


def colour_binding(seed=0, size=60):
    """Two things in two colours, side by side: which has which? The control changes both colours into two that are not there."""

    def draw(random, first, second, third):
        one, two, three, four = random.permutation(list(COLOURS))
        picture, _ = side_by_side(tinted(cut_out(first), COLOURS[one]), tinted(cut_out(second), COLOURS[two]))
        say = lambda colour, other: f"{a(f'{colour} {first}')} and {a(f'{other} {second}')}"  # noqa: E731
        return picture, say(one, two), say(two, one), say(three, four)

    return _pair_probe("colour binding", "which of two things has which of two colours?", "which colours", "the same pictures: which two colours?", size, seed, draw)


def negation(seed=0, size=60):
    """A picture of one thing: "an otter, but no mug" or "a mug, but no otter"? The same words; half of the captions begin with the "no"."""

    def draw(random, there, absent, third):
        picture = paper()
        place(picture, cut_out(there), (24, 24, SIZE - 24, SIZE - 24))
        say = _either(random, lambda yes, no: f"a photo with {a(yes)}, but no {no}", lambda yes, no: f"a photo with no {no}, but {a(yes)}")
        return picture, say(there, absent), say(absent, there), (f"a photo with {a(there)}", f"a photo with {a(absent)}")

    return _pair_probe("negation", "which thing is there, which is not?", "without a no", "the same pictures, without negation", size, seed, draw)
