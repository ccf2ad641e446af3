"""Whole or not at all: files and folders are written aside, brought to the disk, and put in their place in one step."""

import contextlib
import errno
import itertools
import os
import pathlib
import re
import shutil
import stat
import sys

from ..errors import MiniclipError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ROOM, FORBIDDEN = "free some space, or name another place", "name a place that you may write to"
ADVICE = {errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EFBIG: ROOM, errno.EIO: "the disk may be failing: name another place"}
UNSYNCED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}  # what systems say that cannot sync a folder
UNSWAPPED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}
ASIDE = re.compile(r"\..*\.miniclip-\d+(\.[^/]*)?", re.DOTALL)


class Unwritten(MiniclipError):
    """A file or a folder could not be written; what stood there before still does. reason: what the system said. code: its errno."""

    def __init__(self, path, error, kept=""):
        self.code, self.reason = reason_of(error) or (getattr(error, "errno", None), getattr(error, "strerror", None) or error)
        kept = kept or ("what was there is kept" if os.path.lexists(path) else "")
        super().__init__(f"'{path}' cannot be written ({self.reason}); {f'{kept}: ' if kept else ''}{ADVICE.get(self.code, FORBIDDEN)}")


def reason_of(error):
    """(errno, words) where an exception of any library tells of a disk that is full or fails, or of a place that is closed to writing; else None."""
    if isinstance(error, MiniclipError):  # says itself what is wrong
        return (error.code, error.reason) if isinstance(error, Unwritten) else None
    while error is not None:  # torch says only that it was cut short, while it handles what the system said
        for code in (*ADVICE, errno.EROFS):
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error) or f"os error {code})" in str(error):
                return code, os.strerror(code)
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def told(path, kept=""):
    """Turn what the system says of an unwritable place into an `Unwritten` that names it. kept: what is not lost, in words."""
    try:
        yield
    except OSError as error:
        raise Unwritten(path, error, kept) from error


@contextlib.contextmanager
def _told_inside(path, aside, kept):
    """The same for a block that writes `aside`: other faults of the block, such as a file that it cannot read, pass."""
    try:
        yield
    except Exception as error:
        names = [pathlib.Path(os.fsdecode(name)) for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if isinstance(name, (str, bytes, os.PathLike))]
        here = not names or any(name == aside or aside in name.parents for name in names)  # without a name it comes from a file that is open
        if reason_of(error) or (isinstance(error, OSError) and error.errno and here):
            raise Unwritten(path, error, kept) from error
        raise


def sync(path):
    """Bring a file, or the entries of a folder, from the system's memory to the disk. An `OSError` where the disk refuses."""
    folder = os.path.isdir(path)
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" and not folder else os.O_RDONLY)  # Windows syncs only what may be written
    except OSError as error:
        if folder and error.errno in UNSYNCED:  # Windows, or a folder that may be written to and not listed
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in UNSYNCED:
            raise
    finally:
        os.close(handle)


def make_folder(folder):
    """Make a folder and those around it where they are missing, for good."""
    folder = pathlib.Path(folder)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        sync(place.parent)


def is_aside(name):
    """Whether a file's name is one that `writing` and `writing_folder` give to what is not whole yet. A killed writer leaves it; the next one of that file clears it away."""
    return bool(ASIDE.fullmatch(name))


def _lock(path, wait):
    """An open handle on `path` that keeps other writers off it; None where one of them has it, or where it is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) or not wait:
            return None
        raise
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        usable = True
    except OSError:  # taken, or a file system without locks: there a writer goes on without one, and nobody clears away what is left
        usable = wait
    if usable and _is(handle, path):
        return handle
    os.close(handle)
    return None


def _is(handle, path):
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def cleared(aside):
    """Take away what a killed writer left aside. False where a writer is still at it, or where it cannot be told."""
    if fcntl is None:
        return False
    held = _lock(aside, wait=False)
    if held is not None:
        _remove(aside)
        os.close(held)
    return not os.path.lexists(aside)


def _aside(path, make):
    """(where to write until `path` is whole, a handle that holds it or None). The first name that no other writer of `path` has; `make` makes it."""
    for number in itertools.count():
        aside = path.with_name(f".{path.name[:40]}.miniclip-{number}{path.suffix}")
        while True:
            try:
                make(aside)
            except FileExistsError:
                if not cleared(aside):
                    break
                continue
            held = None if fcntl is None else _lock(aside, wait=True)
            if fcntl is None or held is not None:
                return aside, held


def _new_file(aside):
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


@contextlib.contextmanager
def _beside(path, make, kept):
    """A place to write `path`, held by this writer, and away again however the block ends."""
    with told(path, kept):
        make_folder(path.parent)
        aside, held = _aside(path, make)
    try:
        with _told_inside(path, aside, kept):
            yield aside
    except BaseException:
        if held is None or _is(held, aside):  # once it is in its place, another writer may have the name
            _remove(aside)
        raise
    finally:
        if held is not None:
            os.close(held)


def _place(path):
    """Where a path leads: what a link points to is written, not the link."""
    path = pathlib.Path(path)
    return pathlib.Path(os.path.realpath(path)) if path.is_symlink() else path


@contextlib.contextmanager
def writing(path, kept=""):
    """Yield a temporary path beside `path`; when the block ends well the file is synced and renamed onto `path`, and its folder is synced.

    A reader sees the old file or the new one, never a part, after a crash of the machine, too; when the block fails nothing is left behind. What a
    killed process left, the next writer of the file clears away. A full or failing disk is an `Unwritten`. kept: what is not lost then, in words.
    """
    path = _place(path)
    with told(path):
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise Unwritten(path, OSError(errno.EEXIST, "it is a folder" if path.is_dir() else "it is a device or a pipe, and no file"))
    with _beside(path, _new_file, kept) as aside:
        yield aside
        with told(path, kept):
            os.chmod(aside, 0o644)
            sync(aside)
            os.replace(aside, path)
            sync(path.parent)


@contextlib.contextmanager
def writing_folder(path, kept=""):
    """The same for a folder: yield an empty temporary folder, put it in the place of `path` when the block ends well.

    What stood at `path` is gone then: callers look first, with `check_replaceable`. On Linux and macOS the two change places in one step. Where the
    system cannot do that, a process killed between two steps leaves the old folder aside, and the next writer brings it back first.
    """
    path = _place(path)
    bring_back(path)
    with _beside(path, os.mkdir, kept) as aside:
        yield aside
        with told(path, kept):
            for file in (*aside.rglob("*"), aside):
                if not file.is_symlink():
                    sync(file)
            aside.chmod(0o755)
            _take_place(aside, path)
            sync(path.parent)


def _take_place(aside, path):
    """The folder `aside` becomes `path`; what stood there is gone."""
    if not os.path.lexists(path):
        return os.replace(aside, path)
    held = None if fcntl is None else _lock(path, wait=False)  # once it lies aside, another writer would take it for a leftover
    try:
        if swap(aside, path):
            return _remove(aside)
        old = aside.with_name(f"{aside.name}.old")
        os.replace(path, old)
        try:
            os.replace(aside, path)
        except BaseException:
            os.replace(old, path)
            raise
        _remove(old)
    finally:
        if held is not None:
            os.close(held)


def bring_back(path):
    """Where a process was killed between moving the old folder aside and putting the new one there, the old one stands again; where it was killed after that, the old one goes."""
    path = pathlib.Path(path)
    for number in itertools.count():
        old = path.with_name(f".{path.name[:40]}.miniclip-{number}{path.suffix}.old")
        if not old.is_dir():
            return
        if os.path.lexists(path):
            _remove(old)
            continue
        with told(path):
            os.replace(old, path)


def swap(one, other):
    """Let two paths change places in one step. False where this system, or this file system, cannot."""
    import ctypes

    name = {"linux": "renameat2", "darwin": "renamex_np"}.get(sys.platform)
    call = name and getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if not call:
        return False
    here, exchange = (-100,), 2  # AT_FDCWD; RENAME_EXCHANGE of <linux/fs.h>, RENAME_SWAP of <sys/stdio.h>
    paths = [os.fsencode(one), os.fsencode(other)]
    if call(*(here + (paths[0],) + here + (paths[1],) if name == "renameat2" else paths), ctypes.c_uint(exchange)) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSWAPPED:
        return False
    raise OSError(code, os.strerror(code), str(other))
