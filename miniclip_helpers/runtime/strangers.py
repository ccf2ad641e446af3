"""What strangers send: paths that lead to no file, JSON without end, text that steers a terminal."""

import json
import os
import stat
import unicodedata

from ..errors import DataError

OPENED = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they change the order in which all that follows is shown


def is_endless(path, pipes=False):
    """Whether something is there that is neither a file nor a folder: a pipe, a socket, a device. Whoever reads it may wait for ever, or read for ever.

    pipes: let a pipe pass that a shell has opened for this very command, such as /dev/stdin or <(...): whoever names it knows that it ends, and it is read once.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # nothing there, or a name that no file can have
        return False
    if pipes and stat.S_ISFIFO(mode) and str(path).startswith(OPENED):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_ends(path, kind=DataError, what="write what it gives into a file first", pipes=False):
    """Raise an error of a `kind` for what `is_endless`; what: what to try instead."""
    if is_endless(path, pipes):
        raise kind(f"'{path}' is no file, but a pipe or a device; {what}")


def parse_json(text, once=False):
    """What `json.loads` gives; a `ValueError`, too, for what nests deeper than Python can follow, and, with `once`, for an object that names a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_each_once if once else None)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _each_once(pairs):
    found, seen = dict(pairs), set()
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def has_halves(text):
    """Whether a text holds half letters, lone surrogates, which JSON can spell, and file names and arguments hold for bytes that are no UTF-8; no file in UTF-8 can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def without_halves(text):
    """The text with "?" for each half letter, which no tokenizer and no page takes."""
    return text.encode("utf8", "replace").decode("utf8")


def plain(text, lines=False):
    """Text for a terminal or a log: what steers one, or turns the direction of writing, is spelt out, like \\x1b. lines: whether line breaks stay."""
    return "".join(letter if letter == "\n" and lines or letter == "\t" or not _steers(letter) else letter.encode("unicode_escape").decode() for letter in str(text))


def _steers(letter):
    return letter in TURNING or unicodedata.category(letter) in ("Cc", "Zl", "Zp")
