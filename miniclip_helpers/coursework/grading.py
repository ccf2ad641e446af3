"""Grade a folder of submissions: collect and repair, run each in the sandbox, hand the result to nbgrader, write the tables."""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import threading
import time

from .. import runtime
from ..errors import MiniclipError, UsageError
from ..series import results
from . import collecting, folders, repair, scores, slices
from .gradebook import EXECUTED, Gradebook
from .kernels import remove_tree, scratch_base
from .limits import Limits
from .oddities import oddities
from .workers import Worker

RECORDS = ".grading"  # what was found, by student and notebook; a record whose key still fits is not made again
VERSION = 1  # of the records


def grade(submissions, out, course=None, notebooks=(), jobs=None, seconds=30, memory_mb=2000, processes=100, say=print):
    """Grade every student's folder in `submissions` into the folder `out`; what is graded and unchanged is left as it is.

    course: a folder of `miniclip coursework build`; by default `out` itself, or the folder around `submissions`. notebooks: names like "04"; all
    of the course by default. jobs: how many run at once, as many as there are processors by default. seconds: computing time of a cell;
    memory_mb: beyond what a kernel has at its start; processes: threads and processes at once.
    Returns {"rows": one for each student and notebook, "exercises", "faults", "walls", "seconds"}, as `scores.csv` and `exercises.csv` have them, and
    "ungraded": how many students' folders and readable notebooks have no grade or no feedback, because nbgrader refused them or they could not be run.
    Errors: `UsageError` where there is no course or no student, `DataError` for a damaged gradebook; whatever a submission does becomes a line about
    that submission.
    """
    start = time.monotonic()
    if not 1 <= seconds < math.inf or memory_mb < 100 or processes < 50 or (jobs is not None and jobs < 1):
        raise UsageError("expected at least 1 second, 100 MB, 50 threads and processes and 1 job; "
                         f"found {seconds:g} s, {memory_mb} MB, {processes} threads and processes, {jobs} jobs")
    limits = Limits(seconds=seconds, memory_mb=memory_mb, processes=processes)
    task = _Task(pathlib.Path(submissions).resolve(), pathlib.Path(out).resolve(), course and pathlib.Path(course).resolve(), notebooks, limits, say)
    with _alone(task.out), _scratch(task.out) as scratch:
        task.prepare()
        task.collect()
        task.run(jobs or os.cpu_count() or 1, scratch)
        found = scores.write(task.out, task.records, task.sources, task.book)
    found["faults"] += task.left_out
    found |= {"ungraded": task.ungraded(), "walls": task.walls(), "seconds": round(time.monotonic() - start, 1)}
    say(scores.summary(found, task.out))
    return found


@contextlib.contextmanager
def _alone(out):
    """One grading at a time in a folder: two would write over each other."""
    import filelock

    (out / RECORDS).mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / RECORDS / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UsageError(f"another grading is at work in '{out}'; wait until it has ended") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _scratch(out):
    """A folder for the folders of kernels, gone at the end; what a grading that was killed left there goes now."""
    note = out / RECORDS / "scratch"
    if note.is_file() and pathlib.Path(note.read_text(encoding="utf8")).name.startswith("mc"):
        remove_tree(note.read_text(encoding="utf8"))
    folder = scratch_base()
    with runtime.writing(note) as path:
        path.write_text(folder, encoding="utf8")
    try:
        yield folder
    finally:
        remove_tree(folder)
        note.unlink(missing_ok=True)


class _Task:
    """One call of `grade`."""

    def __init__(self, submissions, out, course, notebooks, limits, say):
        self.submissions, self.out, self.limits, self.say = submissions, out, limits, say
        self.course = folders.find_course(submissions, out, course)
        self.stems = folders.stems(self.course, notebooks)
        self.students, left_out = collecting.students(submissions, folders.stems(self.course, ()), out)
        self.left_out = [{"student": folders.shown(name), "notebook": "", "fault": fault} for name, fault in left_out.items()]
        self.records, self.orders = {}, {}

    def prepare(self):
        """The notebooks of the course in memory, its gradebook in `out`."""
        import nbformat

        self.sources = folders.versions(self.course, "source", self.stems)
        self.source_texts = {stem: nbformat.writes(book) for stem, book in self.sources.items()}
        self.releases = folders.versions(self.course, "release", folders.stems(self.course, ()))
        if self.out != self.course:
            folders.copy_course(self.course, self.out)
        self.book = Gradebook(self.out)
        self.book.check(self.stems)

    def collect(self):
        """A record for each student and notebook; an order for each that is new or has changed."""
        for student in self.students:
            try:
                found, remarks = collecting.collect(self.submissions, student, self.releases)
            except Exception as error:  # a folder that nobody has thought of
                fault = f"the folder cannot be read ({type(error).__name__}: {folders.shown(str(error)[:200])})"
                found, remarks = [collecting.Submission(student, stem, findings=[fault]) for stem in self.stems], []
            found = [submission for submission in found if submission.stem in self.stems]
            for number, submission in enumerate(found):
                record = self._record(submission)
                record["findings"] = [*record["findings"], *(remarks if number == 0 else [])]
                self.records[student, submission.stem] = record

    def _record(self, submission):
        place = self._place(submission.student, submission.stem)
        record = {"student": submission.student, "stem": submission.stem, "findings": submission.findings, "handed_in": submission.path is not None,
                  "readable": submission.cells is not None, "results": {}, "walls": [], "graded": False}
        if submission.cells is None:
            return record
        try:
            return self._order(submission, record, place)
        except Exception as error:  # a notebook that nobody has thought of costs its own grade, and is told
            record["findings"] = [*record["findings"], f"it could not be prepared ({type(error).__name__}: {folders.shown(str(error)[:200])})"]
            record.pop("key", None)  # else it would stand for something that was run
            return record

    def _order(self, submission, record, place):
        import nbformat

        stem, release, source = submission.stem, self.releases[submission.stem], self.sources[submission.stem]
        book, extra, findings = repair.repair(submission.cells, release, source)
        surplus, lines = slices.too_much(book, release, extra)
        findings += lines
        steps = slices.steps(book, release, results.parameters(stem, "smoke"), [*extra, *surplus])
        for step in steps:
            name = book.cells[step["cell"]].metadata.get("nbgrader", {}).get("grade_id", "a cell of their own")
            findings += [f"{name} {phrase}: look at it" for phrase in oddities(step["source"]) if step["role"] in (slices.OWN, slices.EXERCISE)]
        files, stamps, lines = collecting.beside(submission.path.parent)
        findings += lines
        text = nbformat.writes(book)
        key = runtime.digest(VERSION, text, json.dumps(steps), json.dumps(vars(self.limits)), self.source_texts[stem], collecting.listing(files), stamps)
        record |= {"key": key, "findings": [*submission.findings, *findings], "text": text,
                   "checks": {cell.metadata.nbgrader.grade_id: place for place, cell in enumerate(book.cells)
                              if cell.metadata.get("nbgrader", {}).get("grade") and cell.cell_type == "code"},
                   "steps": [{key: step[key] for key in ("cell", "role", "exercise")} for step in steps]}
        old = _read(place)
        executed = self._executed(submission.student, stem)
        if old.get("key") == key and executed.is_file():
            graded = old["graded"] and bool(self.book.points(submission.student, stem)[0])  # another gradebook may have taken the place of the old
            return old | {"findings": record["findings"], "text": text, "graded": graded}
        self.orders[submission.student, stem] = {
            "notebook": str(place.with_suffix(".ipynb")), "executed": str(executed), "steps": steps, "limits": vars(self.limits),
            "files": str(submission.path.parent) if files else None, "stamps": stamps}
        return record

    def run(self, jobs, scratch):
        """Carry out the orders, `jobs` at a time; nbgrader takes each as it comes, in this process alone."""
        for record in (record for key, record in self.records.items() if key not in self.orders):
            if record["graded"]:
                self._refresh_feedback(record)
            elif record.get("key"):
                self._take(record)
        local, workers, answers = threading.local(), [], []

        def carry_out(key):
            if not hasattr(local, "worker"):
                local.worker = Worker()
                workers.append(local.worker)
            order = self.orders[key] | {"scratch": scratch}
            try:
                with runtime.writing(order["notebook"]) as path:
                    path.write_text(self.records[key]["text"], encoding="utf8")
                pathlib.Path(order["executed"]).parent.mkdir(parents=True, exist_ok=True)
                return local.worker.run(order, self.limits.patience(whole=True))
            except OSError as error:
                return {"failed": f"'{error.filename or order['notebook']}' cannot be written ({error.strerror or error})"}
            except Exception as error:  # costs this submission's grade, and nobody else's
                return {"failed": f"{type(error).__name__}: {str(error)[:200]}"}

        pool = concurrent.futures.ThreadPoolExecutor(max(1, min(jobs, len(self.orders) or 1)))
        try:
            waiting = {pool.submit(carry_out, key): key for key in self.orders}
            for future in concurrent.futures.as_completed(waiting):
                answers.append(future.result())
                self._settle(self.records[waiting[future]], self.orders[waiting[future]], answers[-1])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.stop()
            pool.shutdown()
        if answers and all(answer.get("failed") for answer in answers) and not any(record["graded"] for record in self.records.values()):
            raise MiniclipError(f"not one submission could be run on this machine, so nothing was graded: {answers[0]['failed']}")

    def _settle(self, record, order, answer):
        if answer.get("failed"):
            record["findings"] = [*record["findings"], f"it could not be run: {answer['failed']}"]
            record.pop("key")
            return
        record |= {"results": answer["results"], "walls": answer["walls"]}
        for name in collecting.STAMPS:
            file = pathlib.Path(order["executed"]).with_name(name)
            file.unlink(missing_ok=True)
            if name in order["stamps"]:
                with runtime.writing(file) as path:
                    path.write_text(order["stamps"][name], encoding="utf8")
        self._write(record)
        self._take(record)

    def _take(self, record):
        """Into the gradebook; what nbgrader cannot take is told and tried again at the next call."""
        try:
            self.book.grade(record["student"], record["stem"])
            record["graded"] = True
        except MiniclipError as error:
            record["findings"] = [*record["findings"], str(error)]
        record.pop("shown", None)  # which page of feedback is there
        self._write(record)
        if record["graded"]:
            self._refresh_feedback(record)
        self.say(f"  {record['student']} {record['stem']}: {scores.brief(record)}")

    def _refresh_feedback(self, record):
        """Feedback is made again when a grade or a comment has changed since, by a person too."""
        page = self.out / "feedback" / record["student"] / record["stem"] / f"{record['stem']}.html"
        try:
            digest = self.book.points(record["student"], record["stem"])[1]
            if record.get("shown") == digest and page.is_file():
                return
            self.book.feedback(record["student"], record["stem"])
            record["shown"] = digest
            self._write(record)
        except MiniclipError as error:
            record["findings"] = [*record["findings"], str(error)]
            record["refused"] = True

    def _place(self, student, stem):
        return self.out / RECORDS / student / f"{stem}.json"

    def _executed(self, student, stem):
        return self.out / EXECUTED / student / stem / f"{stem}.ipynb"

    def _write(self, record):
        with runtime.writing(self._place(record["student"], record["stem"])) as path:
            path.write_text(json.dumps({key: value for key, value in record.items() if key not in ("findings", "text", "refused")}, indent=1), encoding="utf8")

    def ungraded(self):
        """How many readable notebooks, and folders of students, are without a grade or a page of feedback."""
        names = sum("nbgrader cannot take this name" in fault["fault"] for fault in self.left_out)
        return names + sum(record["readable"] and (not record["graded"] or record.get("refused", False)) for record in self.records.values())

    def walls(self):
        """The walls that were up in every kernel, and those of a single one."""
        sets = [set(record["walls"]) for record in self.records.values() if record["walls"]]
        return sorted(set.intersection(*sets)) if sets else []


def _read(place):
    try:
        found = json.loads(place.read_text(encoding="utf8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
