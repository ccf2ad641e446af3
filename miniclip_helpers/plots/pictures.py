"""Pictures in rows, with titles and frames."""

import numpy as np

from .style import PALETTE, WIDTH, new_figure, short


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
            axis.set_title(short(titles[number], 90 // columns) if titles else "", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
