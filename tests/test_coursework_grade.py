"""Grading: which cells run, what is repaired, which files are found, and one grading of six students over the two lightest notebooks."""

import copy
import csv
import hashlib
import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys

import nbformat
import pytest
from coursework_submissions import right, stub, wrong
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from miniclip_helpers.coursework import collecting, course, grading, repair, scores, slices, workers
from miniclip_helpers.coursework.oddities import oddities
from miniclip_helpers.errors import MiniclipError, UsageError

START, WORDS = "00_start_here", "01_from_words_to_clip"


# Which cells run

@pytest.mark.parametrize("source, bound, needed", [
    ("x = 1", {"x"}, set()),
    ("import numpy as np, os.path", {"np", "os"}, set()),
    ("y = x + x; x = 2", {"x", "y"}, {"x"}),
    ("x = 2; y = x", {"x", "y"}, set()),
    ("x += 1", {"x"}, {"x"}),
    ("def f(a, b=c):\n    d = a + e\n    return [g for g in d]", {"f"}, {"c", "e"}),
    ("def f(): return g()\ndef g(): return h", {"f", "g"}, {"h"}),
    ("class A(B):\n    c = d\n    def e(self): return f", {"A"}, {"B", "d", "f"}),
    ("for i in rows: print(i)", {"i"}, {"rows", "print"}),
    ("with open(p) as f: text = f.read()", {"f", "text"}, {"open", "p"}),
    ("if (n := size) > 1: pass", {"n"}, {"size"}),
    ("def f():\n    global z\n    z = 1", {"f", "z"}, set()),
    ("from math import *\nsin(x)", {"*"}, {"sin", "x"}),
    ("%matplotlib inline\n!ls {folder}\na = b", {"a"}, {"b", "get_ipython"}),
    ("[a[i] for i in b]", set(), {"a", "b"}),
    ("lambda q: q + r", set(), {"r"}),
    ("def broken(:", {"broken"}, set()),
    ("def half():\n    return (", {"half"}, set()),
])
def test_names_that_a_cell_binds_and_needs(source, bound, needed):
    assert slices.names(source) == (bound, needed)


def marked(cell, name, **mark):
    cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": name, "cell_type": cell.cell_type, "task": False,
                                 "grade": False, "solution": False, "locked": False} | mark
    return cell


STUB = 'def f(a):\n    raise NotImplementedError("your turn")'
CHECK = 'checks.check("99.f", f)'
HIDDEN = CHECK + "\n### BEGIN HIDDEN TESTS\nassert f(1) == 2\n### END HIDDEN TESTS"


def versions():
    """(release, source) of a small course notebook."""
    cells = [new_markdown_cell("# Title", id="m0"), new_code_cell("from miniclip_helpers import checks", id="i1"),
             new_code_cell("STEP = 1", id="p2", metadata={"tags": ["parameters"]}), new_code_cell("heavy = list(range(10 ** 6))", id="h3"),
             new_code_cell("rows = heavy[::STEP]", id="r4"), marked(new_code_cell(STUB, id="e5"), "99-f", solution=True),
             marked(new_code_cell(CHECK, id="c6"), "99-f-test", grade=True, locked=True, points=2), new_code_cell("print(rows)", id="p7"),
             marked(new_markdown_cell("**Question**: why?", id="q8"), "99-w_why-question", locked=True),
             marked(new_markdown_cell("Write your answer here.", id="w9"), "99-w_why", grade=True, solution=True, points=3)]
    release = new_notebook(cells=cells)
    source = copy.deepcopy(release)
    source.cells[5].source, source.cells[6].source = "def f(a):\n    return a + 1", HIDDEN
    return release, source


def mended(change):
    """(cells, extra, findings) of the release after `change(cells)`."""
    release, source = versions()
    handed = copy.deepcopy(release)
    change(handed.cells)
    book, extra, findings = repair.repair(repair.clean(handed), release, source)
    nbformat.validate(book)
    return book.cells, extra, findings


def named(cells):
    return {cell.metadata.nbgrader.grade_id: cell for cell in cells if "nbgrader" in cell.metadata}


ANSWER = "def f(a):\n    return a + 1"


def solve(cells, answer=ANSWER):
    cells[5].source = answer


def test_only_what_an_answer_needs_runs_and_with_the_small_parameters():
    release, source = versions()
    handed = copy.deepcopy(release)
    solve(handed.cells, "def f(a):\n    return a + len(rows[:1])")
    handed.cells.insert(5, new_code_cell("print('my own')"))
    book, extra, _ = repair.repair(repair.clean(handed), release, source)
    steps = slices.steps(book, release, {"STEP": 100}, extra)
    assert [(book.cells[step["cell"]].id[:2], step["role"]) for step in steps][:4] == [("i1", "teaching"), ("p2", "teaching"), ("h3", "teaching"), ("r4", "teaching")]
    assert [step["role"] for step in steps][4:] == ["own", "exercise", "check"]  # p7, which nothing needs, does not run
    assert steps[1]["source"] == "STEP = 1\nSTEP = 100"
    assert steps[-1]["exercise"] == steps[-2]["cell"] and set(steps[-1]["needs"]) >= {steps[0]["cell"], steps[3]["cell"], steps[-2]["cell"]}
    solve(handed.cells)
    plain = copy.deepcopy(release)
    solve(plain.cells)
    book, extra, _ = repair.repair(repair.clean(plain), release, source)
    assert [step["role"] for step in slices.steps(book, release, {}, extra)] == ["teaching", "exercise", "check"]  # the import alone


# Repair

def test_an_untouched_notebook_has_nothing_to_tell():
    cells, extra, findings = mended(lambda cells: None)
    assert (extra, findings) == ([], []) and [cell.id for cell in cells] == [cell.id for cell in versions()[0].cells]
    assert named(cells)["99-f-test"].source == HIDDEN


def _duplicate(cells):
    solve(cells)
    twin = copy.deepcopy(cells[5])
    twin.id, twin.source = "twin", STUB
    cells.insert(8, twin)


def _moved_answer(cells):
    cells.insert(2, new_code_cell("g = 1\n" + ANSWER, id="own"))


def _lost_marks(cells):
    solve(cells)
    for cell in cells:
        cell.metadata.pop("nbgrader", None)


def _lost_marks_and_ids(cells):
    _lost_marks(cells)
    for number, cell in enumerate(cells):
        cell.id = f"colab{number}"


def _all_points(cells):
    solve(cells)
    cells[6].metadata.nbgrader.points = 100


def _no_cells(cells):
    del cells[:]


@pytest.mark.parametrize("change, said, source", [
    (lambda cells: cells.pop(5), "99-f: the exercise cell was deleted", STUB),
    (lambda cells: (solve(cells), cells.pop(6)), "99-f-test: the test was deleted", ANSWER),
    (_duplicate, "99-f: the exercise cell stood there 2 times", ANSWER),
    (_moved_answer, "99-f: the answer stood in a cell of its own", "g = 1\n" + ANSWER),
    (lambda cells: (solve(cells), setattr(cells[6], "source", "print('passed')")), "99-f-test: the test was changed", ANSWER),
    (_all_points, "99-f-test: its marks or points were changed", ANSWER),
    (_lost_marks, "99-f: nbgrader's marks were lost", ANSWER),
    (_lost_marks_and_ids, "99-f-test: nbgrader's marks were lost", ANSWER),
    (lambda cells: (solve(cells), cells.insert(2, cells.pop(6))), "99-f-test: the test stood above the exercise", ANSWER),
    (lambda cells: (solve(cells), cells.pop(1)), "1 code cell of the notebook that had been deleted", ANSWER),
    (lambda cells: (solve(cells), setattr(cells[5], "cell_type", "raw")), "99-f: it had become a raw cell", ANSWER),
    (lambda cells: (solve(cells), setattr(cells[8], "source", "easy?")), "99-w_why-question: a cell that is not to be changed", ANSWER),
    (lambda cells: (solve(cells), cells.pop(9)), "99-w_why: the cell for the answer was deleted", ANSWER),
    (_no_cells, "99-f: the exercise cell was deleted", STUB),
])
def test_each_damage_is_told_and_mended(change, said, source):
    cells, extra, findings = mended(change)
    assert [line for line in findings if line.startswith(said)], findings
    there = named(cells)
    assert set(there) == set(named(versions()[1].cells))
    assert there["99-f"].source == source and there["99-f-test"].source == HIDDEN
    assert there["99-f-test"].metadata.nbgrader.points == 2 and there["99-f"].cell_type == "code"
    places = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in cells]
    assert places.index("99-f") < places.index("99-f-test")
    assert "from miniclip_helpers import checks" in [cell.source for cell in cells]


def test_of_two_copies_the_stub_does_not_run():
    cells, extra, _ = mended(_duplicate)
    assert [cells[place].id for place in extra] == ["twin"]
    book = new_notebook(cells=cells)
    assert extra[0] not in [step["cell"] for step in slices.steps(book, versions()[0], {}, extra)]


def test_cells_that_are_no_cells_become_plain_ones():
    book = repair.clean({"cells": [{"cell_type": "code", "source": ["a\r\n", "b"], "outputs": [{"data": 1}], "id": "same"}, {"cell_type": "odd", "id": "same"},
                                   {"cell_type": "markdown", "source": None, "metadata": {"nbgrader": 3, "tags": "x", "evil": 1}, "id": "no id!"}]})
    nbformat.validate(book)
    assert book.cells[0].source == "a\nb" and book.cells[0].id != book.cells[1].id and book.cells[2].metadata == {}


# Looks

@pytest.mark.parametrize("source, phrase", [
    ("checks.check = print", "replaces checks.check"),
    ("import numpy\nnumpy.allclose = lambda *a: True", "replaces numpy.allclose"),
    ("setattr(np, 'allclose', f)", "replaces a part of np"),
    ("def f():\n    from miniclip_helpers.checks import nb01\n    return nb01.clip_loss", "imports miniclip_helpers.checks"),
    ("checks.exercise('01.logits').reference", "uses .reference"),
    ("sys._getframe(1)", "reaches into the interpreter by sys._getframe"),
    ("torch.backends.cudnn.deterministic = True\nmodel.weight = 3\nx = np.zeros(3)\nfrom miniclip_helpers import checks\nchecks.hint('01.logits')", None),
    ("def (", None),
])
def test_what_an_instructor_should_look_at(source, phrase):
    assert ([phrase] if phrase else []) == oddities(source)[:1] or phrase in oddities(source)


# Collecting

@pytest.fixture
def handed_in(tmp_path):
    release, _ = versions()
    other = copy.deepcopy(release)
    for cell in other.cells:
        cell.source = cell.source.replace("f(", "other(").replace("heavy", "light").replace("Title", "Other")
        cell.id = "other" + cell.id
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.grade_id = cell.metadata.nbgrader.grade_id.replace("99", "98")

    def hand_in(name, content=None):
        file = tmp_path / "ada" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content) if isinstance(content, bytes) else nbformat.write(content if content is not None else release, file)
        return file

    return tmp_path, {"98_other": other, "99_small": release}, hand_in


def collected(folder, releases):
    found, remarks = collecting.collect(folder, "ada", releases)
    return {item.stem: item for item in found}, remarks


@pytest.mark.parametrize("name", ["99_small/99_small.ipynb", "99_small.ipynb"])
def test_both_layouts_are_found(handed_in, name):
    folder, releases, hand_in = handed_in
    file = hand_in(name)
    found, remarks = collected(folder, releases)
    assert found["99_small"].path == file and found["99_small"].findings == [] and remarks == []
    assert found["98_other"].path is None and found["98_other"].findings == ["not handed in"]


def test_a_renamed_file_and_one_in_the_wrong_folder_are_recognised_by_their_cells(handed_in):
    folder, releases, hand_in = handed_in
    hand_in("98_other/98_other.ipynb")  # the other notebook, in this one's place
    hand_in("homework (final).ipynb", releases["98_other"])
    found, _ = collected(folder, releases)
    assert found["99_small"].path.name == "98_other.ipynb" and "its cells are those of 99_small" in found["99_small"].findings[0]
    assert found["98_other"].path.name == "homework (final).ipynb"


@pytest.mark.parametrize("content, said", [
    (b"", "the file is empty"), (b"{\"cells\": [", "cannot be read as a notebook"), (b"[1, 2]", "JSON but no notebook"), (b"PK\x03\x04 zip", "zip archive"),
    (b"[" * 100_000, "cannot be read"), (b"\xff\xfe\x00", "cannot be read"), (b"{\"nbformat\": 2, \"cells\": []}", "cannot be read")])
def test_a_file_that_cannot_be_read_is_told(handed_in, content, said):
    folder, releases, hand_in = handed_in
    hand_in("99_small.ipynb", content)
    found, _ = collected(folder, releases)
    assert found["99_small"].cells is None and said in found["99_small"].findings[0]


def test_of_several_files_one_is_taken_and_other_things_are_told(handed_in):
    folder, releases, hand_in = handed_in
    hand_in("99_small.ipynb")
    hand_in("99_small (1).ipynb")
    hand_in(".ipynb_checkpoints/99_small-checkpoint.ipynb")
    hand_in("all.zip", b"PK")
    hand_in("essay.ipynb", new_notebook(cells=[new_code_cell("print(1)")]))
    (folder / "ada" / "98_other.ipynb").symlink_to(folder / "ada" / "99_small.ipynb")
    found, remarks = collected(folder, releases)
    assert found["99_small"].path.name == "99_small.ipynb" and found["99_small"].findings == ["there was also 99_small (1).ipynb; it was left out"]
    assert found["98_other"].path is None
    assert sorted(line.split(":")[0] for line in remarks) == ["98_other.ipynb", "all.zip", "essay.ipynb"]


def test_a_folder_without_students_is_told(tmp_path):
    with pytest.raises(UsageError, match="no folder of a student"):
        collecting.students(tmp_path)
    with pytest.raises(UsageError, match="found no folder"):
        collecting.students(tmp_path / "nowhere")


# All of it, over two notebooks

def change(file, name, source):
    book = nbformat.read(file, as_version=4)
    cell = next(cell for cell in book.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name)
    cell.source = source(cell.source) if callable(source) else source
    nbformat.write(book, file)


@pytest.fixture(scope="session")
def graded(tmp_path_factory):
    """(folder, what `grade` returned, what it printed, digest of the submissions before): six students, two notebooks."""
    folder = tmp_path_factory.mktemp("graded")
    quiet = {"say": lambda *_: None}
    course.build(folder / "course", ["00", "01"], **quiet)
    handed = folder / "handed in"
    for student, write in (("right", right), ("wrong", wrong), ("stub", stub), ("[odd] *name?", right), ("faults", right)):
        write(folder / "course", handed / student)
    shutil.move(handed / "faults" / WORDS / f"{WORDS}.ipynb", handed / "faults" / "my homework (2).ipynb")
    faults = handed / "faults" / "my homework (2).ipynb"
    change(faults, "01-l2_normalise", lambda text: text.split("\n")[0] + "\n    import os\n    os._exit(0)")
    change(faults, "01-logits", lambda text: text.split("\n")[0] + "\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass")
    change(faults, "01-clip_loss-test", "print('passed')")
    change(faults, "01-multi_positive_target", lambda text: text + "\nimport torch\ntorch.equal = torch.allclose = lambda *a, **k: True\nchecks.check = print")
    change(handed / "faults" / START / f"{START}.ipynb", "00-cosine", lambda text: text.replace("\n", "\n    import warnings; warnings.warn('odd')\n", 1))
    (handed / "broken" / START).mkdir(parents=True)
    (handed / "broken" / START / f"{START}.ipynb").write_text("{", encoding="utf8")
    before, said = digest(handed), []
    found = grading.grade(handed, folder / "out", folder / "course", jobs=2, seconds=5, say=said.append)
    return folder, found, "\n".join(said), before


def digest(folder):
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def table(folder, name):
    with open(folder / "out" / name, encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def test_right_has_all_points_wrong_and_stub_none(graded):
    rows = {(row["student"], row["notebook"]): row for row in table(graded[0], "scores.csv")}
    assert len(rows) == 12
    for student, share, state in (("right", 1, "passed"), ("wrong", 0, "not yet"), ("stub", 0, "not attempted"), ("[odd] *name?", 1, "passed")):
        for stem in (START, WORDS):
            row = rows[student, stem]
            assert float(row["auto_points"]) == share * float(row["auto_max"]) > share - 1
        assert {row["state"] for row in table(graded[0], "exercises.csv") if row["student"] == student} == {state}
    assert float(rows["right", WORDS]["auto_max"]) == 8 and rows["right", WORDS]["passed"] == "4"


def test_wrong_answers_are_told_as_the_check_tells_them(graded):
    found = {row["exercise"]: row["message"] for row in table(graded[0], "exercises.csv") if row["student"] == "wrong"}
    assert "One direction only" in found["01.clip_loss"] and len(set(found.values())) == len(found)


def test_written_answers_wait_for_a_person_and_an_empty_one_does_not(graded):
    waiting = {row["student"]: sum(int(other["written_waiting"]) for other in table(graded[0], "scores.csv") if other["student"] == row["student"])
               for row in table(graded[0], "scores.csv")}
    assert waiting["right"] > 0 and waiting["stub"] == waiting["broken"] == 0


def test_every_fault_has_its_line_and_stops_nobody(graded):
    folder, found, said, _ = graded
    own = {row["exercise"]: (row["state"], float(row["points"])) for row in table(folder, "exercises.csv") if row["student"] == "faults"}
    assert own["00.cosine"] == ("passed", 1)  # a warning is no failure
    assert own["01.l2_normalise"] == own["01.logits"] == ("stopped", 0)
    assert own["01.clip_loss"] == ("passed", 3)  # after two crashes, and with its test restored
    assert own["01.multi_positive_target"][1] == 0
    lines = [fault["fault"] for fault in found["faults"] if fault["student"] == "faults"]
    for words in ("my homework (2).ipynb; its cells are those of 01_from", "01.l2_normalise: this cell ended the kernel (exit code 0)",
                  "01.logits: this cell computed for more than 5 s", "01-clip_loss-test: the test was changed", "01.multi_positive_target: the checker itself was changed",
                  "replaces torch.allclose: look at it", "replaces checks.check: look at it"):
        assert any(words in line for line in lines), (words, lines)
        assert words in said
    assert [fault["fault"][:37] for fault in found["faults"] if fault["student"] == "broken"] == ["the file cannot be read as a notebook", "not handed in"]
    assert not [fault for fault in found["faults"] if fault["student"] in ("right", "stub")]
    assert not [fault for fault in found["faults"] if fault["student"] == "wrong"]


def test_feedback_is_there_without_hidden_tests_and_submissions_are_as_they_were(graded):
    folder, _, _, before = graded
    for student in ("right", "wrong", "stub", "faults", "[odd] *name?"):
        page = (folder / "out" / "feedback" / student / WORDS / f"{WORDS}.html").read_text(encoding="utf8")
        assert "assess(" not in page and "HIDDEN" not in page and "seeds=" not in page
        assert ("One direction only" in page) == (student == "wrong")
    assert digest(folder / "handed in") == before


def test_nbgraders_own_gradebook_has_the_same_points(graded):
    with sqlite3.connect(graded[0] / "out" / "gradebook.db") as book:
        found = dict(book.execute("select s.student_id, sum(g.auto_score) from grade g join submitted_notebook n on g.notebook_id = n.id "
                                  "join submitted_assignment s on n.assignment_id = s.id group by s.student_id"))
    assert found == {"right": 10, "wrong": 0, "stub": 0, "faults": 5, "[odd] *name?": 10}


def test_a_second_run_runs_nothing_and_keeps_what_a_person_gave(graded, monkeypatch):
    """A manual grade in the gradebook shows in the table and in the feedback; no job runs again, until a submission changes."""
    folder, first, _, _ = graded
    assert first["ungraded"] == 0
    here = folder / "again"
    shutil.copytree(folder / "handed in", here)
    with sqlite3.connect(folder / "out" / "gradebook.db") as book:
        waiting = book.execute("select g.id from grade g join submitted_notebook n on g.notebook_id = n.id join submitted_assignment s on n.assignment_id = s.id "
                               "where g.needs_manual_grade and s.student_id = 'right' limit 1").fetchone()[0]
        book.execute("update grade set manual_score = 2, needs_manual_grade = 0 where id = ?", (waiting,))
    book.close()
    ran = []
    monkeypatch.setattr(workers.Worker, "run", lambda self, order, seconds: ran.append(order["executed"]) or {"failed": "not here"})
    found = grading.grade(here, folder / "out", folder / "course", seconds=5, say=lambda *_: None)
    assert ran == []
    points = {(row["student"], row["notebook"]): row for row in found["rows"]}
    before = {(row["student"], row["notebook"]): row for row in first["rows"]}
    changed = [key for key in points if points[key] != before[key]]
    assert [key[0] for key in changed] == ["right"] and points[changed[0]]["written_points"] == 2
    change(here / "wrong" / START / f"{START}.ipynb", "00-cosine", lambda text: text + "\n# later")
    found = grading.grade(here, folder / "out", folder / "course", seconds=5, say=lambda *_: None)
    assert found["ungraded"] == 1 and {row["student"] for row in found["rows"] if row["auto_points"]} == {"right", "[odd] *name?", "faults"}
    with pytest.raises(MiniclipError, match=r"not one submission could be run on this machine.*not here"):
        grading.grade(here, folder / "nobody", folder / "course", ["00"], seconds=5, say=lambda *_: None)
    change(here / "stub" / START / f"{START}.ipynb", "00-cosine", lambda text: text + "\n# later")
    ran.clear()
    monkeypatch.setattr(workers.Worker, "run", lambda self, order, seconds: ran.append(order["executed"]) or {"failed": "not here"} | (
        {} if "wrong" in order["executed"] else {"failed": "", "results": {}, "walls": []}))
    found = grading.grade(here, folder / "out", folder / "course", seconds=5, say=lambda *_: None)
    assert {pathlib.Path(path).parts[-3:-1] for path in ran} == {("wrong", START), ("stub", START)}
    assert [fault["fault"] for fault in found["faults"] if fault["student"] == "wrong"] == ["it could not be run: not here"]


def test_a_grading_that_was_killed_goes_on(graded, tmp_path, monkeypatch):
    """Killed after the first of two submissions went through nbgrader: the next call runs the other one only."""
    folder = graded[0]
    handed = tmp_path / "handed in"
    for student in ("right", "stub"):
        shutil.copytree(folder / "handed in" / student / START, handed / student / START)
    code = ("import os, sys; from miniclip_helpers.coursework import grading, gradebook\n"
            "grade = gradebook.Gradebook.feedback\n"
            "gradebook.Gradebook.feedback = lambda *a: (grade(*a), os._exit(9))\n"
            f"grading.grade({str(handed)!r}, {str(tmp_path / 'out')!r}, {str(folder / 'course')!r}, ['00'], jobs=1)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 9, done.stderr
    ran, run = [], workers.Worker.run
    monkeypatch.setattr(workers.Worker, "run", lambda self, order, seconds: ran.append(order["executed"]) or run(self, order, seconds))
    found = grading.grade(handed, tmp_path / "out", folder / "course", ["00"], jobs=1, say=lambda *_: None)
    assert len(ran) == 1 and [row["auto_points"] for row in found["rows"]] == [2, 0]
    assert all((tmp_path / "out" / "feedback" / student / START / f"{START}.html").is_file() for student in ("right", "stub"))
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.name != grading.RECORDS and path.is_file()]


def test_without_a_course_or_with_another_one_nothing_is_touched(graded, tmp_path):
    folder = graded[0]
    with pytest.raises(UsageError, match="name it with --course"):
        grading.grade(folder / "handed in", tmp_path / "out", say=lambda *_: None)
    with pytest.raises(UsageError, match=r"notebook '09'.*00_start_here"):
        grading.grade(folder / "handed in", tmp_path / "out", folder / "course", ["09"], say=lambda *_: None)
    other = tmp_path / "course"
    shutil.copytree(folder / "course", other)
    file = other / "source" / START / f"{START}.ipynb"
    file.write_text(file.read_text(encoding="utf8").replace("seeds=[", "seeds=[1, "), encoding="utf8")
    with pytest.raises(UsageError, match="another build of the course"):
        grading.grade(folder / "handed in", folder / "out", other, say=lambda *_: None)
    with pytest.raises(UsageError, match="at least 1 second"):
        grading.grade(folder / "handed in", tmp_path / "out", folder / "course", seconds=0)


def test_grading_one_notebook_leaves_the_rows_of_the_others(graded):
    folder = graded[0]
    before = table(folder, "scores.csv")
    grading.grade(folder / "handed in", folder / "out", folder / "course", ["00"], seconds=5, say=lambda *_: None)
    assert [(row["student"], row["notebook"]) for row in table(folder, "scores.csv")] == sorted((row["student"], row["notebook"]) for row in before)
    assert len(table(folder, "exercises.csv")) == 6 * 6


def test_what_a_spreadsheet_would_compute_is_text():
    assert [scores._safe(value) for value in ("=1+1", "@x", "-2", "fine", 3)] == ["'=1+1", "'@x", "'-2", "fine", 3]


def test_what_is_returned_can_be_written_as_json(graded):
    assert json.loads(json.dumps(graded[1]))["rows"]
