"""Notebook 09 with another model: a CLIP folder in the hub's format, whose picture tower is a Transformer. Every cell runs."""

from executing import execute
from standin import save_hub_clip

from miniclip_helpers.series.results import load_profiles


def test_every_cell_runs_with_a_hub_clip(tmp_path, monkeypatch):
    """Random weights: no number is judged, but each cell must run, and each figure be drawn; Grad-CAM gives way to covering."""
    model = save_hub_clip(tmp_path / "clip", width=64)
    changes = load_profiles()["09_probe_the_limits"]["smoke"]["parameters"] | {"MODEL": str(model)}
    results, figures = execute("09_probe_the_limits", changes, tmp_path, monkeypatch)
    assert figures == {"09_scoreboard", "09_probe_pictures", "09_languages", "09_saliency"}
    assert results["cam_right_half"] == results["occlusion_right_half"] and "shuffled_in_the_box" not in results
