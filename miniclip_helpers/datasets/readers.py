"""Readers of the text formats in which captions come. Each yields `Entry` rows; what is wrong with a row becomes a listed problem."""

import csv
import dataclasses
import itertools

from .. import runtime
from ..errors import DataError

IMAGE_KEYS = ("file_name", "image", "filename", "image_name", "file", "path", "image_id", "id", "name")
CAPTION_KEYS = ("captions", "caption", "text", "sentence", "title", "comment", "productDisplayName")
csv.field_size_limit(2**27)  # a caption of a megabyte is odd, and no fault of the table


@dataclasses.dataclass(slots=True)
class Entry:
    """What one row says: an image, its captions, the place for messages ("a.csv, line 3"), and the other columns."""

    image: str
    captions: list
    place: str
    columns: dict = dataclasses.field(default_factory=dict)


def reader_of(file):
    """The reader for a file, by its suffix and first line."""
    readers = {".json": read_json, ".jsonl": read_jsonl, ".csv": read_csv, ".tsv": read_csv}
    if file.suffix in readers:
        return readers[file.suffix]
    if file.suffix == ".txt":
        return read_token if "\t" in next(text_lines(file), "") else read_csv
    raise DataError(f"'{file}' has no known format; expected .json, .jsonl, .csv, .tsv, .txt, .parquet or a folder")


def text_lines(file, newline=None):
    """The lines of a text file one after the other, so that a file of any length takes the memory of a line. A `DataError` names the line that is not UTF-8.

    newline: as in `open`. Lines end with \\n, \\r\\n or \\r, not with the further ends that Unicode knows, which may stand in captions.
    """
    runtime.check_ends(file)
    try:
        with open(file, encoding="utf-8-sig", newline=newline) as lines:  # a byte order mark is no part of the first name
            yield from lines
    except UnicodeDecodeError as error:
        raise DataError(f"'{file}', line {_not_text(file)}: not UTF-8 text; save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"'{file}' cannot be read: {error.strerror}") from error


def _not_text(file):
    """The number of the first line that is not UTF-8."""
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode("utf8")
            except UnicodeDecodeError:
                return number


def _entry(record, place, problems):
    """One JSON or table record to an `Entry`, or None and a problem."""
    if not isinstance(record, dict):
        problems.append(f"{place}: expected an object with file_name and caption, found {type(record).__name__}")
        return None
    name_key = next((key for key in IMAGE_KEYS if record.get(key) not in (None, "")), None)
    said_key = next((key for key in CAPTION_KEYS if record.get(key) is not None), None)
    name, said = record.get(name_key), record.get(said_key)
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        problems.append(f"{place}: no image name; expected one of the keys {', '.join(IMAGE_KEYS[:4])}")
        return None
    said = [said] if isinstance(said, str) else said
    if not isinstance(said, (list, tuple)) or not all(isinstance(caption, str) for caption in said) or not any(c.strip() for c in said):
        problems.append(f"{place}: no caption for {str(name)!r}; expected text under one of the keys {', '.join(CAPTION_KEYS[:3])}")
        return None
    if runtime.has_halves(str(name)) or any(map(runtime.has_halves, said)):
        problems.append(f"{place}: half a letter (a lone surrogate) in {ascii(name)} or its caption; write the whole letter")
        return None
    others = {key: value for key, value in record.items() if key not in (name_key, said_key)}
    return Entry(str(name), [caption.strip() for caption in said if caption.strip()], place, others)


def read_json(file, problems):
    """A list of objects with an image name and captions, or one object {name: captions}."""
    try:
        records = runtime.parse_json("".join(text_lines(file)), once=True)
    except ValueError as error:
        raise DataError(f"'{file}', line {getattr(error, 'lineno', '?')}: not valid JSON: {getattr(error, 'msg', error)}") from error
    if isinstance(records, dict):  # {"a.jpg": ["a caption", ...]}
        records = [{"file_name": name, "captions": said} for name, said in records.items()]
    if not isinstance(records, list):
        raise DataError(f"'{file}' must be a list of {{\"file_name\", \"caption\"}}, found {type(records).__name__}")
    for number, record in enumerate(records, 1):
        entry = _entry(record, f"{file.name}, entry {number}", problems)
        if entry:
            yield entry


def read_jsonl(file, problems):
    """One JSON object a line."""
    for number, line in enumerate(text_lines(file), 1):
        if not line.strip():
            continue
        try:
            record = runtime.parse_json(line, once=True)
        except ValueError as error:
            problems.append(f"{file.name}, line {number}: not valid JSON: {getattr(error, 'msg', error)}")
            continue
        entry = _entry(record, f"{file.name}, line {number}", problems)
        if entry:
            yield entry


def read_csv(file, problems):
    """A table with a header that names an image and a caption column; parted by commas, tabs, semicolons or bars."""
    lines, raw = text_lines(file, newline=""), []
    first = next(lines, "")
    delimiter = max("\t,;|", key=first.count)  # results.csv of Flickr30k is parted by |
    table = csv.reader(_kept(itertools.chain([first], lines), raw), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        head = [cell.strip() for cell in next(table, [])]
    except csv.Error as error:
        raise DataError(f"'{file}', line 1: not valid CSV: {error}") from error
    if not set(head) & set(IMAGE_KEYS) or not set(head) & set(CAPTION_KEYS):
        raise DataError(f"'{file}', line 1: expected a header with an image and a caption column, found {', '.join(head) or 'nothing'}")
    if twice := [key for key in head if key and head.count(key) > 1]:
        raise DataError(f"'{file}', line 1: the column {twice[0]!r} stands twice; rename one")
    while True:
        start, cells, fault = table.line_num + 1, None, None
        raw.clear()
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"not valid CSV: {error}"
        line = "".join(raw)
        place = f"{file.name}, line {start}" if table.line_num <= start else f"{file.name}, lines {start} to {table.line_num}"
        if cells is None or len(cells) > len(head):
            cells = _unquoted(line, head, delimiter) or cells
        if cells is not None and not any(cells):
            continue
        if cells is None or len(cells) != len(head):
            problems.append(f"{place}: {fault or f'expected {len(head)} columns, found {len(cells)}'}")
            continue
        entry = _entry({key: cell if key in IMAGE_KEYS + CAPTION_KEYS else cell or None for key, cell in zip(head, cells)}, place, problems)
        if entry:
            yield entry


def _kept(lines, raw):
    """Pass lines on and keep them in `raw`, so that a row can be looked at as it was written."""
    for line in lines:
        raw.append(line)
        yield line


def _unquoted(line, head, delimiter):
    """The cells of a line whose last column, the caption, holds delimiters or quotes that nobody quoted; None where it cannot be that."""
    line = line.rstrip("\r\n")
    cells = [cell.strip() for cell in line.split(delimiter, len(head) - 1)]
    plain = len(cells) == len(head) and head[-1] in CAPTION_KEYS and "\n" not in line
    return cells if plain and '"' not in "".join(cells[:-1]) and not cells[-1].startswith('"') else None


def read_token(file, problems):
    """Flickr8k.token.txt: name.jpg#0<TAB>caption."""
    for number, line in enumerate(text_lines(file), 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab or "#" not in name or not caption.strip():
            problems.append(f"{file.name}, line {number}: expected 'name.jpg#0<TAB>caption', found {line[:60]!r}")
            continue
        yield Entry(name.rpartition("#")[0], [caption.strip()], f"{file.name}, line {number}")
