"""Figures of one family: one palette, one size, one font. Arrays and pictures in, a matplotlib `Figure` out; saving is explicit."""

import io
import json
import re

import numpy as np

from . import runtime
from .errors import UsageError

# Okabe and Ito 2008: eight colours that people with any kind of colour vision can tell apart.
PALETTE = {"blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "red": "#D55E00", "purple": "#CC79A7", "sky": "#56B4E9",
           "yellow": "#F0E442", "black": "#000000", "grey": "#7F7F7F"}
WIDTH = 7.2  # inches: 600 px wide pages show it without shrinking the letters
STYLE = {"font.size": 10, "font.family": "DejaVu Sans", "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False,
         "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True, "figure.dpi": 100, "savefig.dpi": 200, "legend.frameon": False,
         "svg.hashsalt": "miniclip", "figure.facecolor": "white", "axes.facecolor": "white"}
INDEX_HEAD = ("# Figures\n\nEach figure, the notebook that draws it, its caption and its alternative text.\n\n"
              "| figure | notebook | caption | alternative text |\n|---|---|---|---|\n")


def new_figure(rows=1, columns=1, height=3.2, width=WIDTH, **options):
    """A `Figure` in the series' style and its axes, as `plt.subplots` gives them, outside pyplot: nothing is shown twice or leaks."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, **options)


def to_png(figure, dpi=100, colours=None):
    """The figure as PNG bytes. colours: at most so many, which makes the file three times smaller and keeps notebooks light."""
    import matplotlib
    from PIL import Image

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    if colours:
        small = Image.open(buffer).convert("RGB").quantize(colours)
        small.save(buffer := io.BytesIO(), format="PNG", optimize=True)
    return buffer.getvalue()


class Picture:
    """A figure as a notebook cell shows it: one PNG, with its alternative text for readers who do not see."""

    def __init__(self, png, alt=""):
        self.png, self.alt = png, alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": self.png, "text/plain": f"[figure: {self.alt}]"}


def show(figure, alt="", dpi=100):
    """The figure as a `Picture` to end a cell with."""
    return Picture(to_png(figure, dpi, colours=256), alt)


def save_figure(figure, name, caption, alt, data=None):
    """Write figures/NAME.png (twice the screen's resolution), list it in figures/index.md, and return it for the cell to show.

    name: "NN_what", NN the notebook's number. caption: a sentence under the picture. alt: what it shows, for those who do not
    see it. data: the numbers behind it, plain JSON, written to figures/data/NAME.json.
    """
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", name):
        raise UsageError(f"expected a figure's name like '04_training_curves', found {name!r}")
    if not caption.strip() or not alt.strip():
        raise UsageError(f"figure {name} needs a caption and an alternative text")
    folder = runtime.figures_dir()
    with runtime.writing(folder / f"{name}.png") as path:
        path.write_bytes(to_png(figure, dpi=200))
    if data is not None:
        with runtime.writing(folder / "data" / f"{name}.json") as path:
            path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf8")
    _list_figure(folder / "index.md", name, caption, alt)
    return show(figure, alt)


def _list_figure(index, name, caption, alt):
    lines = index.read_text(encoding="utf8").splitlines() if index.exists() else []
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| [")}
    escaped = [text.replace("|", "\\|").replace("\n", " ") for text in (caption, alt)]
    rows[f"[{name}]({name}.png)"] = f"| [{name}]({name}.png) | {name[:2]} | {escaped[0]} | {escaped[1]} |"
    with runtime.writing(index) as path:
        path.write_text(INDEX_HEAD + "\n".join(rows[key] for key in sorted(rows)) + "\n", encoding="utf8")


def similarity_matrix(matrix, column_labels, row_images=None, row_labels=None, title="", value="cosine similarity", form="{:.2f}",
                      limits=None, mark=None):
    """A heat map with its values written in: rows are images, columns are captions.

    matrix: (R, C). row_images: R pictures, drawn at the left, or row_labels: R strings. mark: (R,) column of the right answer,
    framed. limits: (low, high) of the colours.
    """
    matrix = np.asarray(matrix, dtype=float)
    rows, columns = matrix.shape
    figure, axes = new_figure(height=max(3.2, 0.52 * rows + 1.9))
    low, high = limits or (matrix.min(), matrix.max())
    image = axes.imshow(matrix, cmap="viridis", vmin=low, vmax=high, aspect="auto")
    for row, column in np.ndindex(rows, columns):
        shade = (matrix[row, column] - low) / max(high - low, 1e-9)
        axes.text(column, row, form.format(matrix[row, column]), ha="center", va="center", fontsize=8, color="black" if shade > 0.6 else "white")
    axes.set_xticks(range(columns), [_short(label) for label in column_labels], rotation=30, ha="right", fontsize=9)
    axes.set_yticks(range(rows), row_labels if row_labels is not None else [""] * rows)
    axes.grid(False)
    for row, column in enumerate(mark if mark is not None else []):
        axes.add_patch(_frame(column, row))
    if row_images is not None:
        _row_pictures(axes, row_images)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label=value, shrink=0.8)
    return figure


def similarity_matrices(matrices, titles, column_labels, row_images, mark=()):
    """Several matrices of the same pictures and captions side by side, each with colours of its own. mark: (R,) as in `similarity_matrix`."""
    rows, columns = np.shape(matrices[0])
    figure, panels = new_figure(1, len(matrices), height=0.42 * rows + 2, squeeze=False)
    for axes, matrix, title in zip(panels[0], matrices, titles, strict=True):
        matrix = np.asarray(matrix, dtype=float)
        axes.imshow(matrix, cmap="viridis", aspect="auto")
        for row, column in np.ndindex(rows, columns):
            light = matrix[row, column] > matrix.min() + 0.6 * np.ptp(matrix)
            axes.text(column, row, f"{matrix[row, column].round(2) + 0:.2f}", ha="center", va="center", fontsize=7, color="black" if light else "white")
        for row, column in enumerate(mark):
            axes.add_patch(_frame(column, row))
        axes.set_xticks(range(columns), [_short(label, 30) for label in column_labels], rotation=55, ha="right", fontsize=8)
        axes.set(yticks=[], title=title)
        axes.grid(False)
    _row_pictures(panels[0, 0], row_images)
    return figure


def _short(text, length=34):
    return text if len(text) <= length else text[: length - 1] + "…"


def _frame(column, row):
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor=PALETTE["red"], linewidth=1.8)


def _row_pictures(axes, pictures):
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    for row, picture in enumerate(pictures):
        small = picture.copy()
        small.thumbnail((96, 96))
        box = OffsetImage(np.asarray(small), zoom=30 / max(small.size))
        axes.add_artist(AnnotationBbox(box, (0, row), xybox=(-18, 0), xycoords=("axes fraction", "data"), boxcoords="offset points", frameon=False))


def image_grid(images, titles=None, columns=5, title="", colours=None):
    """Pictures in rows of `columns`, a title over each. colours: one colour name per picture for its frame (green right, red wrong)."""
    count = len(images)
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, height=WIDTH / columns * rows * 1.22 + 0.3, squeeze=False)
    for number, axis in enumerate(axes.flat):
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(number < count and bool(colours))
            spine.set_linewidth(2.5)
            spine.set_color(PALETTE[colours[number]] if colours and number < count else "none")
        axis.grid(False)
        if number < count:
            axis.imshow(np.asarray(images[number]))
            axis.set_title(_short(titles[number], 90 // columns) if titles else "", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def curves(series, x_label, y_label, title="", chance=None, log_x=False, log_y=False, bands=None, height=3.2):
    """Lines with a legend. series: {label: (x, y)}. bands: {label: (low, high)} 95 % intervals. chance: {label: y}, dashed lines."""
    figure, axes = new_figure(height=height)
    for (label, (x, y)), colour in zip(series.items(), PALETTE.values()):
        axes.plot(x, y, color=colour, label=label, marker="o" if len(np.atleast_1d(x)) <= 12 else None, markersize=4, linewidth=1.8)
        if bands and label in bands:
            axes.fill_between(x, *bands[label], color=colour, alpha=0.18, linewidth=0)
    for label, level in (chance or {}).items():
        axes.axhline(level, color=PALETTE["grey"], linestyle="--", linewidth=1.2, label=label)
    axes.set(xlabel=x_label, ylabel=y_label, title=title, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    if len(series) + len(chance or {}) > 1:
        axes.legend()
    return figure


def bars(values, y_label, title="", intervals=None, chance=None, form="{:.0%}", height=3.2):
    """Bars with whiskers. values: {label: {group: y}} or {label: y}. intervals: the same shape, (low, high) each. chance: a level, dashed."""
    nested = {label: value if isinstance(value, dict) else {"": value} for label, value in values.items()}
    groups = list(next(iter(nested.values())))
    figure, axes = new_figure(height=height)
    width = 0.8 / len(nested)
    for number, ((label, row), colour) in enumerate(zip(nested.items(), PALETTE.values())):
        x = np.arange(len(groups)) + (number - (len(nested) - 1) / 2) * width
        y = np.array([row[group] for group in groups], dtype=float)
        axes.bar(x, y, width * 0.92, color=colour, label=label)
        top = y.copy()
        if intervals and label in intervals:
            span = intervals[label] if isinstance(values[label], dict) else {"": intervals[label]}
            low, high = np.array([span[group] for group in groups], dtype=float).T
            axes.errorbar(x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="none", ecolor="black", capsize=3, linewidth=1)
            top = high
        for place, value, height_ in zip(x, y, top):
            axes.annotate(form.format(value), (place, height_), ha="center", va="bottom", fontsize=8, xytext=(0, 2), textcoords="offset points")
    if chance is not None:
        axes.axhline(chance, color=PALETTE["grey"], linestyle="--", linewidth=1.2, label="chance")
    axes.set_xticks(range(len(groups)), groups)
    axes.set(ylabel=y_label, title=title)
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=min(4, len(nested) + (chance is not None)), loc="upper left", bbox_to_anchor=(0, -0.12))
    return figure


def pipeline_drawing(pictures, captions, similarity, image_vectors, text_vectors):
    """CLIP in one drawing: N pictures and N captions, two towers, unit vectors, the N x N matrix, and what is read off it.

    similarity: (N, N), rows are pictures. image_vectors, text_vectors: (N, d), a few numbers of each embedding, drawn as stripes.
    """
    count, cell, left, top = len(pictures), 52, 306, 150
    middle, right, bottom = top + count * cell / 2, left + count * cell, top + count * cell
    figure, axes = new_figure(height=(bottom + 30) / 100)
    figure.set_layout_engine("none")
    axes.set_position([0, 0, 1, 1])
    axes.set(xlim=(0, 720), ylim=(bottom + 30, 0))
    axes.set_axis_off()
    for row, picture in enumerate(pictures):
        _place_picture(axes, picture, (12, top + row * cell + 2), cell - 4)
        _stripe(axes, image_vectors[row], (212, top + (row + 0.5) * cell), 74, vertical=False)
        axes.text(14, 26 + row * 27, captions[row], fontsize=9, va="center", bbox={"boxstyle": "round,pad=0.35", "fc": "#FFF4DC", "ec": PALETTE["orange"], "lw": 0.8})
        _stripe(axes, text_vectors[row], (left + (row + 0.5) * cell, 28), 76, vertical=True)
    _tower(axes, [(84, top + 10), (84, bottom - 10), (180, middle + 40), (180, middle - 40)], "image\ntower", PALETTE["blue"])
    _tower(axes, [(166, 14), (166, 118), (262, 96), (262, 36)], "text\ntower", PALETTE["orange"])
    for start, end in [((62, middle), (82, middle)), ((185, middle), (209, middle)), ((290, middle), (left - 2, middle)), ((142, 66), (163, 66)),
                       ((268, 66), (left + 10, 66)), ((left + count * cell / 2, 112), (left + count * cell / 2, top - 4))]:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": PALETTE["grey"], "lw": 1.3})
    _pipeline_matrix(axes, np.asarray(similarity), (left, top), cell)
    for x, y, words in [(249, bottom + 14, "unit vectors"), (right + 40, 66, "unit vectors"), ((left + right) / 2, bottom + 14, "the cosine of every pair")]:
        axes.text(x, y, words, fontsize=8.5, ha="center", va="center", color="#5F5F5F")
    _pipeline_uses(axes, right + 20, top, count * cell)
    return figure


def _place_picture(axes, picture, corner, side):
    """The centre square of a picture."""
    from PIL import ImageOps

    (x, y), small = corner, ImageOps.fit(picture, (160, 160))
    axes.imshow(np.asarray(small), extent=(x, x + side, y + side, y), aspect="auto", zorder=2)


def _stripe(axes, values, start, length, vertical):
    """An embedding as a stripe of coloured cells."""
    values, (x, y), half = np.asarray(values, dtype=float)[None], start, 7
    extent = (x - half, x + half, y + length, y) if vertical else (x, x + length, y + half, y - half)
    span = max(abs(values).max(), 1e-9)
    axes.imshow(values.T if vertical else values, extent=extent, aspect="auto", cmap="PuOr", vmin=-span, vmax=span, zorder=2)


def _tower(axes, corners, label, colour):
    from matplotlib.patches import Polygon

    axes.add_patch(Polygon(corners, closed=True, facecolor=colour, alpha=0.9, joinstyle="round", edgecolor=colour, linewidth=4))
    x, y = np.mean(corners, axis=0)
    axes.text(x, y, label, ha="center", va="center", color="white", fontsize=11, fontweight="bold")


def _pipeline_matrix(axes, similarity, corner, cell):
    from matplotlib.patches import Rectangle

    count, (left, top) = len(similarity), corner
    low, high = similarity.min(), similarity.max()
    axes.imshow(similarity, extent=(left, left + count * cell, top + count * cell, top), aspect="auto", cmap="viridis", vmin=low, vmax=high, zorder=2)
    for row, column in np.ndindex(count, count):
        shade = (similarity[row, column] - low) / max(high - low, 1e-9)
        axes.text(left + (column + 0.5) * cell, top + (row + 0.5) * cell, f"{similarity[row, column].round(2) + 0:.2f}", ha="center", va="center", fontsize=8,
                  color="black" if shade > 0.6 else "white", zorder=3)
    for row in range(count):
        axes.add_patch(Rectangle((left + row * cell + 1, top + row * cell + 1), cell - 2, cell - 2, fill=False, edgecolor=PALETTE["red"], linewidth=2.2, zorder=4))


def _pipeline_uses(axes, x, top, height):
    """Three cards at the right: what the matrix is for."""
    cards = {"Train": "the framed pairs must\nwin their row and column", "Classify": "along a row: the words\nthat fit this picture",
             "Search": "down a column: the picture\nthat fits these words"}
    step = height / len(cards)
    for number, (title, text) in enumerate(cards.items()):
        y, colour = top + number * step + 4, PALETTE[("red", "blue", "orange")[number]]
        axes.plot([x, x], [y, y + step - 10], color=colour, linewidth=4, solid_capstyle="round")
        axes.text(x + 9, y + 1, title, fontsize=10.5, fontweight="bold", va="top", color=colour)
        axes.text(x + 9, y + 17, text, fontsize=8.5, va="top", linespacing=1.25)
