"""Features on disk: one SQLite file per tower, one row per content."""

import atexit
import contextlib
import functools
import os
import pathlib
import shutil
import sqlite3
import tempfile
import time
import warnings

import numpy as np

from .. import runtime
from ..errors import MiniclipError

VERSION = 1  # of the file's layout; 0 is what the first release wrote, with the same layout and no number

PAGE = 2**14  # bytes: several vectors to a page; one to each page of SQLite's usual 4096 bytes takes two to four times the room

PATIENCE = 60  # seconds to wait for another process that is writing

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

CLOSED = ("attempt to write a readonly database", "unable to open database file")  # what SQLite says of a file that it may not write to


class CacheWarning(UserWarning):
    """A cache on disk could not be used as it was: it was begun anew, or another takes its place until this Python ends."""


def _folder():
    """Where features are kept. Nobody needs a cache to work: where none was named, and the usual place is closed to writing, a private one until this Python ends."""
    if os.environ.get("MINICLIP_CACHE"):
        return runtime.cache_dir()
    with contextlib.suppress(OSError, MiniclipError):
        (runtime.cache_dir() / "features").mkdir(parents=True, exist_ok=True)
        if os.access(runtime.cache_dir() / "features", os.W_OK):
            return runtime.cache_dir()
    return _until_the_end(os.getpid())


@functools.cache
def _until_the_end(process):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="miniclip-cache-"))
    atexit.register(lambda: os.getpid() == process and shutil.rmtree(folder, ignore_errors=True))  # not in a fork
    warnings.warn("the cache folder of your home cannot be written, so what is computed now is computed again next time; set MINICLIP_CACHE to a folder that you may write to",
                  CacheWarning, stacklevel=5)
    return folder


class FeatureCache:
    """Features on disk: one SQLite file per tower, one row per content. Several processes may use it at once.

    A damaged file, or one of another version, is set aside and begun anew: a cache may always be lost, never be wrong.
    """

    def __init__(self, fingerprint, width, folder=None):
        self.width, self.base = width, None
        self.path = (_folder() if folder is None else folder) / "features" / f"{fingerprint}.sqlite"
        try:
            self._begin(folder is None and not os.environ.get("MINICLIP_CACHE"))
        except (OSError, sqlite3.OperationalError) as error:
            self.close()
            raise self._unwritable(error) from error
        except sqlite3.DatabaseError as error:
            self._damaged(error)

    def _begin(self, elsewhere):
        """Open the file, and make it where it is not there. elsewhere: whether a private one takes its place where it is closed to writing, as one that root made is."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connect()
        except sqlite3.OperationalError as error:
            if not elsewhere or not any(words in str(error) for words in CLOSED):
                raise
            self.path = _until_the_end(os.getpid()) / "features" / self.path.name
            self._begin(False)

    def _damaged(self, error):
        """Begin anew where the file is damaged, and only there: what a caller does wrong, as to use a closed cache, is no fault of the file."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in DAMAGED:
            raise error
        self._begin_anew("damaged")

    def _begin_anew(self, why):
        """Set the file aside and start an empty one."""
        self.base.close()
        for suffix in ("", "-wal", "-shm"):
            file = self.path.with_name(self.path.name + suffix)
            with contextlib.suppress(FileNotFoundError):  # another process may have been quicker
                file.rename(file.with_name(f"{file.name}.{why}-{time.time_ns()}"))
        self._connect()

    def _unwritable(self, error):
        full = isinstance(error, sqlite3.OperationalError) and ("full" in str(error) or "disk I/O" in str(error))
        what = "cannot be written: the disk is full, or its limit is reached" if full else "cannot be used"
        closed = any(words in str(error) for words in CLOSED)
        first = f"remove '{self.path.name}' there, if it is another user's" if closed else "free some space"
        return MiniclipError(f"the feature cache in '{self.path.parent}' {what} ({error}); what was kept before is whole; {first}, or set MINICLIP_CACHE to another folder")

    def _connect(self):
        if self.path.exists() and not os.access(self.path, os.W_OK):  # SQLite opens it all the same, and fails at the first row
            raise sqlite3.OperationalError(CLOSED[0])
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self._open()
            except sqlite3.OperationalError as error:  # whoever turns on the write-ahead log at the same moment is told at once, whatever the timeout
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                self.base.close()
                time.sleep(0.02)

    def _open(self):
        self.base = sqlite3.connect(self.path, timeout=PATIENCE)
        self.base.execute(f"PRAGMA page_size = {PAGE}")  # of a file that is new
        self.base.execute("PRAGMA journal_mode=WAL")
        (version,) = self.base.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            warnings.warn(f"the feature cache '{self.path.name}' was written by another version of this package (layout {version}, not {VERSION}); "
                          "it is set aside and begun anew", CacheWarning, stacklevel=4)
            self._begin_anew(f"version{version}")
            return
        self.base.execute("CREATE TABLE IF NOT EXISTS features (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        if not version:
            self.base.execute(f"PRAGMA user_version = {VERSION}")
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
            except sqlite3.DatabaseError as error:
                self._damaged(error)
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
        except sqlite3.DatabaseError as error:
            self._damaged(error)

    def close(self):
        if self.base is not None:
            self.base.close()
