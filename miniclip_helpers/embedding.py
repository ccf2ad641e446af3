"""Encoding in batches, with a progress bar, and a cache on disk keyed by weights and content: a second run encodes nothing."""

import contextlib
import sqlite3
import time

import numpy as np
import torch

from . import images, runtime
from .errors import DataError, ImageError, MiniclipError, UsageError
from .model import lengths

IMAGE_BATCH = 4  # measured on two cores: small batches, channels last, are several times faster than batches of 32
TEXT_BATCH = 64
SAVE_EVERY = 256


class FeatureCache:
    """Features on disk: one SQLite file per tower, one row per content. Several processes may use it at once.

    A damaged file is set aside and begun anew: a cache may always be lost, never be wrong.
    """

    def __init__(self, fingerprint, width, folder=None):
        self.width = width
        self.path = (runtime.cache_dir() if folder is None else folder) / "features" / f"{fingerprint}.sqlite"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connect()
        except (OSError, sqlite3.OperationalError) as error:
            raise self._unwritable(error) from error
        except sqlite3.DatabaseError:
            self._begin_anew()

    def _begin_anew(self):
        """Set a damaged file aside and start an empty one."""
        self.base.close()
        for suffix in ("", "-wal", "-shm"):
            file = self.path.with_name(self.path.name + suffix)
            if file.exists():
                file.rename(file.with_name(f"{file.name}.damaged-{time.time_ns()}"))
        self._connect()

    def _unwritable(self, error):
        return MiniclipError(f"the feature cache in '{self.path.parent}' cannot be used ({error}); free some space, or set MINICLIP_CACHE to another folder")

    def _connect(self):
        self.base = sqlite3.connect(self.path, timeout=60)
        self.base.execute("PRAGMA journal_mode=WAL")
        self.base.execute("CREATE TABLE IF NOT EXISTS features (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        self.base.commit()

    def get(self, keys):
        """Keys (list of str) to {key: (width,) float32} of those that are there."""
        found = {}
        for start in range(0, len(keys), 500):
            part = list(dict.fromkeys(keys[start : start + 500]))
            try:
                rows = self.base.execute(f"SELECT key, value FROM features WHERE key IN ({','.join('?' * len(part))})", part).fetchall()
            except sqlite3.OperationalError as error:
                raise self._unwritable(error) from error
            except sqlite3.DatabaseError:
                self._begin_anew()
                return {}
            found |= {key: np.frombuffer(value, dtype=np.float32) for key, value in rows if len(value) == 4 * self.width}
        return found

    def put(self, rows):
        """Keep {key: (width,) float32}, all of them or none."""
        try:
            with self.base:
                values = [(key, np.ascontiguousarray(value, dtype=np.float32).tobytes()) for key, value in rows.items()]
                self.base.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", values)
        except sqlite3.OperationalError as error:
            raise self._unwritable(error) from error
        except sqlite3.DatabaseError:
            self._begin_anew()

    def close(self):
        self.base.close()


def _cached(tower, keys, encode_missing, description):
    """The features of `keys`, (N, width): from the cache, and where they are not in it, from `encode_missing(positions)`."""
    with contextlib.closing(FeatureCache(tower.fingerprint, tower.width)) as cache:
        found = cache.get(keys)
        first = {key: position for position, key in reversed(list(enumerate(keys)))}
        missing = sorted(position for key, position in first.items() if key not in found)
        fresh = {}
        batches = runtime.progress(encode_missing(missing), description, total=len(missing))
        try:
            for position, row in batches:
                fresh[keys[position]] = row
                if len(fresh) >= SAVE_EVERY:
                    cache.put(fresh)
                    found, fresh = found | fresh, {}
        finally:
            cache.put(fresh)  # what is encoded stays, whatever stops the rest
        found |= fresh
    return torch.from_numpy(np.stack([found[key] for key in keys])) if keys else torch.zeros(0, tower.width)


def image_features(tower, source):
    """image_features (N, width) of an `ImageTextDataset` or a list of pictures, cached. All unreadable pictures are listed in one error."""
    dataset = source if hasattr(source, "fingerprint") else None
    pictures = None if dataset is not None else [images.open_image(picture) for picture in source]
    if not len(source):
        raise UsageError("expected at least one picture, found none")
    if dataset is not None:
        keys = [dataset.fingerprint(row) for row in range(len(dataset))]
    else:
        keys = [runtime.digest(picture.size, picture.tobytes()) for picture in pictures]

    def encode_missing(missing):
        problems = []
        for start in range(0, len(missing), IMAGE_BATCH * 16):
            block = missing[start : start + IMAGE_BATCH * 16]
            opened = [(row, picture) for row, picture in _opened(dataset, pictures, block, problems) if picture is not None]
            for first in range(0, len(opened), IMAGE_BATCH):
                batch = opened[first : first + IMAGE_BATCH]
                yield from zip([row for row, _ in batch], tower.encode([picture for _, picture in batch]).cpu().numpy())
        if problems:
            raise DataError(f"{len(problems)} of {len(keys)} pictures cannot be read; mend or remove them, or pass skip_problems (--skip-problems)", problems)

    return _cached(tower, keys, encode_missing, f"encoding pictures with {tower.name}")


def _opened(dataset, pictures, rows, problems):
    """(row, picture) of each row, decoded by several threads; (row, None) and a line in `problems` where it cannot be read."""
    from concurrent.futures import ThreadPoolExecutor

    def open_one(row):
        try:
            return row, pictures[row] if dataset is None else dataset.image(row), None
        except ImageError as error:
            return row, None, str(error) if dataset is None or dataset.names[row] in str(error) else f"{dataset.names[row]}: {error}"

    with ThreadPoolExecutor(4) as pool:
        for row, picture, problem in pool.map(open_one, rows):
            if problem:
                problems.append(problem)
            yield row, picture


def text_features(tower, texts, tell=True):
    """text_features (M, width) of a list of texts, cached. Texts of similar length share a batch, so that little is padded.

    Texts longer than the tower's context are cut, with a `LongTextWarning`, unless `tell` is False.
    """
    texts = list(texts)
    if not texts:
        raise UsageError("expected at least one text, found none")
    if tell:
        lengths.tell_long(tower, texts)

    def encode_missing(missing):
        ordered = sorted(missing, key=lambda position: len(texts[position]))
        for start in range(0, len(ordered), TEXT_BATCH):
            batch = ordered[start : start + TEXT_BATCH]
            yield from zip(batch, tower.encode([texts[position] for position in batch]).cpu().numpy())

    return _cached(tower, [runtime.digest(text) for text in texts], encode_missing, f"encoding texts with {tower.name}")


def image_embeddings(model, source):
    """image_embeddings (N, D), unit rows, of a dataset or a list of pictures; the tower's features come from the cache."""
    with torch.no_grad():
        return model.eval().project_images(image_features(model.image_tower, source))


def text_embeddings(model, texts):
    """text_embeddings (M, D), unit rows, of a list of texts; the tower's features come from the cache."""
    with torch.no_grad():
        return model.eval().project_texts(text_features(model.text_tower, texts))
