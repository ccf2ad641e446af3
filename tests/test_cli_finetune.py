"""miniclip fine-tune as a newcomer types it: end to end on a hub folder, on mini and on a run; resuming; what it refuses."""

import csv
import json

import pytest
import torch
from conftest import picture
from standin import save_hub_clip
from test_cli import call
from test_finetuning import bars, scene

from miniclip_helpers import datasets, finetuning
from miniclip_helpers.datasets import ImageTextDataset, load_dataset
from miniclip_helpers.finetuning import fine_tune_run, tuning
from miniclip_helpers.model import load_saved
from miniclip_helpers.pretrained import load_model
from miniclip_helpers.training import train_run

FILES = ["config.json", "history.csv", "model.safetensors", "split.json"]
QUICK = ["--epochs", 3, "--batch-size", 6]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eighteen pictures with two captions each, and a split: 12 / 3 / 3."""
    folder = tmp_path_factory.mktemp("photos") / "bars"
    (folder / "images").mkdir(parents=True)
    rows = []
    for dot in (0, 1):
        for name, said, source in zip(bars(dot).names, bars(dot).captions, bars(dot)._sources):
            (folder / "images" / name).write_bytes(source)
            rows += [{"file_name": name, "caption": caption} for caption in said]
    (folder / "captions.json").write_text(json.dumps(rows))
    names = load_dataset(folder).names
    datasets.write_split(folder.parent / "split.json", {"train": names[:14], "val": names[14:19], "test": names[19:]})
    return folder


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    return save_hub_clip(tmp_path_factory.mktemp("hub") / "clip")


@pytest.fixture(autouse=True)
def own_cache(private_cache):
    return private_cache


@pytest.fixture
def a_run(tmp_path):
    return train_run(bars(), tmp_path / "run", image_encoder="small-cnn", text_encoder="bag-of-words", epochs=2, val_size=0)


def rows_of(out):
    return list(csv.DictReader(open(out / "history.csv", newline="")))


@pytest.mark.parametrize("method", ["lp-ft", "lora"])
def test_a_hub_folder_end_to_end(hub_folder, photos, tmp_path, capsys, monkeypatch, method):
    opened, original = set(), ImageTextDataset.image
    monkeypatch.setattr(ImageTextDataset, "image", lambda self, row: opened.add(self.names[row]) or original(self, row))
    split, out = photos.parent / "split.json", tmp_path / "tuned"
    assert call("fine-tune", "--model", hub_folder, "--data", photos, "--split", split, "--method", method, "--out", out, *QUICK, "--learning-rate", 1e-3) == 0
    said, names = capsys.readouterr().out, json.loads(split.read_text())
    about = finetuning.about_run(out)
    assert f"text to image R@1 {about['before']['val_text_to_image_R@1']:.1%} -> {about['after']['val_text_to_image_R@1']:.1%}" in said
    assert f"miniclip evaluate --model {out}" in said and opened == {*names["train"], *names["val"]}  # the test images were never opened
    assert {*FILES, "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"} <= {file.name for file in out.iterdir()}
    assert len([row for row in rows_of(out) if row["stage"] == method]) in (4, 6) and json.loads((out / "split.json").read_text()) == names
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "clip" and config["miniclip"]["fine_tuning"]["method"] == method and config["miniclip"]["fine_tuning"]["train"] == 14
    assert call("evaluate", "--model", out, "--data", photos, "--split", split, "--json", tmp_path / "scores.json") == 0
    assert json.loads((tmp_path / "scores.json").read_text())["n_images"] == 5
    assert call("zero-shot", "--model", out, "--labels", "red,blue", photos / "images" / "red-tall-0.png") == 0


def test_mini_with_heads_and_wise_ft(photos, tmp_path, capsys):
    out = tmp_path / "tuned"
    command = ["fine-tune", "--data", photos, "--out", out, "--split", photos.parent / "split.json", *QUICK]
    assert call(*command, "--wise-ft", 0) == 0
    assert sorted(file.name for file in out.iterdir()) == FILES and (out / "model.safetensors").stat().st_size < 5e6
    mini, same = load_model("mini"), load_model(out)
    assert torch.equal(mini.encode_text(["a dog"]), same.encode_text(["a dog"]))  # alpha 0 is the model before
    about = finetuning.about_run(out)
    assert about["before"] == about["after"] and about["wise_ft"] == 0
    assert len([row for row in rows_of(out) if row["stage"] == "heads"]) == 6
    assert call(*command, "--wise-ft", 0, "--resume") == 0 and "already finished" in capsys.readouterr().out
    assert call(*command) == 2 and "holds a finished model" in capsys.readouterr().err


def test_a_run_is_fine_tuned_again_and_again(a_run, tmp_path):
    once = fine_tune_run(a_run, bars(), tmp_path / "once", "full", epochs=2, batch_size=6, learning_rate=1e-3, val_size=0)
    twice = fine_tune_run(once, bars(), tmp_path / "twice", "lora", epochs=2, batch_size=6, learning_rate=1e-2, val_size=0, sides="text", targets=["hidden.0"])
    states = [load_saved(folder).state_dict() for folder in (a_run, once, twice)]
    assert not torch.equal(states[0]["image_head.weight"], states[1]["image_head.weight"])
    assert {key for key in states[1] if not torch.equal(states[1][key], states[2][key])} == {"text_tower.hidden.0.weight", "log_logit_scale"}


@pytest.mark.parametrize("method", ["full", "lp-ft"])
def test_stopped_and_resumed_equals_uninterrupted(a_run, tmp_path, monkeypatch, method):
    settings = {"method": method, "epochs": 4, "batch_size": 6, "learning_rate": 1e-3, "val_size": 0.25}
    fine_tune_run(a_run, bars(), tmp_path / "whole", **settings)
    original, cut = tuning.fit, tmp_path / "cut"

    def stopping(learner, batches, config, validate, checkpoint):
        for record in original(learner, batches, config, validate, checkpoint):
            yield record
            if record.epoch == 2 and checkpoint is not None:
                raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        fine_tune_run(a_run, bars(), cut, **settings)
    monkeypatch.setattr(tuning, "fit", original)
    assert {"run.json", "checkpoint.pt", "history.csv"} == {file.name for file in cut.iterdir()}
    for words, change in (("--resume", {"resume": False}), ("another learning_rate", {"learning_rate": 2e-3}), ("another method", {"method": "heads"})):
        with pytest.raises(finetuning.run.UsageError, match=words):
            fine_tune_run(a_run, bars(), cut, **({"resume": True} | settings | change))
    fine_tune_run(a_run, bars(), cut, **settings, resume=True)
    ours, theirs = load_saved(cut).state_dict(), load_saved(tmp_path / "whole").state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs) and sorted(file.name for file in cut.iterdir()) == FILES
    tables = [[{key: value for key, value in row.items() if key != "seconds"} for row in rows_of(folder)] for folder in (cut, tmp_path / "whole")]
    assert tables[0] == tables[1]


def test_divergence_leaves_what_was_good(a_run, tmp_path, monkeypatch, capsys, photos):
    out = tmp_path / "tuned"
    command = ["fine-tune", "--model", a_run, "--data", photos, "--out", out, "--batch-size", 6]
    assert call(*command, "--learning-rate", 1e9) == 1
    said = capsys.readouterr().err
    assert "not a number any more" in said and "try 1e+08 or less" in said and "is free again" in said and not out.exists()
    original, served = finetuning.inputs.Inputs.batches, []

    def poisoned(self, size):
        found = original(self, size)
        found.augment = lambda features, random: features * (float("nan") if len(served) > 7 else 1.0) if not served.append(0) else None
        return found

    monkeypatch.setattr(finetuning.inputs.Inputs, "batches", poisoned)
    assert call(*command) == 1 and "last-good" in capsys.readouterr().err
    kept = load_model(out / "last-good")
    assert torch.isfinite(kept.encode_image([picture(1)])).all() and "checkpoint.pt" in {file.name for file in out.iterdir()}


@pytest.mark.parametrize(("words", "arguments"), [
    ("did you mean lora", ["--method", "lorra"]), ("alpha between 0", ["--wise-ft", 1.5]), ("did you mean siglip", ["--loss", "siglop"]),
    ("unknown side", ["--side", "left"]), ("Known: query, key", ["--method", "lora", "--side", "text", "--targets", "q_proj"]),
    ("rank of at least 1", ["--method", "lora", "--rank", 0]), ("batch_size of at least 2", ["--batch-size", 1]), ("epochs of at least 1", ["--epochs", 0]),
    ("val_size of at least 0", ["--val-size", 1]), ("openai/clip-vit-base-patch32", ["--model", "clip:ViT-B/32"]), ("seed", ["--seed", -1]),
    ("targets say where LoRA goes", ["--method", "full", "--targets", "query"])])
def test_wrong_use_is_told_and_leaves_nothing(photos, tmp_path, capsys, words, arguments):
    assert call("fine-tune", "--data", photos, "--out", tmp_path / "new", *arguments) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_other_folders_are_left_alone(photos, tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear reader")
    assert call("fine-tune", "--data", photos, "--out", tmp_path) == 2
    assert "holds something else" in capsys.readouterr().err and (tmp_path / "letter.txt").is_file()


def test_data_that_cannot_be_learned_from(tmp_path, capsys):
    for name, count, words in (("one", 1, "at least two images"), ("equal", 3, "all captions are")):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.png").write_bytes(scene("red", "tall", number))
        (folder / "captions.json").write_text(json.dumps([{"file_name": f"{number}.png", "caption": "a bar"} for number in range(count)]))
        assert call("fine-tune", "--data", folder, "--out", tmp_path / "out", "--val-size", 0) == 1
        assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_help_shows_examples(capsys):
    assert call("fine-tune", "--help") == 0
    assert "examples:" in capsys.readouterr().out
