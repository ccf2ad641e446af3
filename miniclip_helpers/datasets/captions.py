"""captions.json, written by hand: the photos of a folder with or without captions, the rows of the file, read and written whole."""

import json
import pathlib

from .. import runtime
from ..errors import DataError, UsageError
from .formats import _captions_files, _image_root, _photos
from .readers import read_json, reader_of
from .writing import check_whole_letters

FILE = "captions.json"


def load_photos(folder, skip_problems=False):
    """The pictures of a folder as a dataset without captions, whether or not a file of captions lies beside them.

    `load_dataset` takes the captions, where there are any, and with them only the pictures that have one; this is for whoever still
    writes them. Names are relative to the folder, or to its images/ where a file of captions that is there already means those. Problems
    as in `load_dataset`.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(f"'{folder}' is no folder; expected a folder of photos")
    named = [entry.image for file in _captions_files(folder)[:1] if file.suffix != ".parquet" for entry in reader_of(file)(file, [])]
    photos = _photos(_image_root(folder / FILE, named) if named else folder, skip_problems)
    photos.name = folder.resolve().name
    return photos


def caption_rows(captions):
    """{file name: list of captions} to the rows of captions.json: one {"file_name", "caption"} per caption, names in order, blanks left out."""
    return [{"file_name": name, "caption": " ".join(said.split())} for name in sorted(captions) for said in captions[name] if said.strip()]


def read_captions(file):
    """captions.json to {file name: list of captions}; {} where there is no file yet. A `DataError` lists what is wrong with its rows."""
    file = pathlib.Path(file)
    if not file.exists():
        return {}
    problems, found = [], {}
    for entry in read_json(file, problems):
        found.setdefault(entry.image, []).extend(entry.captions)
        if entry.columns:
            problems.append(f"{entry.place}: columns beside the caption ({', '.join(entry.columns)}) would be lost in writing")
    if problems:
        raise DataError(f"'{file}' has {len(problems)} problem(s); mend them, or write to another file:", problems)
    return found


def write_captions(file, captions):
    """Write {file name: list of captions} as captions.json, whole or not at all. Absolute names are a `UsageError`: the folder would not travel."""
    for name in captions:
        if pathlib.PurePath(name).is_absolute() or ".." in pathlib.PurePath(name).parts:
            raise UsageError(f"expected names relative to the folder of photos, found {name!r}")
        check_whole_letters((name, *captions[name]))
    with runtime.writing(file) as path:
        path.write_text(json.dumps(caption_rows(captions), indent=1, ensure_ascii=False) + "\n", encoding="utf8")
