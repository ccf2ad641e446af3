"""Figures are drawn, saved whole, listed with caption and alternative text, and show what they were given."""

import io
import json

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from miniclip_helpers import plots
from miniclip_helpers.errors import UsageError


def ink(png):
    """The share of pixels that are not white, and the size."""
    array = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    return (array < 250).mean(), array.shape


@pytest.mark.parametrize("figure", [
    lambda: plots.similarity_matrix(np.eye(3), ["a", "b", "c"], row_images=[picture(n) for n in range(3)], mark=[0, 1, 2]),
    lambda: plots.similarity_matrix(np.ones((2, 2)), ["a", "b"], row_labels=["x", "y"]),
    lambda: plots.image_grid([picture(n) for n in range(7)], list("abcdefg"), colours=["green"] * 7),
    lambda: plots.curves({"loss": ([1, 2, 3], [3, 2, 1])}, "step", "loss", chance={"log N": 3.0}, bands={"loss": ([2, 1, 0], [4, 3, 2])}),
    lambda: plots.bars({"ours": {"R@1": 0.4, "R@5": 0.7}, "random": {"R@1": 0.1, "R@5": 0.2}}, "share", intervals={"ours": {"R@1": (0.3, 0.5), "R@5": (0.6, 0.8)}}, chance=0.03),
    lambda: plots.similarity_matrices([np.eye(3), np.ones((3, 3)) / 3], ["before", "after"], list("abc"), [picture(n) for n in range(3)], mark=range(3)),
    lambda: plots.points({"a": ([1, 2], [0.1, 0.4]), "b": (3, 0.5)}, "seconds", "R@1", intervals={"a": ([0, 0.3], [0.2, 0.5])}, labels={"b": ["best"]}, lines=True, chance={"chance": 0.01}),
    lambda: plots.histogram({"right": np.linspace(0, 1, 50), "wrong": np.linspace(-1, 0.5, 500)}, "cosine", density=True),
    lambda: plots.reliability({"raw": {"confidence": [0.1, np.nan, 0.9], "accuracy": [0.2, np.nan, 0.5], "count": [3, 0, 9]}}),
    lambda: plots.pipeline_drawing([picture(n) for n in range(4)], list("abcd"), np.eye(4), np.eye(4), np.eye(4)),
])
def test_every_kind_of_figure_has_ink(figure):
    share, (height, width) = ink(plots.to_png(figure(), dpi=60))
    assert 0.01 < share < 0.98 and width > 300 and height > 100


def test_the_matrix_shows_its_values():
    one, other = (plots.to_png(plots.similarity_matrix(np.eye(3) * v, list("abc"), limits=(0, 1)), dpi=60) for v in (1, 0.5))
    assert one != other


def test_save_figure_writes_lists_and_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_FIGURES", str(tmp_path))
    figure = plots.curves({"loss": ([1, 2], [2, 1])}, "step", "loss")
    shown = plots.save_figure(figure, "04_loss", "Loss | falls.", "A line that falls.", data={"loss": [2, 2]})
    plots.save_figure(figure, "01_first", "First.", "A line.")
    plots.save_figure(figure, "04_loss", "Loss | falls again.", "A line that falls.", data={"loss": [2, 1]})
    rows = [line for line in (tmp_path / "index.md").read_text().splitlines() if line.startswith("| [")]
    assert len(rows) == 2 and "01_first" in rows[0] and "falls again" in rows[1] and "\\|" in rows[1]
    assert json.loads((tmp_path / "data" / "04_loss.json").read_text())["told"] == {"loss": [2, 1]}
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == "[figure: A line that falls.]" and ink(bundle["image/png"])[0] > 0.01
    wide = Image.open(tmp_path / "04_loss.png").width
    assert wide == pytest.approx(2 * 720, abs=4)


@pytest.mark.parametrize("name, caption, alt", [("loss", "c", "a"), ("04_Loss", "c", "a"), ("04_loss", " ", "a"), ("04_loss", "c", "")])
def test_a_figure_without_name_caption_or_alt_is_refused(name, caption, alt):
    with pytest.raises(UsageError):
        plots.save_figure(plots.curves({"x": ([1], [1])}, "a", "b"), name, caption, alt)


def test_a_strangers_dollar_signs_are_no_formula():
    broken = r"from $5 to $\frac{1$"
    for figure in (plots.image_grid([np.zeros((4, 4, 3))], [broken], title=broken), plots.similarity_matrix(np.eye(2), [broken, "b"], row_labels=["a", broken])):
        assert plots.to_png(figure, dpi=60)[:4] == b"\x89PNG"
