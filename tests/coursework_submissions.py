"""Submissions to a course that `coursework build` made: all right, all wrong, and one with every fault. Each call writes the folder of one student."""

import json
import pathlib
import re
import textwrap

import nbformat

from miniclip_helpers.coursework.anatomy import STUB, check_id, exercises_in

EXERCISES = pathlib.Path(__file__).resolve().parent / "exercises"

# What a student may write in place of the stub: it runs when the check calls the function.
BODIES = {
    "endless loop": "while True:\n    pass",
    "endless loop that catches everything": "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    "fork": "import os\nif os.fork() == 0:\n    os._exit(0)\nreturn 0.0",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "subprocess": "import subprocess\nreturn subprocess.run(['sleep', '60']).returncode",
    "memory hog": "held = []\nwhile True:\n    held.append(b'x' * (64 << 20))",
    "os._exit": "import os\nos._exit(0)",
    "segfault": "import ctypes\nreturn ctypes.string_at(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "input": "return float(input('your answer? '))",
    "network": "import socket\nreturn socket.create_connection(('192.0.2.1', 80), timeout=20)",
    "output flood": "for _ in range(200_000):\n    print('x' * 1000)\nreturn 0.0",
    "syntax error": "return (",
    "infinite recursion": "def again():\n    return again()\nreturn again()",
    "wrong": "return 0.0",
}
# What a student may write below the function.
PATCHES = {
    "patched checks.check": "checks.check = lambda *inputs: checks.Verdict(True, 'Right.')\nchecks.core.grade = lambda exercise, *rest: checks.Verdict(True, 'Right.')",
    "patched np.allclose": "import numpy\nnumpy.allclose = lambda *inputs, **options: True",
}
# One fault an exercise; the others are answered right. A patched np.allclose spoils what comes after it, so it comes last in its notebook.
FAULTS = {
    "00.best_five": "syntax error",
    "01.logits": "endless loop",
    "01.multi_positive_target": "infinite recursion",
    "02.top_k": "deleted exercise cell",
    "02.prompt_ensemble": "deleted check cell",
    "03.split_by_image": "duplicated cell",
    "03.find_the_leak": "os._exit",
    "03.prepare": "edited test",
    "04.logit_scale": "segfault",
    "04.learning_rate": "memory hog",
    "05.name_accuracy": "fork",
    "05.diagnostic": "fork bomb",
    "06.scorer": "subprocess",
    "06.keep_best": "sys.exit",
    "07.ranks": "input",
    "07.interval": "network",
    "08.latency": "output flood",
    "08.choose": "endless loop that catches everything",
    "09.probe": "patched checks.check",
    "09.grad_cam": "patched np.allclose",
}
FILE_FAULTS = {"02": "renamed file", "10": "missing notebook", "11": "broken JSON"}
HARMLESS = {None, "deleted check cell", "duplicated cell"}  # what costs no points: the answer is right, and grading repairs the rest


def right(course, folder):
    """Every exercise solved as in the course's source, every question answered. Returns {exercise id: None}."""
    return _write(course, folder, lambda exercise_id: None)


def wrong(course, folder):
    """Every exercise answered with the first wrong answer of the bank, every question with nothing to the point. Returns {exercise id: "wrong"}."""
    return _write(course, folder, lambda exercise_id: "bank", "I do not know.")


def stub(course, folder):
    """The release as it is. Returns {exercise id: "stub"}."""
    return _write(course, folder, lambda exercise_id: "stub", None)


def with_faults(course, folder):
    """Half of the exercises right, in the other half, and in the files, every fault. Returns {exercise id: the fault, None where there is none}.

    Exercises of a notebook that is missing or broken are told as such.
    """
    faults = _write(course, folder, FAULTS.get)
    for file in sorted(pathlib.Path(folder).glob("*/*.ipynb")):
        fault = FILE_FAULTS.get(file.stem[:2])
        if fault == "renamed file":
            file.rename(file.parent.parent / "my homework (final).ipynb")
            file.parent.rmdir()
        elif fault == "missing notebook":
            file.unlink()
            file.parent.rmdir()
        elif fault == "broken JSON":
            file.write_text(file.read_text(encoding="utf8")[:5000], encoding="utf8")
        if fault in ("missing notebook", "broken JSON"):
            faults |= {exercise_id: fault for exercise_id in faults if exercise_id[:2] == file.stem[:2]}
    return faults


def _write(course, folder, fault_of, answer=""):
    """Write each notebook of the course, faults and all. answer: to each question; "" for the course's own, None for the release's."""
    told = {}
    for release in sorted(pathlib.Path(course, "release").glob("*/*.ipynb")):
        book = nbformat.read(release, as_version=4)
        source = nbformat.read(pathlib.Path(course, "source", release.parent.name, release.name), as_version=4)
        solved = {cell.id: _uncovered(cell.source) for cell in source.cells if "BEGIN SOLUTION" in cell.source}
        for cell in book.cells:
            if cell.cell_type == "markdown" and cell.id in solved and answer is not None:
                cell.source = answer or solved[cell.id]
        for graded in exercises_in(book):
            told[graded.exercise_id] = fault_of(graded.exercise_id)
            answer_exercise(book, graded, told[graded.exercise_id], solved[graded.exercise.id])
        file = pathlib.Path(folder, release.parent.name, release.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(book, file)
    return told


def _uncovered(source):
    return "\n".join(line for line in source.splitlines() if not line.strip().startswith(("### BEGIN", "### END")))


def answer_exercise(book, graded, fault, solution):
    """Answer one exercise of a notebook: right (fault None), "stub", "bank" (a wrong answer of the bank), or with one of the faults above. solution: the solved cell."""
    stub_cell = graded.exercise.source
    graded.exercise.source = solution
    if fault == "stub":
        graded.exercise.source = stub_cell
    elif fault == "bank":
        graded.exercise.source = _with_body(stub_cell, _from_bank(graded.exercise_id, stub_cell))
    elif fault in BODIES:
        graded.exercise.source = _with_body(stub_cell, BODIES[fault])
    elif fault in PATCHES:
        graded.exercise.source = _with_body(stub_cell, BODIES["wrong"]) + "\n\n" + PATCHES[fault]
    elif fault == "deleted exercise cell":
        book.cells.remove(graded.exercise)
    elif fault == "deleted check cell":
        book.cells.remove(graded.check)
    elif fault == "edited test":
        graded.exercise.source = _with_body(stub_cell, BODIES["wrong"])
        graded.check.source = f"print('{graded.exercise_id}: passed')"
        graded.check.metadata["nbgrader"]["points"] = 100
    elif fault == "duplicated cell":
        copy = nbformat.from_dict(json.loads(json.dumps(graded.exercise)))
        copy.id, copy.source = f"copy-{graded.exercise.id}", stub_cell  # JupyterLab gives a copied cell a new id, and leaves nbgrader's name in it
        book.cells.insert(book.cells.index(graded.check) + 1, copy)
    elif fault is not None:
        raise ValueError(f"no such fault: {fault}")


def _with_body(stub_cell, body):
    return stub_cell.replace(STUB, textwrap.indent(body, "    ").strip())


def _from_bank(exercise_id, stub_cell):
    """The body of a function that hands its inputs on to the first wrong answer of the bank. It brings the bank's text along: a sandbox reads no tests."""
    text = (EXERCISES / f"test_nb{exercise_id[:2]}.py").read_text(encoding="utf8")
    inputs = re.search(r"^def \w+\((.*?)\):", stub_cell, re.MULTILINE).group(1)
    return "\n".join(["import scipy.stats, unittest.mock as mock", "space = {'__name__': 'answers'}", "with mock.patch.dict('sys.modules', bank=mock.MagicMock(), pytest=mock.MagicMock()):",
                      f"    exec({text!r}, space)", f"return space['BANK'][{exercise_id!r}]['wrong'][0][1]({inputs})"])


def graded_cells(book):
    """{nbgrader's name: cell} of a notebook."""
    return {cell.metadata["nbgrader"]["grade_id"]: cell for cell in book.cells if "nbgrader" in cell.metadata}


def check_cells(book):
    """{exercise id: check cell} of a notebook that belongs to a course."""
    named = graded_cells(book)
    return {graded.exercise_id: named[check_id(graded.exercise_id)] for graded in exercises_in(book)}
