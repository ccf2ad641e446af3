"""The answers to look at: pictures in a row, captions beside the photo that was asked."""

import pathlib
import textwrap

from PIL import Image

from .. import datasets, plots
from ..errors import ImageError, UsageError
from ..plots.style import short

MOST_ROWS = 20  # of one figure: more is no picture any more


def holds_captions(index):
    """Whether the index holds captions, and not pictures."""
    return index.about.get("holds") == "captions"


def text_of(index, name):
    """The caption called `name` of an index of captions; None for one that was added without its text, and in an index of pictures."""
    return index.about.get("captions", {}).get(name)


def picture_of(index, name):
    """The picture called `name` of the index, or the one that the caption `name` belongs to, as PIL RGB: out of its dataset, or of the folder it was made of."""
    if holds_captions(index):
        name = name.rpartition("#")[0]
    dataset, root = index.about.get("dataset"), index.about.get("root")
    if root is None and dataset not in datasets.NAMES:
        raise UsageError(f"the index does not say where its pictures are, so {name!r} cannot be shown; build it with search.index_dataset, or: miniclip index")
    return datasets.picture_of(name, dataset, root)


def gone(index, hits):
    """The names among the hits whose pictures can no longer be read: deleted or damaged since they were indexed."""
    return [hit.name for hit in hits if _picture_or_reason(index, hit.name)[1]]


def _picture_or_reason(index, name):
    try:
        return picture_of(index, name), ""
    except ImageError as error:
        return None, str(error)


def draw(index, hits, title="", asked=None):
    """The hits as a `Figure`, best first: pictures with score and name, or captions as text, beside the photo `asked` where there is one.

    A picture that is gone since it was indexed is a grey square that says so.
    """
    if holds_captions(index):
        return _draw_captions(index, hits, str(title), asked)
    pictures, titles = _pictures_and_titles(index, hits)
    return plots.image_grid(pictures, titles, title=str(title))


def check_sheet(index, queries):
    """Raise a `UsageError` unless `draw_many` can draw the answers of these queries."""
    if holds_captions(index):
        raise UsageError("a figure of several queries shows pictures, and this index holds captions; ask one query at a time, or leave the figure out")
    if len(queries) > MOST_ROWS:
        raise UsageError(f"one figure shows the answers of at most {MOST_ROWS} queries, found {len(queries)}; leave the figure out, or ask fewer at a time")


def draw_many(index, queries, found):
    """The hits of several queries as one `Figure`, a row each: queries Q texts, found Q lists of `Hit`; at most 20 rows."""
    check_sheet(index, queries)
    columns = max(1, *(len(hits) for hits in found))
    figure, axes = plots.new_figure(len(queries), columns, height=len(queries) * (plots.WIDTH / columns * 1.2 + 0.15), squeeze=False)
    for row, (query, hits) in enumerate(zip(queries, found)):
        pictures, titles = _pictures_and_titles(index, hits)
        for axis, picture, title in zip(axes[row], pictures, titles):
            axis.imshow(picture)
            axis.set_title(short(title, 90 // columns), fontsize=9, parse_math=False)
        axes[row][0].set_ylabel(textwrap.fill(query, 18), fontsize=9, parse_math=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    return figure


def _pictures_and_titles(index, hits):
    pictures, titles = [], []
    for hit in hits:
        picture, reason = _picture_or_reason(index, hit.name)
        pictures.append(picture or Image.new("RGB", (64, 64), (200, 200, 200)))
        titles.append(f"{hit.score:.2f} {'gone: ' if reason else ''}{pathlib.Path(hit.name).stem}")
    return pictures, titles


def _draw_captions(index, hits, title, asked):
    lines = [f"{hit.score:.2f}  {text_of(index, hit.name) or hit.name}" for hit in hits]
    text = "\n".join(textwrap.fill(line, 60 if asked else 90, subsequent_indent="          ") for line in lines)
    height = max(1.2 if asked is None else 2.4, 0.4 + 0.22 * (text.count("\n") + 1))
    figure, axes = plots.new_figure(1, 2 if asked else 1, height=height, squeeze=False, gridspec_kw={"width_ratios": [1, 2]} if asked else {})
    for axis in axes.flat:
        axis.axis("off")
    if asked is not None:
        axes[0][0].imshow(asked)
        axes[0][0].set_anchor("N")
    axes[0][-1].text(0, 1, text, va="top", fontsize=10, transform=axes[0][-1].transAxes, parse_math=False)
    if title:
        figure.suptitle(short(title, 90), fontsize=11, parse_math=False)
    return figure
