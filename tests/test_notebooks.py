"""Every notebook: its build, its smoke run through papermill, its committed outputs through nbval."""

import ast
import json
import os
import re
import statistics
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

from miniclip_helpers import checks, series
from miniclip_helpers.coursework import written
from miniclip_helpers.series.results import load_profiles

NOTEBOOKS = series.notebook_names()
FOLDER = ROOT / "notebooks"


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def environment(tmp_path, **extra):
    """The environment of a notebook's run: no network, figures and results into the test's own folder."""
    return os.environ | {"MINICLIP_BUILD": str(tmp_path), "MINICLIP_FIGURES": str(tmp_path / "figures"), "MINICLIP_PROGRESS": "0",
                         "MINICLIP_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"} | extra


def lines(source):
    return [line for line in source.splitlines() if line.strip()]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_smoke(name, tmp_path):
    """Seconds: every cell runs, every promised result is measured."""
    command = [sys.executable, "-m", "miniclip_helpers.cli", "run", name, "--profile", "smoke"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    row = json.loads((tmp_path / "smoke" / "results.json").read_text())[name]
    assert row["status"] == "ok" and row["seconds"] > 0 and row["peak_memory_mb"] > 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_come_again(name, tmp_path):
    """nbval on the offline profile: text and shapes of a fresh run equal the committed ones; results lie in their ranges."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}",
               "--nbval-cell-timeout=600", f"--rootdir={FOLDER}", "-c", os.devnull, str(FOLDER / f"{name}.ipynb")]
    extra = {"MINICLIP_NOTEBOOK": name, "MINICLIP_PROFILE": "offline"}
    done = subprocess.run(command, env=environment(tmp_path, **extra), capture_output=True, text=True, timeout=1500, cwd=tmp_path)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_promised_skeleton(name):
    book = read(name)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    prose = [cell for cell in book.cells if cell.cell_type == "markdown"]
    assert 25 <= len(book.cells) <= 45, f"{len(book.cells)} cells"
    assert prose[0].source.startswith("# ") and "colab-badge" in prose[0].source
    assert statistics.median(len(lines(cell.source)) for cell in code) <= 8 and max(len(lines(cell.source)) for cell in code) <= 30
    assert sum(len(cell.source) for cell in prose) >= sum(len(cell.source) for cell in code)
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= 300_000
    assert "widgets" not in book.metadata and "papermill" not in book.metadata
    assert all(output.output_type != "error" and output.get("name") != "stderr" for cell in code for output in cell.outputs)
    assert all(cell.execution_count for cell in code), "outputs are committed: miniclip run --update"
    everything = "\n".join(cell.source for cell in prose)
    assert "if it fails" in everything.lower() and "next" in prose[-1].source.lower()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_exercises_have_a_stub_and_a_check(name):
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    stubs = [cell for cell in cells if "exercise" in cell.metadata.get("tags", [])]
    checks = [cell for cell in cells if "check" in cell.metadata.get("tags", [])]
    assert len(stubs) == len(checks) >= 2
    assert all("NotImplementedError" in cell.source for cell in stubs)
    assert all(re.search(r"checks\.check\(\"\d\d\.\w+\"", cell.source) for cell in checks)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_last_cell_shows_the_progress_of_its_own_notebook(name):
    cells = read(name).cells
    shown = "".join(output.data["text/plain"] for output in cells[-1].outputs)
    exercises = re.findall(r"checks\.check\(\"(\d\d\.\w+)\"", "\n".join(cell.source for cell in cells))
    assert cells[-1].source == f'checks.progress("{name[:2]}")'
    assert sorted(re.findall(r"^not attempted +(\S+)", shown, re.MULTILINE)) == sorted(exercises), "the committed output lists the exercises of this notebook"


def test_the_setup_cell_is_three_lines_and_the_same_everywhere():
    cells = {next(cell.source for cell in read(name).cells if cell.cell_type == "code") for name in NOTEBOOKS}
    assert len(cells) == 1 and len(lines(cells.pop())) == 3


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_are_literals_and_the_offline_profile_is_the_notebook(name):
    cell = next(cell for cell in read(name).cells if "parameters" in cell.metadata.get("tags", []))
    found = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)}
    profiles = load_profiles()[name]
    assert (profiles.get("offline") or {}).get("parameters", {}).items() <= found.items()
    for profile in ("smoke", "online"):
        assert profile in profiles and set((profiles[profile] or {}).get("parameters", {})) <= set(found)
    assert profiles["results"] and all(low < high for low, high in profiles["results"].values())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_figures_are_committed_and_listed(name):
    source = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")
    figures = re.findall(r"save_figure\([^\"]*\"(\d\d_\w+)\"", source)
    listed = (ROOT / "figures" / "index.md").read_text(encoding="utf8")
    assert figures
    for figure in figures:
        assert figure[:2] == name[:2] and (ROOT / "figures" / f"{figure}.png").is_file() and f"({figure}.png)" in listed


def test_result_names_are_unique_over_the_series():
    names = [result for entry in load_profiles().values() for result in entry["results"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_to_files_lead_somewhere(name):
    prose = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\((?!http|#|attachment:)([^)\s]+)\)", prose)
    assert targets, "a notebook leads to the next one at least"
    assert not [target for target in targets if not (FOLDER / target.split("#")[0]).exists()]


# --- the series as one book ----------------------------------------------------------------------------------------------------


def first_and_last(name):
    """The first and the last markdown cell of a notebook."""
    prose = [cell.source for cell in read(name).cells if cell.cell_type == "markdown"]
    return prose[0], prose[-1]


def test_there_are_twelve():
    assert [name[:2] for name in NOTEBOOKS] == [f"{number:02}" for number in range(12)]


@pytest.mark.parametrize("before, after", list(zip(NOTEBOOKS, NOTEBOOKS[1:])))
def test_each_notebook_ends_with_the_next_and_begins_with_the_last(before, after):
    assert re.search(rf"next[^\n]*\]\({after}\.ipynb\)", first_and_last(before)[1], re.IGNORECASE), f"{before} does not lead to {after}"
    assert f"({before}.ipynb)" in first_and_last(after)[0], f"{after} does not say where {before} ended"


def test_every_list_of_the_series_asks_the_notebooks_own_questions():
    questions = {name: re.search(r"^\*\*(.+\?)\*\*$", first_and_last(name)[0], re.MULTILINE).group(1) for name in NOTEBOOKS}
    start = "\n".join(cell.source for cell in read(NOTEBOOKS[0]).cells if cell.cell_type == "markdown")
    for text in (start, (FOLDER / "README.md").read_text(encoding="utf8")):
        rows = re.findall(r"^\| (?:\[\**[^\]]+\]\((\d\d_\w+)\.ipynb\)|\*\*(?:00)[^|]+) \| ([^|]+) \|", text, re.MULTILINE)
        assert {name or NOTEBOOKS[0]: question.strip() for name, question in rows} == questions


def test_the_glossary_defines_each_word_once_in_order():
    table = (FOLDER / "README.md").read_text(encoding="utf8").split("## Glossary")[1].split("\n## ")[0]
    words = [row.split("|")[1].strip() for row in table.splitlines() if row.startswith("| ")][1:]
    words = [word for word in words if not word.startswith("-")]
    assert len(words) >= 60 and words == sorted(set(words), key=str.casefold)


def instructors():
    """The part of notebooks/README.md for whoever gives a course."""
    return (FOLDER / "README.md").read_text(encoding="utf8").split("## For instructors")[1].split("\n## ")[0]


def test_the_instructors_minutes_and_points_are_those_of_the_series():
    table = {row[0]: [int(cell) for cell in row[1:]] for row in re.findall(r"^\| (\d\d|all) " + r"\| (\d+) " * 7 + r"\|$", instructors(), re.MULTILINE)}
    for name in NOTEBOOKS:
        cells, exercises = read(name).cells, checks.exercises(name[:2]).values()
        asked = [question for question in written.QUESTIONS if question.id[:2] == name[:2] and question.id != "11.project"]
        reading, *rest = table[name[:2]]
        words = sum(len(re.findall(r"\w+", cell.source)) for cell in cells if cell.cell_type == "markdown")
        code = sum(len(lines(cell.source)) for cell in cells if cell.cell_type == "code")
        assert abs(reading - (words / 150 + code / 10)) <= 5, f"{name}: {words / 150 + code / 10:.0f} minutes to read"
        assert rest == [sum(item.minutes for item in exercises), sum(question.minutes for question in asked), len(exercises), sum(item.points for item in exercises),
                        len(asked), sum(question.points for question in asked)], name
    assert table["all"] == [sum(column) for column in zip(*(table[name[:2]] for name in NOTEBOOKS))]
    assert f"{table['all'][3]} exercises that a machine grades, {table['all'][5]} questions that you mark" in instructors()


def test_the_syllabuses_add_up():
    text = instructors()
    minutes = {row[0]: sum(map(int, row[1:])) for row in re.findall(r"^\| (\d\d) \| (\d+) \| (\d+) \| (\d+) \|", text, re.MULTILINE)}
    for plan, days in (("one day", 2), ("one week", 5), ("six weeks", 6)):
        rows = re.findall(r"^\| [^|]+ \| (\d\d(?:, \d\d)*) \| ([\d.]+) \|", text.split(f"| {plan} |")[1].split("\n\n")[0], re.MULTILINE)
        taught = [number for numbers, _ in rows for number in numbers.split(", ")]
        assert len(rows) == days and taught == sorted(set(taught)) and (plan == "one day" or len(taught) == 12), plan
        for numbers, hours in rows:
            assert abs(sum(minutes[number] for number in numbers.split(", ")) / 60 - float(hours)) <= 0.25, f"{plan}: {numbers}"


def test_the_map_of_the_exercises_is_complete():
    rows = re.findall(r"^\| `(\d\d\.\w+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \| (\d+) \| (\d+) \|$", instructors(), re.MULTILINE)
    assert rows == [(item.id, item.needs, item.level, str(item.minutes), str(item.points)) for item in checks.exercises().values()]


def test_figures_are_one_family_and_none_is_left_over():
    """Every figure of the folder is of one width, listed, and drawn by a notebook; so is every file of numbers."""
    from PIL import Image

    from miniclip_helpers import plots

    folder = ROOT / "figures"
    drawn = {figure for name in NOTEBOOKS for figure in re.findall(r"save_figure\([^\"]*\"(\d\d_\w+)\"", "\n".join(cell.source for cell in read(name).cells))}
    listed = set(re.findall(r"^\| \[(\w+)\]", (folder / "index.md").read_text(encoding="utf8"), re.MULTILINE))
    assert drawn == listed == {path.stem for path in folder.glob("*.png")} == {path.stem for path in folder.glob("*.svg")}
    assert {path.stem for path in (folder / "data").iterdir()} <= drawn
    assert {Image.open(path).width for path in folder.glob("*.png")} == {round(plots.WIDTH * plots.STYLE["savefig.dpi"])}
