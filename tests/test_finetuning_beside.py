"""Heads in closed form beside the tuned ones: half of each cosine, nothing else moved, and a straight way back to the model before."""

import dataclasses

import numpy as np
import pytest
import torch

from miniclip_helpers import embedding, finetuning, retrieval
from miniclip_helpers.datasets import load_dataset, write_split
from miniclip_helpers.encoders import load_encoder
from miniclip_helpers.finetuning import beside
from miniclip_helpers.pretrained import load_mini, load_model
from miniclip_helpers.training import TrainConfig
from miniclip_helpers.training.locked import measure

SHORT = TrainConfig(epochs=2, batch_size=32, learning_rate=1e-3)


@pytest.fixture(scope="module")
def parts():
    stamps = load_dataset("stamps")
    return {"train": stamps.subset(range(0, 160, 2)), "val": stamps.subset(range(1, 60, 2))}


@pytest.fixture(scope="module")
def tuned(parts):
    before = load_mini()
    steps = finetuning.fine_tune(before, parts["train"], None, "heads", SHORT)
    return before, steps, beside.add_closed_form(steps, parts["train"])


def test_the_cosine_is_half_of_each(tuned, parts):
    """The tuned heads see what they saw; the fitted ones the average of two views, as the tower "both" gives it."""
    _, steps, both = tuned
    twice = load_encoder("efficientnet-lite0", mode="both")
    images = embedding.image_features(twice, parts["val"])
    texts = embedding.text_features(both.model.text_tower, parts["val"].all_captions)
    with torch.no_grad():
        rows = [torch.nn.functional.normalize(head(side), dim=-1) for head, side in zip((both.model.image_head.heads[0], both.model.text_head.heads[0]), (images, texts))]
    expected = (rows[0] @ rows[1].T).numpy() / 2 + retrieval.similarity(steps.model, parts["val"]) / 2
    assert np.allclose(retrieval.similarity(both.model, parts["val"]), expected, atol=1e-5)
    assert both.kept == "closed form beside" and len(both.rows) == len(steps.rows) + 1


def test_the_tower_apart_is_both_views_side_by_side():
    pictures = [load_dataset("stamps").image(row) for row in (3, 300)]
    rows = {mode: load_encoder("efficientnet-lite0", mode=mode).encode(pictures) for mode in ("squash", "both", "apart")}
    assert torch.allclose(rows["apart"], torch.cat([rows["squash"], rows["both"]], 1), atol=1e-5)


def test_the_line_begins_at_the_model_before_and_ends_at_the_model_after(tuned, parts):
    before, _, both = tuned
    at = {alpha: retrieval.similarity(finetuning.interpolate(before, both.model, alpha), parts["val"]) for alpha in (0, 0.5, 1)}
    assert np.allclose(at[0], retrieval.similarity(before, parts["val"]), atol=1e-5)
    assert np.allclose(at[1], retrieval.similarity(both.model, parts["val"]), atol=1e-5)
    assert not np.allclose(at[0.5], at[0], atol=1e-2) and not np.allclose(at[0.5], at[1], atol=1e-2)
    halfway = finetuning.interpolate(before, both.model, 0.5)
    assert halfway.image_head.options["parts"][0]["share"] == pytest.approx(0.25)
    middle = (before.log_logit_scale + both.model.log_logit_scale) / 2
    assert halfway.log_logit_scale.item() == pytest.approx(middle.item())


def test_validation_may_refuse_what_it_does_not_like(tuned, parts, monkeypatch):
    steps = tuned[1]
    monkeypatch.setattr(beside, "SHRINKS", [(1e9, 1e9)])  # nothing but the largest direction of each side is left
    steps = dataclasses.replace(steps, after=measure(torch.from_numpy(retrieval.similarity(steps.model, parts["val"])), torch.from_numpy(parts["val"].owner)))
    kept = beside.add_closed_form(steps, parts["train"], parts["val"])
    assert kept.model is steps.model and kept.rows[-1]["stage"] == "closed form"


def test_a_run_is_saved_loaded_and_interpolated(tmp_path, parts):
    write_split(tmp_path / "split.json", {"train": parts["train"].names, "val": [], "test": load_dataset("stamps").names[300:330]})
    out = finetuning.fine_tune_run("mini", "stamps", tmp_path / "run", method="heads", epochs=2, split=tmp_path / "split.json")
    model = load_model(out)
    about = finetuning.about_run(out)
    assert about["kept"] == "closed form beside" and beside.fitted_beside(load_mini(), model)
    assert "closed form" in (out / "history.csv").read_text()
    again = retrieval.similarity(finetuning.interpolate(load_mini(), model, 1.0), parts["val"])
    assert np.allclose(again, retrieval.similarity(model, parts["val"]), atol=1e-5)


def test_only_locked_towers_with_heads_are_taken():
    mini = load_mini()
    assert beside.fits(mini)
    mini.text_tower.unlock()
    assert not beside.fits(mini)
