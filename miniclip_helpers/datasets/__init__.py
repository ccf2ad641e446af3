"""Image-text datasets: one row per image, a list of captions each; embedded ones by name, the user's own by path."""

import functools
import pathlib

from .. import images, runtime
from ..errors import DataError, ImageError, UsageError, unknown
from . import cifar, formats
from .addresses import download_pictures, read_addresses
from .captions import load_photos, read_captions, write_captions
from .duplicates import copies, find_copies, group_copies, near_duplicates, similar_pairs
from .formats import find_picture
from .parquet import PICTURE_COLUMNS, picture_rows
from .splits import read_names, read_split, write_split
from .table import ImageTextDataset
from .tars import is_shards
from .writing import write_dataset

__all__ = ["EMBEDDED", "FETCHED", "NAMES", "PICTURE_COLUMNS", "ImageTextDataset", "copies", "download_pictures", "find_copies", "find_picture", "group_copies", "is_shards",
           "load_dataset", "load_photos", "near_duplicates", "picture_of", "picture_rows", "read_addresses", "read_captions", "read_names", "read_split",
           "similar_pairs", "write_captions", "write_dataset", "write_split"]

EMBEDDED = ("emoji", "stamps", "photos8")
FETCHED = ("cifar100", "cifar100:train", "fashion")
NAMES = EMBEDDED + FETCHED
CAPTIONS = ("all", "first")


def load_dataset(name_or_path, skip_problems=False, captions="all"):
    """The dataset called `name_or_path`, or the one in that file or folder, its format detected.

    Names: "emoji" (4,858 pictures of 1,636 concepts by three vendors), "stamps" (950 pictures), "photos8" (scikit-image's eight) are
    embedded; "cifar100" (the 10,000 test pictures), "cifar100:train" (50,000) and "fashion" (44,000 products) are fetched once.
    Paths: a folder with captions.json, captions.txt (Kaggle's Flickr8k), Flickr8k.token.txt, styles.csv (Fashion Products), one
    *.jsonl, *.csv, *.tsv or *.parquet, or train, val and test as *.jsonl, *.csv or *.tsv (told apart in the column "split"),
    cifar-100-python/, tar shards in webdataset's layout, or just photos; or one such file, its pictures beside it or in images/ or Images/ beside it. A folder of
    CIFAR-100 followed by ":train" is its training part.

    captions: "all", or "first" of each image. What is wrong is listed in a `DataError` (file, line, why). With `skip_problems` the
    faulty rows are left out instead, and listed in `.problems` of the dataset.
    """
    if captions not in CAPTIONS:
        raise unknown("choice of captions", captions, CAPTIONS)
    dataset = name_or_path if isinstance(name_or_path, ImageTextDataset) else _load(str(name_or_path), skip_problems)
    return dataset.first_captions() if captions == "first" else dataset


def picture_of(name, dataset, root=None):
    """The picture called `name`, as PIL RGB, of what was loaded before and is known by its dataset's `.name` and `.root` alone."""
    if root is None and dataset in NAMES:
        dataset = _opened(dataset)
        return dataset.image(dataset.row(name))
    if root is not None and cifar.is_folder(root):
        dataset = _opened(f"{root}:{name.partition('-')[0]}")
        return dataset.image(dataset.row(name))
    file = find_picture(pathlib.Path(root or "."), name)
    if not file.is_file() and root is not None and is_shards(root):
        dataset = _opened(str(root))
        return dataset.image(dataset.row(name))
    if not file.is_file():
        raise ImageError(f"'{file}' is gone since the index was made; build the index again")
    if not formats.lies_in(file, name, root or "."):
        raise ImageError(f"{name!r} leads out of the folder that the index was made of; build the index again")
    return images.open_image(file)


@functools.lru_cache(1)
def _opened(name_or_path):
    """What answers come out of one after the other: opened once, as that takes as long as twenty pictures."""
    return load_dataset(name_or_path)


def _load(name, skip_problems):
    if not name.strip():
        raise UsageError(f"expected a dataset's name ({', '.join(NAMES)}), a folder or a file of captions, found nothing")
    path, (before, _, part) = pathlib.Path(name), name.rpartition(":")
    if name in EMBEDDED:
        return _embedded(name)
    if name in FETCHED or before == "cifar100":
        return _fetched(name)
    if path.exists():
        return formats.load_path(path, skip_problems)
    if before and cifar.is_folder(before):
        return cifar.load_cifar100(before, part)
    if path.suffix or len(path.parts) > 1 or name.startswith("."):
        raise DataError(f"'{name}' does not exist; expected a dataset's name ({', '.join(NAMES)}), a folder or a file of captions")
    raise unknown("dataset", name, [*NAMES, "or a path that exists"])


def _embedded(name):
    if name == "photos8":
        from .photos8 import load_photos8

        return load_photos8()
    from .parquet import load_parquet

    return load_parquet(runtime.data_dir() / f"{name}.parquet", name=name)


def _fetched(name):
    if name == "fashion":
        from .fashion import load_fashion

        return load_fashion()
    return cifar.load_cifar100(part=name.partition(":")[2] or "test")
