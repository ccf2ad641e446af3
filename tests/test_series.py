"""The runner on small notebooks of its own: results and ranges, failures, parameters, written-back outputs; the badges."""

import concurrent.futures
import json

import nbformat
import pytest

from miniclip_helpers import plots, runtime, series
from miniclip_helpers.errors import MiniclipError, UsageError
from miniclip_helpers.series import badges, figures, results, running

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


DRAW = "from miniclip_helpers import plots\n_ = plots.save_figure(plots.bars({'a': 0.25}, 'share'), \"00_new\", 'A bar.', 'One bar.')"


def stale(folder, name):
    """A figure that an earlier run left."""
    for part in (f"{name}.png", f"{name}.svg", f"data/{name}.json"):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).write_text("of an earlier run")
    plots.write_index(folder, plots.read_index(folder) | {name: {"caption": "c", "alt": "a", "timed": False}})


def files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}


def test_what_an_earlier_run_drew_does_not_count_as_drawn(small_series, monkeypatch):
    """A figure that the series draws no more, of this notebook; those of others stay."""
    rewrite(small_series, 0, CELLS[0] + "\n" + DRAW)
    drawn, committed = small_series.parent / "build" / "offline" / "figures", small_series.parent / "figures"
    monkeypatch.setattr(runtime, "CHECKOUT", small_series.parent)
    monkeypatch.setattr(runtime, "in_checkout", lambda: True)
    for folder in (drawn, committed):
        stale(folder, "00_old"), stale(folder, "01_other")
    monkeypatch.setattr(figures, "run", lambda names, jobs, say: {name: running.run_one(name) for name in names})
    found = figures.check_figures()
    assert "no notebook of this run draws it" in found["00_old"]["problems"]
    assert set(files(drawn)) == {"index.md", "00_new.png", "00_new.svg", "data/00_new.json", "01_other.png", "01_other.svg", "data/01_other.json"}
    assert sorted(plots.read_index(drawn)) == ["00_new", "01_other"]


def test_figures_go_back_with_their_notebook_or_not_at_all(small_series, monkeypatch):
    committed = small_series.parent / "figures"
    monkeypatch.setattr(runtime, "CHECKOUT", small_series.parent)
    stale(committed, "00_new"), stale(committed, "01_other")
    rewrite(small_series, 0, CELLS[0] + "\n" + DRAW)
    rewrite(small_series, 2, "1 / 0")
    before = files(committed), files(small_series)
    assert running.run_one("00_small", update=True)["status"] == "failed" and (files(committed), files(small_series)) == before
    rewrite(small_series, 2, CELLS[2])
    assert running.run_one("00_small", update=True)["status"] == "ok"
    now, drawn = files(committed), files(small_series.parent / "build" / "offline" / "figures")
    new = ("00_new.png", "00_new.svg", "data/00_new.json")
    assert all(now[part] == drawn[part] and now[part] != before[0][part] for part in new)
    assert set(now) == set(before[0]) and all(now[part] == before[0][part] for part in now if "01_other" in part)
    assert {name: row["caption"] for name, row in plots.read_index(committed).items()} == {"00_new": "A bar.", "01_other": "c"}
    assert nbformat.read(small_series / "00_small.ipynb", as_version=4).cells[2].outputs


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
    file = small_series.parent / "results.json"
    running._write_results(rows, file)
    running._write_results({"01_other": rows["00_small"]}, file)
    written = json.loads(file.read_text())
    assert list(written) == ["00_small", "01_other"] and set(written["00_small"]) == {"seconds", "peak_memory_mb", "status", "results"}


def test_an_update_keeps_the_results_beside_the_outputs_and_a_failure_or_another_run_does_not(small_series, monkeypatch):
    monkeypatch.setattr(runtime, "CHECKOUT", small_series.parent)
    monkeypatch.setattr(runtime, "in_checkout", lambda: True)
    kept = small_series / "results.json"

    class Here:  # in this process: what a pool would import again would know nothing of the checkout above
        def __init__(self, *args, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, work, name, log, **options):
            future = concurrent.futures.Future()
            future.set_result(running.run_one(name, **options))
            return future

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Here)
    series.run(say=lambda text: None)
    assert not kept.exists()
    series.run(update=True, say=lambda text: None)
    (name, row), = json.loads(kept.read_text()).items()
    assert name == "00_small" and row["results"] == {"answer": 42} and row["seconds"] > 0 and "problems" not in row
    before = kept.read_bytes()
    rewrite(small_series, 2, "1 / 0")
    series.run(update=True, say=lambda text: None)
    assert kept.read_bytes() == before


def test_badges_are_rewritten_from_the_address():
    text = ('[c](https://colab.research.google.com/github/old/name/blob/main/notebooks/00.ipynb) https://mybinder.org/v2/gh/old/name/main '
            'git+https://github.com/old/name" and git clone https://github.com/old/name\n')
    new = badges._with_address(text, "a-b/c.d")
    assert new.count("a-b/c.d") == 4 and "old/name" not in new and badges._with_address(new, "a-b/c.d") == new


def test_the_projects_badges_are_in_step():
    name = badges.repository()
    files = [runtime.CHECKOUT / "README.md", *(runtime.CHECKOUT / "notebooks").glob("*.ipynb")]
    assert len(files) == 13
    for file in files:
        text = file.read_text(encoding="utf8")
        assert badges._with_address(text, name) == text, f"run: miniclip badges ({file.name})"


def test_doctor_says_what_to_try(monkeypatch):
    checks = series.examine()
    assert {"what", "ok", "found", "try"} == set(checks[0]) and all(check["ok"] or check["try"] for check in checks)
    assert any("sha256 verified" in check["found"] for check in checks)
    monkeypatch.setenv("MINICLIP_CACHE", "/proc/nowhere")
    bad = [check for check in series.examine() if not check["ok"]]
    assert any("MINICLIP_CACHE" in check["try"] for check in bad)
