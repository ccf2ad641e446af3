"""Captions for a folder of photos, written one photo after the other."""

import pathlib
import warnings

import numpy as np

from .. import datasets, plots, zero_shot
from ..errors import UsageError
from .panel import COLOURS, DPI, Panel, wide

SUGGESTED = 4


# --- pure ------------------------------------------------------------------------------------------------------------------------


def caption_picture(picture, title):
    """One photo, its title over it: PNG bytes."""
    figure, axes = plots.new_figure(height=1.9, width=2.2)
    axes.imshow(np.asarray(picture))
    axes.set_title(title, fontsize=8, parse_math=False)
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
    alt = f"The photo {photos.names[first]}, for which captions can be written."
    return Panel("caption writer", alt, controls, draw, rest=0)  # what is written must be saved before the next photo takes its place
