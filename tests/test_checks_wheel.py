"""The checks as a learner has them: from the built wheel alone, without this checkout and without a network, in a plain Python and in a kernel."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import nbformat
import pytest
from conftest import ROOT

# What runs before the package: no connection leaves this process, and nothing of the checkout or of nbgrader is at hand. Not tests/cutting.py: PYTHONPATH is the wheel's
# alone here, and this has to stand in a cell of a kernel, too.
PRELUDE = """
import socket, sys
class Closed(socket.socket):
    def __init__(self, family=socket.AF_INET, *rest, **named):
        if family in (socket.AF_INET, socket.AF_INET6, -1):
            raise OSError("there is no network here")
        super().__init__(family, *rest, **named)
socket.socket = Closed
try:
    import errno, pyseccomp
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for family in (socket.AF_INET, socket.AF_INET6):
        rules.add_rule(pyseccomp.ERRNO(errno.EACCES), "socket", pyseccomp.Arg(0, pyseccomp.EQ, int(family)))
    rules.load()
except Exception as error:
    print("no seccomp here:", type(error).__name__)
sys.modules["nbgrader"] = None
"""

PLAIN = """
import json, miniclip_helpers
from miniclip_helpers import checks
told = {}
for name, item in checks.exercises().items():
    def stub(*inputs):
        raise NotImplementedError("your turn")
    told[name] = {"stub": repr(checks.check(name, stub)), "wrong": repr(checks.check(name, lambda *inputs: 0.0)), "right": repr(checks.check(name, item.reference)),
                  "hints": [repr(checks.hint(name)) for _ in item.hints], "solution": repr(checks.solution(name))}
print(json.dumps({"file": miniclip_helpers.__file__, "told": told, "progress": repr(checks.progress())}))
"""


def uv():
    """The program that builds wheels here: what `uv run` says it is, what is on the PATH, or what make has brought."""
    for found in (os.environ.get("UV"), shutil.which("uv"), str(ROOT / ".uv" / "bin" / "uv")):
        if found and pathlib.Path(found).is_file():
            return found
    return pytest.skip("uv, which builds the wheel, is not on this machine")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the wheel's content and nothing else; first on the path, before the editable checkout. Built where somebody has worked in notebooks/."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("data", "docs", "miniclip_helpers", "notebooks"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):  # no .gitignore: what is left out must not hang on it
        shutil.copy2(ROOT / name, folder / "source")
    for stray in (".ipynb_checkpoints/00_start_here-checkpoint.ipynb", ".ipynb_checkpoints/README-checkpoint.md", "conf.py", "pages/layout.py", "photo.png"):
        (folder / "source" / "notebooks" / stray).parent.mkdir(exist_ok=True)
        (folder / "source" / "notebooks" / stray).touch()
    command = [uv(), "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(folder / "source")]
    built = subprocess.run([*command, "--offline"], capture_output=True, text=True, timeout=300)
    if built.returncode:  # the build backend is not in uv's cache yet
        built = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def alone(installed, tmp_path, monkeypatch):
    """The environment of somebody who has the wheel only, in an empty folder."""
    for name in [key for key in os.environ if key.startswith("MINICLIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return installed


@pytest.fixture
def said(alone):
    """What a plain Python says of every exercise."""
    done = subprocess.run([sys.executable, "-c", PRELUDE + PLAIN], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_notebooks_folder_holds_the_series_alone(installed):
    folder = installed / "miniclip_helpers" / "notebooks"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {path.name for path in (ROOT / "notebooks").iterdir() if path.suffix in (".ipynb", ".md", ".yaml")}
    assert len(found) >= 14 and {"README.md", "profiles.yaml"} < found
    assert {path.name for path in installed.iterdir()} == {"miniclip_helpers", next(installed.glob("*.dist-info")).name}  # no docs/


def test_a_plain_python_checks_every_exercise(said, alone):
    assert pathlib.Path(said["file"]).is_relative_to(alone)
    for name, told in said["told"].items():
        assert told["stub"].startswith(f"{name}: not attempted") and told["wrong"].startswith(f"{name}: not yet") and told["right"].startswith(f"{name}: passed"), told
        assert [f"hint {number} of {len(told['hints'])}" in text for number, text in enumerate(told["hints"], 1)] == [True] * len(told["hints"])
        assert "def " in told["solution"]
    points = re.match(r"(\d+) of (\d+) points", said["progress"])
    assert len(said["told"]) >= 36 and points.group(1) == points.group(2)


def test_the_network_is_really_gone(alone):
    for attempt in ("socket.create_connection(('127.0.0.1', 9))", "import _socket; _socket.socket(_socket.AF_INET)"):
        done = subprocess.run([sys.executable, "-c", PRELUDE + attempt], capture_output=True, text=True, timeout=60)
        if "no seccomp here" not in done.stdout or "_socket" not in attempt:
            assert done.returncode and ("no network here" in done.stderr or "Permission denied" in done.stderr), attempt


def exercise_cells(folder):
    """The stub, check and progress cells of the wheel's own notebooks."""
    for file in sorted((folder / "miniclip_helpers" / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for cell in nbformat.read(file, as_version=4).cells:
            if {"exercise", "check"} & set(cell.metadata.get("tags", [])) or cell.source.startswith("checks.progress"):
                yield cell.source


def shown(cell):
    return "".join(output["data"]["text/plain"] for output in cell.outputs)


def test_a_kernel_shows_verdicts_hints_solutions_and_progress(alone):
    """Every exercise of the wheel's notebooks as it was handed out; then one answer, its hint and its solution."""
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient

    answer = "def cosine(a, b):\n    return np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)"
    first = [PRELUDE, "import numpy as np\nimport torch\nimport miniclip_helpers\nfrom miniclip_helpers import checks\nmini = miniclip_helpers.__file__\nmini"]
    last = [answer, 'checks.check("00.cosine", cosine)', 'checks.hint("00.cosine")', 'checks.solution("00.cosine")', 'checks.progress("00")',
            'checks.start_course("00", points=5)', 'checks.solution("00.cosine")']
    sources = [*first, *exercise_cells(alone), *last]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc")  # a kernel that needs no network either
    NotebookClient(book, timeout=120, km=manager).execute()
    assert pathlib.Path(shown(book.cells[1]).strip("'")).is_relative_to(alone)
    handed_out = [cell for cell in book.cells[2:-7] if cell.source.startswith("checks.check(")]
    assert len(handed_out) >= 36 and all(": not attempted." in shown(cell) and "<div" in cell.outputs[0]["data"]["text/html"] for cell in handed_out)
    assert sum(cell.source.startswith("checks.progress(") and shown(cell).startswith("0 of ") for cell in book.cells[:-7]) == 12
    verdict, hint, solution, progress, opened, closed = book.cells[-6:]
    assert shown(verdict).startswith("00.cosine: passed") and "hint 1 of" in shown(hint) and "def cosine" in shown(solution)
    assert "<div" in progress.outputs[0]["data"]["text/html"] and re.search(r"^passed +00\.cosine", shown(progress), re.MULTILINE)
    assert "5 points" in shown(opened) and "def cosine" not in shown(closed), "as in the first cell of a release"
