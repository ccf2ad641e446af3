"""The runner on small notebooks of its own: results and ranges, failures, parameters, written-back outputs; the badges."""

import json

import nbformat
import pytest

from miniclip_helpers import runtime, series
from miniclip_helpers.errors import MiniclipError, UsageError
from miniclip_helpers.series import badges, results, running

CELLS = ["from miniclip_helpers import series", "STEPS = 3", "_ = series.result('answer', 40 + STEPS - 1)\nprint('shape', (STEPS, 2))"]


@pytest.fixture
def small_series(tmp_path, monkeypatch):
    """A folder with one notebook and its profiles; the environment is put back afterwards."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    book.metadata = nbformat.from_dict({"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}, "language_info": {"name": "python"}})
    book.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(book, folder / "00_small.ipynb")
    (folder / "profiles.yaml").write_text("00_small:\n  results: {answer: [41, 43]}\n  smoke: {parameters: {STEPS: 5}, results: {answer: [0, 1]}}\n  online: {}\n")
    monkeypatch.setenv("MINICLIP_NOTEBOOKS", str(folder))
    monkeypatch.setenv("MINICLIP_BUILD", str(tmp_path / "build"))
    for name in running._environment("x", "offline", "x", "x", 1):
        monkeypatch.setenv(name, "")
    for name in ("MINICLIP_NOTEBOOK", "MINICLIP_RESULTS", "MINICLIP_PROFILE"):
        monkeypatch.delenv(name)
    results.load_profiles.cache_clear()
    yield folder
    results.load_profiles.cache_clear()


def rewrite(folder, number, source):
    book = nbformat.read(folder / "00_small.ipynb", as_version=4)
    book.cells[number].source = source
    nbformat.write(book, folder / "00_small.ipynb")


def test_a_run_records_its_results(small_series):
    row = running.run_one("00_small")
    assert row["results"] == {"answer": 42.0} and row["status"] == "ok" and row["problems"] == [] and row["seconds"] > 0 and row["peak_memory_mb"] > 20
    assert (small_series.parent / "build" / "offline" / "00_small.ipynb").is_file()


def test_a_profile_injects_its_parameters_and_has_its_own_ranges(small_series):
    row = running.run_one("00_small", "smoke")
    assert row["results"] == {"answer": 44.0} and row["status"] == "failed" and "outside 0 to 1" in row["problems"][0]


def test_a_promised_result_that_is_not_measured_fails(small_series):
    rewrite(small_series, 2, "pass")
    assert "was not measured" in running.run_one("00_small")["problems"][0]


def test_a_failing_cell_is_named(small_series):
    rewrite(small_series, 2, "1 / 0")
    row = running.run_one("00_small")
    assert row["status"] == "failed" and "cell 3 failed: ZeroDivisionError" in row["problems"][0]


def test_outputs_are_written_back_without_what_changes(small_series, tmp_path):
    running.run_one("00_small")
    running.write_back(tmp_path / "build" / "offline" / "00_small.ipynb", small_series / "00_small.ipynb")
    text = (small_series / "00_small.ipynb").read_text()
    book = nbformat.reads(text, as_version=4)
    assert "papermill" not in text and str(tmp_path) not in text and "shape (3, 2)" in book.cells[2].outputs[0].text
    first = text
    running.run_one("00_small")
    running.write_back(tmp_path / "build" / "offline" / "00_small.ipynb", small_series / "00_small.ipynb")
    assert (small_series / "00_small.ipynb").read_text() == first


def test_result_prints_its_range(small_series, capsys):
    series.result("answer", 42)
    series.result("answer", 99)
    series.result("other", 1)
    assert capsys.readouterr().out.splitlines() == ["answer = 42 (inside 41 to 43)", "answer = 99 (OUTSIDE 41 to 43)", "other = 1"]


def test_names_are_found_by_number_and_unknown_ones_are_told(small_series):
    assert running.pick(["00"]) == running.pick(["00_small.ipynb"]) == running.pick([]) == ["00_small"]
    with pytest.raises(UsageError, match="unknown notebook '77'"):
        running.pick(["77"])
    with pytest.raises(UsageError, match="did you mean smoke"):
        series.run(profile="smok")
    with pytest.raises(MiniclipError, match="only the offline profile"):
        series.run(profile="smoke", update=True)


def test_results_json_keeps_what_other_runs_wrote(small_series):
    rows = {"00_small": {"seconds": 1, "peak_memory_mb": 2, "status": "ok", "results": {"answer": 42}, "problems": []}}
    running._write_results(rows, "offline")
    running._write_results({"01_other": rows["00_small"]}, "offline")
    written = json.loads((runtime.build_dir() / "results.json").read_text())
    assert list(written) == ["00_small", "01_other"] and set(written["00_small"]) == {"seconds", "peak_memory_mb", "status", "results"}


def test_badges_are_rewritten_from_the_address():
    text = ('[c](https://colab.research.google.com/github/old/name/blob/main/notebooks/00.ipynb) https://mybinder.org/v2/gh/old/name/main '
            'git+https://github.com/old/name" and git clone https://github.com/old/name\n')
    new = badges._with_address(text, "a-b/c.d")
    assert new.count("a-b/c.d") == 4 and "old/name" not in new and badges._with_address(new, "a-b/c.d") == new


def test_the_projects_badges_are_in_step():
    name = badges.repository()
    for file in [runtime.CHECKOUT / "README.md", *(runtime.CHECKOUT / "notebooks").glob("*.ipynb")]:
        text = file.read_text(encoding="utf8")
        assert badges._with_address(text, name) == text, f"run: miniclip badges ({file.name})"


def test_doctor_says_what_to_try(monkeypatch):
    checks = series.examine()
    assert {"what", "ok", "found", "try"} == set(checks[0]) and all(check["ok"] or check["try"] for check in checks)
    assert any("sha256 verified" in check["found"] for check in checks)
    monkeypatch.setenv("MINICLIP_CACHE", "/proc/nowhere")
    bad = [check for check in series.examine() if not check["ok"]]
    assert any("MINICLIP_CACHE" in check["try"] for check in bad)
