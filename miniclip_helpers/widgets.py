"""Things to play with in a notebook: a search box, the similarity matrix, zero-shot labels, a player. Each is a pure function and its wiring.

Every widget is a `Panel`: a still picture, which GitHub and paper can show, and under it the controls. The widget's own picture
appears with the first change. Pictures are PNG in `ipywidgets.Image`; errors are said in the panel and raise nothing.
"""

import html
import warnings

import numpy as np
import torch

from . import embedding, plots, search, zero_shot
from .errors import MiniclipError, UsageError
from .images import open_image

SOFTMAX = ("none", "rows", "columns")
DPI, COLOURS = 96, 256
TICKS = 500  # milliseconds per picture of the player


# --- pure: arrays and pictures in, PNG bytes out -------------------------------------------------------------------------------


def search_picture(pictures, names, scores):
    """The pictures found, best first, each with its name and score over it: PNG bytes."""
    titles = [f"{_stem(name)}  {score:.2f}" for name, score in zip(names, scores, strict=True)]
    return plots.to_png(plots.image_grid(list(pictures), titles, columns=5), DPI, COLOURS)


def matrix_values(cosines, temperature, softmax="none"):
    """(R, C) cosines as they are, or as probabilities: softmax of cosines / temperature over "rows" or "columns".

    "rows": each row, a picture, adds up to 1 over the captions. "columns": each caption adds up to 1 over the pictures.
    """
    if softmax not in SOFTMAX:
        raise UsageError(f"expected softmax one of {', '.join(SOFTMAX)}, found {softmax!r}")
    if not temperature > 0:
        raise UsageError(f"expected a temperature above 0, found {temperature}")
    cosines = torch.as_tensor(cosines, dtype=torch.float64)
    return cosines.numpy() if softmax == "none" else (cosines / temperature).softmax(1 if softmax == "rows" else 0).numpy()


def matrix_picture(cosines, pictures, captions, temperature=0.07, softmax="none"):
    """The matrix of R pictures and C captions, before or after a softmax: PNG bytes."""
    values = matrix_values(cosines, temperature, softmax)
    what = {"none": "cosine similarity", "rows": "probability, each row adds up to 1", "columns": "probability, each column adds up to 1"}[softmax]
    limits = (min(0.0, values.min()), values.max()) if softmax == "none" else (0.0, 1.0)
    return plots.to_png(plots.similarity_matrix(values, captions, row_images=pictures, value=what, limits=limits), DPI, COLOURS)


def label_picture(picture, labels, probabilities, shown=8):
    """A picture beside bars of its most likely labels, best on top: PNG bytes. labels: C strings. probabilities: (C,)."""
    (best,) = zero_shot.top_labels(torch.as_tensor(probabilities)[None], labels, shown)
    figure, (left, right) = plots.new_figure(1, 2, height=0.9 + 0.32 * max(4, len(best)), width_ratios=(1, 1.6))
    left.imshow(np.asarray(picture))
    left.set_axis_off()
    right.barh(range(len(best)), [share for _, share in best], color=[plots.PALETTE["orange"]] + [plots.PALETTE["blue"]] * (len(best) - 1))
    for row, (_, share) in enumerate(best):
        right.annotate(f"{share:.1%}", (share, row), xytext=(3, 0), textcoords="offset points", va="center", fontsize=9,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    right.axvline(1 / len(labels), color=plots.PALETTE["grey"], linestyle="--", linewidth=1.2, label=f"chance, 1 in {len(labels)}")
    right.set_yticks(range(len(best)), [label if len(label) < 32 else f"{label[:30]}…" for label, _ in best])
    right.set(xlim=(0, 1.15), ylim=(max(4, len(best)) - 0.5, -0.5), xlabel="probability")
    right.grid(axis="y", visible=False)
    right.legend(loc="lower right", fontsize=8)
    return plots.to_png(figure, DPI, COLOURS)


def replay_picture(matrix, title="", limits=None):
    """One matrix of a training run as a picture without numbers: PNG bytes."""
    figure, axes = plots.new_figure(height=3.4, width=4.2)
    _draw_matrix(figure, axes, matrix, title, limits or (np.min(matrix), np.max(matrix)))
    return plots.to_png(figure, DPI, COLOURS)


def replay_sheet(matrices, titles, limits, shown=4):
    """At most `shown` of the matrices side by side, from the first to the last: the still picture of the player."""
    picks = np.unique(np.linspace(0, len(matrices) - 1, min(shown, len(matrices))).round().astype(int))
    figure, axes = plots.new_figure(1, len(picks), height=2.4, squeeze=False)
    for axis, pick in zip(axes[0], picks, strict=True):
        image = axis.imshow(matrices[pick], cmap="viridis", vmin=limits[0], vmax=limits[1])
        axis.set_title(titles[pick], fontsize=9)
        axis.set_axis_off()
    figure.colorbar(image, ax=axes, shrink=0.8)
    return plots.to_png(figure, DPI, COLOURS)


def _draw_matrix(figure, axes, matrix, title, limits):
    image = axes.imshow(np.asarray(matrix), cmap="viridis", vmin=limits[0], vmax=limits[1])
    axes.set(xlabel="captions", ylabel="pictures", title=title, xticks=[], yticks=[])
    axes.grid(False)
    figure.colorbar(image, ax=axes, shrink=0.9)


def _stem(name):
    """A file's name without folders and ending."""
    return str(name).rsplit("/", 1)[-1].rsplit(".", 1)[0]


# --- wiring --------------------------------------------------------------------------------------------------------------------


class Panel:
    """A widget with its still picture. Show it by naming it at the end of a cell.

    picture: the still one. image: the live one (`.value` holds PNG bytes). status: a line that says the answer, or the error, in
    words. controls: the ipywidgets by name, so that tests and notebooks can set their values.
    """

    def __init__(self, label, alt, controls, draw, hidden=True):
        """draw: function of no arguments that reads the controls and gives (PNG bytes, sentence)."""
        import ipywidgets

        self.label, self.controls, self._draw = label, controls, draw
        png, sentence = draw()
        self.picture = plots.Picture(png, alt)
        self.image = ipywidgets.Image(value=png, format="png", layout=ipywidgets.Layout(max_width="100%", display="none" if hidden else None))
        self.status = ipywidgets.HTML(html.escape(sentence))
        self.widget = ipywidgets.VBox([*controls.values(), self.status, self.image])
        for control in controls.values():
            control.observe(self._changed, "value")

    def _changed(self, change):
        """Draw anew; what fails is said in the panel."""
        try:
            self.image.value, sentence = self._draw()
            self.image.layout.display = None
            self.status.value = html.escape(sentence)
        except MiniclipError as error:
            self._say(str(error))
        except Exception as error:  # a callback has no cell to print a traceback in
            self._say(f"this did not work ({type(error).__name__}): {error}")

    def _say(self, problem):
        self.status.value = f"<b style='color:{plots.PALETTE['red']}'>{html.escape(problem)}</b>"

    def _ipython_display_(self):
        from IPython.display import display

        live = self.widget._repr_mimebundle_()
        display(self.picture)
        display({**live, "text/plain": f"[{self.label}: run the cell to use it]"}, raw=True)


def _wide(widget, **options):
    """An ipywidget with a readable label, answering when the value is settled."""
    return widget(style={"description_width": "110px"}, layout={"width": "min(100%, 560px)"}, **options)


def search_box(model, index, dataset, query="a red fruit", k=5):
    """A box to type in: the pictures of `dataset` nearest to the words.

    index: an `Index` of the dataset's pictures, or their embeddings (N, D), unit rows.
    """
    import ipywidgets

    if not hasattr(index, "search"):
        from .index import build_index

        index = build_index(index, dataset.names)
    controls = {
        "query": _wide(ipywidgets.Text, value=query, description="Search for", placeholder="words, then Enter", continuous_update=False),
        "k": _wide(ipywidgets.IntSlider, value=k, min=1, max=min(15, len(index)), description="Pictures", continuous_update=False),
    }

    def draw():
        hits = search.search_text(index, model, controls["query"].value, controls["k"].value)
        pictures = [dataset.image(dataset.row(hit.name)) for hit in hits]
        png = search_picture(pictures, [hit.name for hit in hits], [hit.score for hit in hits])
        return png, "Found, best first: " + ", ".join(f"{_stem(hit.name)} ({hit.score:.2f})" for hit in hits)

    return Panel("search box", f"The {k} pictures found for {query!r}, best first.", controls, draw)


def similarity_explorer(model, images, captions, names=None):
    """The matrix to play with: choose pictures, edit captions, set the temperature, take a softmax over rows or columns.

    images: list of PIL. captions: list of str. names: what to call the pictures in the list, "picture 1" and so on by default.
    """
    import ipywidgets

    names = [_stem(name) for name in names or [f"picture {number + 1}" for number in range(len(images))]]
    vectors = embedding.image_embeddings(model, images)  # (N, D), once
    start = 1 / float(torch.as_tensor(model.logit_scale).detach())
    controls = {
        "pictures": _wide(ipywidgets.SelectMultiple, options=[(name, row) for row, name in enumerate(names)], value=tuple(range(len(names))),
                          description="Pictures", rows=min(8, len(names))),
        "captions": _wide(ipywidgets.Textarea, value="\n".join(captions), description="Captions", placeholder="one a line", rows=min(8, len(captions)),
                          continuous_update=False),
        "temperature": _wide(ipywidgets.FloatLogSlider, value=start, min=-3, max=1, step=0.02, description="Temperature", readout_format=".3g",
                             continuous_update=False),
        "softmax": _wide(ipywidgets.ToggleButtons, options=SOFTMAX, description="Softmax over",
                         tooltips=["the cosines", "each picture picks a caption", "each caption picks a picture"]),
    }

    def draw():
        rows, texts = list(controls["pictures"].value), [line.strip() for line in controls["captions"].value.splitlines() if line.strip()]
        if not rows or not texts:
            raise UsageError("choose at least one picture, and write at least one caption, one a line")
        if len(texts) > 20:
            raise UsageError(f"at most 20 captions fit into the picture, found {len(texts)}")
        cosines = vectors[rows] @ embedding.text_embeddings(model, texts).T
        png = matrix_picture(cosines, [images[row] for row in rows], texts, controls["temperature"].value, controls["softmax"].value)
        best = "; ".join(f"{names[row]}: {texts[column]}" for row, column in zip(rows, cosines.argmax(1).tolist(), strict=True))
        return png, f"The best caption of each picture: {best}"

    return Panel("similarity explorer", f"Cosine similarity of {len(images)} pictures and {len(captions)} captions.", controls, draw)


def zero_shot_playground(model, images, labels, template=zero_shot.TEMPLATE, names=None):
    """Name a picture by labels of your own: choose one or upload it, edit labels and template, set the temperature.

    images: list of PIL. labels: list of str. names: what to call the pictures, "picture 1" and so on by default.
    """
    import ipywidgets

    names = [_stem(name) for name in names or [f"picture {number + 1}" for number in range(len(images))]]
    start = 1 / float(torch.as_tensor(model.logit_scale).detach())
    controls = {
        "picture": _wide(ipywidgets.Dropdown, options=[*((name, row) for row, name in enumerate(names)), ("your own, below", -1)], description="Picture"),
        "upload": ipywidgets.FileUpload(accept="image/*", multiple=False, description="Upload a picture", layout={"width": "180px"}),
        "labels": _wide(ipywidgets.Textarea, value="\n".join(labels), description="Labels", placeholder="one a line", rows=min(8, 1 + len(labels)),
                        continuous_update=False),
        "template": _wide(ipywidgets.Text, value=template, description="Template", placeholder="a photo of a {}.", continuous_update=False),
        "temperature": _wide(ipywidgets.FloatLogSlider, value=start, min=-3, max=1, step=0.02, description="Temperature", readout_format=".3g",
                             continuous_update=False),
    }
    controls["upload"].observe(lambda change: setattr(controls["picture"], "value", -1), "value")  # what is brought is looked at

    def chosen():
        if controls["picture"].value >= 0:
            return names[controls["picture"].value], images[controls["picture"].value]
        if not controls["upload"].value:
            raise UsageError("upload a picture of your own first, with the button below")
        file = controls["upload"].value[0]
        return _stem(file["name"]), open_image(bytes(file["content"]))

    def draw():
        (name, picture), texts = chosen(), [line.strip() for line in controls["labels"].value.splitlines() if line.strip()]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            (row,) = zero_shot.classify(model, [picture], texts, controls["template"].value, controls["temperature"].value)
        (best,) = zero_shot.top_labels(row[None], texts, 3)
        notes = "".join(f" ({note.message})" for note in told if issubclass(note.category, UserWarning))
        return label_picture(picture, texts, row), f"{name}: " + ", ".join(f"{label} {share:.1%}" for label, share in best) + notes

    return Panel("zero-shot playground", f"{names[0]} and the most likely of {len(labels)} labels.", controls, draw)


def replay(matrices, titles=None):
    """A player through the matrices of a training run: a button, and a slider that is one frame a step.

    matrices: list of (R, C) arrays. titles: one each, "step 0" and so on by default. The colours mean the same in every frame.
    """
    import ipywidgets

    matrices = [np.asarray(matrix) for matrix in matrices]
    if not matrices:
        raise UsageError("expected at least one matrix to play, found none")
    titles = [str(title) for title in titles] if titles is not None else [f"step {number}" for number in range(len(matrices))]
    if len(titles) != len(matrices):
        raise UsageError(f"expected one title per matrix, found {len(titles)} titles and {len(matrices)} matrices")
    limits = (min(float(matrix.min()) for matrix in matrices), max(float(matrix.max()) for matrix in matrices))
    controls = {
        "play": ipywidgets.Play(min=0, max=len(matrices) - 1, interval=TICKS, description="Play"),
        "frame": _wide(ipywidgets.IntSlider, min=0, max=len(matrices) - 1, description="Frame"),
    }
    frames = {}

    def draw():
        number = controls["frame"].value
        if number not in frames:
            frames[number] = replay_picture(matrices[number], titles[number], limits)
        return frames[number], f"{titles[number]} ({number + 1} of {len(matrices)})"

    panel = Panel("player", f"The matrix at some of {len(matrices)} moments, from {titles[0]} to {titles[-1]}.", controls, draw, hidden=False)
    ipywidgets.link((controls["play"], "value"), (controls["frame"], "value"))
    panel.picture = plots.Picture(replay_sheet(matrices, titles, limits), panel.picture.alt)
    return panel
