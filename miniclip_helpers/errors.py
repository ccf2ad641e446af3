"""The few exceptions that a user sees. Each message says what was expected, what was found and what to try."""

import difflib


class MiniclipError(Exception):
    """Something failed that the user can act on. The command line prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(MiniclipError):
    """A command or function was called with something that cannot work: an unknown name, options that exclude each other."""

    exit_code = 2


class DataError(MiniclipError):
    """A dataset cannot be read. `problems` lists each fault as one line: file, line where known, reason."""

    shown = 10

    def __init__(self, message, problems=()):
        self.problems = list(problems)
        lines = [message, *(f"  - {problem}" for problem in self.problems[: self.shown])]
        if len(self.problems) > self.shown:
            lines.append(f"  ... and {len(self.problems) - self.shown} more")
        super().__init__("\n".join(lines))


class ImageError(MiniclipError):
    """A picture cannot be opened, is too large, or is no picture."""


class ModelError(MiniclipError):
    """A model folder or a set of weights is not what it should be."""


class ChecksumError(ModelError):
    """A file's sha256 is not the pinned one: it is damaged, or it is another version."""


class OfflineError(MiniclipError):
    """Something needs the network, and there is none, or it was switched off."""


def unknown(kind, name, choices):
    """A `UsageError` for a name that is not known, with the nearest known names first.

    >>> str(unknown("loss", "cilp", ["clip", "siglip"]))
    "unknown loss 'cilp'; did you mean clip or siglip? Known: clip, siglip"
    """
    choices = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(name), choices, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return UsageError(f"unknown {kind} {str(name)!r}{hint} Known: {', '.join(choices)}")
