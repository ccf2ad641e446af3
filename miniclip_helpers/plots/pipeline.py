"""CLIP in one drawing."""

import numpy as np

from .style import PALETTE, new_figure


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
