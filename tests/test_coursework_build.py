"""The course that `miniclip coursework build` makes: what a release shows, what a source proves, what is never overwritten."""

import ast
import contextlib
import functools
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import sysconfig

import nbformat
import pytest
from coursework_submissions import answer_exercise, check_cells, with_faults

from miniclip_helpers import checks, coursework
from miniclip_helpers.cli import main
from miniclip_helpers.coursework import anatomy, course, source, written
from miniclip_helpers.errors import DataError, MiniclipError, UsageError

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEMS = sorted(file.stem for file in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module", autouse=True)
def alembic_once():
    """nbgrader starts a process for each new gradebook to ask for the version of its tables: once is enough."""
    from nbgrader import api

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "get_alembic_version", functools.cache(api.get_alembic_version))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The course of all twelve notebooks."""
    out = tmp_path_factory.mktemp("whole") / "course"
    coursework.build(out, say=lambda line: None)
    return out


@pytest.fixture(scope="module")
def built_small(tmp_path_factory):
    out = tmp_path_factory.mktemp("small") / "course"
    coursework.build(out, ["01"], say=lambda line: None)
    return out


@pytest.fixture
def small(built_small, tmp_path):
    """A course of notebook 01, for one test alone."""
    return shutil.copytree(built_small, tmp_path / "course")


def committed(stem):
    return nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)


def version(folder, kind, stem):
    return nbformat.read(folder / kind / stem / f"{stem}.ipynb", as_version=4)


def files(folder):
    """{path: bytes} of all files but the gradebook, whose keys are drawn at random."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "gradebook.db"}


def query(folder, question):
    with contextlib.closing(sqlite3.connect(folder / "gradebook.db")) as book:
        return book.execute(question).fetchall()


# The anatomy of a notebook.

def notebook(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text, id=f"cell-{place}") for place, text in enumerate(sources)])


def test_exercises_are_found_in_every_notebook():
    found = {graded.exercise_id: graded for stem in STEMS for graded in anatomy.exercises_in(committed(stem))}
    assert set(found) == set(checks.exercises())
    assert len(found) == 41
    for graded in found.values():
        assert graded.exercise.source.startswith(f"def {graded.function}(") and graded.check.metadata["tags"] == ["check"]


def test_the_last_cell_above_a_check_that_defines_the_function_is_the_exercise():
    book = notebook("def cosine(a, b):\n    pass", "def cosine(a, b):\n    return 1", 'checks.check("00.cosine", cosine)', "def cosine(a):\n    pass")
    (graded,) = anatomy.exercises_in(book)
    assert graded.exercise.id == "cell-1" and graded.check.id == "cell-2" and graded.function == "cosine"


@pytest.mark.parametrize(("sources", "words"), [
    (['checks.check("00.cosine", cosine)'], "00.cosine: no cell above its check defines cosine"),
    (["def cosine(a, b):\n    pass", 'checks.check("00.cosine", cosine)', 'checks.check("00.cosine", cosine)'], "00.cosine: checked 2 times"),
])
def test_a_notebook_whose_exercises_are_not_whole_is_told(sources, words):
    with pytest.raises(DataError, match=words):
        anatomy.exercises_in(notebook(*sources))


def test_a_solved_cell_keeps_head_docstring_and_comment_of_the_stub():
    book = notebook('import numpy\n\ndef learning_rate(step, total_steps, warmup_steps, peak):\n    """How fast.\n\n    Slowly."""\n    # think of a hill\n'
                    '    raise NotImplementedError("your turn")', 'checks.check("04.learning_rate", learning_rate)')
    (graded,) = anatomy.exercises_in(book)
    assert anatomy.reference_cell(graded) == '''import numpy

def learning_rate(step, total_steps, warmup_steps, peak):
    """How fast.

    Slowly."""
    # think of a hill
    ### BEGIN SOLUTION
    import math
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * progress)) / 2
    ### END SOLUTION'''
    assert "import" not in anatomy.reference_cell(graded, notebook("import math").cells).split("SOLUTION")[1]
    assert "import math" in anatomy.reference_cell(graded, notebook("import cmath as math").cells).split("SOLUTION")[1]


@pytest.mark.parametrize("text", ["def cosine(a, b):\n    return 1", 'def cosine(a, b): raise NotImplementedError("your turn")',
                                  'def cosine(a, b):\n    raise NotImplementedError("your turn")\n\nprint(1)'])
def test_a_cell_that_does_not_end_with_the_stub_is_told(text):
    book = notebook(text, 'checks.check("00.cosine", cosine)')
    with pytest.raises(DataError, match=r"00\.cosine: expected a cell that ends with"):
        anatomy.reference_cell(anatomy.exercises_in(book)[0])


# The release: what students get.

def added(book, plain):
    known = {cell.id for cell in plain.cells}
    return [cell for cell in book.cells if cell.id not in known]


@pytest.mark.parametrize("stem", STEMS)
def test_a_release_is_the_committed_notebook_and_nothing_else(whole, stem):
    release, plain = version(whole, "release", stem), committed(stem)
    new = added(release, plain)
    kept = [cell for cell in release.cells if cell not in new]
    assert [(cell.id, cell.cell_type, cell.source) for cell in kept] == [(cell.id, cell.cell_type, cell.source) for cell in plain.cells]
    questions = [question for question in written.questions().values() if question.id[:2] == stem[:2]]
    assert len(new) == 1 + 2 * len(questions) and sum(cell.source == "Write your answer here." for cell in new) == len(questions)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in (*release.cells, *version(whole, "source", stem).cells))
    assert len({cell.id for cell in release.cells}) == len(release.cells)
    marked = {cell.id for cell in release.cells if "nbgrader" in cell.metadata}
    assert marked == {cell.id for cell in new} | {cell.id for cell in plain.cells if set(cell.metadata.get("tags", ())) & {"exercise", "check"}}
    nbformat.validate(release)


def secrets(stem, seed=0):
    """What a release must not hold: lines of the solutions, seeds, markers, rubrics, answers. Lines that the committed notebook teaches with are its own."""
    public = (ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf8")
    found = {"SOLUTION", "HIDDEN", "judging", "assess("}
    for graded in anatomy.exercises_in(committed(stem)):
        found |= {str(number) for number in source.hidden_seeds(graded.exercise_id, seed)}
        solved = anatomy.reference_cell(graded).splitlines()
        found |= {json.dumps(line.strip())[1:-1] for line in solved if line not in graded.exercise.source.splitlines()}
    for question in written.questions().values():
        if question.id[:2] == stem[:2]:
            found |= {json.dumps(text, ensure_ascii=False)[1:-1] for text in (*question.answer.split(". "), *(words for _, words in question.rubric))}
    return {secret for secret in found if len(secret) > 5 and secret not in public}


@pytest.mark.parametrize("stem", STEMS)
def test_no_trace_of_what_is_secret_is_in_a_release(whole, stem):
    told = (whole / "release" / stem / f"{stem}.ipynb").read_text(encoding="utf8")
    inside = (whole / "source" / stem / f"{stem}.ipynb").read_text(encoding="utf8")
    known = secrets(stem)
    assert len(known) > 5 * len(checks.exercises(stem[:2]))
    assert [secret for secret in known if secret in told] == []
    assert [secret for secret in known if secret not in inside and not secret.startswith("import ")] == []  # else the line above could not fail
    assert [file.name for file in (whole / "release" / stem).rglob("*")] == [f"{stem}.ipynb"]


def test_a_release_closes_solutions_and_says_what_it_is_worth(whole, monkeypatch):
    monkeypatch.setattr(checks, "_course", set())
    for stem in STEMS:
        code = [cell for cell in version(whole, "release", stem).cells if cell.cell_type == "code"]
        (place,) = [place for place, cell in enumerate(code) if "start_course" in cell.source]
        assert "import checks" in code[place - 1].source
        points = sum(cell.metadata["nbgrader"].get("points", 0) for cell in version(whole, "release", stem).cells if "nbgrader" in cell.metadata)
        assert code[place].source == f'checks.start_course("{stem[:2]}", points={points})'
    exec(code[place].source, {"checks": checks})  # noqa: S102
    assert "closed" in checks.solution("11.captions").title


# The source: what an instructor keeps.

def imported(book):
    """A namespace with what the cells of a notebook import, the package's heavy parts left out."""
    space = {"checks": checks, "np": None}
    for cell in book.cells:
        if cell.cell_type == "code":
            for node in ast.parse(cell.source).body:
                if isinstance(node, (ast.Import, ast.ImportFrom)) and "miniclip" not in ast.unparse(node):
                    exec(compile(ast.Module([node], []), "cell", "exec"), space)  # noqa: S102
    return space


def run_cell(cell, space):
    exec(compile(cell.source, cell.id, "exec"), space)  # noqa: S102


@pytest.mark.parametrize("stem", STEMS)
def test_a_source_earns_its_points_and_wrong_answers_and_stubs_do_not(whole, stem):
    book, stubs = version(whole, "source", stem), version(whole, "release", stem)
    space, tests = imported(book), check_cells(book)
    for graded in anatomy.exercises_in(book):
        run_cell(graded.exercise, space)
        run_cell(tests[graded.exercise_id], space)
    for graded in anatomy.exercises_in(stubs):
        stub_cell = graded.exercise.source
        for fault, words in (("bank", "."), ("stub", "Replace the line")):
            graded.exercise.source = stub_cell
            answer_exercise(stubs, graded, fault, "")
            run_cell(graded.exercise, space)
            with pytest.raises(AssertionError, match=words):
                run_cell(tests[graded.exercise_id], space)


def test_points_stand_in_the_gradebook(whole):
    held = dict(query(whole, "select b.name, g.max_score from base_cell b join grade_cells g on g.id = b.id"))
    expected = {anatomy.check_id(name): item.points for name, item in checks.exercises().items()}
    expected |= {anatomy.grade_id(name): question.points for name, question in written.questions().items()}
    assert held == expected
    assert sorted(name for (name,) in query(whole, "select name from assignment")) == STEMS
    assert query(whole, "select count(*) from student") == [(0,)]


def test_every_question_has_its_rubric_and_a_good_answer_for_who_marks(whole):
    text = (whole / "rubrics.md").read_text(encoding="utf8")
    for question in written.questions().values():
        assert question.answer in text and question.text in text and all(words in text for _, words in question.rubric)
        cell = next(cell for cell in version(whole, "source", next(stem for stem in STEMS if stem[:2] == question.id[:2])).cells if cell.id == anatomy.grade_id(question.id))
        assert question.answer in cell.source and all(words in cell.source for _, words in question.rubric)


def test_questions_stand_behind_their_cells_in_their_order(monkeypatch):
    question = next(iter(written.questions().values()))
    stem = next(stem for stem in STEMS if stem[:2] == question.id[:2])
    second = written.Question(f"{stem[:2]}.w_second", "second", 1, 1, question.after, "Why?", ((1, "a reason"),), "Because.")
    monkeypatch.setattr(written, "QUESTIONS", (question, second))
    ids = [cell.id for cell in source.source_version(committed(stem), stem).cells]
    place = ids.index(question.after)
    assert ids[place + 1 : place + 5] == [name for item in (question, second) for name in (anatomy.question_id(item.id), anatomy.grade_id(item.id))]
    monkeypatch.setattr(written, "QUESTIONS", (written.Question(f"{stem[:2]}.w_lost", "lost", 1, 1, "nowhere", "Why?", ((1, "a reason"),), "Because."),))
    with pytest.raises(DataError, match="belongs behind the cell 'nowhere'"):
        source.source_version(committed(stem), stem)


def test_a_notebook_that_lacks_an_exercise_or_is_coursework_already_is_told(whole):
    stem = STEMS[0]
    book = committed(stem)
    book.cells = [cell for cell in book.cells if "00.best_five" not in cell.source]
    with pytest.raises(DataError, match=r"00\.best_five is in the package and not in the notebook"):
        source.source_version(book, stem)
    with pytest.raises(DataError, match="carries nbgrader's marks already"):
        source.source_version(version(whole, "release", stem), stem)


# Building: the same bytes, and nothing lost.

def test_the_same_build_gives_the_same_bytes(small, tmp_path):
    program = "import sys; from miniclip_helpers import coursework; coursework.build(sys.argv[1], ['01'], say=str)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "again")], check=True, env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"})
    assert files(small) == files(tmp_path / "again")
    assert sorted(files(small)) == sorted(["README.md", "course.json", "nbgrader_config.py", "rubrics.md", *(f"{kind}/{STEMS[1]}/{STEMS[1]}.ipynb" for kind in ("source", "release"))])


def test_another_seed_gives_other_hidden_tests_and_the_same_release(small, tmp_path):
    coursework.build(tmp_path / "other", ["01"], seed=1, say=str)
    one, other = files(small), files(tmp_path / "other")
    assert {name for name in one if one[name] != other[name]} == {"course.json", f"source/{STEMS[1]}/{STEMS[1]}.ipynb"}
    seeds = [seed for name in checks.exercises() for course_seed in range(3) for seed in source.hidden_seeds(name, course_seed)]
    assert len(set(seeds)) == len(seeds) == 41 * 3 * source.SEEDS


def test_a_course_grows_and_what_stands_stays(small):
    before = files(small)
    assert coursework.build(small, ["00", "01"], say=str) == {STEMS[0]: "built", STEMS[1]: "as it was"}
    after = files(small)
    assert all(after[name] == before[name] for name in before if "/" in name or name == "nbgrader_config.py")
    assert f"release/{STEMS[0]}/{STEMS[0]}.ipynb" in after and all(stem in after["README.md"].decode() for stem in STEMS[:2])
    assert sorted(name for (name,) in query(small, "select name from assignment")) == STEMS[:2]
    (small / "release" / STEMS[1] / f"{STEMS[1]}.ipynb").unlink()
    assert coursework.build(small, ["01"], say=str) == {STEMS[1]: "built"}
    assert files(small) == after


def test_an_untouched_course_takes_a_new_seed(small):
    assert coursework.build(small, ["01"], seed=5, say=str) == {STEMS[1]: "built"}
    assert str(source.hidden_seeds("01.logits", 5)[0]) in (small / "source" / STEMS[1] / f"{STEMS[1]}.ipynb").read_text(encoding="utf8")


def test_a_course_keeps_its_seed(tmp_path):
    coursework.build(tmp_path / "course", ["00"], seed=6, say=str)
    assert coursework.build(tmp_path / "course", ["00", "01"], say=str) == {STEMS[0]: "as it was", STEMS[1]: "built"}
    assert str(source.hidden_seeds("01.logits", 6)[0]) in (tmp_path / "course" / "source" / STEMS[1] / f"{STEMS[1]}.ipynb").read_text(encoding="utf8")


def hand_in(folder):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "miniclip") as book:
        book.add_student("ada")
        submission = book.add_submission(STEMS[1], "ada")
        grade = next(grade for part in submission.notebooks for grade in part.grades)
        grade.manual_score = 2
        book.db.commit()


@pytest.mark.filterwarnings("ignore:Object of type")  # nbgrader's own, of SQLAlchemy
@pytest.mark.parametrize("how", ["gradebook", "folder"])
def test_what_was_handed_in_is_never_changed(small, how):
    if how == "gradebook":
        hand_in(small)
    else:
        (small / "submitted" / "ada" / STEMS[1]).mkdir(parents=True)
        (small / "submitted" / "ada" / STEMS[1] / f"{STEMS[1]}.ipynb").write_text("{}")
    before, grades = files(small), query(small, "select * from grade order by id")
    with pytest.raises(UsageError, match=f"{STEMS[1]} was handed in by 1 student"):
        coursework.build(small, ["00", "01"], seed=3, say=str)
    assert files(small) == before and query(small, "select * from grade order by id") == grades
    assert coursework.build(small, ["00", "01"], say=str) == {STEMS[0]: "built", STEMS[1]: "as it was"}  # the same seed changes nothing, and 00 is new
    assert query(small, "select * from grade order by id") == grades


def test_a_source_that_was_edited_is_never_overwritten(small):
    file = small / "source" / STEMS[1] / f"{STEMS[1]}.ipynb"
    file.write_text(file.read_text(encoding="utf8") + " \n", encoding="utf8")
    before = files(small)
    with pytest.raises(UsageError, match=f"source/{STEMS[1]} was edited"):
        coursework.build(small, ["00", "01"], say=str)
    assert files(small) == before


def test_an_update_that_was_cut_off_is_finished_by_the_next(small, monkeypatch):
    real, before = os.replace, files(small)

    def cut(old, new):
        if pathlib.Path(new).name == "course.json":
            raise KeyboardInterrupt
        real(old, new)

    monkeypatch.setattr(course.os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        coursework.build(small, ["01"], seed=2, say=str)
    monkeypatch.setattr(course.os, "replace", real)
    assert files(small) != before and not [path for path in small.iterdir() if path.name.startswith(".")]
    coursework.build(small, ["01"], seed=2, say=str)
    coursework.build(small.parent / "fresh", ["01"], seed=2, say=str)
    assert files(small) == files(small.parent / "fresh")


def test_a_gradebook_that_is_gone_is_made_again(small):
    coursework.build(small, ["00"], say=str)
    (small / "gradebook.db").unlink()
    assert coursework.build(small, ["00"], say=str) == {STEMS[0]: "built"}
    assert coursework.build(small, ["00", "01"], say=str) == {STEMS[0]: "as it was", STEMS[1]: "built"}
    assert sorted(name for (name,) in query(small, "select name from assignment")) == STEMS[:2]


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coursework.build(".", ["00"], say=str)
    assert sorted(path.name for path in pathlib.Path(".").iterdir()) == sorted(["README.md", "course.json", "gradebook.db", "nbgrader_config.py", "release", "rubrics.md", "source"])


def test_a_build_that_changes_nothing_writes_nothing(small):
    before = {file: file.stat().st_mtime_ns for file in small.rglob("*") if file.is_file()}
    coursework.build(small, ["01"], say=str)
    assert {file: file.stat().st_mtime_ns for file in small.rglob("*") if file.is_file()} == before


# Wrong use.

def test_wrong_use_is_told_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "essay.txt").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "course.json").write_text("[]")
    for out, names, words in [("new", ["12"], "unknown notebook '12'"), ("new", ["01", "clip"], "unknown notebook 'clip'"), ("file", [], "holds something else"),
                              ("file/deeper", [], "cannot be written, because of"), ("full", [], "holds something else"), ("broken", [], "is not what a build writes")]:
        before = files(tmp_path)
        with pytest.raises(MiniclipError, match=words):
            coursework.build(tmp_path / out, names, say=str)
        assert files(tmp_path) == before and sorted(path.name for path in tmp_path.iterdir()) == ["broken", "file", "full"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_the_right_to_write_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MiniclipError, match="cannot be written"):
        coursework.build(tmp_path / "course", ["01"], say=str)


def test_a_folder_without_notebooks_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_NOTEBOOKS", str(tmp_path))
    with pytest.raises(MiniclipError, match="there are no notebooks in"):
        coursework.build(tmp_path / "course", say=str)
    assert not any(tmp_path.iterdir())


def test_without_nbgrader_the_way_to_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    with pytest.raises(MiniclipError, match="uv sync"):
        coursework.build(tmp_path / "course", ["01"], say=str)
    assert not any(tmp_path.iterdir())


def test_a_build_that_fails_half_way_leaves_nothing(small, tmp_path, monkeypatch):
    real = course._generate

    def fail(root, stem, gradebook):
        if stem == STEMS[2]:
            raise MiniclipError("the disk is full")
        real(root, stem, gradebook)

    monkeypatch.setattr(course, "_generate", fail)
    before = files(small)
    for out in (tmp_path / "course", tmp_path / "new"):
        with pytest.raises(MiniclipError, match="the disk is full"):
            coursework.build(out, ["00", "02"], say=str)
    assert files(small) == before and [path.name for path in tmp_path.iterdir()] == ["course"]
    assert not [path for path in small.iterdir() if path.name.startswith(".")]


def test_what_nbgrader_complains_of_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "HIDDEN", source.HIDDEN.replace("### END HIDDEN TESTS", ""))
    with pytest.raises(MiniclipError, match=f"nbgrader could not make the release of {STEMS[1]}(.|\n)*No end hidden tests statement"):
        coursework.build(tmp_path / "course", ["01"], say=str)
    assert not any(tmp_path.iterdir())


def test_a_gradebook_that_is_none_is_told(small):
    (small / "gradebook.db").write_text("no database, but long enough to be looked at as one " * 9)
    with pytest.raises(DataError, match="cannot be read as nbgrader's gradebook"):
        coursework.build(small, ["01"], seed=9, say=str)


# The command, and nbgrader's own commands in the folder.

def test_the_command_builds_and_says_what_is_next(tmp_path, capsys):
    out = tmp_path / "course"
    assert main(["coursework", "build", "--out", str(out), "--notebooks", "00,02"]) == 0
    said = capsys.readouterr().out
    assert f"{STEMS[0]}: built" in said and "README.md" in said
    assert sorted(path.name for path in (out / "release").iterdir()) == [STEMS[0], STEMS[2]]
    assert main(["coursework", "build", "--out", str(out), "--notebooks", "99"]) == 2
    assert "unknown notebook '99'" in capsys.readouterr().err


@pytest.mark.parametrize(("part", "words"), [("build", "--notebooks 01,04"), ("grade", "--out course"), ("report", "--json")])
def test_every_part_of_the_command_shows_examples(part, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["coursework", part, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "examples:" in said and words in said


def nbgrader(folder, *arguments):
    """Run one of nbgrader's own commands in the folder of a course."""
    environment = os.environ | {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]), "MINICLIP_PROGRESS": "0"}
    done = subprocess.run(["nbgrader", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def test_nbgraders_own_command_makes_the_same_release(small):
    before = files(small)
    nbgrader(small, "generate_assignment", STEMS[1], "--force")
    assert files(small) == before


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """A course of a notebook 00 that holds its exercises and little else, so that a kernel runs it in seconds."""
    folder = tmp_path_factory.mktemp("light")
    book = committed(STEMS[0])
    needed, asked = {"exercise", "check"}, {question.after for question in source.questions_of(STEMS[0])}
    book.cells = [cell for cell in book.cells if cell.cell_type == "markdown" or cell.id in asked or needed & set(cell.metadata.get("tags", ()))]
    for cell in book.cells:
        if cell.cell_type == "code" and not needed & set(cell.metadata.get("tags", ())):
            cell.source = ""
    book.cells.insert(1, nbformat.v4.new_code_cell("import numpy as np\nfrom miniclip_helpers import checks", id="imports"))
    (folder / "notebooks").mkdir()
    nbformat.write(book, folder / "notebooks" / f"{STEMS[0]}.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICLIP_NOTEBOOKS", str(folder / "notebooks"))
        coursework.build(folder / "course", say=str)
    return folder / "course"


def test_nbgraders_own_autograde_agrees(light):
    """A right answer that warns, and a wrong one: nbgrader runs both in a kernel, hidden tests and all."""
    release, (stem,) = version(light, "release", STEMS[0]), STEMS[:1]
    solved = {cell.id: cell.source for cell in version(light, "source", stem).cells}
    warned = "import warnings\nwarnings.warn('slow')\n### BEGIN SOLUTION"
    for graded, fault in zip(anatomy.exercises_in(release), (None, "wrong")):
        answer_exercise(release, graded, fault, solved[graded.exercise.id].replace("### BEGIN SOLUTION", warned.replace("\n", "\n    ")))
    place = light / "submitted" / "ada" / stem
    place.mkdir(parents=True)
    nbformat.write(release, place / f"{stem}.ipynb")
    nbgrader(light, "autograde", stem)
    scores = dict(query(light, "select b.name, g.auto_score from grade g join base_cell b on b.id = g.cell_id"))
    assert {name: scores[name] for name in ("00-cosine-test", "00-best_five-test")} == {"00-cosine-test": 1, "00-best_five-test": 0}


def test_the_submission_with_faults_has_every_fault(whole, tmp_path):
    """The helper that the tests of grading use: half of the exercises right, and each fault of the list once."""
    import coursework_submissions as submissions

    faults = with_faults(whole, tmp_path / "eve")
    assert set(submissions.FAULTS.values()) == {*submissions.BODIES, *submissions.PATCHES, "deleted exercise cell", "deleted check cell", "duplicated cell", "edited test"} - {"wrong"}
    assert 16 <= sum(fault in submissions.HARMLESS for fault in faults.values()) <= 23
    shutil.rmtree(tmp_path / "eve")
