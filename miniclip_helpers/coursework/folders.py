"""The folder of a course that is graded: find it, read its notebooks, take along what nbgrader needs of it."""

import logging
import shutil

from .. import runtime
from ..errors import MiniclipError, UsageError
from ..series.running import pick


def shown(text):
    """A stranger's name or message as one line that may be printed and written: no control characters, nothing that UTF-8 does not have."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def is_course(folder):
    """Whether a folder is a course of `coursework build`, or what is graded with one."""
    return any((folder / name).is_file() for name in ("gradebook.db", "course.json", "nbgrader_config.py"))


def check_nbgrader():
    """Raise a `MiniclipError` that says how to get it where nbgrader is not installed."""
    try:
        import nbgrader  # noqa: F401
    except ImportError as error:
        raise MiniclipError(f"coursework needs nbgrader ({error}); `uv sync` installs it in a checkout, `pip install nbgrader` elsewhere") from error


def find_course(submissions, out, course):
    """The course's folder: the one named, else `out`, else the one around the submissions."""
    for folder in [course] if course else [out, submissions.parent]:
        if (folder / "source").is_dir() and (folder / "release").is_dir() and (folder / "gradebook.db").is_file():
            return folder
    named = f"'{course}'" if course else f"'{out}' or '{submissions.parent}'"
    raise UsageError(f"expected a course of `miniclip coursework build` (source, release, gradebook.db), found none in {named}; name it with --course DIR")


def stems(course, notebooks):
    """The assignments of a course, or those of them that were named."""
    known = sorted(path.name for path in (course / "source").iterdir() if (path / f"{path.name}.ipynb").is_file())
    return sorted(pick(notebooks, known))


def versions(course, version, names):
    """{stem: its notebook} of the "source" or of the "release" of a course."""
    import nbformat

    return {stem: nbformat.read(course / version / stem / f"{stem}.ipynb", as_version=4) for stem in names}


def copy_course(course, out):
    """What nbgrader's formgrader needs of the course, in `out`; a gradebook that is there, with its grades, stays."""
    for name in ("source", "release"):
        old, new = course / name, out / name
        if old.is_dir() and new.is_dir():
            for file in old.rglob("*.ipynb"):
                other = new / file.relative_to(old)
                if other.is_file() and other.read_bytes() != file.read_bytes():
                    raise UsageError(f"'{out}' was begun with another build of the course ({other.relative_to(out)} differs); name a new folder")
    try:
        for file in [file for name in ("source", "release") for file in sorted((course / name).rglob("*")) if file.is_file()]:
            _copy(file, out / file.relative_to(course))
        for name in ("nbgrader_config.py", "gradebook.db"):
            if (course / name).is_file() and not (out / name).exists():
                _copy(course / name, out / name)
    except (OSError, runtime.Unwritten) as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise MiniclipError(f"the course cannot be copied to '{out}' ({reason}); make room, or name a place that you may write to") from error


def _copy(file, place):
    """A copy that is whole or not there: one cut short would count as another build of the course."""
    if not place.is_file() or place.read_bytes() != file.read_bytes():
        with runtime.writing(place) as aside:
            shutil.copyfile(file, aside)


class Said(logging.Handler):
    """Keeps what nbgrader logs as an error."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())
