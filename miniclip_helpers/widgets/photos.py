"""A folder of one's own: search it by words, by a picture, by an answer; and write its captions, one photo after the other."""

import pathlib
import warnings

import numpy as np

from .. import datasets, plots, search, zero_shot
from ..errors import UsageError
from .panel import COLOURS, DPI, Panel, stem, wide
from .search_box import search_picture

SHOWN = 10  # answers at most
SUGGESTED = 4


# --- pure ------------------------------------------------------------------------------------------------------------------------


def find_photos(index, model, asked, k=5, least=-1.0, within=""):
    """The hits of a question, best first: at most k, none below the score `least`, only names that hold the text `within`.

    asked: words (str), a picture (PIL or bytes), or the name of a photo of the index, given as ("like", name): then the photo itself is left out.
    Raises a `UsageError` that says what is in the way when nothing is left.
    """
    everything = len(index) if within else min(len(index), k + 1)
    like = asked[1] if isinstance(asked, tuple) else None
    hits = search.search_many(index, model, [search.picture_of(index, like) if like else asked], everything)[0]
    inside = [hit for hit in hits if hit.name != like and within.casefold() in hit.name.casefold()]
    if not inside:
        raise UsageError(f"no photo's name holds {within!r}; empty the field to search all {len(index)}")
    good = [hit for hit in inside if hit.score >= least][:k]
    if not good:
        raise UsageError(f"no photo reaches {least:.2f}; the nearest, {stem(inside[0].name)}, has {inside[0].score:.2f}: lower the limit to see it")
    return good


def caption_picture(picture, title):
    """One photo, its title over it: PNG bytes."""
    figure, axes = plots.new_figure(height=1.9, width=2.2)
    axes.imshow(np.asarray(picture))
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
    return plots.to_png(figure, DPI, COLOURS)


def suggest_captions(model, picture, labels, shown=SUGGESTED):
    """Labels that may serve as the start of a caption, the likeliest first: list of (label, probability)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return zero_shot.top_labels(zero_shot.classify(model, [picture], labels), labels, shown)[0]


def lines_of(text):
    """The captions in a text field: one a line, blanks taken away, none twice."""
    return list(dict.fromkeys(" ".join(line.split()) for line in text.splitlines() if line.strip()))


# --- wiring ----------------------------------------------------------------------------------------------------------------------


def photo_search(index, model, dataset=None, query="a red fruit", k=5):
    """Search photos by words, by a picture of your own, or by one of the answers.

    dataset: where the pictures are taken from; by default where the index says that they lie. The controls: "query"; "upload"; "like", the
    number of an answer of which to see more; "k"; "least", the lowest score to show; "within", a part of the names to search in.
    """
    import ipywidgets

    top = min(SHOWN, len(index))
    controls = {
        "query": wide(ipywidgets.Text, value=query, description="Search for", placeholder="words, then Enter", continuous_update=False),
        "upload": ipywidgets.FileUpload(accept="image/*", multiple=False, description="or for a picture", layout={"width": "180px"}),
        "like": wide(ipywidgets.Dropdown, options=[("–", 0), *((f"answer {number}", number) for number in range(1, top + 1))], description="More like"),
        "k": wide(ipywidgets.IntSlider, value=min(k, top), min=1, max=top, description="Pictures", continuous_update=False),
        "least": wide(ipywidgets.FloatSlider, value=-1.0, min=-1.0, max=1.0, step=0.01, description="Lowest score", continuous_update=False),
        "within": wide(ipywidgets.Text, value="", description="Names with", placeholder="2024, say; empty for all", continuous_update=False),
    }
    asked, hits = [query, f"{query!r}"], []

    def ask(question, said):
        asked[:] = question, said

    def upload(change):
        if change["new"]:
            ask(bytes(change["new"][0]["content"]), change["new"][0]["name"])

    def like(change):
        if 1 <= change["new"] <= len(hits):
            name = hits[change["new"] - 1].name
            ask(("like", name), f"more like {name}")
            controls["like"].value = 0  # so that the same number can be chosen again, of the new answers

    def draw():
        hits[:] = find_photos(index, model, asked[0], controls["k"].value, controls["least"].value, controls["within"].value.strip())
        pictures = [dataset.image(dataset.row(hit.name)) if dataset is not None else search.picture_of(index, hit.name) for hit in hits]
        png = search_picture(pictures, [hit.name for hit in hits], [hit.score for hit in hits])
        return png, f"{asked[1]}: " + ", ".join(f"{stem(hit.name)} ({hit.score:.2f})" for hit in hits)

    controls["query"].observe(lambda change: ask(change["new"], f"{change['new']!r}"), "value")
    controls["upload"].observe(upload, "value")
    controls["like"].observe(like, "value")  # all three before the panel's own, which draws
    return Panel("photo search", f"The {k} photos found for {query!r}, best first.", controls, draw)


def caption_writer(photos, file=None, model=None, labels=(), skip_problems=True):
    """Write captions.json by hand: a photo, a field for its captions, one a line, a button to either side. Each change is saved at once, whole.

    photos: a folder, or a dataset. file: where to save; by default captions.json in the folder. An existing one is gone on with. model and
    labels: what to suggest. The controls: "number", "text", "back", "next", "bare" (to the next photo without a caption), "take" (the suggestion).
    """
    import ipywidgets

    if isinstance(photos, datasets.ImageTextDataset):
        if file is None:
            raise UsageError("a dataset does not say where its captions belong; give the folder instead, or file=, the captions.json to write")
    else:
        file, photos = file or pathlib.Path(photos) / "captions.json", datasets.load_photos(photos, skip_problems)
    file = pathlib.Path(file)
    captions = datasets.read_captions(file)
    first = next((row for row, name in enumerate(photos.names) if not captions.get(name)), 0)
    text_of = lambda row: "\n".join(captions.get(photos.names[row], []))  # noqa: E731
    controls = {
        "number": wide(ipywidgets.BoundedIntText, value=first + 1, min=1, max=len(photos), description=f"Photo of {len(photos)}"),
        "text": wide(ipywidgets.Textarea, value=text_of(first), description="Captions", placeholder="one a line: what is to be seen?", rows=3, continuous_update=False),
        **{name: ipywidgets.Button(description=said, layout={"width": "180px"}) for name, said in
           {"back": "back", "next": "next", "bare": "next without caption", "take": "take the suggestion"}.items()},
    }
    controls["take"].disabled, suggested = not (model and labels), []

    def draw():
        row, said = controls["number"].value - 1, lines_of(controls["text"].value)
        name = photos.names[row]
        if said != captions.get(name, []):
            datasets.write_captions(file, {**captions, name: said})
            captions[name] = said
        picture = photos.image(row)
        suggested[:] = suggest_captions(model, picture, list(labels)) if model and labels else []
        done = sum(bool(captions.get(name)) for name in photos.names)
        words = "; suggested: " + ", ".join(f"{label} {share:.0%}" for label, share in suggested) if suggested else ""
        return caption_picture(picture, name), f"{name}: {len(said)} caption(s); {done} of {len(photos)} photos have one, saved in {file.name}{words}"

    def go(row):
        controls["number"].value = row % len(photos) + 1

    def bare():
        here = controls["number"].value
        after = [*range(here, len(photos)), *range(here)]
        go(next((row for row in after if not captions.get(photos.names[row])), here - 1))

    def take():
        controls["text"].value = "\n".join([*lines_of(controls["text"].value), suggested[0][0]])

    controls["number"].observe(lambda change: setattr(controls["text"], "value", text_of(change["new"] - 1)), "value")  # before the panel's own
    acts = {"back": lambda: go(controls["number"].value - 2), "next": lambda: go(controls["number"].value), "bare": bare, "take": take}
    for name, act in acts.items():
        controls[name].on_click(lambda button, act=act: act())
    return Panel("caption writer", f"The photo {photos.names[first]}, for which captions can be written.", controls, draw)
