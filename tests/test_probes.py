"""Probes: every picture, caption and answer checked against what was drawn; the scores against models that know or do not know one thing."""

import itertools

import numpy as np
import pytest
import torch

from miniclip_helpers import probes, runtime
from miniclip_helpers.errors import UsageError
from miniclip_helpers.probes import pictures as draw
from miniclip_helpers.probes.core import interval, judge

SMALL = {"counting": 2, "digits": 2, "emotions": 1, "position": 4, "depth": 4, "negation": 4, "colour_binding": 4, "texture": 4, "typographic": 3}


class Knowing:
    """A stand-in model: each text and each picture has a random vector, but those told to `belong` share theirs."""

    def __init__(self, belong=()):
        self.vectors, self.belong = {}, {runtime.digest(picture.tobytes()): text for picture, text in belong}

    def vector(self, key):
        if key not in self.vectors:
            self.vectors[key] = torch.nn.functional.normalize(torch.randn(32, generator=runtime.generator(int(runtime.digest(key)[:8], 16))), dim=0)
        return self.vectors[key]

    def encode_text(self, texts):
        return torch.stack([self.vector(text) for text in texts])

    def encode_image(self, pictures):
        keys = [runtime.digest(picture.tobytes()) for picture in pictures]
        return torch.stack([self.vector(self.belong.get(key, key)) for key in keys])


def exam(right=(0, 1, 0, 1), groups=None, choices=None, control=None):
    shades = [draw.paper((10 * number, 0, 0)) for number in range(len(right))]
    return probes.Probe("test", "?", shades, choices or [["one", "two"]] * len(right), np.array(right), groups, control)


@pytest.fixture(scope="module")
def made():
    return {name: probes.PROBES[name](0, size) for name, size in SMALL.items()}


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_fixes_a_probe_and_another_changes_it(name, made):
    again, other = probes.PROBES[name](0, SMALL[name]), probes.PROBES[name](1, SMALL[name])
    same = lambda a, b: [p.tobytes() for p in a.pictures] == [p.tobytes() for p in b.pictures] and a.choices == b.choices and list(a.right) == list(b.right)  # noqa: E731
    assert same(made[name], again) and same(made[name].control, again.control)
    assert not same(made[name], other)


@pytest.mark.parametrize("name", SMALL)
def test_controls_fit_their_probe(name, made):
    """As many pictures and choices, and so the same chance; but for texture and words the very same pictures."""
    probe = made[name]
    assert len(probe.control) == len(probe) > 0 and probe.control.chance == pytest.approx(probe.chance)
    same = [one.tobytes() == other.tobytes() for one, other in zip(probe.pictures, probe.control.pictures)]
    assert not any(same) if name in ("texture", "typographic") else all(same)


def test_chance_is_what_guessing_brings():
    mixed = exam(right=(0, 2), choices=[["a", "b"], ["a", "b", "c", "d"]])
    assert mixed.chance == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert exam(right=(0, 0, 0, 1)).always() == 0.75
    hits = [probes.run(Knowing(), probes.PROBES["position"](seed, 30))["accuracy"] for seed in range(6)]
    assert 0.4 < np.mean(hits) < 0.6  # 360 coins


@pytest.mark.parametrize("name", SMALL)
def test_a_model_that_knows_is_right_everywhere_and_one_that_knows_the_contrary_nowhere(name, made):
    probe = made[name]
    truth = {picture.tobytes(): captions[answer] for picture, captions, answer in zip(probe.pictures, probe.choices, probe.right)}
    knowing = [row for row in zip(probe.pictures, probe.choices, probe.right) if truth[row[0].tobytes()] == row[1][row[2]]]
    part = probes.Probe("part", "?", *map(list, zip(*knowing)))
    right = probes.run(Knowing([(picture, captions[answer]) for picture, captions, answer in knowing]), part)
    assert right["accuracy"] == 1 and (right["margin"] > 0).all() and list(right["chosen"]) == list(part.right)
    wrong = {picture.tobytes(): (picture, captions[(answer + 1) % len(captions)]) for picture, captions, answer in knowing}
    assert probes.run(Knowing(wrong.values()), part)["accuracy"] == 0


def bag(caption):
    return sorted(caption.replace(",", "").split())


@pytest.mark.parametrize("name", ["position", "depth", "negation", "colour_binding"])
def test_a_bag_of_words_cannot_tell_the_captions_apart(name, made):
    probe = probes.PROBES[name](3, 30)
    articles = lambda words: sorted(word for word in words if word not in ("a", "an"))  # noqa: E731  an otter, a mug: the article follows its noun
    assert all(articles(bag(one)) == articles(bag(other)) for one, other in probe.choices)
    assert not any(articles(bag(one)) == articles(bag(other)) for one, other in probe.control.choices)
    assert 0.3 < np.mean(probe.right) < 0.7


def boxes_of(picture):
    """The first and last column with ink, of the left and of the right half of a picture on white."""
    ink = (np.asarray(picture).min(-1) < 200).any(0)
    return np.flatnonzero(ink[:112]), 112 + np.flatnonzero(ink[112:])


def test_position_says_what_was_drawn():
    """The thing that the right caption calls left is the one whose cut-out fills the left half."""
    probe = probes.position(0, 6)
    for picture, captions, right in zip(probe.pictures, probe.choices, probe.right):
        words = captions[right].split()
        first, last = words[1], words[-1]
        left, other = (first, last) if "left" in captions[right] else (last, first)
        expected, _ = probes.scenes.side_by_side(draw.cut_out(left), draw.cut_out(other))
        assert expected.tobytes() == picture.tobytes()


def test_colours_are_those_of_the_caption():
    probe = probes.colour_binding(0, 6)
    for picture, captions, right in zip(probe.pictures, probe.choices, probe.right):
        _, one, _, _, _, other, _ = captions[right].split()
        pixels = np.asarray(picture).astype(float)
        for half, colour in ((pixels[:, :112], one), (pixels[:, 112:], other)):
            ink = half[half.min(-1) < 160]
            nearest = min(probes.scenes.COLOURS, key=lambda name: np.abs(ink.mean(0) / ink.mean(0).max() - np.array(probes.scenes.COLOURS[name]) / max(probes.scenes.COLOURS[name])).sum())
            assert nearest == colour


def test_as_many_copies_as_the_caption_says():
    from scipy import ndimage

    probe = probes.counting(0, 6)
    for picture, captions, right in zip(probe.pictures, probe.choices, probe.right):
        number, noun = captions[right].split()
        if noun not in ("syringes", "iguanas", "trumpets"):  # thin parts come apart
            ink = ndimage.binary_closing(np.pad(np.asarray(picture).min(-1) < 245, 8), iterations=4)
            sizes = np.bincount(ndimage.label(ink)[0].ravel())[1:]
            assert (sizes > 60).sum() == 2 + probes.scenes.NUMBERS.index(number), captions[right]


def test_digits_and_emotions_carry_their_own_label():
    from sklearn.datasets import load_digits

    probe, data = probes.digits(0, 2), load_digits()
    assert [captions[right].split()[-1] for captions, right in zip(probe.choices, probe.right)] == [word for word in probes.looks.DIGITS for _ in range(2)]
    small = np.asarray(probe.pictures[6].crop((32, 32, 192, 192)).convert("L").resize((8, 8))).astype(float).ravel()
    threes = data.images[data.target == 3].reshape(-1, 64)
    best = np.abs(np.corrcoef(np.vstack([255 - small, data.images.reshape(-1, 64)]))[0, 1:]).argmax()
    assert data.target[best] == 3 and len(threes) > 100
    faces = probes.emotions(0, 1)
    assert len(faces) == 18 and sorted(set(faces.groups)) == sorted(names[0] for names in probes.looks.EMOTIONS.values())


def test_all_names_of_the_emotions_are_drawn_by_three_hands():
    assert len(probes.emotions(0, 3)) == 6 * 3 * 3


def test_the_word_is_another_thing_s_and_nonsense_as_long():
    probe = probes.typographic(0, 3)
    assert all(0 < np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).sum() for one, other in zip(probe.pictures, probe.control.pictures))
    blank = draw.paper()
    written, jumbled = draw.write(blank, "teapot", 100, 44), draw.write(blank, "qxzvkj", 100, 44)
    assert written.getpixel((0, 0)) == (255, 255, 255) and np.asarray(written)[100:144].min() == 0 and np.asarray(jumbled)[100:144].min() == 0
    assert (np.asarray(written)[:90] == 255).all() and (np.asarray(written)[160:] == 255).all()


@pytest.mark.parametrize("noun", sorted(draw.OBJECTS | draw.SURFACES))
def test_things_are_cut_out(noun):
    thing = np.asarray(draw.cut_out(noun))
    solid = thing[..., 3] > 0
    assert 0.1 < solid.mean() < 0.95 and solid.any(0).all() and solid.any(1).all()
    pale = thing[..., :3].min(-1) > 250
    assert (pale & solid).mean() < 0.12  # the white ground is gone


def test_unknown_things_and_languages_are_told():
    with pytest.raises(UsageError, match="teapot"):
        draw.cut_out("teepot")
    with pytest.raises(UsageError, match="language"):
        probes.languages("eng")
    with pytest.raises(UsageError, match="at least 10 things"):
        probes.languages("de", among=probes.concepts()[:4])


@pytest.mark.parametrize(("change", "words"), [
    ({"choices": [["one", "one"]] * 4}, "no two alike"), ({"choices": [["one"]] * 4}, "two or more"), ({"right": (0, 2, 0, 0)}, "none of 2 choices"),
    ({"groups": [1, 2]}, "one group per picture"), ({"choices": [["one", "two"]] * 3}, "as many"),
])
def test_what_is_no_probe_is_refused(change, words):
    with pytest.raises(UsageError, match=words):
        exam(**change)


def test_ties_are_worth_what_a_coin_brings():
    probe = exam(right=(0, 2), choices=[["a", "b"], ["a", "b", "c"]])
    found = judge([np.array([0.5, 0.5]), np.array([0.1, 0.7, 0.7 + 1e-9])], probe)
    assert list(found["credit"]) == [0.5, 0.5] and found["accuracy"] == 0.5
    assert judge([np.array([0.1, 0.5]), np.array([0.7, 0.7, 0.1])], probe)["accuracy"] == 0


def test_intervals_are_wilson_s_or_drawn_over_groups():
    assert interval([1] * 25 + [0] * 39) == pytest.approx((0.281, 0.513), abs=1e-3)
    assert interval([1] * 8)[1] == 1 and 0.6 < interval([1] * 8)[0] < 0.7
    hits = np.repeat([1, 0] * 10, 5)
    low, high = interval(hits, np.repeat(np.arange(20), 5))
    alone = interval(hits)
    assert high - low > 1.8 * (alone[1] - alone[0])  # 20 independent pictures, not 100
    assert interval([1, 1, 1, 1], ["a", "a", "b", "b"]) == interval([1, 1])
    with pytest.raises(UsageError, match="two groups"):
        interval([1, 0], ["a", "a"])


def test_the_same_questions_in_every_language():
    among = probes.concepts()[:14]
    english, german, again = (probes.languages(code, among) for code in ("en", "de", "en"))
    assert english.choices == again.choices and list(english.right) == list(german.right) and len(english) == len(german) >= 40
    pairs = {(one, other) for row, twin in zip(english.choices, german.choices) for one, other in zip(row, twin)}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}) == 14
    assert german.control.choices == english.choices and english.control is None


def test_names_are_the_data_s_own():
    emoji = draw.embedded("emoji")
    code = probes.concepts()[0]
    row = list(emoji.columns["hexcode"]).index(code)
    thai = probes.languages("th", probes.concepts()[:12])
    place = list(thai.groups).index(code)
    assert thai.choices[place][thai.right[place]] == emoji.columns["translations"][row]["th"]
    assert set(itertools.chain.from_iterable(probes.SCRIPTS.values())) == set(probes.NAMES) and len(probes.NAMES) == 26


def test_unknown_pieces_are_counted():
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "cat": 1, "dog": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(pad_token="[UNK]")
    assert probes.unknown_share(tokenizer, ["cat dog bird", "cat"]) == pytest.approx(1 / 4)


def test_figures_are_drawn(made):
    board = probes.scoreboard(Knowing(), [made["position"], made["digits"]])
    figure = probes.scoreboard_figure(board)
    assert [label.get_text().split("  ")[0] for label in figure.axes[0].get_yticklabels()] == ["digits", "position"]
    assert len(probes.examples_figure([made["position"], made["digits"]], board).axes) == 5
    picture = made["position"].pictures[0]
    assert len(probes.maps_figure({"one": [(picture, np.zeros((7, 7)), "x", (0, 0, 5, 5))] * 2}).axes) == 6
