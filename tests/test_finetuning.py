"""Fine-tuning: the gate, what each method may change, LoRA against peft and by hand, WiSE-FT by hand, resuming, divergence, the broken scorer."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image

from miniclip_helpers import finetuning, metrics, retrieval
from miniclip_helpers.datasets import ImageTextDataset, load_dataset
from miniclip_helpers.encoders import BagOfWords, SmallCNN
from miniclip_helpers.errors import DataError, MiniclipError, ModelError, UsageError
from miniclip_helpers.finetuning import FineTuned, Tuning, fine_tune, inputs, tuning
from miniclip_helpers.finetuning.hub import check_name
from miniclip_helpers.model import LinearHead, TwoTowers, load_saved
from miniclip_helpers.pretrained import load_mini, load_model
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import PairBatches, TrainConfig, schedule
from miniclip_helpers.training.locked import features_of

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "white": (240, 240, 240)}
SHAPES = ("wide", "tall", "small")
CONFIG = TrainConfig(epochs=6, batch_size=6, learning_rate=5e-3)
PLACES = {"image_head", "text_head", "image_tower", "text_tower", "log_logit_scale"}


def scene(colour, shape, dot):
    """A bar of a colour on grey, and a dot that makes each picture its own."""
    canvas = Image.new("RGB", (24, 24), (120, 120, 120))
    box = {"wide": (0, 8, 24, 16), "tall": (8, 0, 16, 24), "small": (8, 8, 16, 16)}[shape]
    canvas.paste(COLOURS[colour], box)
    canvas.putpixel((dot, 0), (0, 0, 0))
    stream = io.BytesIO()
    canvas.save(stream, "PNG")
    return stream.getvalue()


def bars(dot=0):
    """Twelve pictures, every colour in every shape, two captions each."""
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return ImageTextDataset("bars", [f"{c}-{s}-{dot}.png" for c, s in kinds], [[f"a {c} {s} bar", f"{s} and very very {c}"] for c, s in kinds],
                            [scene(c, s, dot) for c, s in kinds])


def small_model(seed=0, scale=14.0):
    words = ["a", "bar", "and", "very", *COLOURS, *SHAPES]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        image, text = SmallCNN(channels=4, size=16), BagOfWords(vocabulary=words, width=16, word_width=8)
        return TwoTowers(image, text, LinearHead(image.width, 8), LinearHead(16, 8), logit_scale=scale, name="small").eval()


def changed(before, after):
    """The names of the tensors that differ."""
    before, after = before.state_dict(), after.state_dict()
    assert before.keys() == after.keys()
    return {key for key in before if not torch.equal(before[key], after[key])}


def lowered(rows):
    """Whether the mean loss of the last epoch is below that of the first."""
    of = lambda epoch: np.mean([row["loss"] for row in rows if row["epoch"] == epoch])  # noqa: E731
    return of(rows[-1]["epoch"]) < of(rows[0]["epoch"])


@pytest.fixture(autouse=True)
def own_cache(private_cache):
    return private_cache


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    from standin import save_hub_clip

    return save_hub_clip(tmp_path_factory.mktemp("hub") / "clip")


@pytest.fixture(scope="module")
def hub(hub_folder):
    return load_model(hub_folder)


@pytest.mark.parametrize("method", finetuning.METHODS)
def test_the_gate_is_open_bit_for_bit_for_untouched_weights(method):
    report = finetuning.gate(small_model(), bars(), method=method)
    by_hand = retrieval.evaluate(small_model(), bars())
    assert report["bitwise"] and report["largest_difference"] == 0.0 and report["found"] == report["expected"]
    assert report["found"]["text_to_image R@1"] == by_hand["text_to_image"]["R@1"] and len(report["found"]) == 10


@pytest.mark.parametrize("method", ["heads", "lora", "full"])
def test_the_gate_of_a_hub_model(hub, method):
    report = finetuning.gate(hub, bars(), method=method)
    assert report["largest_difference"] < 1e-6 and report["found"] == pytest.approx(report["expected"], abs=1e-3)


def test_the_gate_of_mini_and_of_features():
    mini, few = load_mini(), load_dataset("stamps").subset(range(0, 90, 10))
    assert finetuning.gate(mini, few)["bitwise"]
    features = features_of(mini.image_tower, mini.text_tower, few)
    expected = retrieval.evaluate(mini, few)
    assert finetuning.gate(mini, features, expected)["found"]["image_to_text MRR"] == expected["image_to_text"]["MRR"]
    with pytest.raises(UsageError, match="pass expected"):
        finetuning.gate(mini, features)


def test_the_gate_closes(monkeypatch):
    model, data = small_model(), bars()
    tuned = fine_tune(model, data, method="heads", config=CONFIG).model
    good = retrieval.evaluate(tuned, data)
    with pytest.raises(ModelError, match="scorer or the path is wrong"):
        finetuning.gate(tuned, data, scorer=finetuning.broken_scorer)
    with pytest.raises(ModelError, match=r"R@1 is .* zero-shot says"):
        finetuning.gate(model, data, expected=good)
    with pytest.raises(UsageError, match="no figure"):
        finetuning.gate(model, data, scorer=lambda similarity, owner: {"accuracy": 1.0})
    original = inputs.Pictures.__getitem__
    monkeypatch.setattr(inputs.Pictures, "__getitem__", lambda self, rows: original(self, rows).flip(1))  # BGR in the place of RGB
    with pytest.raises(ModelError, match="preprocessing"):
        finetuning.gate(model, data, method="full")


@pytest.mark.parametrize(("method", "sides", "allowed"), [
    ("heads", "both", {"image_head", "text_head", "log_logit_scale"}), ("heads", "text", {"text_head", "log_logit_scale"}),
    ("lora", "both", {"image_tower", "text_tower", "log_logit_scale"}), ("lora", "image", {"image_tower", "log_logit_scale"}),
    ("full", "both", PLACES), ("full", "text", {"text_tower", "text_head", "log_logit_scale"}), ("lp-ft", "both", PLACES)])
def test_each_method_lowers_the_loss_and_changes_only_what_it_may(method, sides, allowed):
    model, data = small_model(), bars()
    untouched = copy.deepcopy(model)
    tuned = fine_tune(model, data, method=method, config=CONFIG, sides=sides)
    assert isinstance(tuned, FineTuned) and lowered([row for row in tuned.rows if row["stage"] == method]) and tuned.kept == "last"
    assert not changed(untouched, model)  # what went in is as it was
    moved = changed(model, tuned.model)
    assert {name.split(".")[0] for name in moved} == allowed
    assert not any("running" in name or "num_batches" in name or name.endswith("mean") for name in moved)  # statistics stay frozen
    if method == "lora":
        layers = {f"{side}_tower.{name}.weight" for side in ("image", "text") for name in finetuning.lora_layers(getattr(model, f"{side}_tower"))}
        assert {name for name in moved if "tower" in name} == {name for name in layers if name.split(".")[0] in allowed}
    if method == "full" and sides == "both":
        weights = {name for name, _ in model.named_parameters()}
        assert moved == weights and tuned.learned == tuned.weights == sum(p.numel() for p in model.parameters())


def test_a_lora_update_is_b_times_a_and_merged_equals_unmerged():
    model, data = small_model(), bars()
    job = Tuning(model, data, method="lora", config=CONFIG, rank=2, targets=["hidden.0", "short.1.0"])
    for _ in job.steps():
        pass
    part = inputs.Inputs(job.model, data, ("image", "text"))
    unmerged = part.similarity(job.learner)
    layers = {side: {name: layer for name, layer in getattr(job.model, f"{side}_tower").named_modules() if hasattr(layer, "lora_A")} for side in ("image", "text")}
    assert list(layers["text"]) == ["hidden.0"] and len(layers["image"]) == 2
    deltas = {f"{side}_tower.{name}.weight": 2 * torch.einsum("or...,ri...->oi...", layer.lora_B["default"].weight, layer.lora_A["default"].weight).detach()
              for side, found in layers.items() for name, layer in found.items()}
    after = job.result().model
    torch.testing.assert_close(part.similarity(inputs.Learner(after, ("image", "text"))), unmerged, atol=1e-5, rtol=1e-5)
    before, state = model.state_dict(), after.state_dict()
    assert changed(model, after) == {*deltas, "log_logit_scale"}
    for name, delta in deltas.items():
        torch.testing.assert_close(state[name], before[name] + delta)
        assert torch.linalg.matrix_rank(delta.flatten(1)) == 2 and not any("lora" in key for key in state)


def test_lora_equals_a_plain_loop_over_peft():
    from peft import LoraConfig, inject_adapter_in_model

    model, data = small_model(), bars()
    ours = fine_tune(model, data, method="lora", config=CONFIG, sides="text", rank=3, targets=["hidden.0"]).model
    other = copy.deepcopy(model).requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(CONFIG.seed)
        inject_adapter_in_model(LoraConfig(r=3, lora_alpha=6, target_modules=["hidden.0"]), other.text_tower)
    other.log_logit_scale.requires_grad_(True)
    pictures = other.image_tower.encode(list(data.images()))
    batches = PairBatches(pictures, other.text_tower.prepare(data.all_captions), data.owner, 6)
    adapters = [p for p in other.text_tower.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": adapters, "weight_decay": 0.1}, {"params": [other.log_logit_scale], "weight_decay": 0.0}], lr=CONFIG.learning_rate)
    random, step = generator(CONFIG.seed), 0
    for _ in range(CONFIG.epochs):
        for images, texts, _ in batches.epoch(random):
            for group in optimizer.param_groups:
                group["lr"] = CONFIG.learning_rate * schedule(step, CONFIG.epochs * len(batches), CONFIG.warmup)
            logits = other.log_logit_scale.exp() * other.project_images(images) @ other.project_texts(other.text_tower(texts)).T
            target = torch.arange(6)
            loss = (torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)) / 2
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*adapters, other.log_logit_scale], 1.0)
            optimizer.step()
            step += 1
    torch.testing.assert_close(ours.encode_text(data.all_captions), other.encode_text(data.all_captions), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours.encode_text(data.all_captions), model.encode_text(data.all_captions), atol=1e-2)


def test_lp_ft_goes_on_from_the_heads():
    model, data, heads = small_model(), bars(), TrainConfig(epochs=3, batch_size=6, learning_rate=1e-2)
    first = fine_tune(model, data, method="heads", config=heads).model
    both = fine_tune(model, data, method="lp-ft", config=TrainConfig(epochs=2, batch_size=6, learning_rate=0.0), heads_config=heads)
    assert not changed(first, both.model)  # a second stage that stands still
    assert [row["stage"] for row in both.rows] == ["heads"] * 6 + ["lp-ft"] * 4


def test_the_temperature_is_alive_at_its_limit():
    data, model = bars(), small_model(scale=100.0)
    with torch.no_grad():
        model.log_logit_scale.fill_(math.log(100) + 1e-3)  # beyond the limit, as CLIP's own is by rounding
    learner = inputs.Learner(model, ()).train()
    assert not learner.training
    part = inputs.Inputs(model, data, ())
    scale = learner(part.images[:4], part.texts[:8:2])[2]
    scale.backward()
    assert 99.99 < scale.item() <= 100 and model.log_logit_scale.grad.item() == pytest.approx(100, rel=1e-3)
    tuned = fine_tune(small_model(scale=100.0), data, method="heads", config=TrainConfig(epochs=8, batch_size=12, learning_rate=0.05))
    scales = [row["logit_scale"] for row in tuned.rows]
    assert max(scales) <= 100 and min(scales) < 99  # an untrained model is too sure of itself: the scale must come down


def test_pixels_and_tokens_are_those_of_the_tower(hub):
    data = bars()
    for model in (small_model(), finetuning.own_copy(hub)):
        pictures = inputs.Pictures(model.image_tower, data)
        assert pictures.values.dtype == torch.uint8
        torch.testing.assert_close(pictures[torch.tensor([3, 0])], model.image_tower.prepare([data.image(3), data.image(0)]), atol=1e-6, rtol=0)
    tokens = inputs.Tokens(finetuning.own_copy(hub).text_tower, ["dog", "a very long caption about a dog and a cat", "cat"])
    assert tokens[torch.tensor([0, 2])]["input_ids"].shape == (2, 3) and tokens[torch.tensor([1])]["input_ids"].shape == (1, 12)


def test_captions_of_one_image_are_never_each_others_negatives():
    data = bars()
    part = inputs.Inputs(small_model(), data, ("text",))
    seen = set()
    for images, texts, groups in part.batches(5).epoch(generator(3)):
        assert len(images) == len(groups.unique()) == 5
        for group, ids in zip(groups.tolist(), texts):
            captions = [part.texts.values[row] for row in np.flatnonzero(data.owner == group)]
            assert sum(torch.equal(ids, caption) for caption in captions) == 1
            seen.add(group)
    assert len(seen) == 10  # of twelve; what fills no batch waits


def test_wise_ft_at_the_ends_and_in_the_middle():
    before = small_model()
    after = fine_tune(before, bars(), method="full", config=CONFIG).model
    start, end = before.state_dict(), after.state_dict()
    kept = copy.deepcopy(start), copy.deepcopy(end)
    assert not changed(before, finetuning.interpolate(before, after, 0)) and not changed(after, finetuning.interpolate(before, after, 1))
    half = finetuning.interpolate(before, after, 0.5).state_dict()
    for name in start:
        if start[name].is_floating_point():
            torch.testing.assert_close(half[name], (start[name] + end[name]) / 2)
    assert all(torch.equal(a, b) for a, b in zip([*kept[0].values(), *kept[1].values()], [*start.values(), *end.values()]))


def test_the_curve_and_the_choice():
    before = small_model()
    after = fine_tune(before, bars(), method="heads", config=CONFIG).model
    rows = finetuning.wise_curve(before, after, (0, 0.25, 1), lambda m: m.image_head.weight.sum().item(), lambda m: m.logit_scale.item())
    expected = torch.lerp(before.image_head.weight, after.image_head.weight, 0.25).sum().item()
    assert [row["alpha"] for row in rows] == [0, 0.25, 1] and rows[1]["target"] == pytest.approx(expected, rel=1e-5)
    curve = [{"alpha": a, "target": t, "other": o} for a, t, o in [(0, .1, .80), (.25, .3, .79), (.5, .5, .76), (.75, .6, .75), (1, .7, .2)]]
    assert finetuning.choose_alpha(curve) == 0.5  # 0.76 is 95 % of 0.80 exactly
    assert finetuning.choose_alpha(curve, keep=0.9) == 0.75 and finetuning.choose_alpha(curve, keep=0) == 1 and finetuning.choose_alpha(curve, keep=1) == 0
    for fault in (lambda: finetuning.choose_alpha(curve[1:]), lambda: finetuning.choose_alpha(curve, keep=2)):
        with pytest.raises(UsageError):
            fault()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), "half"])
def test_an_alpha_outside_is_refused(alpha):
    with pytest.raises(UsageError, match="alpha between 0"):
        finetuning.interpolate(small_model(), small_model(1), alpha)


def test_models_of_different_shape_are_refused(hub):
    with pytest.raises(UsageError, match="differ in the shape"):
        finetuning.interpolate(small_model(), hub, 0.5)
    wider = small_model()
    wider.image_head = LinearHead(wider.image_tower.width, 9)
    with pytest.raises(UsageError, match=r"image_head.weight: \(256, 8\) before, \(256, 9\) after"):
        finetuning.interpolate(small_model(), wider, 0.5)


def test_a_perfect_model_under_the_broken_scorer_and_the_right_one():
    owner = np.repeat(np.arange(1215), 5)
    perfect = (np.arange(1215)[:, None] == owner).astype(np.float32)
    assert finetuning.broken_scorer(perfect, owner)["R@1"] == 5 / 6075 == pytest.approx(0.0008, abs=5e-5)
    right = metrics.retrieval_metrics(perfect, owner)
    assert right["text_to_image"]["R@1"] == right["image_to_text"]["R@1"] == 1.0


def test_the_broken_scorer_against_a_naive_loop():
    random = np.random.default_rng(0)
    owner = np.array([0, 0, 1, 1, 1, 2, 3, 3])
    similarity = random.normal(size=(4, 8)).round(1)
    expected = {}
    for k in (1, 5, 10):
        hits = 0
        for query in range(8):
            columns = sorted(range(8), key=lambda column: (-similarity[owner[column], query], column))
            hits += owner[query] in columns[:k]
        expected[f"R@{k}"] = hits / 8
    assert finetuning.broken_scorer(similarity, owner) == expected
    with pytest.raises(UsageError, match="one owner per caption"):
        finetuning.broken_scorer(similarity, owner[:3])


@pytest.mark.parametrize("method", ["heads", "lora", "lp-ft"])
def test_resumed_equals_uninterrupted(tmp_path, method):
    model, data, options = small_model(), bars(), {"heads_config": TrainConfig(epochs=1, batch_size=6)} if method == "lp-ft" else {}
    whole = fine_tune(model, data, bars(1), method, CONFIG, **options)
    cut = Tuning(model, data, bars(1), method, CONFIG, checkpoint=tmp_path / "checkpoint.pt", **options)
    going = finetuning.steps(cut)
    for record in going:
        if record.epoch == 3:
            break  # in the middle of the fourth epoch
    going.close()
    again = fine_tune(model, data, bars(1), method, CONFIG, checkpoint=tmp_path / "checkpoint.pt", **options)
    assert not changed(whole.model, again.model)
    steps = [row for row in again.rows if row["stage"] == method]
    assert [row["loss"] for row in whole.rows][-len(steps):] == [row["loss"] for row in steps] and steps[0]["epoch"] == 3


def test_the_notebooks_loop_gives_what_fine_tune_gives():
    model, data = small_model(), bars()
    job = Tuning(model, data, bars(1), "heads", CONFIG)
    losses = [record.loss for record in finetuning.steps(job)]
    tuned, by_call = job.result(), fine_tune(model, data, bars(1), "heads", CONFIG)
    assert losses == [row["loss"] for row in by_call.rows] and not changed(tuned.model, by_call.model)
    assert tuned.before["score"] < tuned.after["score"] and tuned.kept == "best"
    evaluated = retrieval.evaluate(tuned.model, bars(1))
    assert tuned.after["val_text_to_image_R@1"] == pytest.approx(evaluated["text_to_image"]["R@1"])


def test_the_start_is_kept_where_no_epoch_is_better():
    model = fine_tune(small_model(), bars(), method="heads", config=CONFIG).model
    worse = fine_tune(model, bars(), bars(1), "full", TrainConfig(epochs=2, batch_size=6, learning_rate=10.0))
    assert worse.kept == "start" and not changed(model, worse.model) and worse.after == worse.before
    assert min(row["score"] for row in worse.rows if row.get("score")) < worse.before["score"]  # the rows tell that it was destroyed


def test_a_learning_rate_that_gives_nan_is_stopped_at_the_step():
    model = fine_tune(small_model(), bars(), method="heads", config=CONFIG).model
    for val, kept in ((None, "last good"), (bars(1), "start")):  # without validation nobody can say that the first epoch destroyed it
        with pytest.raises(finetuning.Diverged, match=r"not a number any more.*try 1e[+]08 or less") as caught:
            fine_tune(model, bars(), val, "heads", TrainConfig(epochs=5, batch_size=6, learning_rate=1e9))
        result = caught.value.result
        assert len(result.rows) < 10 and result.stopped and result.kept == kept and bool(changed(model, result.model)) == (val is None)
        assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())


def test_after_a_good_epoch_the_best_one_is_kept(monkeypatch):
    original, served = inputs.Inputs.batches, []

    def poisoned(self, size):
        found = original(self, size)
        found.augment = lambda features, random: features * (float("nan") if len(served) > 5 else 1.0) if not served.append(0) else None
        return found

    monkeypatch.setattr(inputs.Inputs, "batches", poisoned)
    with pytest.raises(finetuning.Diverged, match="step 5") as caught:
        fine_tune(small_model(), bars(), bars(1), "heads", CONFIG)
    result = caught.value.result
    assert result.kept == "best" and result.after["score"] == max(row["score"] for row in result.rows if "score" in row) > result.before["score"]
    assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())


@pytest.mark.parametrize("loss", ["margin", "siglip", "multi-positive"])
def test_other_losses(loss):
    tuned = fine_tune(small_model(), bars(), method="heads", config=TrainConfig(epochs=8, batch_size=6, learning_rate=1e-2, loss=loss, margin=0.3))
    assert lowered(tuned.rows)


@pytest.mark.parametrize("method", finetuning.METHODS)
def test_a_hub_model_is_trained_and_comes_back_in_its_own_format(hub, tmp_path, method):
    data = bars()
    tuned = fine_tune(hub, data, method=method, config=TrainConfig(epochs=4, batch_size=6, learning_rate=3e-3))
    assert lowered([row for row in tuned.rows if row["stage"] == method])
    assert torch.equal(hub.encode_text(["a dog"]), load_model(hub.name).encode_text(["a dog"]))  # what went in is as it was
    finetuning.save(tuned.model, tmp_path, {"fine_tuning": {"method": method}})
    again = load_model(tmp_path)
    torch.testing.assert_close(again.encode_image([picture(1)]), tuned.model.encode_image([picture(1)]))
    torch.testing.assert_close(again.encode_text(["a red bar"]), tuned.model.encode_text(["a red bar"]))
    assert again.logit_scale.item() == pytest.approx(tuned.model.logit_scale.item(), rel=1e-5)
    start, end = hub.image_tower.net.state_dict(), again.image_tower.net.state_dict()
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    if method == "heads":
        assert moved == {"visual_projection.weight", "text_projection.weight", "logit_scale"}
    elif method == "lora":
        assert moved == {name for name in start if name.endswith(LINEAR)} | {"logit_scale"}
    else:
        assert moved == {name for name, _ in hub.image_tower.net.named_parameters()}


LINEAR = tuple(f"{layer}.weight" for layer in ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"))


def test_wise_ft_of_a_hub_model(hub):
    after = fine_tune(hub, bars(), method="full", config=TrainConfig(epochs=2, batch_size=6, learning_rate=1e-3)).model
    for alpha, end in ((0, hub), (1, after)):
        torch.testing.assert_close(finetuning.interpolate(hub, after, alpha).encode_text(["a dog"]), end.encode_text(["a dog"]))
    middle = finetuning.interpolate(hub, after, 0.5)
    torch.testing.assert_close(middle.image_head.weight, (hub.image_tower.net.visual_projection.weight + after.image_head.weight) / 2)


def test_lora_on_minis_text_side_is_saved_and_told_apart_from_the_pinned_tower(tmp_path):
    mini, few = load_mini(), load_dataset("stamps").subset(range(0, 120, 10))
    config = TrainConfig(epochs=1, batch_size=6, learning_rate=1e-3)
    tuned = fine_tune(mini, few, method="lora", config=config, sides="text", targets=["layer.5.attention.self.query", "layer.5.attention.self.value"])
    assert tuned.model.image_tower.locked and not tuned.model.text_tower.locked
    assert tuned.model.text_tower.fingerprint != mini.text_tower.fingerprint  # else the cache would give the old features
    finetuning.save(tuned.model, tmp_path)
    again, texts = load_saved(tmp_path), few.all_captions
    assert torch.equal(again.encode_text(texts), tuned.model.encode_text(texts)) and not torch.equal(again.encode_text(texts), mini.encode_text(texts))
    assert (tmp_path / "model.safetensors").stat().st_size < 120e6
    back = finetuning.interpolate(load_mini(), tuned.model, 0)  # a tower that nobody has read yet
    torch.testing.assert_close(back.encode_text(texts), mini.encode_text(texts))
    assert back.image_tower is tuned.model.image_tower is mini.image_tower and back.text_tower is not tuned.model.text_tower


def faulty(**changes):
    found = bars()
    return ImageTextDataset("faulty", found.names, changes.get("captions", found.captions), changes.get("sources", found._sources))


@pytest.mark.parametrize(("words", "error", "call"), [
    ("did you mean lora", UsageError, lambda: fine_tune(small_model(), bars(), method="lorra")),
    ("unknown LoRA target .*'q_proj'.*Known: 0", UsageError, lambda: fine_tune(small_model(), bars(), method="lora", targets=["q_proj"])),
    ("empty list", UsageError, lambda: fine_tune(small_model(), bars(), method="lora", targets=[])),
    ("the method is heads", UsageError, lambda: fine_tune(small_model(), bars(), method="heads", targets=["hidden.0"])),
    ("rank of at least 1", UsageError, lambda: fine_tune(small_model(), bars(), method="lora", rank=0)),
    ("unknown side", UsageError, lambda: fine_tune(small_model(), bars(), sides="left")),
    ("at least one side", UsageError, lambda: fine_tune(small_model(), bars(), sides=())),
    ("at least two images", DataError, lambda: fine_tune(small_model(), bars().subset([0]))),
    ("have no caption", DataError, lambda: fine_tune(small_model(), faulty(captions=[[]] + bars().captions[1:]))),
    ("val have no caption", DataError, lambda: fine_tune(small_model(), bars(), faulty(captions=[[]] + bars().captions[1:]))),
    ("all captions are 'a bar'", DataError, lambda: fine_tune(small_model(), faulty(captions=[["a bar"]] * 12))),
    ("all pictures are the same", DataError, lambda: fine_tune(small_model(), faulty(sources=[scene("red", "tall", 0)] * 12))),
    ("features hold none", UsageError, lambda: fine_tune(load_mini(), features_of(*towers_of(small_model()), bars()), method="full")),
])
def test_bad_input_is_told(words, error, call):
    with pytest.raises(error, match=words):
        call()


def towers_of(model):
    return model.image_tower, model.text_tower


def test_a_lora_target_of_a_hub_model_that_does_not_exist_lists_those_that_do(hub):
    with pytest.raises(UsageError, match=r"did you mean q_proj.*Known: .*fc1"):
        fine_tune(hub, bars(), method="lora", targets=["q_projj"])


@pytest.mark.parametrize(("name", "words"), [
    ("clip:ViT-B/32", "openai/clip-vit-base-patch32"), ("open_clip:ViT-B-32/laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    ("clip:RN50", "take a CLIP or SigLIP of the hub")])
def test_models_of_other_libraries_are_pointed_to_the_hub(name, words):
    with pytest.raises(UsageError, match=words):
        check_name(name)


def test_a_model_without_heads_is_told():
    bare = small_model()
    plain = TwoTowers(bare.image_tower, BagOfWords(["a"], width=bare.image_tower.width), name="bare")
    with pytest.raises(UsageError, match="no head with weights on the image and text side"):
        fine_tune(plain, bars(), method="heads")
    assert lowered(fine_tune(plain, bars(), method="full", config=CONFIG).rows)


def test_a_checkpoint_that_is_damaged_says_so(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(ModelError, match="cannot be read") as caught:
        fine_tune(small_model(), bars(), method="heads", config=CONFIG, checkpoint=tmp_path / "checkpoint.pt")
    assert not isinstance(caught.value, finetuning.Diverged) and issubclass(finetuning.Diverged, MiniclipError) and tuning.KEPT
