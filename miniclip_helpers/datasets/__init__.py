"""Image-text datasets: one row per image, a list of captions each; embedded ones by name, the user's own by path."""

import pathlib

from .. import runtime
from ..errors import DataError, UsageError, unknown
from . import formats
from .splits import read_names, read_split, write_split
from .table import ImageTextDataset

__all__ = ["EMBEDDED", "ImageTextDataset", "load_dataset", "read_names", "read_split", "write_split"]

EMBEDDED = ("emoji", "stamps", "photos8")


def load_dataset(name_or_path, skip_problems=False):
    """The dataset called `name_or_path`, or the one in that file or folder, its format detected.

    Names: "emoji" (4,858 pictures of 1,636 concepts by three vendors), "stamps" (950 pictures), "photos8" (scikit-image's eight).
    Paths: a folder with captions.json, captions.txt (Kaggle's Flickr8k), Flickr8k.token.txt, one *.jsonl, *.csv or *.parquet,
    or just photos; or one such file, its pictures beside it or in images/ or Images/ beside it.

    What is wrong is listed in a `DataError` (file, line, why). With `skip_problems` the faulty rows are left out instead, and
    listed in `.problems` of the dataset.
    """
    if isinstance(name_or_path, ImageTextDataset):
        return name_or_path
    if not str(name_or_path).strip():
        raise UsageError(f"expected a dataset's name ({', '.join(EMBEDDED)}), a folder or a file of captions, found nothing")
    path = pathlib.Path(name_or_path)
    if str(name_or_path) in EMBEDDED:
        return _embedded(str(name_or_path))
    if path.exists():
        return formats.load_path(path, skip_problems)
    if path.suffix or len(path.parts) > 1 or str(name_or_path).startswith("."):
        raise DataError(f"'{name_or_path}' does not exist; expected a dataset's name ({', '.join(EMBEDDED)}), a folder or a file of captions")
    raise unknown("dataset", name_or_path, [*EMBEDDED, "or a path that exists"])


def _embedded(name):
    if name == "photos8":
        from .photos8 import load_photos8

        return load_photos8()
    return formats.load_parquet(runtime.data_dir() / f"{name}.parquet", name=name)
