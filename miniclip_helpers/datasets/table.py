"""One table for every format: `ImageTextDataset`."""

import hashlib
import pathlib

import numpy as np

from .. import images
from ..errors import DataError, UsageError
from .splits import split_rows

THREADS = 4


class ImageTextDataset:
    """Images with their captions. Pictures are opened when asked for; each row is one image.

    names: N strings, each once. captions: N lists of str (empty where there are none). sources: N paths or bytes of picture
    files. columns: other columns, {name: list of N}. problems: what was left out while loading, one line each.
    """

    def __init__(self, name, names, captions, sources, columns=None, problems=(), root=None):
        if not len(names) == len(captions) == len(sources):
            raise UsageError(f"expected as many names as captions and pictures, found {len(names)}, {len(captions)}, {len(sources)}")
        if len(set(names)) != len(names):
            twice = next(n for n in names if list(names).count(n) > 1)
            raise DataError(f"dataset {name}: the image name {twice!r} stands twice; names must be unique")
        self.name, self.names, self.captions = name, list(names), [list(row) for row in captions]
        self.columns, self.problems, self.root = dict(columns or {}), list(problems), root
        self._sources = list(sources)
        self._row = {name: row for row, name in enumerate(self.names)}

    def __len__(self):
        return len(self.names)

    def __repr__(self):
        return f"{self.name}: {len(self)} images, {len(self.owner)} captions"

    @property
    def owner(self):
        """(M,) int64: the image of each caption, images in order."""
        return np.repeat(np.arange(len(self)), [len(row) for row in self.captions])

    @property
    def all_captions(self):
        """M captions in the order of `owner`."""
        return [caption for row in self.captions for caption in row]

    def image(self, i):
        """Picture `i` as PIL RGB, upright. Raises `ImageError` that names the picture."""
        return images.open_image(self._sources[i])

    def images(self, rows=None):
        """The pictures of `rows` (all of them by default), decoded by several threads, in order. A generator."""
        from concurrent.futures import ThreadPoolExecutor

        rows = range(len(self)) if rows is None else rows
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(rows), 64):  # bounded: a large folder is never in memory at once
                yield from pool.map(self.image, rows[start : start + 64])

    def path(self, i):
        """The file of picture `i`, or None for an embedded one."""
        return self._sources[i] if isinstance(self._sources[i], pathlib.Path) else None

    def file_bytes(self, i):
        """The bytes of the file of picture `i`, as they lie on the disk or in the table."""
        source = self._sources[i]
        return source.read_bytes() if isinstance(source, pathlib.Path) else bytes(source)

    def fingerprint(self, i):
        """A name for the content of picture `i`: the sha256 of its bytes. Equal pictures have equal fingerprints."""
        return hashlib.sha256(self.file_bytes(i)).hexdigest()

    def first_captions(self):
        """The same dataset with the first caption of each image alone."""
        first = self.subset(range(len(self)))
        first.captions = [row[:1] for row in first.captions]
        return first

    def row(self, name):
        """The row of the image called `name`."""
        if name not in self._row:
            from ..errors import unknown

            raise unknown(f"image of {self.name}", name, self.names[:5] + ["..."])
        return self._row[name]

    def subset(self, rows, name=None):
        """A dataset of these rows, in this order."""
        rows = [int(row) for row in rows]
        pick = lambda values: [values[row] for row in rows]  # noqa: E731
        columns = {key: pick(values) for key, values in self.columns.items()}
        return ImageTextDataset(name or self.name, pick(self.names), pick(self.captions), pick(self._sources), columns, self.problems, self.root)

    def select(self, names, name=None):
        """A dataset of the images with these names, in this order; a `DataError` lists names that are not there."""
        missing = [wanted for wanted in names if wanted not in self._row]
        if missing:
            raise DataError(f"{len(missing)} of {len(names)} image names are not in {self.name}", [f"{m!r}" for m in missing])
        twice = sorted({wanted for wanted in names if names.count(wanted) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise DataError(f"the list of image names names {len(twice)} of them twice", [f"{t!r}" for t in twice])
        return self.subset([self._row[wanted] for wanted in names], name)

    def where(self, column, value):
        """The rows whose `column` equals `value`."""
        if column not in self.columns:
            from ..errors import unknown

            raise unknown(f"column of {self.name}", column, self.columns)
        return self.subset([row for row, found in enumerate(self.columns[column]) if found == value])

    def split(self, fractions=None, seed=0):
        """Parts by image: {"train": dataset, "val": ..., "test": ...}. Captions of one image never part, nor do equal pictures.

        fractions: {part: share}, by default 70 / 15 / 15 %; the last part takes what rounding leaves.
        """
        groups = [self.fingerprint(row) for row in range(len(self))]
        return {part: self.subset(rows, f"{self.name}/{part}") for part, rows in split_rows(len(self), fractions, seed, groups).items()}
