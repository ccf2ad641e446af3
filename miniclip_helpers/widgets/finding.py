"""What stands behind the photo search: a question's answers, filtered; the folders and captions to filter by; an answer as HTML."""

import base64
import collections
import html
import pathlib
import warnings

from .. import datasets, images, runtime, search
from ..errors import ImageError, UsageError
from .panel import stem

SIDE = 320  # pixels of a thumbnail, twice what most screens give it
FIRST = 50  # answers looked at first, where some are filtered out


class NothingFoundError(UsageError):
    """The question is fine, and no answer passes the filters."""


def find_photos(index, model, asked, k=5, least=-1.0, within="", folder="", captions=None):
    """The hits of a question, best first: at most k, none below the score `least`, only those in `folder` and with the text `within` in their name or captions.

    asked: words (str), a picture (PIL or bytes), or the name of a photo or caption of the index, given as ("like", name), which is then left out itself.
    captions: {name: list of captions} of an index of pictures. Raises a `NothingFoundError` that says what is in the way when nothing is left.
    """
    like = asked[1] if isinstance(asked, tuple) else None
    return nearest(index, question_vector(index, model, asked), k, least, within, folder, captions, like)


def question_vector(index, model, asked):
    """The embedding (1, D), a unit row, of a question as `find_photos` takes it."""
    if not isinstance(asked, tuple):
        return search.query_vectors(index, model, [asked])
    try:
        return index.vectors([asked[1]])
    except UsageError:  # an index of codes alone
        return search.query_vectors(index, model, [search.text_of(index, asked[1]) or search.picture_of(index, asked[1])])


def nearest(index, vector, k=5, least=-1.0, within="", folder="", captions=None, but=None):
    """The hits of one embedding (1, D) as in `find_photos`, without the one called `but`."""
    within, what = within.strip().casefold(), noun(index)

    def inside(name):
        texts = (name, search.text_of(index, name) or "", *(captions or {}).get(name, ()))
        return name != but and (not folder or folder_of(name).startswith(f"{folder}/")) and any(within in text.casefold() for text in texts)

    reach = min(len(index), max(k + 1, FIRST) if within or folder else k + 1)
    while True:
        scores, names = index.search(vector, reach)
        hits = [search.Hit(name, float(score)) for name, score in zip(names[0], scores[0]) if inside(name)]
        good = [hit for hit in hits if hit.score >= least][:k]
        if reach == len(index) or len(good) == k or hits and scores[0][-1] < least:
            break
        reach = min(len(index), 10 * reach)
    if not hits:
        place = f" in {folder}" if folder else ""
        raise NothingFoundError(f"no {what}{place} holds {within!r} in its name or caption; empty the field to search all" if within else f"no other {what}{place}")
    if not good:
        raise NothingFoundError(f"no {what} reaches {least:.2f}; the nearest, {stem(hits[0].name)}, has {hits[0].score:z.2f}: lower the limit to see it")
    return good


def noun(index, count=1):
    """What the index holds, in words: photo or caption."""
    return ("caption" if search.holds_captions(index) else "photo") + "s" * (count != 1)


def folder_of(name):
    """The folders of a photo's or caption's name, each followed by a slash; empty without any."""
    return name[: name.rfind("/") + 1]


def folders_of(names):
    """{folder: how many names lie in it or below}, by name. What holds all of them is left out."""
    counts = collections.Counter()
    for name in names:
        parts = folder_of(name).split("/")[:-1]
        counts.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return {folder: counts[folder] for folder in sorted(counts) if counts[folder] < len(names)}


def captions_of(index, dataset=None):
    """{name: list of captions} of the pictures of an index: out of the dataset, or of captions.json beside the photos; {} where there are none.

    A `DataError` for a captions.json that cannot be read."""
    if search.holds_captions(index):
        return {}
    made, root = index.about.get("dataset"), index.about.get("root")
    if dataset is None and root is None and made in datasets.EMBEDDED:
        dataset = datasets.load_dataset(made)
    if dataset is None:
        return datasets.read_captions(pathlib.Path(root) / "captions.json") if root else {}
    return {name: row for name, row in zip(dataset.names, dataset.captions) if row}


def told(act):
    """(what `act()` gives, what the package warned of meanwhile)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = act()
    return found, [str(one.message) for one in caught if one.category.__module__.startswith(__name__.split(".")[0])]


# --- HTML: all that comes from a file's name or a caption is escaped --------------------------------------------------------------


def escaped(text):
    """Text as HTML; what is no letter, as in a name of another alphabet's file system, becomes a question mark; what would turn the direction of all that follows is spelt out."""
    return html.escape(runtime.plain(runtime.without_halves(str(text)), lines=True))


def thumbnail(picture):
    """A PIL picture as a data: address, with its pixels and nothing else of the file."""
    return "data:image/jpeg;base64," + base64.b64encode(images.bare_jpeg(picture, SIDE)).decode()


def card(place, hit, address, captions=(), problem=None):
    """One answer as HTML. address: its thumbnail's; "" for a caption without a picture. problem: the error that says why the picture cannot be shown."""
    said = escaped(captions[0]) if captions else ""
    if problem:
        reason = "gone or damaged since the index was made" if isinstance(problem, ImageError) else "no picture at hand"
        picture = f'<div class="mc-gone" title="{escaped(problem)}">{reason}</div>'
    else:
        picture = f'<img class="widget-image" src="{address}" alt="{said or escaped(stem(hit.name))}">' if address else ""
    name = f'<span class="mc-name" title="{escaped(hit.name)}">{escaped(stem(hit.name))}</span>'
    words = f'<span class="mc-said" title="{said}">{said}</span>' if said else ""
    return (f'<figure class="mc-card">{picture}<figcaption><span class="mc-place">{place}</span><span class="mc-score" title="cosine with the question">{hit.score:z.2f}</span>'
            f"{words}{name}</figcaption></figure>")
