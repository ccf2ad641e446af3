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
        pixels = _pixels(batch["data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
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


class _Array:
    """What stands in for an array, or its type, while a pickle is read: it takes down what it is told, and makes an array only of plain bytes."""

    def __init__(self, *said):
        self.said, self.state = said, None

    def pixels(self):
        """The array (...) uint8, or a `ValueError` for one of any other kind."""
        _, shape, kind, by_columns, data = self.state
        data = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote it
        if not isinstance(kind, _Array) or kind.said[:1] not in (("u1",), ("uint8",), ("|u1",)) or not isinstance(data, bytes):
            raise ValueError("an array of another type than uint8")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if by_columns else "C")


class _Arrays(pickle._Unpickler):
    """CIFAR's files are pickles, which may run any code; this one builds dictionaries, lists, texts and `_Array`s, and nothing else.

    It is Python's own reader in Python: the one in C takes memory for whatever a file says that it will hold. Nor does NumPy restore
    its arrays: it trusts the description that a pickle gives of one, and so may be led to take numbers for addresses.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _latin1
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _Array

    def load_build(self):
        state = self.stack.pop()
        if type(self.stack[-1]) is not _Array:
            raise pickle.UnpicklingError("it gives a state to what has none")
        self.stack[-1].state = state

    dispatch[pickle.BUILD[0]] = load_build


def _pixels(found):
    return found.pixels() if isinstance(found, _Array) else np.asarray(found)


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
