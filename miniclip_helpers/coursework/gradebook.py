"""nbgrader's part: an executed notebook goes into the gradebook and comes out as feedback; grades that a person gave stay."""

import contextlib
import logging
import pathlib
import re
import sqlite3
import warnings

from .. import runtime
from ..errors import DataError, MiniclipError
from .folders import Said, check_nbgrader

EXECUTED = "executed"  # stands for nbgrader's `submitted`, which holds what students handed in and is never written to


class Gradebook:
    """The gradebook in a course's folder; one process uses it at a time."""

    def __init__(self, folder):
        from traitlets.config import Config

        from .guide import COURSE

        self.folder = pathlib.Path(folder).resolve()
        self._url = f"sqlite:///{self.folder / 'gradebook.db'}"
        self._autograde, self._feedback = _converters()
        self._config = Config({"CourseDirectory": {"root": str(self.folder), "db_url": self._url, "submitted_directory": EXECUTED} | COURSE})

    def check(self, stems):
        """Raise a `DataError` where the gradebook is damaged or lacks an assignment: graded into it, points would be lost without a word."""
        file = self.folder / "gradebook.db"
        try:
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as book:
                fault = book.execute("pragma quick_check").fetchone()[0]
                known = {name for (name,) in book.execute("select name from assignment")}
        except sqlite3.Error as error:
            fault, known = str(error), set()
        if fault != "ok":
            raise DataError(f"'{file}' cannot be read as nbgrader's gradebook ({fault.splitlines()[0]}); put a good copy in its place")
        if set(stems) - known:
            raise DataError(f"'{file}' has no assignment {', '.join(sorted(set(stems) - known))}; put the gradebook of this course in its place, or grade into a new folder")

    def grade(self, student, stem):
        """Put an executed notebook into the gradebook and `autograded/`. Errors of nbgrader become a `MiniclipError`."""
        self._convert(self._autograde, self.folder / EXECUTED / student / stem, student, stem)

    def feedback(self, student, stem):
        """Write feedback/STUDENT/STEM/STEM.html from the autograded notebook and the grades and comments of now."""
        self._convert(self._feedback, self.folder / "autograded" / student / stem, student, stem)

    def _convert(self, kind, folder, student, stem):
        from nbgrader.coursedir import CourseDirectory

        said = Said()
        log = logging.Logger("nbgrader")
        log.addHandler(said)
        directory = CourseDirectory(config=self._config, log=log, assignment_id=stem)
        converter = kind(coursedir=directory, config=self._config, log=log, force=True)
        converter.chosen = str(folder)
        try:
            with warnings.catch_warnings(action="ignore"):  # SQLAlchemy's, about nbgrader's own sessions
                converter.start()
        except (Exception, SystemExit) as error:  # nbgrader raises its own kinds, SystemExit among them
            raise MiniclipError(f"nbgrader could not take {stem} of {student}: {_reason(said.lines) or f'{type(error).__name__}: {error}'}") from error

    def points(self, student, stem):
        """{nbgrader's name of the cell: {"points", "max", "by_hand", "waiting"}} and a digest of grades and comments; ({}, "") where nothing was graded.

        A `MiniclipError` where the gradebook does not answer.
        """
        from nbgrader.api import Gradebook as Book
        from nbgrader.api import MissingEntry

        try:
            with Book(self._url) as book:
                submission = book.find_submission_notebook(stem, stem, student)
                found = {grade.name: {"points": grade.score, "max": grade.max_score, "by_hand": grade.cell.cell_type == "markdown",
                                      "waiting": bool(grade.needs_manual_grade and grade.manual_score is None)} for grade in submission.grades}
                comments = sorted((comment.name, comment.comment or "") for comment in submission.comments)
        except MissingEntry:
            return {}, ""
        except Exception as error:  # SQLAlchemy's, of many kinds
            raise MiniclipError(f"the gradebook in '{self.folder}' does not answer ({str(error).strip().splitlines()[0]}); nothing in it was changed; try again") from error
        return found, runtime.digest(sorted((name, row["points"]) for name, row in found.items()), comments)


def _converters():
    """nbgrader's Autograde without the execution, which is done, and its feedback without hidden tests; both for one submission alone."""
    check_nbgrader()
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
    from nbgrader import converters, preprocessors, utils

    class ClearTests(preprocessors.ClearHiddenTests):
        def preprocess_cell(self, cell, resources, cell_index):
            locked = utils.is_grade(cell) and not utils.is_solution(cell)  # a learner may write the words, too
            return super().preprocess_cell(cell, resources, cell_index) if locked else (cell, resources)

    class Chosen:
        """One submission, not all that match a pattern: a student may be called anything."""

        def init_notebooks(self):
            self.assignments, self.notebooks = {self.chosen: [f"{self.chosen}/{pathlib.Path(self.chosen).name}.ipynb"]}, []

    class Autograde(Chosen, converters.Autograde):
        def _init_preprocessors(self):
            self.sanitize_preprocessors = [preprocessors.DeduplicateIds, preprocessors.OverwriteKernelspec, preprocessors.OverwriteCells,
                                           preprocessors.CheckCellMetadata]
            self.autograde_preprocessors = [preprocessors.SaveAutoGrades, preprocessors.AssignLatePenalties, preprocessors.CheckCellMetadata]
            super()._init_preprocessors()

    class Feedback(Chosen, converters.GenerateFeedback):
        def start(self):
            self.preprocessors = [preprocessors.GetGrades, ClearTests, CSSHTMLHeaderPreprocessor]
            super().start()

    return Autograde, Feedback


def _reason(lines):
    """Of what nbgrader logged: the error at the foot of the first traceback, else the first line; what comes later only points back to it."""
    trace = next((line for line in lines if line.startswith("Traceback")), "")
    raised = [line for line in trace.splitlines() if re.match(r"[\w.]+(?:: |$)", line)]
    return raised[-1] if raised else next((line.strip().splitlines()[0] for line in lines if line.strip()), "")
