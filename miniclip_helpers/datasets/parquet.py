"""Parquet tables: picture bytes, or the names of picture files, beside captions and any other columns."""

from .. import images
from ..errors import DataError, ImageError
from .formats import assemble, finish
from .readers import CAPTION_KEYS, Entry
from .table import ImageTextDataset


def load_parquet(file, name=None, skip_problems=False):
    """A parquet table with picture bytes in column `image` (or paths beside it), `captions` and any other columns."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"'{file}' is not a readable parquet table: {error}") from error
    image = next((key for key in ("image", "file_name", "path") if key in table.column_names), None)
    if image is None or not set(CAPTION_KEYS) & set(table.column_names):
        raise DataError(f"'{file}': expected the columns image and captions, found {', '.join(table.column_names)}")
    columns = {key: table[key].to_pylist(maps_as_pydicts="lossy") for key in table.column_names}
    return from_columns(columns, image, file, name or file.stem, skip_problems)


def from_columns(columns, image, file, name, skip_problems=False):
    """A table's columns {name: list of N} to a dataset; `image` names the column of pictures: bytes, {"bytes": ...} or file names."""
    cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in columns[image]]
    said = next(key for key in CAPTION_KEYS if key in columns)
    captions = [[cell] if isinstance(cell, str) else cell or [] for cell in columns[said]]
    columns = {key: values for key, values in columns.items() if key not in (image, said)}
    kind, problems = str if any(isinstance(cell, str) for cell in cells) else bytes, []
    place = getattr(file, "name", str(file))
    good = [row for row in range(len(cells)) if _good_row(cells[row], captions[row], kind, skip_problems, f"{place}, row {row + 1}", problems)]
    if kind is str:
        entries = [Entry(cells[row], captions[row], f"{place}, row {row + 1}", {key: values[row] for key, values in columns.items()}) for row in good]
        return assemble(name, file, entries, problems, skip_problems, whole_folder=False)
    names = [str(n) for n in columns.pop("id", None) or [f"{number:06d}" for number in range(len(cells))]]
    if problems and not skip_problems:
        finish(name, {}, {}, problems, skip_problems, file, None)
    pick = lambda values: [values[row] for row in good]  # noqa: E731
    return ImageTextDataset(name, pick(names), pick(captions), pick(cells), {key: pick(column) for key, column in columns.items()}, problems)


def _good_row(cell, captions, kind, thorough, place, problems):
    """Whether a row holds what it should: a picture or a name, and captions; if not, a line goes to `problems`."""
    fault = None
    if not isinstance(cell, kind):
        fault = f"expected a picture as {'a file name' if kind is str else 'bytes'}, found {type(cell).__name__}"
    elif not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        fault = "expected captions as text or a list of texts"
    elif thorough and kind is bytes:
        try:
            images.open_image(cell)
        except ImageError as error:
            fault = str(error)
    if fault:
        problems.append(f"{place}: {fault}")
    return not fault


def picture_rows(columns, first):
    """(names, captions, pictures as bytes) of some rows {column: list} of a table with pictures in it; `first` is the number of the first row.

    Names and captions are those of `load_parquet`. What is no picture stays as it is, and is told when it is opened.
    """
    cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in columns["image"]]
    said = next((columns[key] for key in CAPTION_KEYS if key in columns), [None] * len(cells))
    names = [str(name) for name in columns.get("id") or [f"{number:06d}" for number in range(first, first + len(cells))]]
    return names, [[cell] if isinstance(cell, str) else cell or [] for cell in said], [b"" if cell is None else cell for cell in cells]
