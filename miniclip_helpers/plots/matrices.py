"""Similarity matrices with their pictures and captions."""

import numpy as np

from .style import PALETTE, new_figure, short


def similarity_matrix(matrix, column_labels, row_images=None, row_labels=None, title="", value="cosine similarity", form="{:.2f}",
                      limits=None, mark=None, chosen=()):
    """A heat map with its values written in: rows are images, columns are captions.

    matrix: (R, C). row_images: R pictures, drawn at the left, or row_labels: R strings. mark: (R,) column of the right answer,
    framed. chosen: (row, column, is right) of cells to frame, dashed and green where right, red where wrong. limits: (low, high) of the colours.
    """
    matrix = np.asarray(matrix, dtype=float)
    rows, columns = matrix.shape
    figure, axes = new_figure(height=max(3.2, 0.52 * rows + 1.9))
    low, high = limits or (matrix.min(), matrix.max())
    image = axes.imshow(matrix, cmap="viridis", vmin=low, vmax=high, aspect="auto")
    for row, column in np.ndindex(rows, columns):
        shade = (matrix[row, column] - low) / max(high - low, 1e-9)
        number = axes.text(column, row, form.format(matrix[row, column]), ha="center", va="center", fontsize=8, color="black" if shade > 0.6 else "white")
        number.set_in_layout(False)  # it lies within the cell
    axes.set_xticks(range(columns), [short(label) for label in column_labels], rotation=30, ha="right", fontsize=9, parse_math=False)
    axes.set_yticks(range(rows), row_labels if row_labels is not None else [""] * rows, parse_math=False)
    axes.grid(False)
    for row, column in enumerate(mark if mark is not None else []):
        axes.add_patch(_frame(column, row))
    for row, column, right in chosen:
        axes.add_patch(_frame(column, row, *(("green", "--") if right else ("red", "-"))))
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
        axes.set_xticks(range(columns), [short(label, 30) for label in column_labels], rotation=55, ha="right", fontsize=8, parse_math=False)
        axes.set(yticks=[], title=title)
        axes.grid(False)
    _row_pictures(panels[0, 0], row_images)
    return figure


def _frame(column, row, colour="red", line="-"):
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor=PALETTE[colour], linestyle=line, linewidth=1.8)


def _row_pictures(axes, pictures):
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    for row, picture in enumerate(pictures):
        small = picture.copy()
        small.thumbnail((96, 96))
        box = OffsetImage(np.asarray(small), zoom=30 / max(small.size))
        axes.add_artist(AnnotationBbox(box, (0, row), xybox=(-18, 0), xycoords=("axes fraction", "data"), boxcoords="offset points", frameon=False))
