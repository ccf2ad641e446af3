"""What the system says of a place that takes no more, as one error that names the place and says what to try."""

import contextlib
import copyreg
import errno
import os
import pathlib

from ..errors import MiniclipError

ROOM, FORBIDDEN = "free some space, or name another place", "name a place that you may write to"
CLOSED = dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), FORBIDDEN)
ADVICE = {errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EFBIG: ROOM, errno.EIO: "the disk may be failing: name another place"}
TAKEN = dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), FORBIDDEN)  # something else stands there


def advice(code):
    """What to try where the system refused a place with this errno; "" where its own words say all there is to say."""
    return (ADVICE | CLOSED | TAKEN).get(code, "")


class Unwritten(MiniclipError):
    """A file or a folder could not be written; what stood there before still does. reason: what the system said. code: its errno. filename: the place."""

    def __init__(self, path, error, kept=""):
        self.filename = os.fspath(path)
        self.code, self.reason = reason_of(error) or (getattr(error, "errno", None), getattr(error, "strerror", None) or str(error))
        after = [part for part in (kept or ("what was there is kept" if os.path.lexists(path) else ""), advice(self.code)) if part]
        super().__init__(f"'{path}' cannot be written ({self.reason}){'; ' if after else ''}{': '.join(after)}")

    def __reduce__(self):  # by its words: it comes back from another process, too
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__


def reason_of(error):
    """(errno, words) where an exception of any library tells of a disk that is full or fails, or of a place that is closed to writing; else None."""
    return (_cause(error) or (None, None))[1]


def _cause(error):
    """(the one of the exceptions that led to `error` which tells of it, (errno, words)), or None."""
    if isinstance(error, MiniclipError):  # says itself what is wrong
        return (error, (error.code, error.reason)) if isinstance(error, Unwritten) else None
    for one in _led_to(error):  # torch says only that it was cut short, while it handles what the system said
        if isinstance(one, OSError) and one.errno in CLOSED:
            return one, (one.errno, os.strerror(one.errno))
        for code in (*ADVICE, errno.EROFS):
            words = os.strerror(code)
            told = not words.startswith("Unknown") and words in str(one)  # a code that this system has no words for
            if getattr(one, "errno", None) == code or told or f"os error {code})" in str(one):
                return one, (code, words)
    return None


def _led_to(error):
    """An exception, then each that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def told(path, kept=""):
    """Turn what the system says of an unwritable place into an `Unwritten` that names it. kept: what is not lost, in words."""
    try:
        yield
    except OSError as error:
        raise Unwritten(path, error, kept) from error


@contextlib.contextmanager
def told_inside(path, aside, kept):
    """The same for a block that writes `aside`: other faults of the block, such as a file elsewhere that it cannot read, pass."""
    try:
        yield
    except Exception as error:
        for before in _led_to(error):  # Ctrl-C in the middle of torch's writing ends in an error of torch, about a file that is cut short
            if isinstance(before, KeyboardInterrupt):
                raise before from None
        cause, reason = _cause(error) or (error, None)
        names = [name for name in (getattr(cause, "filename", None), getattr(cause, "filename2", None)) if isinstance(name, (str, bytes, os.PathLike))]
        here = not names or any(_holds(aside, name) for name in names)  # without a name it comes from a file that is open
        if here and (reason or isinstance(error, OSError) and error.errno and (names or error.errno in CLOSED)):
            raise Unwritten(path, error, kept) from error
        raise


def _holds(aside, name):
    aside, name = (pathlib.Path(os.path.realpath(os.fsdecode(one))) for one in (aside, name))
    return aside == name or aside in name.parents
