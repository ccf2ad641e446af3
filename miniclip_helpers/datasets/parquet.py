"""Parquet tables: picture bytes, or the names of picture files, beside captions and any other columns."""

import pathlib

from .. import images, runtime
from ..errors import DataError, ImageError
from .formats import assemble, finish
from .readers import CAPTION_KEYS, Entry
from .table import ImageTextDataset

PICTURE_COLUMNS = ("image", "id", *CAPTION_KEYS)  # of a table with pictures in it: what `picture_rows` takes
LEAST_BOMB, MOST_UNPACKED = 2**27, 200  # bytes; and times the size of the file: tables of captions unpack to ten times theirs


def load_parquet(file, name=None, skip_problems=False):
    """A parquet table with picture bytes in column `image` (or paths beside it), `captions` and any other columns."""
    import pyarrow
    import pyarrow.parquet

    try:
        check_unpacked(file)
        check_columns(pyarrow.parquet.read_schema(file).names, file)
        table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"'{file}' is not a readable parquet table: {error}") from error
    image = next((key for key in ("image", "file_name", "path") if key in table.column_names), None)
    if image is None or not set(CAPTION_KEYS) & set(table.column_names):
        raise DataError(f"'{file}': expected the columns image and captions, found {', '.join(table.column_names)}")
    columns = {key: _values(table, key, file) for key in table.column_names}
    return from_columns(columns, image, file, name or file.stem, skip_problems)


def check_columns(names, file):
    """Raise a `DataError` for a column that stands twice: one of the two would be lost."""
    twice = next((key for key in names if names.count(key) > 1), None)
    if twice is not None:
        raise DataError(f"'{file}': the column {twice!r} stands twice; rename one")


def _values(table, key, file):
    import pyarrow

    try:
        return table[key].to_pylist(maps_as_pydicts="lossy")
    except (ValueError, OverflowError, pyarrow.ArrowException) as error:  # a text that is not UTF-8, a time that Python has no word for
        raise DataError(f"'{file}': the column {key!r} cannot be read ({error}); write it anew, or leave it out") from error


def check_unpacked(file):
    """Raise a `DataError` for a parquet table that would unpack to far more than it weighs: what repeats takes hardly any room in the file, and all of it in memory.

    The file says how many rows it has, and how much its columns weigh unpacked. A value that is written once may stand in each row: where that could fill
    the memory, the column is read as the values and the rows' references to them, and counted."""
    import pyarrow.parquet

    runtime.check_ends(file)
    about = pyarrow.parquet.read_metadata(file)
    unpacked = weight(about)
    refuse_bomb(file, unpacked)
    for number in range(about.num_row_groups):
        group = about.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            repeats = column.physical_type == "BYTE_ARRAY" and any("DICTIONARY" in encoding for encoding in column.encodings)
            if repeats and column.num_values * column.total_uncompressed_size > LEAST_BOMB:
                unpacked += _repeated(file, number, column.path_in_schema)
                refuse_bomb(file, unpacked)


def weight(about):
    """Bytes that a parquet table takes unpacked at least, by what its own metadata says."""
    return max(sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups)), 8 * about.num_rows * about.num_columns)


def is_bomb(file, unpacked):
    """Whether so many bytes are far more than a file of this size should unpack to."""
    return unpacked > LEAST_BOMB and unpacked > MOST_UNPACKED * pathlib.Path(file).stat().st_size


def refuse_bomb(file, unpacked):
    """Raise a `DataError` where `is_bomb`."""
    if is_bomb(file, unpacked):
        size = pathlib.Path(file).stat().st_size
        raise DataError(f"'{file}' weighs {size:,} bytes and would unpack to {unpacked:,} or more; it is not opened: write it anew, or in parts")


def _repeated(file, group, path):
    """Bytes that the texts of one column take in one row group once each stands in its row."""
    import pyarrow.compute
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file, read_dictionary=[path]) as table:
        parts = [chunk for column in table.read_row_group(group, columns=[path]).columns for chunk in column.chunks]
    size = 0
    while parts:
        part = parts.pop()
        if pyarrow.types.is_dictionary(part.type):
            lengths = pyarrow.compute.binary_length(part.dictionary).cast("int64")
            size += pyarrow.compute.sum(lengths.take(part.indices)).as_py() or 0
        elif pyarrow.types.is_list(part.type) or pyarrow.types.is_large_list(part.type):
            parts.append(part.flatten())
        elif pyarrow.types.is_struct(part.type):
            parts += part.flatten()
    return size


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
    good = _first_of_each(good, names, place, problems)
    if problems and not skip_problems or not good:
        finish(name, {}, {}, problems, skip_problems, file, None)
    pick = lambda values: [values[row] for row in good]  # noqa: E731
    return ImageTextDataset(name, pick(names), pick(captions), pick(cells), {key: pick(column) for key, column in columns.items()}, problems)


def _first_of_each(rows, names, place, problems):
    """The rows whose name did not stand before; for the others a line goes to `problems`."""
    first = {}
    for row in rows:
        if first.setdefault(names[row], row) != row:
            problems.append(f"{place}, row {row + 1}: the name {names[row]!r} stands in row {first[names[row]] + 1}, too")
    return list(first.values())


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

    Names and captions are those of `load_parquet`. What is no picture becomes no bytes, and is told when it is opened.
    """
    cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in columns["image"]]
    said = next((columns[key] for key in CAPTION_KEYS if key in columns), [None] * len(cells))
    names = [str(name) for name in columns.get("id") or [f"{number:06d}" for number in range(first, first + len(cells))]]
    return names, [[cell] if isinstance(cell, str) else cell or [] for cell in said], [cell if isinstance(cell, bytes) else b"" for cell in cells]
