"""What strangers hand in, and what instructors mistake: names, texts, folders and gradebooks that cost at most their own grade. No kernel runs here."""

import contextlib
import copy
import errno
import json
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import warnings
from html.parser import HTMLParser

import nbformat
import pytest
import test_coursework_grade
from coursework_submissions import right
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from test_coursework_grade import START, change, collected, mended, named, solve, versions

from miniclip_helpers.coursework import collecting, course, folders, gradebook, grading, kernels, repair, scores, slices, workers
from miniclip_helpers.coursework.oddities import oddities
from miniclip_helpers.errors import DataError, MiniclipError, UsageError

BAD = "M\udcfcller"  # as Python reads a name that is no UTF-8
handed_in = test_coursework_grade.handed_in


def test_half_letters_odd_tags_and_attachments_that_are_no_pictures_go():
    evil = {"x\ud83d": {"image/png": 'AAAA" onerror="alert(1)'}, "y": {"image/png": "AAAA\nBBB=", "text/html": "<script>"}, "z": {'image/png"': "AAAA"}}
    book = repair.clean({"cells": [{"cell_type": "markdown", "source": "Emoji \ud83d only half", "attachments": evil},
                                   {"cell_type": "code", "source": "x = '\udcff'", "metadata": {"tags": ["parameters", 't"><script>', "\ud83d", 3, "parameters"]}}]})
    assert nbformat.writes(book).encode("utf8") and nbformat.validate(book) is None
    assert book.cells[0].source == "Emoji ? only half" and book.cells[1].source == "x = '?'"
    assert [list(kinds.items()) for kinds in book.cells[0].attachments.values()] == [[("image/png", "AAAA\nBBB=")]]
    assert book.cells[1].metadata.tags == ["parameters"]


class Page(HTMLParser):
    """Collects what would run in a browser: tags that are not markdown's own, handlers, links that are programs."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [tag] * (tag not in ("p", "a", "img", "em", "strong", "code", "pre", "ul", "li", "span", "div"))
        for name, value in attributes:
            scheme = "".join(letter for letter in value or "" if letter > " ").lower()  # a browser overlooks tabs and line ends
            self.found += [f"{name}={value}"] * (name.startswith("on") or scheme.startswith(("javascript:", "vbscript:", "data:text", "data:image/svg")))


@pytest.mark.parametrize("text", [
    '<script>alert(1)</script>', 'a <img src=x onerror=alert(1)> b', "<!-- --><svg/onload=alert(1)>", "</p><?php", "`a` <iframe srcdoc='x'></iframe>", "<details>\n\nx\n\n</details>",
    "[l](javascript:alert(1))", "[l](JaVaScript:alert(1))", "[l](java&#115;cript:alert(1))", "[l](javascript&colon;alert(1))", "[l](javascript&amp;colon;alert(1))",
    "[l](data:text/html,x)", "[l][r]\n\n[r]: vbscript:x", "[l][r]\n\n[r]: java&#x73;cript&#58;x", r"[l](javascript\:x)", "[l](<java&Tab;script:x>)", "![l](data:image/svg+xml,x)"])
def test_an_answer_in_words_runs_nothing_in_the_browser_of_who_marks_it(text):
    """Rendered by nbconvert itself, which nbgrader's pages come from."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    cells, *_ = mended(lambda cells: (setattr(cells[9], "source", text), cells.insert(0, new_markdown_cell("Mine: " + text))))
    for cell in (cells[0], named(cells)["99-w_why"]):
        assert Page(markdown2html_mistune(cell.source)).found == [], cell.source


def test_an_answer_in_words_stays_as_it_can_be_read():
    text = "$a<b$ and $c < d$, `vector<int>`, training data: 5 images, a & b, [x](https://example.org/?a=1&b=2), ![p](attachment:p.png), x &lt; y, 1<2"
    assert repair.harmless(text) == text.replace("a<b", "a< b").replace("<int", "< int")
    cells, *_ = mended(lambda cells: None)
    release = versions()[0]
    release.cells[0].source = "# Title\n<details>the series' own</details>"
    book, *_ = repair.repair(repair.clean(release), release, versions()[1])
    assert book.cells[0].source == release.cells[0].source


@pytest.mark.parametrize("text, plain", [("![a](attachment:gone)", True), ("![a](attachment&#58;gone)", True), ("*_" * 3000 + "[" * 3000, None), (">" * 3000 + "- " * 3000, None), ("![a](attachment:here)", False)])
def test_words_that_nbconvert_cannot_show_are_shown_as_typed(text, plain):
    """Else nobody gets a page of feedback."""
    def write(cells):
        cells[9].source, cells[9].attachments = text, {"here": {"image/png": "AAAA"}, "gone": {"image/png": '"'}}

    cells, _, findings = mended(write)
    assert plain is None or any("shown as it was typed" in line for line in findings) == plain
    pages = HTMLExporter(template_name="classic").from_notebook_node(new_notebook(cells=cells))[0]
    assert plain is not False or "data:image/png;base64,AAAA" in pages


def test_ids_that_meet_part_the_same_way_each_time():
    def meet(cells):
        cells[5] = new_code_cell("y = 1", id="e5-2")  # the exercise was deleted; it comes back with the id that the answer in words has now
        cells[9].id = "e5"

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nbformat's, which would draw a new id
        first, second = mended(meet)[0], mended(meet)[0]
    assert [cell.id for cell in first] == [cell.id for cell in second] and len({cell.id for cell in first}) == len(first)
    assert {"99-f", "99-f-test"} <= set(named(first))


def _own(count, source="a{0} = a{1} + 1"):
    return [new_code_cell(source.format(number, number - 1)) for number in range(count)]


def test_cells_without_end_keep_nobody_waiting():
    """Seconds where they were minutes: empty lines by the hundred thousand, and cells that each need all before them."""
    code = ("from miniclip_helpers.coursework import slices; from nbformat.v4 import new_code_cell, new_notebook\n"
            "assert slices.names('\\n' * 400_000 + '!ls\\nx = y')[0] == {'x'}\n"
            "cells = [new_code_cell(f'a{n} = a{n - 1} + a{n - 2}') for n in range(1000)]\n"
            "assert len(slices.steps(new_notebook(cells=cells), new_notebook())[-1]['needs']) == 999")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_index_finds_the_cells_that_a_search_would():
    draw = random.Random(0)
    cells = [new_code_cell("\n".join(draw.choice(["{} = {}", "def {}(): return {}", "from {} import *; {}", "print({}, {})"]).format(draw.choice("abcdef"), draw.choice("abcdefgh"))
                                     for _ in range(2))) for _ in range(60)]
    texts = [slices.names(cell.source) for cell in cells]

    def last(name, place):
        return next((other for other in range(place - 1, -1, -1) if {name, "*"} & texts[other][0]), None)

    for step in slices.steps(new_notebook(cells=cells), new_notebook()):
        found, place = {step["cell"]}, step["cell"]
        while True:
            more = {binder for here in found for name in texts[here][1] for binder in [last(name, here) if last(name, here) is not None else last(name, place)] if binder is not None}
            if more <= found:
                break
            found |= more
        assert set(step["needs"]) == found - {place}


def test_too_many_cells_and_too_long_ones_do_not_run_and_are_told():
    release, source = versions()
    handed = copy.deepcopy(release)
    solve(handed.cells)
    handed.cells += _own(350) + [new_code_cell("x = 1\n" + "#" * 300_000)]
    book, extra, _ = repair.repair(repair.clean(handed), release, source)
    places, lines = slices.too_much(book, release, extra)
    assert len(places) == 51 and len(lines) == 2 and "300,006 letters" in lines[0] and lines[1].startswith("50 of their 350 own cells")
    steps = slices.steps(book, release, {}, [*extra, *places])
    assert sum(step["role"] == "own" for step in steps) == 300 and [step["role"] for step in steps][:3] == ["teaching", "exercise", "check"]
    assert slices.too_much(release, release) == ([], [])
    heavy = new_notebook(cells=_own(20, "#" * 100_000 + "{0}{1}"))
    assert len(slices.too_much(heavy, release)[0]) == 11  # 9 of 100,002 letters make less than a million


@pytest.mark.parametrize("source", ["%time\n" * 600 + "def f(): pass", "%a\n" * 600 + "def f(): pass", "!" * 5 + "\n%%\n" + "?" * 9 + "\ndef f(): pass", "%time\n" * 90 + "#" * 30_000 + "\ndef f(): pass"])
def test_magics_that_ipython_does_not_bear_cost_that_cell_alone(source):
    assert "f" in slices.names(source)[0] and isinstance(oddities(source), list)
    release = versions()[0]
    assert slices.steps(new_notebook(cells=[new_code_cell(source), *release.cells]), release)[0]["role"] == "own"


def test_names_that_no_table_takes_are_told(tmp_path):
    os.makedirs(os.path.join(os.fsencode(tmp_path), b"M\xfcller"))
    for name in ("ada", "new\nline", "\x1b[31mred", "ünï", "a course", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "a course" / "gradebook.db").touch()
    (tmp_path / "bob.zip").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "ada")
    found, left_out = collecting.students(tmp_path, out=tmp_path / "out")
    assert found == ["ada", "ünï"] and set(left_out) == {BAD, "new\nline", "\x1b[31mred", "a course", "out", "bob.zip", "link"}
    assert all("rename the folder" in left_out[name] for name in (BAD, "new\nline", "\x1b[31mred"))
    assert "a course or what is graded" in left_out["a course"] and "not a folder" in left_out["bob.zip"]


@pytest.mark.parametrize("name", ["gradebook.db", "course.json", "nbgrader_config.py", START, "out"])
def test_a_folder_that_holds_no_submissions_is_told(tmp_path, name):
    (tmp_path / "ada").mkdir()
    assert collecting.students(tmp_path, [START]) == (["ada"], {})
    (tmp_path / name).mkdir() if name == START else (tmp_path / name).touch()
    with pytest.raises(UsageError, match="single student" if name == START else "not submissions"):
        collecting.students(tmp_path, [START], tmp_path if name == "out" else None)


def test_a_file_whose_name_is_no_text_is_taken(handed_in):
    folder, releases, hand_in = handed_in
    os.rename(hand_in("99_small.ipynb"), os.path.join(os.fsencode(folder), b"ada", b"l\xf6sung.ipynb"))
    hand_in("essay \x1b[2J.ipynb", new_notebook(cells=[new_code_cell("print(1)")]))
    os.symlink("nowhere", os.path.join(os.fsencode(folder), b"ada", b"\xff"))
    found, remarks = collected(folder, releases)
    assert found["99_small"].findings == ["the file is called l\ufffdsung.ipynb; its cells are those of 99_small"]
    assert sorted(line.split(":")[0] for line in remarks) == ["essay \ufffd[2J.ipynb", "\ufffd"]
    hand_in("b\udce4.txt", b"1")
    assert [name for name, *_ in collecting.listing(collecting.beside(folder / "ada")[0])] == ["'b\\udce4.txt'"]


@pytest.fixture
def unprivileged():
    """A folder, and a way to be a user who may not read everything."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = os.name == "posix" and os.geteuid() == 0
        yield pathlib.Path(folder), lambda: root and os.seteuid(65534)
        if root:
            os.seteuid(0)
        for path in pathlib.Path(folder).rglob("*"):
            os.chmod(path, 0o755)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("shut, mode", [("ada", 0o000), ("ada", 0o644), ("ada/99_small", 0o000), ("ada/99_small", 0o644), ("ada/99_small/99_small.ipynb", 0o000)])
def test_a_place_that_may_not_be_read_is_told_for_each_notebook(unprivileged, shut, mode):
    folder, drop = unprivileged
    release = versions()[0]
    (folder / "ada" / "99_small").mkdir(parents=True)
    nbformat.write(release, folder / "ada" / "99_small" / "99_small.ipynb")
    (folder / shut).chmod(mode)
    drop()
    assert collecting.students(folder) == (["ada"], {})
    found, _ = collected(folder, {"98_other": release, "99_small": release})
    assert "cannot be read" in found["99_small"].findings[0] and found["99_small"].cells is None
    assert ("the folder cannot be read" in found["98_other"].findings[0]) == (not shut.endswith(".ipynb"))


@pytest.fixture
def deepen():
    """Fills a folder with folders within folders, more than Python can remove; they go at the end however the test ends: pytest could not remove them, either."""
    filled, here = [], os.getcwd()

    def fill(folder):
        filled.append(folder)
        os.chdir(folder)
        for _ in range(2500):
            os.mkdir("d")
            os.chdir("d")
        os.chdir(here)

    yield fill
    os.chdir(here)
    for folder in filled:
        kernels.remove_tree(folder)


def test_folders_without_end_in_a_submission_are_no_matter(handed_in, deepen):
    folder, releases, hand_in = handed_in
    hand_in("99_small/99_small.ipynb")
    deepen(folder / "ada" / "99_small")
    found, _ = collected(folder, releases)
    assert found["99_small"].findings == []
    files, _, lines = collecting.beside(found["99_small"].path.parent)
    assert files == [] and ["cannot be read" in line for line in lines] in ([], [True])


def test_a_tree_of_folders_too_deep_for_python_goes_at_the_end_and_at_the_next_start(tmp_path, deepen):
    (tmp_path / grading.RECORDS).mkdir()
    with grading._scratch(tmp_path) as first:
        deepen(first)
    assert not pathlib.Path(first).exists()
    left = tempfile.mkdtemp(prefix="mc")
    deepen(left)
    (tmp_path / grading.RECORDS / "scratch").write_text(left, encoding="utf8")
    with grading._scratch(tmp_path) as second:
        assert not pathlib.Path(left).exists()
    assert not pathlib.Path(second).exists()


@pytest.mark.parametrize("text, kept, told", [
    ("2026-11-21 10:00:00 UTC", True, False), ("2026-11-21 10:00:00.123 +0100\n", True, False), ("", True, False), ("yesterday, perhaps", False, True),
    ("0001-01-01 00:00:00 +1400", False, True), ("\x1b[2J" * 10**5, False, True), (None, False, False)])
def test_a_time_that_nbgrader_cannot_read_is_left_out(tmp_path, text, kept, told):
    if text is not None:
        (tmp_path / "timestamp.txt").write_text(text, encoding="utf8")
    (tmp_path / "submission_secret.txt").write_text("abc", encoding="utf8")
    files, stamps, lines = collecting.beside(tmp_path)
    assert files == [] and stamps == {"submission_secret.txt": "abc"} | ({"timestamp.txt": text} if kept else {})
    assert len(lines) == told and all("holds no time" in line and line.isprintable() for line in lines)


def test_of_what_nbgrader_says_the_cause_is_told():
    trace = "Traceback (most recent call last):\n  File x, line 1, in y\nsqlalchemy.exc.OperationalError: (sqlite3) database is locked\n[SQL: SELECT 1\nFROM a]\n(Background on this: x)"
    assert gradebook._reason(["There was an error processing assignment: x", trace, "Please see the the above traceback"]) == "sqlalchemy.exc.OperationalError: (sqlite3) database is locked"
    assert gradebook._reason(["Invalid timestamp string: x", "and then this"]) == "Invalid timestamp string: x"
    assert gradebook._reason([]) == ""


def test_tables_and_summary_hold_any_text(tmp_path):
    line = "x\udcfc\ud83d \x1b]0;owned\x07\x1b[2J\nada, 99: forged"
    record = {"student": "ada", "stem": "99_small", "findings": [line], "results": {}, "graded": False}
    found = scores.write(tmp_path, {("ada", "99_small"): record}, {"99_small": versions()[1]}, None)
    assert "\x1b" not in (tmp_path / "scores.csv").read_text(encoding="utf8")
    scores.write(tmp_path, {}, {}, None)  # reads what stands there
    printed = scores.summary(found | {"walls": [], "seconds": 1, "ungraded": 1}, tmp_path)
    assert printed.encode("utf8") and all(row.isprintable() for row in printed.split("\n")) and "\nada, 99: forged" not in printed
    assert "1 without a grade" in printed


@pytest.fixture
def copied(monkeypatch):
    """No kernel: a submission counts as run when it was copied; {student: an exception instead}."""
    faults = {}

    def run(self, order, seconds):
        for student, fault in faults.items():
            if student in order["executed"]:
                raise fault
        shutil.copyfile(order["notebook"], order["executed"])
        return {"failed": "", "results": {}, "walls": []}

    monkeypatch.setattr(workers.Worker, "run", run)
    return faults


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    course.build(folder / "course", ["00"], say=lambda *_: None)
    right(folder / "course", folder / "handed in" / "ada")
    return folder


@pytest.fixture
def small_course(built, tmp_path):
    """(course, submissions with one student who hands in notebook 00, options of `grade`)."""
    shutil.copytree(built, tmp_path / "here")
    return tmp_path / "here" / "course", tmp_path / "here" / "handed in", {"notebooks": ["00"], "jobs": 1, "say": lambda *_: None}


def test_names_halves_of_letters_and_crashes_cost_nobody_else(small_course, copied):
    folder, handed, options = small_course
    for student in ("bob", "cyd", "dan", BAD):
        shutil.copytree(handed / "ada", handed / student)
    (handed / "ada" / START / "timestamp.txt").write_text("yesterday, perhaps", encoding="utf8")
    os.rename(handed / "bob" / START / f"{START}.ipynb", handed / "bob" / START / "l\udcf6sung.ipynb")
    (handed / "bob" / START / "b\udce4.txt").write_text("x", encoding="utf8")
    change(handed / "cyd" / START / f"{START}.ipynb", "00-cosine", lambda text: text + "\n# HALF")
    file = handed / "cyd" / START / f"{START}.ipynb"
    file.write_text(file.read_text(encoding="utf8").replace("HALF", "\\ud83d"), encoding="utf8")
    copied["dan"] = RuntimeError("nobody thought of it")
    found = grading.grade(handed, folder, **options)
    told = {fault["student"]: fault["fault"] for fault in found["faults"]}
    assert set(told) == {"ada", "bob", "dan", "M\ufffdller"} and "rename the folder" in told["M\ufffdller"] and "holds no time" in told["ada"]
    assert told["dan"] == "it could not be run: RuntimeError: nobody thought of it" and "l\ufffdsung" in told["bob"]
    assert found["ungraded"] == 2 and json.dumps(found)
    assert [(row["student"], row["written_waiting"] > 0) for row in found["rows"]] == [("ada", True), ("bob", True), ("cyd", True), ("dan", False)]
    copied["dan"] = OSError(errno.ENOSPC, "No space left on device")
    copied |= dict.fromkeys(["ada", "bob", "cyd"], copied["dan"])
    with pytest.raises(MiniclipError, match=r"not one submission could be run.*cannot be written .No space left on device"):
        grading.grade(handed, folder.parent / "out", folder, **options)


def test_a_full_disk_is_told_by_the_folder_that_is_full(built, tmp_path, monkeypatch):
    def full(source, target, **_):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(MiniclipError, match=r"cannot be copied to '.*/out' .*No space left on device.*; make room"):
        folders.copy_course(built / "course", tmp_path / "out")


def _cut(file):
    file.write_bytes(file.read_bytes()[:20_000])


def _other(file):
    with contextlib.closing(sqlite3.connect(file)) as book, book:
        book.execute("delete from assignment where name = ?", (START,))


@pytest.mark.parametrize("damage, said", [(_cut, "cannot be read as nbgrader's gradebook"), (lambda file: file.write_bytes(b""), "no such table"),
                                          (lambda file: file.write_text("garbage"), "not a database"), (_other, f"has no assignment {START}")])
def test_a_damaged_gradebook_stops_before_anything_is_lost(small_course, copied, damage, said):
    folder, handed, options = small_course
    grading.grade(handed, folder, **options)
    good, before = (folder / "gradebook.db").read_bytes(), (folder / "scores.csv").read_bytes()
    damage(folder / "gradebook.db")
    with pytest.raises(DataError, match=f"{said}.*in its place"):
        grading.grade(handed, folder, **options)
    assert (folder / "scores.csv").read_bytes() == before
    (folder / "gradebook.db").write_bytes(good)
    assert grading.grade(handed, folder, **options)["ungraded"] == 0 and (folder / "scores.csv").read_bytes() == before


def test_a_gradebook_that_does_not_answer_for_a_moment_costs_no_results(small_course, copied, monkeypatch):
    folder, handed, options = small_course
    first = grading.grade(handed, folder, **options)
    record = folder / grading.RECORDS / "ada" / f"{START}.json"
    before = record.read_text(encoding="utf8")

    def silent(*_):
        raise MiniclipError("the gradebook does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(grading.Gradebook, "points", silent)
        found = grading.grade(handed, folder, **options)
    assert found["ungraded"] == 1 and "the gradebook does not answer" in found["faults"][0]["fault"] and record.read_text(encoding="utf8") == before
    assert grading.grade(handed, folder, **options)["rows"] == first["rows"]


def test_a_locked_gradebook_is_told_in_one_line(small_course):
    folder, _, _ = small_course
    book = gradebook.Gradebook(folder)
    (folder / "gradebook.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(MiniclipError, match=r"does not answer .*not a database"):
        book.points("ada", START)


def test_the_command_fails_where_somebody_has_no_grade(small_course, copied, monkeypatch):
    from miniclip_helpers import cli

    folder, handed, _ = small_course
    line = ["coursework", "grade", str(handed), "--out", str(folder), "--notebooks", "00", "--jobs", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(grading.Gradebook, "grade", lambda *_: (_ for _ in ()).throw(MiniclipError("nbgrader could not take it")))
        assert cli.main(line) == 1
    assert cli.main(line) == 0


def test_limits_that_are_no_limits_are_told(small_course):
    folder, handed, options = small_course
    for seconds in (float("nan"), float("inf"), 0.5):
        with pytest.raises(UsageError, match="at least 1 second"):
            grading.grade(handed, folder, seconds=seconds, **options)
