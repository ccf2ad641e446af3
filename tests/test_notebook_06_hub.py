"""Notebook 06 with a CLIP in the hub's format: all of its code, in smoke's size. The weights are random, so no result is judged."""

import ast
import math

import nbformat
import pytest
from conftest import ROOT
from standin import save_hub_clip

from miniclip_helpers.series.results import load_profiles

NAME = "06_fine_tune_pretrained"


def cells():
    """The code of the notebook, cell by cell, with its tags."""
    book = nbformat.read(ROOT / "notebooks" / f"{NAME}.ipynb", as_version=4)
    return [(cell.source, cell.metadata.get("tags", [])) for cell in book.cells if cell.cell_type == "code"]


@pytest.fixture
def captions_folder(tmp_path):
    """A folder of drawings with two captions each, as Kaggle's Flickr8k is laid out."""
    from miniclip_helpers import datasets

    emoji = datasets.load_dataset("emoji").subset(range(0, 4800, 96))
    folder = tmp_path / "flickr8k"
    (folder / "Images").mkdir(parents=True)
    lines = ["image,caption"]
    for row in range(len(emoji)):
        emoji.image(row).save(folder / "Images" / f"{row:03d}.png")
        lines += [f'{row:03d}.png,"{caption}"' for caption in emoji.captions[row]]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
    return folder


@pytest.mark.parametrize("data", ["emoji", "a folder"])
def test_every_cell_runs_on_a_hub_clip(data, tmp_path, monkeypatch, captions_folder):
    monkeypatch.setenv("MINICLIP_PROFILE", "smoke")
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINICLIP_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("MINICLIP_PROGRESS", "0")
    monkeypatch.delenv("MINICLIP_RESULTS", raising=False)
    profiles = load_profiles()[NAME]
    injected = profiles["online"]["parameters"] | profiles["smoke"]["parameters"] | {"MODEL": str(save_hub_clip(tmp_path / "hub")), "DATA": "emoji"}
    if data != "emoji":
        injected |= {"DATA": str(captions_folder), "EVERY": 2, "EPOCHS": 1, "RATES": [1e-3]}
    space = {}
    for source, tags in cells():
        exec(compile(source, f"{NAME}: {source.splitlines()[0]}", "exec"), space)  # noqa: S102 - our own notebook
        if "parameters" in tags:
            assert set(injected) <= {node.targets[0].id for node in ast.parse(source).body if isinstance(node, ast.Assign)}
            space.update(injected)
    assert space["tuned"].keys() == {"heads", "lp-ft", "lora", "full"}
    assert all(math.isfinite(score) for found in space["after"].values() for score in map(float, found["target"]))
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {"06_learning_rates", "06_target_against_retained", "06_modality_gap", "06_before_and_after"}
    assert abs(space["home"] - space["model"].logit_scale.item()) < 1e-6
