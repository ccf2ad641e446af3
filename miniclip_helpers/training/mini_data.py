"""What the heads of `mini` are trained on, and the concepts that are kept away from them."""

import dataclasses
import functools
import json
import random
import re

from .. import runtime
from ..datasets import load_dataset
from ..encoders.efficientnet import imagenet_names
from ..errors import DataError

HELD_OUT = 100  # nouns
FREQUENT = 30  # a noun that more emoji pictures mention is too common to hold out: it would take half the training set along
NO_NOUNS = ("tuxpaint/symbols/", "tuxpaint/people/body_parts/", "tuxpaint/town/roadsigns/", "tuxpaint/town/flags/")


def singular(word):
    """A rough singular, enough to match cherries with cherry: "cherries" -> "cherry", "dogs" -> "dog", "bus" -> "bus"."""
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def words(text):
    """The words of a text, lower case, singular: a set."""
    return {singular(word) for word in re.findall(r"[a-z]+", text.lower())}


def noun_of(name, caption):
    """The noun of a stamp whose caption is an article and one word ("A frog." -> "frog"); None for the others."""
    found = re.fullmatch(r"(?:An?|The|Some) ([A-Za-z]+)[.!]?", caption)
    return singular(found[1].lower()) if found and not name.startswith(NO_NOUNS) else None


def stamp_nouns(stamps):
    """The noun of each stamp, or None: a list as long as the dataset."""
    return [noun_of(name, captions[0]) for name, captions in zip(stamps.names, stamps.captions, strict=True)]


def mentions(captions, nouns):
    """Whether any of these captions holds one of the nouns as a word."""
    return any(words(caption) & nouns for caption in captions)


def make_split(seed=0):
    """Choose the concepts that `mini` never trains on: {"seed", "nouns", "in_imagenet", "emoji"}. data/mini_split.json is make_split(0).

    nouns: 100 of the stamps' one-word nouns, by a seeded shuffle. in_imagenet: those that are a word of some ImageNet class name,
    so that the image tower was trained on such pictures and the class name is known. emoji: the hexcodes of all emoji that mention one.
    """
    stamps, emoji = load_dataset("stamps"), load_dataset("emoji")
    often = {}
    for captions in emoji.captions:
        for word in set().union(*map(words, captions)):
            often[word] = often.get(word, 0) + 1
    scenes = [words(scene) for _, scene in read_scenes()]
    pool = sorted({noun for noun in stamp_nouns(stamps) if noun})
    pool = [noun for noun in pool if often.get(noun, 0) <= FREQUENT and sum(noun in scene for scene in scenes) <= 5]
    random.Random(seed).shuffle(pool)
    nouns = sorted(pool[:HELD_OUT])
    known = set().union(*(words(synonym) for synonyms in imagenet_names() for synonym in synonyms))
    hexcodes = {code for code, captions in zip(emoji.columns["hexcode"], emoji.captions, strict=True) if mentions(captions, set(nouns))}
    return {"seed": seed, "nouns": nouns, "in_imagenet": [noun for noun in nouns if noun in known], "emoji": sorted(hexcodes)}


@functools.cache
def _split():
    return json.loads((runtime.data_dir() / "mini_split.json").read_text(encoding="utf8"))


def held_out():
    """data/mini_split.json: the concepts that `mini` never trains on. See `make_split`."""
    return dict(_split())


@functools.cache
def read_scenes():
    """data/mini_scenes.txt as (class number, caption) pairs: for each ImageNet class what its photos usually show."""
    names, scenes = imagenet_names(), []
    lines = (runtime.data_dir() / "mini_scenes.txt").read_text(encoding="utf8").splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        found = re.fullmatch(r"(\d+)(?:-(\d+))?\|(.+)", line)
        if not found or int(found[2] or found[1]) >= len(names):
            raise DataError(f"mini_scenes.txt, line {number}: expected 'FIRST[-LAST]|caption' with classes 0 to 999, found {line!r}")
        for place in range(int(found[1]), int(found[2] or found[1]) + 1):
            scenes.append((place, found[3].replace("{}", names[place][0])))
    return tuple(scenes)


def with_article(noun):
    """"cat" -> "a cat", "owl" -> "an owl"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


@dataclasses.dataclass(frozen=True)
class ClassTexts:
    """Texts about the 1,000 ImageNet classes: lists of (class number, text)."""

    names: list
    photos: list
    glosses: list
    scenes: list

    def all(self):
        """Every (class number, text)."""
        return [*self.names, *self.photos, *self.glosses, *self.scenes]


def class_texts(nouns=()):
    """What is said about each ImageNet class. Glosses and scenes that hold one of `nouns` are left out, unless the noun is a word of
    the class's own name; names always stay, they are what the classifier was trained with.
    """
    from timm.data import ImageNetInfo

    nouns, info, synonyms = set(nouns), ImageNetInfo(), imagenet_names()
    own = [set().union(*map(words, row)) for row in synonyms]
    allowed = lambda place, text: not (words(text) & nouns) - own[place]  # noqa: E731
    glosses = [(place, info.index_to_description(place, detailed=True).split(": ", 1)[1]) for place in range(len(synonyms))]
    return ClassTexts(
        names=[(place, ", ".join(row)) for place, row in enumerate(synonyms)],
        photos=[(place, f"a photo of {with_article(synonym)}.") for place, row in enumerate(synonyms) for synonym in row],
        glosses=[(place, f"{synonyms[place][0]}: {gloss}") for place, gloss in glosses if allowed(place, gloss)],
        scenes=[(place, scene) for place, scene in read_scenes() if allowed(place, scene)],
    )


def training_pictures(nouns=()):
    """The stamps and the emoji whose captions hold none of `nouns`: two datasets."""
    nouns, emoji, stamps = set(nouns), load_dataset("emoji"), load_dataset("stamps")
    # a concept leaves with all its drawings
    gone = {code for code, captions in zip(emoji.columns["hexcode"], emoji.captions, strict=True) if mentions(captions, nouns)}
    keep_emoji = [row for row, code in enumerate(emoji.columns["hexcode"]) if code not in gone]
    keep_stamps = [row for row, captions in enumerate(stamps.captions) if not mentions(captions, nouns)]
    return stamps.subset(keep_stamps, "stamps/mini"), emoji.subset(keep_emoji, "emoji/mini")


def unseen_stamps(nouns):
    """The stamps of these nouns, for zero-shot tests: (dataset, labels); labels[i] is the place in `nouns` of picture i's noun."""
    stamps, place = load_dataset("stamps"), {noun: i for i, noun in enumerate(nouns)}
    found = stamp_nouns(stamps)
    rows = [row for row, noun in enumerate(found) if noun in place]
    return stamps.subset(rows, "stamps/unseen"), [place[found[row]] for row in rows]


def unseen_emoji(nouns):
    """The emoji whose name holds one of these nouns: (dataset, labels, names); labels[i] is the place in `names` of picture i."""
    emoji, nouns = load_dataset("emoji"), set(nouns)
    rows = [row for row, captions in enumerate(emoji.captions) if words(captions[0]) & nouns]
    names = sorted({emoji.captions[row][0] for row in rows})
    return emoji.subset(rows, "emoji/unseen"), [names.index(emoji.captions[row][0]) for row in rows], names


def validation_nouns(unseen):
    """The stamps' nouns beside the `unseen` ones: the temperature is chosen on them, in a fit that leaves them out too."""
    return sorted({noun for noun in stamp_nouns(load_dataset("stamps")) if noun} - set(unseen))
