"""Readers of the formats in which captions come. Each yields (image name, captions, place); what is wrong becomes a listed problem."""

import csv
import io
import json
import pathlib

from .. import images
from ..errors import DataError, ImageError
from .table import ImageTextDataset

IMAGE_KEYS = ("file_name", "image", "filename", "file", "path", "image_id", "id", "name")
CAPTION_KEYS = ("captions", "caption", "text", "sentence", "title", "comment", "productDisplayName")
csv.field_size_limit(2**27)  # a caption of a megabyte is odd, and no fault of the table
FOLDERS = ("", "images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset")


def load_path(path, skip_problems=False):
    """The dataset in a file or folder, its format detected; see `datasets.load_dataset`."""
    path = pathlib.Path(path)
    file = _captions_file(path) if path.is_dir() else path
    if file is None:
        return _photos(path, skip_problems)
    name = path.name if path.is_dir() else path.stem
    if file.suffix == ".parquet":
        return load_parquet(file, name, skip_problems)
    problems = []
    rows = list(_reader(file)(file, problems))
    return _assemble(name, file, rows, problems, skip_problems, whole_folder=path.is_dir())


def _captions_file(folder):
    """The file of captions in a folder: the first of the known names, else the only table; None for a folder of photos."""
    for known in ("captions.json", "captions.txt", "Flickr8k.token.txt", "captions.jsonl", "captions.csv", "captions.parquet", "results.csv"):
        if (folder / known).is_file():
            return folder / known
    tables = sorted(file for suffix in ("jsonl", "csv", "parquet") for file in folder.glob(f"*.{suffix}"))
    if len(tables) > 1:
        raise DataError(f"'{folder}' holds several tables; name one of them", [file.name for file in tables])
    return tables[0] if tables else None


def _reader(file):
    readers = {".json": _read_json, ".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_csv}
    if file.suffix in readers:
        return readers[file.suffix]
    if file.suffix == ".txt":
        return _read_token if "\t" in _text(file).split("\n", 1)[0] else _read_csv
    raise DataError(f"'{file}' has no known format; expected .json, .jsonl, .csv, .tsv, .txt, .parquet or a folder")


def _text(file):
    try:
        return file.read_bytes().decode("utf-8-sig")  # a byte order mark is no part of the first name
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"'{file}', line {line}: not UTF-8 text; save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"'{file}' cannot be read: {error.strerror}") from error


def _entry(record, place, problems):
    """One JSON or table record to (name, captions, place), or a problem."""
    if not isinstance(record, dict):
        problems.append(f"{place}: expected an object with file_name and caption, found {type(record).__name__}")
        return None
    name = next((record[key] for key in IMAGE_KEYS if record.get(key) not in (None, "")), None)
    said = next((record[key] for key in CAPTION_KEYS if record.get(key) is not None), None)
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        problems.append(f"{place}: no image name; expected one of the keys {', '.join(IMAGE_KEYS[:4])}")
        return None
    said = [said] if isinstance(said, str) else said
    if not isinstance(said, (list, tuple)) or not all(isinstance(caption, str) for caption in said) or not any(c.strip() for c in said):
        problems.append(f"{place}: no caption for {str(name)!r}; expected text under one of the keys {', '.join(CAPTION_KEYS[:3])}")
        return None
    return str(name), [caption.strip() for caption in said if caption.strip()], place


def _read_json(file, problems):
    try:
        records = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{file}', line {getattr(error, 'lineno', '?')}: not valid JSON: {getattr(error, 'msg', error)}") from error
    if isinstance(records, dict):  # {"a.jpg": ["a caption", ...]}
        records = [{"file_name": name, "captions": said} for name, said in records.items()]
    if not isinstance(records, list):
        raise DataError(f"'{file}' must be a list of {{\"file_name\", \"caption\"}}, found {type(records).__name__}")
    for number, record in enumerate(records, 1):
        entry = _entry(record, f"{file.name}, entry {number}", problems)
        if entry:
            yield entry


def _read_jsonl(file, problems):
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"{file.name}, line {number}: not valid JSON: {getattr(error, 'msg', error)}")
            continue
        entry = _entry(record, f"{file.name}, line {number}", problems)
        if entry:
            yield entry


def _read_csv(file, problems):
    text = _text(file)
    delimiter = max("\t,;|", key=text.split("\n", 1)[0].count)  # results.csv of Flickr30k is parted by |
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        head = [cell.strip() for cell in next(table, [])]
        keys = {"image_name": "image", "comment": "caption"}
        head = [keys.get(cell, cell) for cell in head]
        if not set(head) & set(IMAGE_KEYS) or not set(head) & set(CAPTION_KEYS):
            raise DataError(f"'{file}', line 1: expected a header with an image and a caption column, found {', '.join(head) or 'nothing'}")
        for cells in table:
            place = f"{file.name}, line {table.line_num}"
            if not any(cells):
                continue
            if len(cells) > len(head) and head[-1] in CAPTION_KEYS:
                cells = [*cells[: len(head) - 1], delimiter.join(cells[len(head) - 1 :])]  # an unquoted comma within the caption
            if len(cells) != len(head):
                problems.append(f"{place}: expected {len(head)} columns, found {len(cells)}")
                continue
            entry = _entry(dict(zip(head, cells)), place, problems)
            if entry:
                yield entry
    except csv.Error as error:
        raise DataError(f"'{file}', line {table.line_num}: not valid CSV: {error}") from error


def _read_token(file, problems):
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab or "#" not in name or not caption.strip():
            problems.append(f"{file.name}, line {number}: expected 'name.jpg#0<TAB>caption', found {line[:60]!r}")
            continue
        yield name.rpartition("#")[0], [caption.strip()], f"{file.name}, line {number}"


def _image_root(file, names):
    """The folder beside `file` in which most of the first names are found."""
    roots = [file.parent / folder for folder in FOLDERS if (file.parent / folder).is_dir()]
    return max(roots, key=lambda root: sum(_is_file(root / name) for name in names[:50]))


def _is_file(path):
    """Whether `path` is a file; False, too, for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def _real(path):
    """The path with links followed, or None where that cannot be done: a loop of links, a name that no file can have."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def _inside(root, name, allowed):
    """The file `name` under `root`, or None when it leads out of `allowed` (.., an absolute path, a link)."""
    path, real = root / name, _real(root / name)
    return path if real is not None and real.is_relative_to(allowed.resolve()) and not pathlib.PurePath(name).is_absolute() else None


def _assemble(name, file, rows, problems, skip_problems, whole_folder):
    """Rows of captions to a dataset: grouped by image, each picture checked, pictures without a caption listed."""
    captions, places = {}, {}
    for image, said, place in rows:
        captions.setdefault(image, []).extend(said)
        places.setdefault(image, place)
    root = _image_root(file, list(captions))
    sources = {}
    for image, place in places.items():
        path = _inside(root, image, file.parent)
        fault = "leads out of the dataset's folder, or is no usable file name" if path is None else _fault(path, thorough=skip_problems)
        if fault:
            problems.append(f"{place}: {image!r} {fault}")
        else:
            sources[image] = path
    if whole_folder:
        known = {_real(root / image) for image in captions}
        problems += [f"{photo.relative_to(root)}: a picture without a caption" for photo in _pictures(root) if _real(photo) not in known]
    return _finish(name, sources, captions, problems, skip_problems, file, root)


def _finish(name, sources, captions, problems, skip_problems, file, root):
    if problems and not skip_problems:
        raise DataError(f"'{file}' has {len(problems)} problem(s); mend them, or leave those rows out with skip_problems (--skip-problems):", problems)
    if not sources:
        raise DataError(f"'{file}' holds no usable picture; expected picture files ({', '.join(sorted(images.SUFFIXES))})", problems)
    return ImageTextDataset(name, list(sources), [captions[image] for image in sources], list(sources.values()), problems=problems, root=root)


def _fault(path, thorough):
    """What is wrong with a picture file, or None. Reads the header only; with `thorough` it decodes the whole picture."""
    if not _is_file(path):
        return "does not exist"
    try:
        images.open_image(path) if thorough else images.check_header(path)
    except ImageError as error:
        return str(error).split("' ", 1)[-1]
    return None


def _pictures(folder):
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in images.SUFFIXES and not any(p.startswith(".") for p in f.relative_to(folder).parts))


def _photos(folder, skip_problems):
    """A folder of photos without captions; names are paths relative to it."""
    problems, sources = [], {}
    for photo in _pictures(folder):
        fault = _fault(photo, thorough=skip_problems) if _inside(folder, photo.relative_to(folder), folder) else "leads out of the folder"
        image = photo.relative_to(folder).as_posix()
        if not image.isprintable():  # bytes that are no UTF-8 come as lone surrogates
            image, fault = ascii(image), "has a name that cannot be printed; rename it"
        if fault:
            problems.append(f"{image}: {fault}")
        else:
            sources[image] = photo
    return _finish(folder.resolve().name, sources, dict.fromkeys(sources, ()), problems, skip_problems, folder, folder)


def load_parquet(file, name=None, skip_problems=False):
    """A parquet table with picture bytes in column `image` (or paths beside it), `captions` and any other columns."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"'{file}' is not a readable parquet table: {error}") from error
    image = next((key for key in ("image", "file_name", "path") if key in table.column_names), None)
    said = next((key for key in CAPTION_KEYS if key in table.column_names), None)
    if image is None or said is None:
        raise DataError(f"'{file}': expected the columns image and captions, found {', '.join(table.column_names)}")
    columns = {key: table[key].to_pylist(maps_as_pydicts="lossy") for key in table.column_names if key != image}
    cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in table[image].to_pylist()]
    captions = [[cell] if isinstance(cell, str) else cell or [] for cell in columns.pop(said)]
    kind, problems = str if any(isinstance(cell, str) for cell in cells) else bytes, []
    good = [row for row in range(len(cells)) if _good_row(cells[row], captions[row], kind, skip_problems, f"{file.name}, row {row + 1}", problems)]
    if kind is str:
        rows = [(cells[row], captions[row], f"{file.name}, row {row + 1}") for row in good]
        return _assemble(name or file.stem, file, rows, problems, skip_problems, whole_folder=False)
    names = [str(n) for n in columns.pop("id", None) or [f"{number:06d}" for number in range(len(cells))]]
    if problems and not skip_problems:
        _finish(name, {}, {}, problems, skip_problems, file, None)
    pick = lambda values: [values[row] for row in good]  # noqa: E731
    return ImageTextDataset(name or file.stem, pick(names), pick(captions), pick(cells), {key: pick(column) for key, column in columns.items()}, problems)


def _good_row(cell, captions, kind, thorough, place, problems):
    """Whether a parquet row holds what it should: a picture or a name, and captions; if not, a line goes to `problems`."""
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
