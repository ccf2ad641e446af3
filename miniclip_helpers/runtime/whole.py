"""Whole or not at all: files and folders are written aside, brought to the disk, and put in their place in one step."""

import contextlib
import errno
import glob
import itertools
import os
import pathlib
import re
import shutil
import stat
import sys
import zlib

from .unwritten import Unwritten, told, told_inside

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

UNABLE = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # what file systems say that know no syncing
UNSYNCED = UNABLE | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}  # of a folder
UNSWAPPED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}
ASIDE = re.compile(r"\..*\.miniclip-\d+(\.[^/]*)?", re.DOTALL)
NO_FILE = "it is a device or a pipe, and no file"


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
        _flush(handle)
    except OSError as error:
        if error.errno not in (UNSYNCED if folder else UNABLE):
            raise
    finally:
        os.close(handle)


def _flush(handle):
    if hasattr(fcntl, "F_FULLFSYNC"):  # on macOS fsync leaves it in the disk's own memory
        with contextlib.suppress(OSError):
            return fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    return os.fsync(handle)


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


def _names(path):
    """(how the names begin that `path` has aside, how they end). A long name is cut, and a checksum tells it from others that begin alike."""
    name = path.name if len(path.name) <= 40 else f"{path.name[:40]}-{zlib.crc32(path.name.encode('utf8', 'surrogatepass')):08x}"
    return f".{name}.miniclip-", path.suffix[:16]


def _aside(path, make):
    """(where to write until `path` is whole, a handle that holds it or None). The first name that no other writer of `path` has; `make` makes it."""
    (begin, end), lost = _names(path), []
    for number in itertools.count():
        aside = path.with_name(f"{begin}{number}{end}")
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
            lost.append(aside)
            if len(lost) == 20:  # not other writers: a file system that gives a file another number each time it is asked, where nobody can hold one
                for left in set(lost) - {aside}:
                    _remove(left)
                return aside, None


def _new_file(aside):
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


@contextlib.contextmanager
def _beside(path, make, kept):
    """A place to write `path`, held by this writer, and away again however the block ends."""
    with told(path, kept):
        make_folder(path.parent)
        aside, held = _aside(path, make)
    try:
        with told_inside(path, aside, kept):
            yield aside
    except BaseException:
        if held is None or _is(held, aside):  # once it is in its place, another writer may have the name
            _remove(aside)
        raise
    finally:
        if held is not None:
            os.close(held)


def _place(path):
    """Where a path leads: what a link points to is written, not the link; the link itself where what it points to is closed to writing, as in a store of contents."""
    path = pathlib.Path(path)
    if not path.is_symlink():
        return path
    if _is_opened(path):
        raise Unwritten(path, OSError(errno.EEXIST, NO_FILE))
    target = pathlib.Path(os.path.realpath(path))
    return target if not target.exists() or os.access(target, os.W_OK) and target.stat().st_mode & 0o222 else path  # to root no mode is closed


def _is_opened(link):
    """Whether a link leads to what a process has open, as /dev/stdout does: to replace the file would take it from under whoever writes to it."""
    for _ in range(40):  # as many as Linux follows
        if not link.is_symlink():
            return False
        folder = os.path.realpath(link.parent)
        if folder in ("/dev", "/dev/fd") or folder.startswith("/proc/"):
            return True
        link = link.parent / os.readlink(link)
    return False


@contextlib.contextmanager
def writing(path, kept=""):
    """Yield a temporary path beside `path`; when the block ends well the file is synced and renamed onto `path`, and its folder is synced.

    A reader sees the old file or the new one, never a part, after a crash of the machine, too; when the block fails nothing is left behind. What a
    killed process left, the next writer of the file clears away. A full or failing disk is an `Unwritten`. kept: what is not lost then, in words.
    Whatever the umask, all may read what is written, and its owner alone may change it: it is made to be shared, and a umask can only be read by changing it.
    """
    path = _place(path)
    with told(path):
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise Unwritten(path, OSError(errno.EEXIST, "it is a folder" if path.is_dir() else NO_FILE))
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
    held = None
    for _ in range(100):  # others may be at the same: each waits for the folder that stands there, so that only one of them moves it
        if not os.path.lexists(path):
            try:
                return os.replace(aside, path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another writer was quicker
                    raise
        with contextlib.suppress(PermissionError):
            held = None if fcntl is None else _lock(path, wait=True)
        if held is not None or fcntl is None:
            break
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
    """Where a process was killed between moving the old folder aside and putting the new one there, the old one stands again; where it was killed after that, the old one goes.

    So does what a killed writer of `path` had not brought to its end.
    """
    path = _place(path)
    begin, end = _names(path)
    with told(path):
        left = [old for old in path.parent.glob(f"{glob.escape(begin)}*{glob.escape(end)}.old") if old.is_dir() and old.name[len(begin):len(old.name) - len(end) - 4].isdecimal()]
        for old in sorted(left, key=lambda old: old.lstat().st_ctime_ns, reverse=True):  # the last that stood there comes first
            if os.path.lexists(path):
                _remove(old)
            else:
                os.replace(old, path)
        for aside in path.parent.glob(f"{glob.escape(begin)}*{glob.escape(end)}"):
            if is_aside(aside.name):
                cleared(aside)


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
