"""A figure on disk: PNG at twice the screen's resolution, SVG, the numbers behind it, and its line in the index."""

import contextlib
import json
import re
import shutil
import tempfile

import numpy as np

from .. import runtime
from ..errors import DataError, UsageError
from .style import show, to_png
from .svg import to_svg

INDEX_HEAD = ("# Figures\n\nEach figure, the notebook and the cell that draw it, its caption and its alternative text. "
              "A timed figure shows seconds, which differ from run to run.\n\n| figure | drawn by | caption | alternative text |\n|---|---|---|---|\n")
MOST_POINTS = 500  # of one line or cloud, in numbers that are read off a figure


def save_figure(figure, name, caption, alt, data=None, dpi=100, timed=False):
    """Write figures/NAME.png (twice the screen's resolution) and NAME.svg, list both in figures/index.md, and return the picture for the cell to show.

    name: "NN_what", NN the notebook's number. caption: a sentence under the picture. alt: what it shows, for those who do not
    see it; both also stand in the files. data: the numbers behind it by their names, plain JSON; figures/data/NAME.json holds them
    as "told", and as "drawn" what is read off the figure (`numbers_in`). dpi: of the picture in the notebook alone; less keeps a sheet of photos light.
    timed: whether it shows seconds, which no second run gives again.
    """
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", name):
        raise UsageError(f"expected a figure's name like '04_training_curves', found {name!r}")
    if not caption.strip() or not alt.strip():
        raise UsageError(f"figure {name} needs a caption and an alternative text")
    folder = runtime.figures_dir()
    files = {f"{name}.png": to_png(figure, dpi=200, about={"Title": caption, "Description": alt})}
    shown = show(figure, alt, dpi)
    files[f"{name}.svg"] = to_svg(figure, caption, alt).encode()  # last, as drawing may move the layout by a hair
    files[f"data/{name}.json"] = _as_json(name, data, figure).encode()
    for part, content in files.items():  # only now, so that what cannot be drawn leaves the files of before
        with runtime.writing(folder / part) as path:
            path.write_bytes(content)
    _list_figure(folder, name, {"caption": caption, "alt": alt, "timed": timed})
    return shown


def numbers_in(figure):
    """What can be read off a figure: for each of its axes the words, lines, bars, points, whiskers and bands, and the pictures (size, mean colour; all cells of a small matrix).

    Legends and tick labels are not read off.
    """
    return [{key: value for key, value in _axes_numbers(axes).items() if value} for axes in figure.axes]


def _axes_numbers(axes):
    from matplotlib.collections import LineCollection, PathCollection, PolyCollection
    from matplotlib.patches import Rectangle

    def every(kind, read):
        return [numbers for one in axes.collections if isinstance(one, kind) and (numbers := _rounded(read(one)))]

    return {
        "title": axes.get_title(), "x label": axes.get_xlabel(), "y label": axes.get_ylabel(), "words": [text.get_text() for text in axes.texts if text.get_text()],
        "lines": [_rounded(line.get_xydata()) for line in axes.lines if len(line.get_xydata())], "points": every(PathCollection, lambda cloud: cloud.get_offsets()),
        "whiskers": every(LineCollection, lambda lines: [np.ravel(part) for part in lines.get_segments()]),
        "bands": every(PolyCollection, lambda band: band.get_paths()[0].vertices),
        "bars": [_rounded([bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()]) for bar in axes.patches if isinstance(bar, Rectangle)],
        "pictures": [_picture_numbers(np.asarray(image.get_array(), dtype=float)) for image in axes.images],
    }


def _picture_numbers(array):
    if array.ndim == 2 and array.size <= MOST_POINTS:
        return {"cells": _rounded(array)}
    return {"size": list(array.shape), "mean": _rounded(array.mean(axis=(0, 1)))}


def _rounded(values):
    """Numbers as nested lists with four digits, of evenly spaced rows where there are too many. What is not finite becomes None."""
    values = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    if not values.ndim:
        return float(f"{values:.4g}") if np.isfinite(values) else None
    rows = np.linspace(0, len(values) - 1, MOST_POINTS).astype(int) if len(values) > MOST_POINTS else range(len(values))
    return [_rounded(values[row]) for row in rows]


def _as_json(name, data, figure):
    """The text of figures/data/NAME.json: what the cell told, and what is drawn; a line for each row of numbers, so that a change of one is seen."""
    try:
        text = json.dumps(({} if data is None else {"told": data}) | {"drawn": numbers_in(figure)}, indent=1, sort_keys=True)
    except TypeError as error:
        raise UsageError(f"the data of figure {name} must be plain JSON: {error}; turn arrays into lists with tolist(), and round them") from error
    return re.sub(r"\[[^\[\]{}\"]*\]", lambda row: re.sub(r"\s+", " ", row[0]).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


def drawing_cell(name):
    """(notebook's stem, id of the cell) that draws the figure `name`, or None: the cell of the series in whose source the name stands, quoted."""
    for path in sorted(runtime.notebooks_dir().glob(f"{name[:2]}_*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
            if cell["cell_type"] == "code" and f'"{name}"' in "".join(cell["source"]):
                return path.stem, cell.get("id", "")
    return None


def read_index(folder):
    """figures/index.md as {figure: {"notebook", "cell", "timed", "caption", "alt"}}; notebook and cell are empty where no cell of the series draws it.

    Raises `DataError` for a row that is none, and for the marks of a merge.
    """
    index, found = folder / "index.md", {}
    for line in index.read_text(encoding="utf8").splitlines() if index.exists() else []:
        if line.startswith(("| [", "<<<<<<<", "=======", ">>>>>>>")):
            parts, name = [re.sub(r"\\([|<\[])", r"\1", part.strip()) for part in re.split(r"(?<!\\)\|", line)], re.match(r"\| \[(\w+)\]", line)
            if len(parts) != 6 or not name:
                raise DataError(f"'{index}' has a line that is no row of four cells; put it right, or take it out and draw that figure again with miniclip figures NN", [line])
            _, _, by, caption, alt, _ = parts
            notebook, cell = re.search(r"\d\d_\w+", by), re.search(r"`([^`]+)`", by)
            found[name[1]] = {"notebook": notebook[0] if notebook else "", "cell": cell[1] if cell else "",
                                                      "timed": by.endswith("timed"), "caption": caption, "alt": alt}
    return found


def write_index(folder, rows):
    """Write figures/index.md from what `read_index` gives; the cells are looked up anew."""
    with runtime.writing(folder / "index.md") as path:
        path.write_text(INDEX_HEAD + "\n".join(_index_line(folder, name, rows[name]) for name in sorted(rows)) + "\n", encoding="utf8")


def _index_line(folder, name, row):
    notebook, cell = drawing_cell(name) or ("", "")
    link = f"[{notebook}](../notebooks/{notebook}.ipynb)" if (folder.parent / "notebooks" / f"{notebook}.ipynb").is_file() else notebook
    by = ", ".join(part for part in (link or name[:2], f"cell `{cell}`" * bool(cell), "timed" * bool(row["timed"])) if part)
    escaped = [re.sub(r"[|<\[]", r"\\\g<0>", runtime.plain(row[key].replace("\n", " "))) for key in ("caption", "alt")]
    return f"| [{name}]({name}.png) ([svg]({name}.svg)) | {by} | {escaped[0]} | {escaped[1]} |"


@contextlib.contextmanager
def _alone(folder):
    """Notebooks run side by side, and each reads the index before it writes it."""
    import filelock

    with filelock.FileLock(f"{tempfile.gettempdir()}/miniclip-figures-{runtime.digest(folder.resolve())}.lock"):
        yield


def _list_figure(folder, name, row):
    with _alone(folder):
        write_index(folder, read_index(folder) | {name: row})


def _files_of(folder, number):
    return [*folder.glob(f"{number}_*.png"), *folder.glob(f"{number}_*.svg"), *folder.glob(f"data/{number}_*.json")]


def forget_figures(folder, number):
    """Take the figures of the notebook `number`, like "04", out of a folder and its index: what an earlier run left would count as drawn by the next."""
    with _alone(folder):
        rows = read_index(folder)
        kept = {name: row for name, row in rows.items() if not name.startswith(f"{number}_")}
        for path in _files_of(folder, number):
            path.unlink()
        if kept != rows:
            write_index(folder, kept)


def take_figures(drawn, folder, number):
    """Copy the figures of the notebook `number` out of the folder `drawn` into another, each file whole or not at all, and list them in its index."""
    new = {name: row for name, row in read_index(drawn).items() if name.startswith(f"{number}_")}
    with _alone(folder):
        rows = read_index(folder) | new
        for path in _files_of(drawn, number):
            with runtime.writing(folder / path.relative_to(drawn)) as fresh:
                shutil.copyfile(path, fresh)
        if new:
            write_index(folder, rows)
