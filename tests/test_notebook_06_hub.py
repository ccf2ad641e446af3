"""Notebook 06 with a CLIP in the hub's format: all of its code, in smoke's size. The weights are random, so no result is judged."""

import math

import pytest
from executing import execute
from standin import save_hub_clip

from miniclip_helpers.series.results import load_profiles

NAME = "06_fine_tune_pretrained"


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
    profiles = load_profiles()[NAME]
    changes = profiles["online"]["parameters"] | profiles["smoke"]["parameters"] | {"MODEL": str(save_hub_clip(tmp_path / "hub")), "DATA": "emoji"}
    if data != "emoji":
        changes |= {"DATA": str(captions_folder), "EVERY": 2, "EPOCHS": 1, "RATES": [1e-3]}
    results, figures = execute(NAME, changes, tmp_path, monkeypatch)
    assert figures == {"06_learning_rates", "06_target_against_retained", "06_modality_gap", "06_before_and_after"}
    ratios = {"harsh_kept_of_other", "wise_kept_of_other", "wise_share_of_gain", "other_left_at_the_worst_rate"}  # of what a random model may have none of
    assert len(results) > 15 and {name for name, value in results.items() if not math.isfinite(value)} <= ratios
