"""Find each student's notebooks in a folder of submissions, whatever the files are called, and say of each what is wrong with it."""

import dataclasses
import json
import os
import pathlib
import re
import stat

from ..errors import UsageError
from . import repair
from .folders import is_course, shown

LARGEST = 100 * 2**20  # bytes; a notebook of the series with all outputs has 1 MB
FILES = 50 * 2**20  # bytes of other files that go along with a notebook
STAMPS = ("timestamp.txt", "submission_secret.txt")  # by these nbgrader's exchange gives feedback back to whom it belongs
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")


@dataclasses.dataclass
class Submission:
    """What one student handed in of one notebook. path: the file, or None. cells: its `repair.clean` form, or None where it cannot be read."""

    student: str
    stem: str
    path: pathlib.Path | None = None
    cells: object = None
    findings: list = dataclasses.field(default_factory=list)


def students(folder, stems=(), out=None):
    """(names of the folders in `folder` in order, {name: why it is left out}); a `UsageError` where no student is there.

    stems: the course's notebooks, out: the folder for what is graded; neither is a student.
    """
    folder = pathlib.Path(folder)
    expected = f"expected {folder.name}/STUDENT/NOTEBOOK.ipynb or {folder.name}/STUDENT/NOTEBOOK/NOTEBOOK.ipynb"
    if not folder.is_dir():
        raise UsageError(f"expected a folder with one folder for each student, found no folder '{folder}'")
    if folder == out or is_course(folder):
        raise UsageError(f"'{folder}' is a course or holds what is graded, not submissions; {expected}, for instance in '{folder / 'submitted'}'")
    found, left_out = [], {}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith((".", "__")):
            fault = _no_student(path, out)
            found += [path.name] * (fault is None)
            left_out |= {path.name: fault} if fault else {}
    alone = [name for name in found if name in stems]
    if alone:
        raise UsageError(f"'{folder}' holds {', '.join(alone)}: the folder of a single student (then name the folder around it), or a part of the course; {expected}")
    if not found:
        raise UsageError("\n  - ".join([f"'{folder}' holds no folder of a student; {expected}", *(f"{shown(name)}: {fault}" for name, fault in left_out.items())]))
    return found, left_out


def _no_student(path, out):
    """Why something beside the students' folders is left out; "" where nobody need know, None where it is a student's folder."""
    try:
        if path.is_symlink() or not path.is_dir():
            handed = path.is_symlink() or path.suffix.lower() in (".ipynb", *ARCHIVES)
            return "not a folder; put what a student handed in into a folder of their name" if handed else ""
        if path == out or is_course(path):
            return "a course or what is graded, not a student's folder; it was left out"
    except OSError:
        pass  # what nobody may look into is told where its files are read
    if re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", path.name):
        return "nbgrader cannot take this name (a control character, or no UTF-8); it was left out: rename the folder"
    return None


def collect(folder, student, releases):
    """([a `Submission` for each notebook of the course], lines about files that are none). releases: {stem: its notebook as given out}."""
    files, remarks, closed = _files(pathlib.Path(folder, student))
    taken, spare = {}, []
    for path, changed in files:
        cells, fault = read(path)
        stem = recognise(cells, releases) if cells else None
        named = next((stem for stem in releases if stem in (path.stem, path.parent.name)), None)
        if stem is None and named is None:
            remarks.append(f"{shown(path.relative_to(pathlib.Path(folder, student)).as_posix())}: {fault or 'not a notebook of this course'}; left out")
            continue
        found = Submission(student, stem or named, path, cells, [fault] if fault else [])
        exact = path.stem == found.stem
        if not exact:
            found.findings.append(f"the file is called {shown(path.name)}" + (f"; its cells are those of {found.stem}" if stem else ""))
        spare.append((not found.cells, not exact, -changed, str(path), found))
    for *_, found in sorted(spare, key=lambda row: row[:4]):
        if found.stem in taken:
            taken[found.stem].findings.append(f"there was also {shown(found.path.name)}; it was left out")
        else:
            taken[found.stem] = found
    missing = [Submission(student, stem, findings=closed[:1] or ["not handed in"]) for stem in releases if stem not in taken]
    return sorted([*taken.values(), *missing], key=lambda found: found.stem), remarks


def _files(root):
    """[(notebook, time of its last change)] at most two folders down, a line for each archive and link, and one for each place that cannot be read."""
    found, remarks, closed = [], [], []

    def deny(error):
        place = shown(pathlib.Path(error.filename or root).relative_to(root).as_posix())
        closed.append(f"the folder cannot be read ({'' if place == '.' else place + ': '}{error.strerror or error})")

    for folder, inner, names in os.walk(root, onerror=deny):
        here = pathlib.Path(folder)
        kept = [path for path in sorted(here / name for name in inner + names) if not path.name.startswith((".", "__"))]
        inner[:] = sorted(path.name for path in kept if path.name in inner) if len(here.relative_to(root).parts) < 2 else []
        for path in kept:
            try:
                status = path.lstat()
            except OSError as error:
                deny(error)
                continue
            name = shown(path.relative_to(root).as_posix())
            if stat.S_ISLNK(status.st_mode):
                remarks.append(f"{name}: a link, not a file; left out")
            elif stat.S_ISREG(status.st_mode) and path.suffix.lower() in ARCHIVES:
                remarks.append(f"{name}: an archive; unpack it and grade again")
            elif stat.S_ISREG(status.st_mode) and ".ipynb" in path.suffixes:
                found.append((path, status.st_mtime))
    return found, remarks, closed


def read(path):
    """(the clean notebook, "") or (None, what is wrong with the file)."""
    import nbformat

    try:
        if path.stat().st_size > LARGEST:
            return None, f"the file is larger than {LARGEST // 2**20} MB and was not read; clear its outputs and hand it in again"
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
        if not text.strip():
            return None, "the file is empty"
        if text.startswith("PK"):
            return None, "the file is a zip archive, not a notebook"
        book = json.loads(text)
        if not isinstance(book, dict) or not (isinstance(book.get("cells"), list) or isinstance(book.get("worksheets"), list)):
            return None, "the file is JSON but no notebook"
        book = nbformat.reads(text, as_version=4) if book.get("nbformat") != 4 else book
        return repair.clean({"cells": [cell for cell in book["cells"] if isinstance(cell, dict)]}), ""
    except Exception as error:  # whatever a stranger's file makes a reader do
        return None, f"the file cannot be read as a notebook ({type(error).__name__}: {shown(str(error)[:100])})"


def recognise(cells, releases):
    """The stem of the release with which a notebook shares most: marks, ids and texts of cells; None where it shares next to nothing."""
    texts = {cell.source.strip() for cell in cells.cells}
    marks = {str(cell.metadata.get("nbgrader", {}).get("grade_id")) for cell in cells.cells}
    functions = {name for cell in cells.cells if cell.cell_type == "code" for name in re.findall(r"^def (\w+)\(", cell.source, re.MULTILINE)}

    def shared(release):
        score = 0
        for cell in release.cells:
            mark = cell.metadata.get("nbgrader", {})
            score += cell.source.strip() in texts
            score += 3 * (mark.get("grade_id") in marks)
            if mark.get("solution") and cell.cell_type == "code":
                score += 3 * bool(functions & set(re.findall(r"^def (\w+)\(", cell.source, re.MULTILINE)))
        return score

    best = max(releases, key=lambda stem: shared(releases[stem]))
    return best if shared(releases[best]) >= 3 else None


def beside(folder):
    """(other files of a notebook's folder that go along, at most `FILES` bytes, {name: text} of nbgrader's stamps, lines about them)."""
    stamps, lines = {}, []
    for name in STAMPS:
        if (folder / name).is_file() and not (folder / name).is_symlink():
            stamps[name] = (folder / name).read_bytes()[:1000].decode("utf8", "replace")
    if not _is_time(stamps.get(STAMPS[0], "")):
        lines.append(f"{STAMPS[0]} holds no time ({shown(stamps.pop(STAMPS[0])[:40])}); it counts as handed in in time")
    try:
        others = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink() and ".ipynb" not in path.name
                  and path.name not in STAMPS and not path.name.startswith(".")]
        return others if sum(path.stat().st_size for path in others) <= FILES else [], stamps, lines
    except (OSError, RecursionError) as error:
        return [], stamps, [*lines, f"the files beside the notebook cannot be read ({type(error).__name__}); it was run without them"]


def _is_time(text):
    """Whether nbgrader can read a time of handing in; it takes an empty one for none."""
    from nbgrader.utils import parse_utc

    try:
        return not text.strip() or bool(parse_utc(text.strip()))
    except Exception:  # dateutil's, of several kinds
        return False


def listing(files):
    """What tells whether files have changed: their names, sizes and times."""
    return [(ascii(path.name), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
