"""A dataset to files, in each of the formats that `load_dataset` reads."""

import csv
import io
import json
import os
import pathlib

from .. import images, runtime
from ..errors import ImageError, UsageError, unknown
from .addresses import picture_suffix

LONGEST = 240  # bytes of a file's name: systems take 255, and a suffix may come
FILES = {"json": "captions.json", "jsonl": "captions.jsonl", "csv": "captions.csv", "tsv": "captions.tsv", "captions.txt": "captions.txt",
         "token": "Flickr8k.token.txt", "parquet": "captions.parquet"}


def write_dataset(dataset, path, kind=None):
    """Write a dataset so that `load_dataset(path)` gives it again, and return the path. Whole or not at all; nothing is overwritten.

    path: a new or empty folder, for captions and images/; or, for "parquet" (the default where it ends so), one file with the pictures
    in it. kind: "json" (the default), "jsonl", "csv", "tsv", "captions.txt" (Kaggle's Flickr8k), "token" (Flickr8k.token.txt), "parquet".

    Names, captions and pictures come back in every kind. Columns come back from json, jsonl and parquet; from csv and tsv as text,
    and only those of numbers and texts; captions.txt and token have no room for them. Blanks around a caption are not kept.
    """
    path = pathlib.Path(path)
    kind = kind or ("parquet" if path.suffix == ".parquet" else "json")
    if kind not in FILES:
        raise unknown("format", kind, FILES)
    _check(dataset, kind)
    if path.suffix == ".parquet" and kind == "parquet":
        if path.exists():
            raise UsageError(f"'{path}' exists; it is left as it is: name a new file")
        with runtime.writing(path) as file:
            _write_parquet(dataset, file)
        return path
    runtime.check_replaceable(path, [])
    with runtime.writing_folder(path) as folder:
        if kind == "parquet":
            _write_parquet(dataset, folder / FILES[kind])
        else:
            _write_pictures(dataset, folder / "images")
            (folder / FILES[kind]).write_text(_text(dataset, kind), encoding="utf8", newline="")
    return path


def _check(dataset, kind):
    """Raise a `UsageError` for what the format cannot say."""
    bare = [name for name, row in zip(dataset.names, dataset.captions) if not any(caption.strip() for caption in row)]
    if bare and kind != "parquet":
        raise UsageError(f"{len(bare)} of {len(dataset)} pictures have no caption ({bare[0]!r} ...), which {kind} cannot say; write parquet, or choose those that have")
    if kind == "token":
        broken = next((caption for caption in dataset.all_captions if "\n" in caption.strip() or "\r" in caption.strip()), None)
        if broken is not None:
            raise UsageError(f"the caption {broken[:60]!r} holds a line break, which Flickr8k.token.txt cannot say; write json")
    check_whole_letters((*dataset.names, *dataset.all_captions))
    taken = {"id", "image", "captions"} if kind == "parquet" else {"file_name", "captions", "caption"} if kind in ("json", "jsonl", "csv", "tsv") else set()
    if taken & set(dataset.columns):
        raise UsageError(f"the column {min(taken & set(dataset.columns))!r} of {dataset.name} has the name of a column of {kind}; rename it")
    if kind != "parquet":
        _check_names(dataset.names)


def check_whole_letters(texts):
    """Raise a `UsageError` for half letters, which no file in UTF-8 can hold."""
    halves = next((text for text in texts if runtime.has_halves(text)), None)
    if halves is not None:
        raise UsageError(f"{ascii(halves[:60])} holds half a letter (a lone surrogate), which no file can say; write the whole letter, or leave it out")


def _check_names(names):
    """Raise a `UsageError` for names that cannot be files beside each other."""
    known, paths = set(names), {}
    for name in names:
        path = pathlib.PurePath(name)
        twin = next((name + suffix for suffix in images.SUFFIXES if name + suffix in known), None) or paths.setdefault(path, name)
        if twin != name:
            raise UsageError(f"the images {name!r} and {twin!r} would be one file; rename one, or write parquet")
        strange = not path.name or name.endswith("/") or path.is_absolute() or ".." in path.parts or set(name) & set("\n\r\t\0")
        if strange or max(len(os.fsencode(part)) for part in path.parts) > LONGEST:
            raise UsageError(f"the image name {name!r} cannot be a file's name within a folder; rename it")
    under = next((str(parent) for path in paths for parent in path.parents if parent in paths), None)
    if under is not None:
        raise UsageError(f"the image name {under!r} is a folder of others, too; rename it, or write parquet")


def _picture(dataset, i):
    """The file's bytes of picture `i` and its suffix; a format that folders of photos do not know becomes PNG."""
    data = dataset.file_bytes(i)
    try:
        suffix = picture_suffix(data)
    except ImageError as error:
        raise ImageError(f"{dataset.names[i]!r}: {error}; mend it, or leave it out") from error
    if not suffix:
        buffer = io.BytesIO()
        images.open_image(data).save(buffer, "PNG")
        data, suffix = buffer.getvalue(), ".png"
    return data, suffix


def _write_pictures(dataset, folder):
    for i, name in enumerate(runtime.progress(dataset.names, "pictures")):
        data, suffix = _picture(dataset, i)
        file = folder / (name if pathlib.PurePath(name).suffix.lower() in images.SUFFIXES else name + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _records(dataset, caption_key):
    """One row per image under "captions", or one per caption under "caption"; the columns after the name."""
    for i, (name, captions) in enumerate(zip(dataset.names, dataset.captions)):
        columns = {key: values[i] for key, values in dataset.columns.items()}
        captions = [caption for caption in captions if caption.strip()]  # a blank one is none, and would be refused in reading
        for said in [captions] if caption_key == "captions" else captions:
            yield {"file_name": name} | columns | {caption_key: said}


def _text(dataset, kind):
    if kind == "json":
        return json.dumps(list(_records(dataset, "captions")), indent=1, ensure_ascii=False, default=_plain) + "\n"
    if kind == "jsonl":
        return "".join(json.dumps(record, ensure_ascii=False, default=_plain) + "\n" for record in _records(dataset, "captions"))
    if kind == "token":
        return "".join(f"{name}#{k}\t{caption.strip()}\n" for name, row in zip(dataset.names, dataset.captions) for k, caption in enumerate(row) if caption.strip())
    simple = [key for key, values in dataset.columns.items() if all(value is None or isinstance(value, (str, int, float)) for value in values)]
    head = ["image", "caption"] if kind == "captions.txt" else ["file_name", *simple, "caption"]
    buffer = io.StringIO()
    table = csv.writer(buffer, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
    quoting = csv.writer(buffer, table.dialect, quoting=csv.QUOTE_ALL)
    table.writerow(head)
    for record in _records(dataset, "caption"):
        row = [record["file_name"] if key == "image" else record[key] for key in head]
        odd = any(isinstance(cell, str) and ("\r" in cell or cell.startswith(" ")) for cell in row)  # Python up to 3.12 quotes neither by itself
        (quoting if odd else table).writerow(row)
    return buffer.getvalue()


def _plain(value):
    """A number of numpy as Python's own; what JSON cannot say is a `UsageError`."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise UsageError(f"a column holds {type(value).__name__}, which JSON cannot say; leave the column out, or write parquet")


def _write_parquet(dataset, file):
    import pyarrow
    import pyarrow.parquet

    columns = {"id": pyarrow.array(dataset.names, pyarrow.string()),
               "image": pyarrow.array([_picture(dataset, i)[0] for i in range(len(dataset))], pyarrow.binary()),
               "captions": pyarrow.array(dataset.captions, pyarrow.list_(pyarrow.string()))}
    for key, values in dataset.columns.items():
        texts = all(value is None or isinstance(value, dict) for value in values) and any(values)
        columns[key] = pyarrow.array([value and list(value.items()) for value in values], pyarrow.map_(pyarrow.string(), pyarrow.string())) if texts else pyarrow.array(values)
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
