"""CIFAR-100 (Krizhevsky 2009): 60,000 pictures of 32 x 32 pixels, 100 labels in 20 coarse classes; fetched, or out of a folder in its own format."""

import pathlib
import pickle

import numpy as np

from .. import downloads
from ..errors import DataError, unknown
from .table import ImageTextDataset

FOLDER = "cifar-100-python"
PARTS = ("test", "train")
ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}


def is_folder(path):
    """Whether `path` is a folder in CIFAR-100's own format, or the folder above it, as torchvision wants it for `root`."""
    return _inner(pathlib.Path(path)) is not None


def _inner(path):
    for folder in (path / FOLDER, path):
        if (folder / "meta").is_file() and any((folder / part).is_file() for part in PARTS):
            return folder
    return None


def load_cifar100(folder=None, part="test"):
    """A part of CIFAR-100: "test" (10,000 pictures) or "train" (50,000), fetched to the cache unless `folder` holds it.

    The caption of a picture is its label, underscores made spaces. columns: "label", "coarse" (the coarse class), "filename".
    """
    if part not in PARTS:
        raise unknown("part of CIFAR-100", part, PARTS)
    root, name = folder, "cifar100" if folder is None else pathlib.Path(folder).resolve().name
    if folder is None:
        folder = downloads.fetch("cifar100")
    inner = _inner(pathlib.Path(folder))
    if inner is None or not (inner / part).is_file():
        raise DataError(f"'{folder}' does not hold the part {part} of CIFAR-100; expected the files meta and {part} in {FOLDER}/")
    meta, batch = _read(inner / "meta"), _read(inner / part)
    try:
        pixels = np.asarray(batch["data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = [meta["fine_label_names"][i].replace("_", " ") for i in batch["fine_labels"]]
        coarse = [meta["coarse_label_names"][i].replace("_", " ") for i in batch["coarse_labels"]]
        if pixels.dtype != np.uint8 or not len(pixels) == len(labels) == len(coarse):
            raise ValueError(f"{len(pixels)} pictures of {pixels.dtype}, {len(labels)} labels, {len(coarse)} coarse labels")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"'{inner / part}' is not CIFAR-100: expected data (N, 3072), fine_labels and coarse_labels; found {error!r}") from error
    names = [f"{part}-{row:05d}" for row in range(len(pixels))]
    files = [b"P6 32 32 255\n" + picture.tobytes() for picture in pixels]  # a PPM file is a head and the bare pixels
    columns = {"label": labels, "coarse": coarse, "filename": list(batch.get("filenames") or [None] * len(names))}
    return ImageTextDataset(name if part == "test" else f"{name}:{part}", names, [[label] for label in labels], files, columns, root=root)


class _Arrays(pickle.Unpickler):
    """CIFAR's files are pickles, which may run any code; this one builds dictionaries, lists, texts and arrays, and nothing else."""

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _latin1
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _latin1(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


def _read(file):
    try:
        with open(file, "rb") as handle:
            found = _Arrays(handle, encoding="latin1").load()
    except Exception as error:  # a broken pickle raises nearly anything
        raise DataError(f"'{file}' cannot be read as a file of CIFAR-100: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"'{file}' is not a file of CIFAR-100: expected a dictionary, found {type(found).__name__}")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in found.items()}
