"""A corpus cut into parts, each of which a worker opens by itself: rows of a folder, of a parquet table or of an embedded set, or one tar shard."""

import functools
import os
import pathlib

from .. import datasets, runtime
from ..datasets.parquet import is_bomb, refuse_bomb, weight
from ..errors import DataError

BATCH = 64  # rows of a parquet table that are unpacked at once


def plan(data, rows, skip_problems=False):
    """(title, root, parts, problems): parts are plain JSON, of at most `rows` pictures each; a tar shard is a part, whatever it holds.

    A folder is listed here, once; tar shards and parquet tables are left for the workers to open. Each part has a mark, which changes with its files.
    """
    if isinstance(data, datasets.ImageTextDataset):
        return data.name, data.root, [_of_rows(data, data, start, min(len(data), start + rows)) for start in range(0, len(data), rows)], data.problems
    path = pathlib.Path(str(data))
    if datasets.is_shards(path):
        files = [path] if path.is_file() else sorted(path.glob("*.tar"))
        parts = [{"tar": str(file), "mark": _mark([file])} for file in files]
        return path.resolve().stem, str(path), parts, []
    count = _rows_of(path)
    if count:
        starts = range(0, count, rows)
        return path.stem, None, [{"parquet": str(path), "start": start, "stop": min(count, start + rows), "mark": _mark([path], start, rows)} for start in starts], []
    dataset = datasets.load_dataset(data, skip_problems=skip_problems)
    return dataset.name, dataset.root, [_of_rows(data, dataset, start, min(len(dataset), start + rows)) for start in range(0, len(dataset), rows)], dataset.problems


def _of_rows(data, dataset, start, stop):
    files = [dataset.path(row) for row in range(start, stop)]
    if None in files:
        return {"data": data if data is dataset else str(data), "start": start, "stop": stop, "mark": runtime.digest(*(dataset.fingerprint(row) for row in range(start, stop)))}
    said = dataset.captions[start:stop]
    return {"names": dataset.names[start:stop], "files": [str(file) for file in files], "captions": said, "mark": _mark(files, said)}


def _mark(files, *more):
    """A digest of the sizes and times of files, and of more."""
    stats = [os.stat(file) for file in files]
    return runtime.digest(*(f"{file.name} {stat.st_size} {stat.st_mtime_ns}" for file, stat in zip(files, stats)), *more)


def _rows_of(path):
    """How many rows a parquet table with pictures in it has; None for anything else."""
    if path.suffix != ".parquet" or not path.is_file():
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            schema = table.schema_arrow
            kind = schema.field("image").type if "image" in schema.names else None
            inside = kind is not None and (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) or pyarrow.types.is_struct(kind))
            if inside:
                refuse_bomb(path, weight(table.metadata))
            return table.metadata.num_rows if inside else None
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"'{path}' is not a readable parquet table: {error}") from error


def open_part(part, skip_problems=False):
    """The `ImageTextDataset` of a part; its pictures are opened when asked for."""
    if isinstance(part.get("data"), datasets.ImageTextDataset):
        return part["data"].subset(range(part["start"], part["stop"]))
    if "tar" in part:
        return datasets.load_dataset(part["tar"], skip_problems=skip_problems)
    if "parquet" in part:
        return _parquet_rows(pathlib.Path(part["parquet"]), part["start"], part["stop"])
    if "data" in part:
        return _loaded(part["data"], skip_problems).subset(range(part["start"], part["stop"]))
    return datasets.ImageTextDataset("part", part["names"], part["captions"], [pathlib.Path(file) for file in part["files"]])


@functools.lru_cache(1)
def _loaded(data, skip_problems):
    return datasets.load_dataset(data, skip_problems=skip_problems)


def _parquet_rows(file, start, stop):
    """Some rows of a table with pictures in it, without the others: the row groups that hold them are read in small batches."""
    import pyarrow
    import pyarrow.parquet

    try:
        return _read_rows(pyarrow.parquet.ParquetFile(file), file, start, stop)
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # a damaged page, a text that is not UTF-8
        raise DataError(f"'{file}', rows {start + 1} to {stop}: cannot be read ({error})") from error


def _read_rows(table, file, start, stop):
    """The rows, counted while they are read: a value that is written once may stand in each of them."""
    with table:
        wanted, first, before = [], None, 0
        for number in range(table.num_row_groups):
            after = before + table.metadata.row_group(number).num_rows
            if before < stop and after > start:
                wanted.append(number)
                first = before if first is None else first
            before = after
        names, captions, cells, unpacked = [], [], [], 0
        largest = max(table.metadata.row_group(number).total_byte_size for number in wanted)
        held = [key for key in table.schema_arrow.names if key in datasets.PICTURE_COLUMNS]
        for batch in table.iter_batches(1 if is_bomb(file, BATCH * largest) else BATCH, row_groups=wanted, columns=held):
            at, first = first, first + len(batch)
            if first <= start or at >= stop:
                continue
            low, high = max(start - at, 0), min(stop - at, len(batch))
            found = datasets.picture_rows(batch.slice(low, high - low).to_pydict(), at + low)
            unpacked += _letters(found)
            refuse_bomb(file, unpacked)
            names, captions, cells = names + found[0], captions + found[1], cells + found[2]
    return datasets.ImageTextDataset(file.stem, names, captions, cells)


def _letters(cells):
    """How many letters and bytes stand in nested lists."""
    if isinstance(cells, (list, tuple)):
        return sum(map(_letters, cells))
    return len(cells) if isinstance(cells, (str, bytes)) else 0
