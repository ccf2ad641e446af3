"""Find each student's notebooks in a folder of submissions, whatever the files are called, and say of each what is wrong with it."""

import dataclasses
import json
import pathlib
import re

from ..errors import UsageError
from . import repair

LARGEST = 100 * 2**20  # bytes; a notebook of the series with all outputs has 1 MB


@dataclasses.dataclass
class Submission:
    """What one student handed in of one notebook. path: the file, or None. cells: its `repair.clean` form, or None where it cannot be read."""

    student: str
    stem: str
    path: pathlib.Path | None = None
    cells: object = None
    findings: list = dataclasses.field(default_factory=list)


def students(folder):
    """The names of the folders in `folder`, in order; a `UsageError` where there are none."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UsageError(f"expected a folder with one folder for each student, found no folder '{folder}'")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and not path.name.startswith((".", "__")))
    if not found:
        raise UsageError(f"'{folder}' holds no folder of a student; expected {folder.name}/STUDENT/NOTEBOOK.ipynb or {folder.name}/STUDENT/NOTEBOOK/NOTEBOOK.ipynb")
    return found


def collect(folder, student, releases):
    """([a `Submission` for each notebook of the course], lines about files that are none). releases: {stem: its notebook as given out}."""
    files, remarks = _files(pathlib.Path(folder, student))
    taken, spare = {}, []
    for path in files:
        cells, fault = read(path)
        stem = recognise(cells, releases) if cells else None
        named = next((stem for stem in releases if stem in (path.stem, path.parent.name)), None)
        if stem is None and named is None:
            remarks.append(f"{_shown(path, folder, student)}: {fault or 'not a notebook of this course'}; left out")
            continue
        found = Submission(student, stem or named, path, cells, [fault] if fault else [])
        exact = path.stem == found.stem
        if not exact:
            found.findings.append(f"the file is called {path.name}; its cells are those of {found.stem}" if stem else f"the file is called {path.name}")
        spare.append((not found.cells, not exact, -path.stat().st_mtime, str(path), found))
    for *_, found in sorted(spare, key=lambda row: row[:4]):
        if found.stem in taken:
            taken[found.stem].findings.append(f"there was also {found.path.name}; it was left out")
        else:
            taken[found.stem] = found
    missing = [Submission(student, stem, findings=["not handed in"]) for stem in releases if stem not in taken]
    return sorted([*taken.values(), *missing], key=lambda found: found.stem), remarks


def _shown(path, folder, student):
    return path.relative_to(pathlib.Path(folder, student)).as_posix()


def _files(root):
    """Notebooks at most two folders down, and a line for what is an archive or a link."""
    found, remarks = [], []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if len(parts) > 3 or any(part.startswith((".", "__")) for part in parts):
            continue
        if path.is_symlink():
            remarks.append(f"{path.relative_to(root).as_posix()}: a link, not a file; left out")
        elif path.is_file() and path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"):
            remarks.append(f"{path.relative_to(root).as_posix()}: an archive; unpack it and grade again")
        elif path.is_file() and (path.suffix == ".ipynb" or ".ipynb" in path.suffixes):
            found.append(path)
    return [path for path in found if not any(parent.is_symlink() for parent in path.parents if root in parent.parents)], remarks


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
        return None, f"the file cannot be read as a notebook ({type(error).__name__}: {str(error)[:100]})"


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
