"""Probes of what a thing looks like: its surface against its outline, a face, a digit, a word written across it."""

import numpy as np

from .pictures import OBJECTS, SIZE, SURFACES, cut_out, embedded, paper, place, silhouette, textured, write
from .scenes import a, assemble, pairs, shuffled

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EMOTIONS = {  # caption: names of three emoji, as Unicode has them
    "a happy face": ("grinning face with big eyes", "beaming face with smiling eyes", "slightly smiling face"),
    "a sad face": ("crying face", "loudly crying face", "frowning face"),
    "an angry face": ("angry face", "enraged face", "face with steam from nose"),
    "a surprised face": ("face with open mouth", "hushed face", "astonished face"),
    "a frightened face": ("fearful face", "face screaming in fear", "anxious face with sweat"),
    "a face in love": ("smiling face with heart-eyes", "smiling face with hearts", "face blowing a kiss"),
}
KINDS = ("a fruit", "an animal", "a tool", "a vehicle", "a plant")


def _filled(thing):
    picture = paper()
    place(picture, thing, (16, 16, SIZE - 16, SIZE - 16))
    return picture


def texture(seed=0, size=60):
    """The outline of one thing filled with the surface of another. Right is the outline, as people answer. The control: the outline alone, in black."""
    random, rows, plain, groups = np.random.default_rng(seed), [], [], []
    every = [(shape, surface) for shape in OBJECTS for surface in SURFACES if shape != surface]
    for shape, surface in [every[i] for i in random.permutation(len(every))[:size]]:
        right, wrong = f"a photo of {a(shape)}", [f"a photo of {a(surface)}"]
        rows.append((_filled(textured(cut_out(shape), cut_out(surface))), shuffled(random, right, wrong)))
        plain.append((_filled(silhouette(cut_out(shape))), shuffled(random, right, wrong)))
        groups.append(shape)
    control = assemble("outline alone", "the outline in black", plain, groups)
    return assemble("texture", "the outline of one thing, the surface of another: does the outline win?", rows, groups, control)


def typographic(seed=0, size=60):
    """A thing with the name of another one written across it. Right is the thing. The control writes as many letters that mean nothing."""
    random, rows, plain, groups = np.random.default_rng(seed), [], [], []
    for one, other, _ in pairs(random, size):
        for shown, written in ((one, other), (other, one)):
            picture, top = _filled(cut_out(shown)), int(random.integers(40, 140))
            jumbled = "".join(random.choice(list("qxzvkjwbgd"), size=len(written)))
            answer = shuffled(random, f"a photo of {a(shown)}", [f"a photo of {a(written)}"])
            rows.append((write(picture, written, top, 44), answer))
            plain.append((write(picture, jumbled, top, 44), answer))
            groups.append(f"{one} and {other}")
    control = assemble("letters without sense", "the same, with letters that mean nothing", plain, groups)
    return assemble("written words", "a thing with another one's name written on it: what is it?", rows, groups, control)


def digits(seed=0, size=15):
    """Handwritten digits (scikit-learn's, 8 x 8 pixels made large), so many of each: which of ten? The control: what kind of thing is it, among ten?"""
    from PIL import Image
    from sklearn.datasets import load_digits

    random, data, rows, kinds = np.random.default_rng(seed), load_digits(), [], []
    for number in np.concatenate([random.permutation(np.flatnonzero(data.target == digit))[:size] for digit in range(10)]):
        ink = Image.fromarray((255 - data.images[number] * (255 / 16)).astype(np.uint8)).resize((160, 160), Image.Resampling.BICUBIC)
        picture = paper()
        picture.paste(ink.convert("RGB"), (32, 32))
        said = [f"the handwritten number {word}" for word in DIGITS]
        true = said.pop(int(data.target[number]))
        rows.append((picture, shuffled(random, true, said)))
        others = random.choice(list(OBJECTS), size=9, replace=False)
        kinds.append((picture, shuffled(random, "a handwritten number", [f"a photo of {a(other)}" for other in others])))
    return assemble("digits", "which handwritten digit is it?", rows, None, assemble("a digit at all", "the same pictures: a number, or one of nine things?", kinds))


def emotions(seed=0, size=3):
    """Faces of emoji by three hands: which of six emotions? `size` faces of each. The control: a face, or one of five other kinds of things?"""
    random, emoji, rows, kinds, groups = np.random.default_rng(seed), embedded("emoji"), [], [], []
    place_of = {}
    for row, captions in enumerate(emoji.captions):
        place_of.setdefault(captions[0], []).append(row)
    for said, names in EMOTIONS.items():
        for name in names[:size]:
            for row in place_of[name]:
                picture = emoji.image(row)
                rows.append((picture, shuffled(random, said, [other for other in EMOTIONS if other != said])))
                kinds.append((picture, shuffled(random, "a face", KINDS)))
                groups.append(name)
    control = assemble("a face at all", "the same drawings: a face, or another kind of thing?", kinds, groups)
    return assemble("emotions", "which of six emotions does a drawn face show?", rows, groups, control, "`mini` was fitted on these very drawings and their names.")
