"""A file or folder to a dataset: the format detected, each picture checked, what is wrong listed."""

import collections
import pathlib
import sys
import unicodedata
import warnings

from .. import images
from ..errors import DataError, ImageError
from . import addresses, cifar
from .readers import reader_of
from .table import ImageTextDataset
from .tars import is_shards, load_tars

FOLDERS = ("", "images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr8k_images")
KNOWN = ("captions.json", "captions.txt", "Flickr8k.token.txt", "captions.jsonl", "captions.csv", "captions.tsv", "captions.parquet", "results.csv", "styles.csv")
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
UNREADABLE = {".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
              ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".tga"}  # pictures, but none that is looked for
UNPRINTED = {"Cc", "Cs", "Zl", "Zp"}  # not other spaces, as macOS puts one into the name of each screenshot, and not what joins emoji
SUFFIXES = (".jpg", *sorted(images.SUFFIXES - {".jpg"}))


class UnreadableWarning(UserWarning):
    """A folder holds pictures of kinds that are not looked for; they are left out."""


def load_path(path, skip_problems=False):
    """The dataset in a file or folder, its format detected; see `datasets.load_dataset`."""
    path = pathlib.Path(path)
    if cifar.is_folder(path):
        return cifar.load_cifar100(path)
    if is_shards(path):
        return load_tars(path, skip_problems)
    files = _captions_files(path) if path.is_dir() else [path]
    if not files:
        return _photos(path, skip_problems)
    name = path.name if path.is_dir() else path.stem
    if files[0].suffix == ".parquet":
        from .parquet import load_parquet

        return load_parquet(files[0], name, skip_problems)
    for file in files:
        addresses.refuse(file)
    problems = []
    entries = reader_of(files[0])(files[0], problems) if len(files) == 1 else _read_parts(files, problems)
    return assemble(name, files[0], entries, problems, skip_problems, whole_folder=path.is_dir())


def _captions_files(folder):
    """The files of captions in a folder: the first of the known names, else the only table, else the parts train, val, test; [] for photos."""
    for known in KNOWN:
        if (folder / known).is_file():
            return [folder / known]
    tables = sorted(file for suffix in ("jsonl", "csv", "tsv", "parquet") for file in folder.glob(f"*.{suffix}"))
    parts = [PARTS.get(file.stem) for file in tables]
    if len(tables) > 1 and (None in parts or len(set(parts)) < len(parts) or any(file.suffix == ".parquet" for file in tables)):
        raise DataError(f"'{folder}' holds several tables; name one of them", [file.name for file in tables])
    return sorted(tables, key=lambda file: ["train", "val", "test"].index(PARTS[file.stem])) if len(tables) > 1 else tables


def _read_parts(files, problems):
    """The entries of train, val and test, told apart in the column "split"; a picture in two of them is a problem."""
    home = {}
    for file in files:
        part = PARTS[file.stem]
        for entry in reader_of(file)(file, problems):
            if home.setdefault(entry.image, part) != part:
                problems.append(f"{entry.place}: {entry.image!r} is in the part {home[entry.image]}, too; a picture belongs to one part")
                continue
            entry.columns["split"] = part
            yield entry


def _image_root(file, names):
    """The folder beside `file` in which most of the first names are found."""
    roots = [file.parent / folder for folder in FOLDERS if (file.parent / folder).is_dir()]
    return max(roots, key=lambda root: sum(_is_file(find_picture(root, name)) for name in names[:50]))


def find_picture(root, name):
    """The file of the picture `name` under `root`; a name without a suffix, as an id has none, is tried with each."""
    path = root / name
    if path.suffix.lower() in SUFFIXES or _is_file(path):
        return path
    return next((file for file in (root / f"{name}{suffix}" for suffix in SUFFIXES) if _is_file(file)), path)


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


def _inside(real, name, home):
    """Whether a picture's real path lies in the folder `home`, and its name does not lead out of it (.., an absolute path, a link)."""
    return real is not None and real.is_relative_to(home) and not pathlib.PurePath(name).is_absolute()


def lies_in(file, name, root):
    """Whether the picture `name`, found as `file`, lies in the folder `root`, or, where that is its images/, beside it."""
    home = _real(pathlib.Path(root))
    return home is not None and _inside(_real(file), name, home.parent if home.name in FOLDERS else home)


def assemble(name, file, entries, problems, skip_problems, whole_folder):
    """Entries (any iterable) to a dataset: grouped by image, each picture checked, pictures without a caption listed."""
    first, captions, columns = gathered(entries)
    root, home = _image_root(file, list(captions)), file.parent.resolve()
    sources, known = {}, set()
    for image, place in first.items():
        path = find_picture(root, image)
        real = _real(path)
        known.add(real)
        fault = fault_of(path, thorough=skip_problems) if _inside(real, image, home) else "leads out of the dataset's folder, or is no usable file name"
        if fault:
            problems.append(f"{place}: {image!r} {fault}")
        else:
            sources[image] = path
    if whole_folder:
        problems += [f"{photo.relative_to(root)}: a picture without a caption" for photo in _pictures(root) if _real(photo) not in known]
    return finish(name, sources, captions, problems, skip_problems, file, root, {key: [column.get(name) for name in sources] for key, column in columns.items()})


def gathered(entries):
    """({image: place of its first row}, {image: captions}, {column: {image: value}}): entries come one by one, and none is kept.

    The columns are those that have one value for each image; those that differ between its captions say nothing of the image.
    """
    first, captions, values, differing = {}, {}, {}, set()
    for entry in entries:
        first.setdefault(entry.image, entry.place)
        captions.setdefault(entry.image, []).extend(entry.captions)
        for key, value in entry.columns.items():
            if key not in differing and values.setdefault(key, {}).setdefault(entry.image, value) != value:
                differing.add(key)
                values[key] = None
    return first, captions, {key: column for key, column in values.items() if key not in differing}


def finish(name, sources, captions, problems, skip_problems, file, root, columns=None):
    """The dataset, or a `DataError` that lists the problems unless they may be left out."""
    if problems and not skip_problems:
        raise DataError(f"'{file}' has {len(problems)} problem(s); mend them, or leave those rows out with skip_problems (--skip-problems):", problems)
    if not sources:
        raise DataError(f"'{file}' holds no usable picture; expected picture files ({', '.join(sorted(images.SUFFIXES))})", problems)
    return ImageTextDataset(name, list(sources), [captions[image] for image in sources], list(sources.values()), columns, problems, root)


def fault_of(path, thorough):
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


def _tell_unreadable(folder):
    """An `UnreadableWarning` where a folder holds pictures of kinds that are not looked for."""
    kinds = collections.Counter(file.suffix.lower() for file in folder.rglob("*") if file.suffix.lower() in UNREADABLE)
    if kinds:
        count = f"{kinds.total()} files" if kinds.total() > 1 else "1 file"
        warnings.warn(f"{count} of kinds that are not looked for ({', '.join(sorted(kinds))}) in '{folder}' left out; convert to .jpg or .png to have them, too",
                      UnreadableWarning, stacklevel=5)


def _photos(folder, skip_problems):
    """A folder of photos without captions; names are paths relative to it."""
    _tell_unreadable(folder)
    problems, sources, home = [], {}, folder.resolve()
    for photo in _pictures(folder):
        fault = fault_of(photo, thorough=skip_problems) if _inside(_real(photo), photo.relative_to(folder), home) else "leads out of the folder"
        image = photo.relative_to(folder).as_posix()
        if UNPRINTED & {unicodedata.category(letter) for letter in image}:  # bytes that are no UTF-8 come as lone surrogates
            other = "" if sys.getfilesystemencoding() == "utf-8" else ", or set PYTHONUTF8=1, for file names in UTF-8"
            image, fault = ascii(image), f"has a name that cannot be printed; rename it{other}"
        if fault:
            problems.append(f"{image}: {fault}")
        else:
            sources[image] = photo
    return finish(folder.resolve().name, sources, dict.fromkeys(sources, ()), problems, skip_problems, folder, folder)
