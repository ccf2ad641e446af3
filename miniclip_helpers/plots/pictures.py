"""Pictures in rows, with titles and frames."""

import textwrap

import numpy as np

from .style import PALETTE, WIDTH, new_figure

LINE = 0.16  # inches: a line of a title


def image_grid(images, titles=None, columns=5, title="", colours=None):
    """Pictures in rows of `columns`, a title over each, in two lines where it is long. colours: one colour name per picture for its frame (green right, red wrong)."""
    count = len(images)
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    titles = [_wrapped(text, 90 // columns) for text in titles or [""] * count]
    lines = [max(text.count("\n") + bool(text) for text in titles[start:start + columns]) for start in range(0, count, columns)]
    longest = max(map(len, "\n".join(titles).split("\n")))
    size = max(7, min(9, 9 * 90 / columns / max(1, longest)))
    tallest = min(1, max(np.shape(image)[0] / np.shape(image)[1] for image in images))
    figure, axes = new_figure(rows, columns, height=rows * (WIDTH / columns * tallest + 0.08) + LINE * (sum(lines) + 2 * bool(title)), squeeze=False)
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
            axis.set_title(titles[number], fontsize=size, parse_math=False)  # a dollar sign in a caption begins no formula
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _wrapped(text, width):
    """The text in lines of `width` letters, two at most; lines that it has already stay as they are."""
    return text if "\n" in text else textwrap.fill(text, width, max_lines=2, placeholder="…")
