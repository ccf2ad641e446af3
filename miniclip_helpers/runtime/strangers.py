"""What strangers send: paths that lead to no file, JSON without end, text that steers a terminal."""

import json
import pathlib
import unicodedata

TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they change the order in which all that follows is shown


def is_endless(path):
    """Whether something is there that is neither a file nor a folder: a pipe, a socket, a device. Whoever reads it may wait for ever, or read for ever."""
    try:
        path = pathlib.Path(path)
        return path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have
        return False


def parse_json(text):
    """What `json.loads` gives; a `ValueError`, too, for what nests deeper than Python can follow."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def plain(text, lines=False):
    """Text for a terminal or a log: what steers one, or turns the direction of writing, is spelt out, like \\x1b. lines: whether line breaks stay."""
    return "".join(letter if letter == "\n" and lines or letter == "\t" or not _steers(letter) else letter.encode("unicode_escape").decode() for letter in str(text))


def _steers(letter):
    return letter in TURNING or unicodedata.category(letter) in ("Cc", "Zl", "Zp")
