"""Figures on disk: the same bytes twice, words and numbers beside them, the cell that drew them; `miniclip figures --check` sees each kind of change."""

import base64
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest
from conftest import ROOT, picture
from PIL import Image
from test_cli import call

from miniclip_helpers import plots, runtime
from miniclip_helpers.errors import DataError, UsageError
from miniclip_helpers.series import check_figures, figures

NAMES = {"00_pipeline": "00-32", "00_one_query_five_pictures": "00-16"}
CAPTION, ALT = "Falls | fast < slow & “sure”.", "A line that falls."
DATA = {"loss": [3.0, 2.0, 1.0], "name": "a 0.50"}
DRAW = """
import pathlib, sys
from PIL import Image
from miniclip_helpers import plots
from miniclip_helpers.plots import saving
figure = plots.image_grid([Image.linear_gradient("L").rotate(30 * n).convert("RGB") for n in range(3)], list("abc"), colours=["red", "green", "red"])
figure.axes[0].plot([0, 20], [0, 20])
figure.axes[1].fill_between([0, 20], [0, 3], [3, 9], alpha=0.3, hatch="/")
plots.save_figure(figure, "00_pipeline", "Three.", "Three pictures.")
print("ready", flush=True), sys.stdin.readline()
for number in range(40):
    saving._list_figure(pathlib.Path("both"), f"9{sys.argv[1]}_x{number}", {"caption": "c", "alt": "a", "timed": False})
"""


def draw(folder, monkeypatch, name="00_pipeline", height=3.2, level=1.0, **options):
    monkeypatch.setenv("MINICLIP_FIGURES", str(folder))
    figure = plots.curves({"loss": ([1, 2, 3], [3 * level, 2 * level, level])}, "step", "loss", height=height)
    return plots.save_figure(figure, name, options.pop("caption", CAPTION), options.pop("alt", ALT), **options)


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory):
    """A folder with the two figures of the first notebook, and no checkout around it yet."""
    folder = tmp_path_factory.mktemp("drawn_once")
    with pytest.MonkeyPatch.context() as monkeypatch:
        draw(folder, monkeypatch, data=DATA)
        draw(folder, monkeypatch, "00_one_query_five_pictures", data=[{"name": "b", "score": 0.5}], timed=True)
    return folder


@pytest.fixture
def checkout(drawn_once, tmp_path, monkeypatch):
    """A checkout with the first notebook and its two figures, committed; and the same figures of a run: (committed, drawn)."""
    monkeypatch.setattr(runtime, "CHECKOUT", tmp_path)
    monkeypatch.setattr(runtime, "in_checkout", lambda: True)
    monkeypatch.setenv("MINICLIP_BUILD", str(tmp_path / "build"))
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "00_start_here.ipynb", tmp_path / "notebooks")
    for name in ("figures", "drawn"):
        shutil.copytree(drawn_once, tmp_path / name)
        plots.write_index(tmp_path / name, plots.read_index(tmp_path / name))
    return tmp_path / "figures", tmp_path / "drawn"


def retell(folder, data, name="00_pipeline"):
    """Put other numbers behind a figure."""
    file = folder / "data" / f"{name}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"told": data}))


def problems(drawn, **options):
    return " ".join(problem for row in check_figures(drawn=drawn, **options).values() for problem in row["problems"])


def test_two_processes_draw_the_same_bytes_and_lose_no_line_of_the_index(tmp_path):
    running = []
    for number, run in enumerate("ab"):
        environment = os.environ | {"MINICLIP_FIGURES": str(tmp_path / run), "PYTHONHASHSEED": str(number + 1)}
        running.append(subprocess.Popen([sys.executable, "-c", DRAW, str(number)], cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    assert [process.stdout.readline() for process in running] == ["ready\n"] * 2
    (tmp_path / "both").mkdir()
    for process in running:  # both list their figures at once
        process.stdin.write("go\n"), process.stdin.flush()
    assert [process.wait() for process in running] == [0, 0]
    files = {file.relative_to(tmp_path / "a"): file.read_bytes() for file in (tmp_path / "a").rglob("*.*")}
    assert len(files) == 4 and files == {file.relative_to(tmp_path / "b"): file.read_bytes() for file in (tmp_path / "b").rglob("*.*")}
    assert len(plots.read_index(tmp_path / "both")) == 80


def test_the_files_carry_caption_and_alternative_text_and_no_date(tmp_path, monkeypatch):
    draw(tmp_path, monkeypatch)
    svg = xml.etree.ElementTree.parse(tmp_path / "00_pipeline.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert svg.get("role") == "img" and [svg.find(f"{space}{part}").text for part in ("title", "desc")] == [CAPTION, ALT]
    text = (tmp_path / "00_pipeline.svg").read_text(encoding="utf8")
    assert "dc:date" not in text and "atplotlib" not in text.replace("matplotlib.org", "").split("<defs>")[0]
    with Image.open(tmp_path / "00_pipeline.png") as png:
        assert png.text == {"Title": CAPTION, "Description": ALT} and png.width == 1440


def test_the_svg_shows_what_the_png_shows(tmp_path, monkeypatch):
    resvg = pytest.importorskip("resvg_py")
    draw(tmp_path, monkeypatch)
    drawn = Image.open(io.BytesIO(bytes(resvg.svg_to_bytes(svg_path=str(tmp_path / "00_pipeline.svg"), dpi=96, width=1440)))).convert("L")  # without a resolution it takes points for nothing
    png = Image.open(tmp_path / "00_pipeline.png").convert("L").resize(drawn.size)
    small = [np.asarray(image.resize((144, 64)), dtype=float) for image in (drawn, png)]
    assert np.abs(small[0] - small[1]).mean() < 4 and np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.9


def test_an_svg_takes_pictures_with_their_own_pixels_and_leaves_the_figure_as_it_was():
    """A photo goes in as it is, to be smoothed; a matrix cell for cell, to stay sharp; what is larger than shown is made smaller."""
    small, large = picture(1, (64, 48)), picture(2, (900, 900))
    figure = plots.image_grid([small, large, small], ["a word", "", ""])
    figure.axes[2].clear(), figure.axes[2].imshow(np.eye(5))
    images = [image for axes in figure.axes for image in axes.images]
    before = [(image.get_interpolation(), image.get_gid()) for image in images]
    svg = plots.to_svg(figure)
    assert [(image.get_interpolation(), image.get_gid()) for image in images] == before and len(images) == 3
    found = [(element, Image.open(io.BytesIO(base64.b64decode(element.split("base64,")[1].split('"')[0])))) for element in re.findall(r"<image [^>]*>", svg)]
    assert [image.size for _, image in found][::2] == [(64, 48), (5, 5)] and found[1][1].width < 600
    assert np.array_equal(np.asarray(found[0][1]), np.asarray(small))
    assert "pixelated" not in found[0][0] and "pixelated" in found[2][0]
    assert "<!-- a word -->" in svg and not re.search(r' d="[^"]*\d\.\d{3}', svg)


def test_numbers_are_read_off_a_figure(tmp_path, monkeypatch):
    draw(tmp_path, monkeypatch, data={"b": 1})
    kept = json.loads((tmp_path / "data" / "00_pipeline.json").read_text())
    (axes,) = kept["drawn"]
    assert axes["lines"] == [[[1, 3], [2, 2], [3, 1]]] and axes["x label"] == "step" and kept["told"] == {"b": 1}
    grid = plots.numbers_in(plots.image_grid([Image.new("RGB", (4, 3), (255, 0, 51))], ["red"]))
    assert grid == [{"title": "red", "pictures": [{"size": [3, 4, 3], "mean": [255, 0, 51]}]}]
    bars = plots.numbers_in(plots.bars({"a": 0.25}, "share", intervals={"a": (0.2, 0.35)}))[0]
    assert [bar[3] for bar in bars["bars"]] == [0.25] and bars["words"] == ["25%"] and bars["whiskers"] == [[[0, 0.2, 0, 0.35]]]
    cloud = plots.numbers_in(plots.curves({"x": (range(9999), [*range(9998), float("nan")])}, "a", "b"))[0]["lines"][0]
    assert len(cloud) == 500 and cloud[0] == [0, 0] and cloud[-1] == [9998, None]
    (band,) = plots.numbers_in(plots.curves({"x": ([1, 2], [3, 4])}, "a", "b", bands={"x": ([2, 3], [5, 6])}))[0]["bands"]
    assert {tuple(corner) for corner in band} == {(1, 2), (2, 3), (2, 6), (1, 5)}
    assert plots.numbers_in(plots.similarity_matrix(np.eye(2), list("ab")))[0]["pictures"] == [{"cells": [[1, 0], [0, 1]]}]


def test_the_index_names_notebook_and_cell(checkout):
    committed, _ = checkout
    found = plots.read_index(committed)
    assert {name: row["cell"] for name, row in found.items()} == NAMES and found["00_pipeline"]["caption"] == CAPTION
    assert [row["timed"] for row in found.values()] == [True, False] and "](../notebooks/00_start_here.ipynb)" in (committed / "index.md").read_text(encoding="utf8")
    before = (committed / "index.md").read_bytes()
    plots.write_index(committed, found)
    assert (committed / "index.md").read_bytes() == before


def test_what_was_committed_passes(checkout, capsys):
    found = check_figures(drawn=checkout[1], exact=True)
    assert all(row == {"problems": [], "moved": 0.0, "same_bytes": True} for row in found.values()) and sorted(found) == sorted(NAMES)
    assert call("figures", "00", "--check", "--exact", "--drawn", checkout[1], "--json", checkout[1] / "found.json") == 0
    said = capsys.readouterr().out
    assert "2 figures: 2 as committed, 0 to look at; 2 the same to the byte" in said and re.search(r"\n00 +2 +0 +2 +0\.00%\n", said)
    assert json.loads((checkout[1] / "found.json").read_text()) == found


@pytest.mark.parametrize("data, words", [
    (DATA | {"loss": [3.0, 2.0, 1.2]}, r"data\['told'\]\['loss'\]\[2\]: 1, in this run 1.2"),
    (DATA | {"loss": [3.0, 2.0]}, "3 entries, in this run 2"),
    ({"lost": [3.0, 2.0, 1.0], "name": "a 0.50"}, "not the same ones"),
    (DATA | {"name": "b 0.50"}, "'a 0.50', in this run 'b 0.50'"),
    (DATA | {"name": "a 0.54"}, "'a 0.50', in this run 'a 0.54'"),
    (DATA | {"loss": [3.0, 2.0, None]}, "1.0, in this run None"),
    (DATA | {"loss": [3.0, float("nan"), 1.0]}, "2.0, in this run nan"),
])
def test_other_numbers_are_seen(checkout, capsys, data, words):
    retell(checkout[1], data)
    assert re.search(words, problems(checkout[1]))
    assert call("figures", "--check", "--drawn", checkout[1]) == 1 and "LOOK  00_pipeline" in capsys.readouterr().out


@pytest.mark.parametrize("change, words", [({"height": 3.3}, "size"), ({"caption": "Other."}, "caption"), ({"alt": "Other."}, "alternative text"), ({"timed": True}, "differs"),
                                           ({"level": 1.2}, r"'drawn'.*3, in this run 3.6")])
def test_another_drawing_is_seen(checkout, monkeypatch, change, words):
    draw(checkout[1], monkeypatch, **{"data": DATA} | change)
    assert re.search(words, problems(checkout[1]))


@pytest.mark.parametrize("old, new, same", [("0.43", "0.44", True), ("0.43", "0.46", False), ("43%", "44%", True), ("top-1", "top-2", False), ("a", "b", False),
                                            ("100 of 220", "104 of 220", True), ("100 of 220", "110 of 220", False), ("-0.2", "0.2", False), ("2.5 ms", "2.5 s", False)])
def test_numbers_in_words_may_move_as_far_as_others(old, new, same):
    assert figures.same_words(old, new, 0.05) == same and figures.differences(old, new, math.inf) == (0.0, [])


def test_ink_is_compared(checkout, monkeypatch):
    monkeypatch.setenv("MINICLIP_FIGURES", str(checkout[1]))
    figure = plots.curves({"loss": ([1, 2, 3], [3, 2, 1])}, "step", "loss")
    figure.axes[0].axvspan(1, 2)
    plots.save_figure(figure, "00_pipeline", CAPTION, ALT, data=DATA)
    assert "ink" in problems(checkout[1])


def test_small_moves_are_forgiven_and_told_but_not_where_bytes_are_asked_for(checkout):
    retell(checkout[1], DATA | {"loss": [3.0, 2.0, 1.06]})
    found = check_figures(drawn=checkout[1])["00_pipeline"]
    assert found["problems"] == [] and found["moved"] == pytest.approx(0.02) and not found["same_bytes"]  # of 3, the largest beside it
    assert "not the same bytes" in problems(checkout[1], exact=True) and "1.06" in problems(checkout[1], tolerance=0.015)


def test_seconds_are_excused_from_numbers_and_bytes(checkout):
    for data in ([{"name": "b", "score": 9.5}], [{"name": "c", "score": None}] * 2, {"b": "no list"}, "words"):
        retell(checkout[1], data, "00_one_query_five_pictures")
        assert problems(checkout[1], exact=True) == ""


@pytest.mark.parametrize("harm, words", [
    (lambda folder: (folder / "00_pipeline.svg").unlink(), "SVG is missing"),
    (lambda folder: (folder / "00_pipeline.png").unlink(), "picture is missing"),
    (lambda folder: shutil.copy(folder / "00_pipeline.png", folder / "00_older.png"), "not in figures/index.md"),
    (lambda folder: shutil.copy(folder / "00_pipeline.svg", folder / "00_older.svg"), "not in figures/index.md"),
    (lambda folder: (folder / "data" / "00_older.json").write_text("{}"), "no notebook of this run draws it"),
    (lambda folder: (folder / "data" / "00_pipeline.json").unlink(), "data is missing"),
    (lambda folder: Image.new("RGB", (1440, 640), "white").save(folder / "00_pipeline.png"), "0.0% of its pixels have ink"),
    (lambda folder: Image.new("RGB", (1440, 640), "black").save(folder / "00_pipeline.png"), "not light"),
    (lambda folder: picture(0, (720, 320)).save(folder / "00_pipeline.png"), "720 pixels wide, the others 1440"),
    (lambda folder: (folder / "index.md").write_text((folder / "index.md").read_text(encoding="utf8").replace("`00-32`", "`00-33`"), encoding="utf8"), "00-33"),
    (lambda folder: (folder / "index.md").write_text("\n".join(line for line in (folder / "index.md").read_text(encoding="utf8").splitlines() if "pipeline" not in line),
                                                     encoding="utf8"), "not in figures/index.md"),
    (lambda folder: (folder / "00_pipeline.svg").write_text(re.sub(r"scale\(0\.1 -0\.1\)", "scale(0.05 -0.05)", (folder / "00_pipeline.svg").read_text(encoding="utf8")),
                                                            encoding="utf8"), "smallest letters are 5.8 pixels"),
    (lambda folder: (folder / "00_pipeline.svg").write_text((folder / "00_pipeline.svg").read_text(encoding="utf8").replace(f"<desc>{ALT}", "<desc>A cat."),
                                                            encoding="utf8"), "SVG does not carry its caption"),
    (lambda folder: (folder / "00_pipeline.svg").write_text(re.sub("<title>.*?</title>", "", (folder / "00_pipeline.svg").read_text(encoding="utf8"), count=1),
                                                            encoding="utf8"), "SVG does not carry its caption"),
    (lambda folder: (folder / "data" / "00_pipeline.json").write_text('{"told": 3}'), "data do not hold what is drawn"),
    (lambda folder: (folder / "data" / "00_pipeline.json").write_text('{"told": 3, "drawn": []}'), "data do not hold what is drawn"),
    (lambda folder: (folder / "data" / "00_pipeline.json").write_text("[3]"), "data do not hold what is drawn"),
])
def test_each_fault_of_a_committed_figure_is_seen(checkout, harm, words):
    harm(checkout[0])
    assert words in problems(checkout[1])


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("part, content", [("data/00_pipeline.json", b"<<<<<<< HEAD\n{}\n"), ("data/00_pipeline.json", b"\xff"), ("00_pipeline.png", None),
                                           ("00_pipeline.png", b"no picture"), ("00_pipeline.svg", None), ("00_pipeline.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")])
def test_a_damaged_file_is_told_and_the_others_are_checked_all_the_same(checkout, side, part, content):
    """On either side: of the run's SVG nothing is asked but its bytes."""
    file = checkout[side] / part
    file.write_bytes(file.read_bytes()[:-2000] if content is None else content)
    retell(checkout[1], DATA, "00_one_query_five_pictures")
    found = check_figures(drawn=checkout[1], exact=True)
    told = " ".join(found["00_pipeline"]["problems"])
    assert sorted(found) == sorted(NAMES) and not found["00_pipeline"]["same_bytes"]
    if side and part.endswith("svg"):
        assert told == "not the same bytes"
    else:
        assert told.count(f"{part.split('/')[-1]} cannot be read") == 1 and "draw it again with miniclip figures 00" in told
    assert found["00_one_query_five_pictures"]["problems"] == []


@pytest.mark.parametrize("line", ["| [00_pipeline](00_pipeline.png) | cell | caption |", "| [](x.png) | a | b | c |", "<<<<<<< HEAD", "| [00_pipeline] | a | b | c | d | e |"])
def test_a_bad_line_of_the_index_is_shown(checkout, line):
    for folder in checkout:
        before = (folder / "index.md").read_text(encoding="utf8")
        (folder / "index.md").write_text(before + line + "\n", encoding="utf8")
        with pytest.raises(DataError, match=re.escape(line)):
            check_figures(drawn=checkout[1])
        (folder / "index.md").write_text(before, encoding="utf8")


def test_figures_of_one_notebook_are_taken_and_forgotten_alone(drawn_once, tmp_path, monkeypatch):
    draw(tmp_path / "here", monkeypatch, "01_other")
    (tmp_path / "here" / "00_pipeline.png").write_bytes(b"older")
    other = {file: file.read_bytes() for file in (tmp_path / "here").rglob("01_*")}
    plots.take_figures(drawn_once, tmp_path / "here", "00")
    for name in NAMES:
        for part in (f"{name}.png", f"{name}.svg", f"data/{name}.json"):
            assert (tmp_path / "here" / part).read_bytes() == (drawn_once / part).read_bytes()
    assert sorted(plots.read_index(tmp_path / "here")) == sorted([*NAMES, "01_other"])
    plots.forget_figures(tmp_path / "here", "00")
    assert sorted(plots.read_index(tmp_path / "here")) == ["01_other"] and not list((tmp_path / "here").rglob("00_*"))
    assert other == {file: file.read_bytes() for file in (tmp_path / "here").rglob("01_*")} and len(other) == 3


def test_a_figure_that_is_drawn_no_more(checkout):
    shutil.rmtree(checkout[1] / "data")
    lines = (checkout[1] / "index.md").read_text(encoding="utf8").splitlines()
    (checkout[1] / "index.md").write_text("\n".join(line for line in lines if "pipeline" not in line), encoding="utf8")
    found = check_figures(drawn=checkout[1])
    assert found["00_pipeline"]["problems"] == ["no notebook of this run draws it"] and found["00_one_query_five_pictures"]["problems"] == ["the run's files are not whole"]


def test_what_cannot_be_saved_leaves_the_files_of_before(tmp_path, monkeypatch):
    draw(tmp_path, monkeypatch)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    with pytest.raises(UsageError, match=r"plain JSON.*float32"):
        draw(tmp_path, monkeypatch, level=2.0, data={"loss": np.float32(1)})
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*")} == before


def test_letters_on_a_narrow_page(tmp_path, monkeypatch):
    draw(tmp_path, monkeypatch)
    assert plots.look_at_svg(tmp_path / "00_pipeline.svg")["letters"] == pytest.approx(10 * 600 / 518.4, abs=0.01)  # 10 points of 518.4, 600 pixels wide
    monkeypatch.setenv("MINICLIP_FIGURES", str(tmp_path))
    figure = plots.image_grid([picture(1)])
    plots.save_figure(figure, "00_pipeline", CAPTION, ALT)
    assert plots.look_at_svg(tmp_path / "00_pipeline.svg")["letters"] is None  # a picture is no letter


def test_wrong_use_is_told(checkout, tmp_path, monkeypatch, capsys):
    for words in (["--exact"], ["--drawn", "x"], ["--tolerance", "0.1"], ["--check", "--tolerance", "2"], ["77", "--check"]):
        assert call("figures", *words) == 2
    with pytest.raises(DataError, match=r"index\.md"):
        check_figures(drawn=tmp_path / "nowhere")
    monkeypatch.setattr(runtime, "in_checkout", lambda: False)
    with pytest.raises(UsageError, match="clone"):
        check_figures()
    assert "Traceback" not in capsys.readouterr().err


def test_a_check_without_a_folder_runs_the_notebooks(checkout, monkeypatch):
    ran = []
    def run(names, jobs, say):
        ran.extend(names)
        shutil.copytree(checkout[1], runtime.build_dir() / "offline" / "figures")
        return {name: {"problems": []} for name in names}

    monkeypatch.setattr(figures, "run", run)
    assert all(not row["problems"] for row in check_figures().values()) and ran == ["00_start_here"]
    monkeypatch.setattr(figures, "run", lambda names, jobs, say: {name: {"problems": ["cell 3 failed"]} for name in names})
    with pytest.raises(DataError, match="cell 3 failed"):
        check_figures()


def test_drawing_tells_what_became_of_each_figure(checkout, monkeypatch, capsys):
    def run(names, jobs, update, say):
        assert update
        draw(checkout[0], monkeypatch, data=DATA, level=2.0)
        return {"00_start_here": {"status": "ok", "seconds": 7.4, "problems": []}}

    monkeypatch.setattr(figures, "run", run)
    shutil.copy(checkout[0] / "00_pipeline.png", checkout[0] / "00_older.png")
    shutil.copy(checkout[0] / "00_pipeline.png", checkout[0] / "01_of_another_notebook.png")
    assert call("figures", "00", "--json", checkout[1] / "found.json") == 0
    said, kept = capsys.readouterr().out, json.loads((checkout[1] / "found.json").read_text())
    assert kept["figures"] == {"00_older": "drawn by no cell", "00_one_query_five_pictures": "as before", "00_pipeline": "changed"}
    assert "changed: 00_pipeline" in said and "1 as before" in said and "7 s of notebooks" in said and kept["notebooks"]["00_start_here"]["status"] == "ok"


def test_a_failed_notebook_is_told_by_the_exit_status(checkout, monkeypatch):
    monkeypatch.setattr(figures, "run", lambda names, jobs, update, say: {"00_start_here": {"status": "failed", "seconds": 1.0, "problems": ["cell 3 failed"]}})
    assert call("figures", "00") == 1


@pytest.mark.parametrize("name", sorted(plots.read_index(ROOT / "figures")))
def test_every_committed_figure_is_fit_to_be_shown(name):
    assert figures.fitness(ROOT / "figures", name, plots.read_index(ROOT / "figures")[name]) == []
