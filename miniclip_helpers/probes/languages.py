"""The same pictures, named in 26 languages: how far does a text tower get that has read English only?"""

import functools

import numpy as np

from .. import embedding
from ..errors import UsageError, unknown
from .core import Probe, run
from .pictures import embedded

SCRIPTS = {
    "Latin": ("en", "da", "de", "es", "et", "fi", "fr", "hu", "it", "lt", "ms", "nb", "nl", "pl", "pt", "sv", "vi"),
    "Cyrillic": ("ru", "uk"), "East Asian": ("zh", "zh-hant", "ja", "ko"), "Indian and Thai": ("hi", "bn", "th"),
}
NAMES = {"en": "English", "da": "Danish", "de": "German", "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French", "hu": "Hungarian", "it": "Italian",
         "lt": "Lithuanian", "ms": "Malay", "nb": "Norwegian", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "sv": "Swedish", "vi": "Vietnamese",
         "ru": "Russian", "uk": "Ukrainian", "zh": "Chinese", "zh-hant": "Chinese (traditional)", "ja": "Japanese", "ko": "Korean", "hi": "Hindi", "bn": "Bengali",
         "th": "Thai"}
CATEGORIES = ("animals-nature", "food-drink", "travel-places", "objects", "activities")


@functools.cache
def _named():
    """{hexcode: ([rows of its drawings], {language: name})} of the things that have a name in each language. A name that is not listed is the English one."""
    emoji, found = embedded("emoji"), {}
    columns = emoji.columns
    known = {code for row in columns["translations"] for code in row}
    for row, (code, category) in enumerate(zip(columns["hexcode"], columns["category"], strict=True)):
        if category in CATEGORIES:
            names = {language: columns["translations"][row].get(language, emoji.captions[row][0]) for language in known} | {"en": emoji.captions[row][0]}
            found.setdefault(code, ([], names))[0].append(row)
    return found


def concepts(among=None):
    """Hexcodes of things whose name is theirs alone in all 26 languages, in order. among: hexcodes to choose from (None: all)."""
    named = {code: names for code, (_, names) in _named().items() if among is None or code in set(among)}
    kept, used = [], {language: set() for language in NAMES}
    for code in sorted(named):
        if all(named[code][language].casefold() not in used[language] for language in NAMES):
            kept.append(code)
            for language in NAMES:
                used[language].add(named[code][language].casefold())
    return kept


def languages(language="en", among=None, choices=10, seed=0):
    """Drawings of things by three hands, each with `choices` names in one language, its own among them; in each language the same questions.

    The control is the same in English. `mini` never trained on names of the hexcodes in data/mini_split.json: pass them as `among`.
    """
    if language not in NAMES:
        raise unknown("language", language, NAMES)
    codes, named, random = concepts(among), _named(), np.random.default_rng(seed)
    if len(codes) < choices:
        raise UsageError(f"expected at least {choices} things to choose from, found {len(codes)}")
    rows, asked = [], []
    for place, code in enumerate(codes):
        for row in named[code][0]:
            others = random.choice(np.delete(np.arange(len(codes)), place), size=choices - 1, replace=False)
            order = random.permutation([place, *others])
            rows.append((row, code, int(np.flatnonzero(order == place)[0])))
            asked.append([codes[i] for i in order])
    emoji = embedded("emoji")
    pictures, right, groups = [emoji.image(row) for row, _, _ in rows], np.array([answer for _, _, answer in rows]), [code for _, code, _ in rows]

    def probe(said, control=None):
        return Probe(f"names in {NAMES[said]}", f"which of {choices} names is the drawing's, in {NAMES[said]}?", pictures,
                     [[named[code][1][said] for code in row] for row in asked], right, groups, control)

    return probe(language, None if language == "en" else probe("en"))


def pieces(tokenizer, texts):
    """Into what a tokenizer (of the tokenizers library) cuts each text: a list of lists, without marks and padding."""
    rows = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [[token for token, real in zip(row.tokens, row.attention_mask, strict=True) if real] for row in rows]


def unknown_share(tokenizer, texts, mark="[UNK]"):
    """The share of all pieces of these texts that the vocabulary does not hold: they are all one and the same to the tower."""
    found = [token for row in pieces(tokenizer, texts) for token in row]
    return sum(token == mark for token in found) / max(1, len(found))


def compare_languages(model, codes=tuple(NAMES), among=None, choices=10, seed=0):
    """A table, a row per language, the best first: language, script, accuracy, low, high (95 %), unknown, twin.

    unknown: the share of pieces that the text tower's vocabulary does not hold (NaN where the tower does not tell). twin: the share of names whose
    vector is nearer to its English twin's than to those of all other names: what the text tower knows by itself.
    """
    import pandas

    exams, script = {code: languages(code, among, choices, seed) for code in ("en", *codes)}, {code: name for name, codes_ in SCRIPTS.items() for code in codes_}
    english = [name for row in exams["en"].choices for name in row]
    order = sorted(set(english))
    meant, tokenizer, rows = embedding.text_embeddings(model, order), getattr(model.text_tower, "tokenizer", None), {}
    for code in codes:
        twins = dict(zip(english, (name for row in exams[code].choices for name in row), strict=True))
        names, found = [twins[name] for name in order], run(model, exams[code])
        nearest = (embedding.text_embeddings(model, names) @ meant.T).argmax(1).numpy()
        rows[code] = {"language": NAMES[code], "script": script[code], "accuracy": found["accuracy"], "low": found["interval95"][0], "high": found["interval95"][1],
                      "unknown": unknown_share(tokenizer, names) if tokenizer else np.nan, "twin": float((nearest == np.arange(len(order))).mean())}
    return pandas.DataFrame(rows).T.sort_values("accuracy", ascending=False, kind="stable")
