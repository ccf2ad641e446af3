"""The loop against a plain one written out here, torch's own schedulers, and itself resumed; what stops it."""

import copy
import math

import numpy as np
import pytest
import torch
from test_model import TEXTS, small_model

from miniclip_helpers import losses
from miniclip_helpers.errors import MiniclipError, ModelError, UsageError
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import PairBatches, TrainConfig, build_optimizer, fit, schedule, train_step
from miniclip_helpers.training.loop import loss_of


def noise_batches(model, count=24, batch_size=8, seed=0):
    """Learnable pairs: picture n and text n share a hidden direction."""
    random = generator(seed)
    hidden = torch.randn(count, 3, 1, 1, generator=random).expand(-1, -1, 16, 16)
    pictures = hidden + 0.1 * torch.randn(count, 3, 16, 16, generator=random)
    texts = torch.stack([torch.tensor([2 + n % 4, 1 + n // 4 % 4]) for n in range(count)])
    return PairBatches(pictures, texts, np.arange(count), batch_size)


def test_train_step_equals_the_step_written_out():
    model = small_model()
    other, config = copy.deepcopy(model), TrainConfig(batch_size=8, clip_norm=0.05, learning_rate=0.01)
    batch = next(noise_batches(model).epoch(generator(0)))
    loss, norm = train_step(model.train(), batch, build_optimizer(model, config), config)
    other.train()
    optimizer = build_optimizer(other, config)
    features = other.image_head(other.image_tower(batch[0])), other.text_head(other.text_tower(batch[1]))
    images, texts = (f / f.norm(dim=-1, keepdim=True) for f in features)
    by_hand = losses.clip_loss(images, texts, other.log_logit_scale.exp())
    by_hand.backward()
    total = torch.sqrt(sum((p.grad**2).sum() for p in other.parameters()))
    for p in other.parameters():
        p.grad *= 0.05 / total
    optimizer.step()
    assert loss == pytest.approx(by_hand.item(), rel=1e-6) and norm == pytest.approx(total.item(), rel=1e-5) and norm > 0.05
    for ours, theirs in zip(model.state_dict().values(), other.state_dict().values()):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_schedule_equals_torchs_own():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    climb = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 10, 1.0, total_iters=9)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 90)
    theirs = torch.optim.lr_scheduler.SequentialLR(optimizer, [climb, fall], [10])
    for step in range(100):
        assert schedule(step, 100, 0.1) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6), step
        optimizer.step()
        theirs.step()
    assert schedule(0, 10, 0) == 1 and schedule(10, 10, 0) == pytest.approx(0)


def test_weight_decay_spares_biases_norms_and_temperature():
    model = small_model()
    decayed, spared = build_optimizer(model, TrainConfig()).param_groups
    assert spared["weight_decay"] == 0 and any(p is model.log_logit_scale for p in spared["params"])
    assert all(p.ndim >= 2 for p in decayed["params"]) and any(p is model.image_head.weight for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_fit_learns_and_one_record_per_step():
    model, config = small_model(), TrainConfig(epochs=30, batch_size=8, learning_rate=0.01)
    records = list(fit(model, noise_batches(model, count=16), config))
    assert [r.step for r in records] == list(range(60)) and records[-1].epoch == 29
    assert np.mean([r.loss for r in records[-6:]]) < math.log(8) / 2 < records[0].loss and not model.training


def test_the_scale_stays_clamped_and_can_come_back():
    model = small_model()
    with torch.no_grad():
        model.log_logit_scale.fill_(math.log(100) + 2)
    scales = [r.logit_scale for r in fit(model, noise_batches(model), TrainConfig(epochs=4, batch_size=8, learning_rate=1e-2))]
    assert max(scales) <= 100 and scales[0] == pytest.approx(100, rel=1e-3)
    assert scales[-1] < 99.5  # noise wants a soft scale; clamped in the forward pass alone, it would have no gradient and stay


@pytest.mark.parametrize("stopped_after", [1, 3])
def test_resuming_gives_the_same_losses_and_weights(tmp_path, stopped_after):
    config = TrainConfig(epochs=5, batch_size=8, learning_rate=0.01)
    whole = small_model()
    expected = [r.loss for r in fit(whole, noise_batches(whole), config)]
    cut, file, found = small_model(), tmp_path / "checkpoint.pt", []
    run = fit(cut, noise_batches(cut), config, checkpoint=file)
    for record in run:
        if record.epoch == stopped_after:
            break  # killed in the first step of this epoch
        found.append(record.loss)
    run.close()
    again = small_model(seed=7)
    found += [r.loss for r in fit(again, noise_batches(again), config, checkpoint=file)]
    assert found == expected
    for ours, theirs in zip(again.state_dict().values(), whole.state_dict().values()):
        assert torch.equal(ours, theirs)


def test_a_checkpoint_of_other_settings_or_cut_is_told(tmp_path):
    file, model = tmp_path / "c.pt", small_model()
    list(fit(model, noise_batches(model), TrainConfig(epochs=1, batch_size=8), checkpoint=file))
    with pytest.raises(ModelError, match="another learning_rate"):
        list(fit(model, noise_batches(model), TrainConfig(epochs=1, batch_size=8, learning_rate=1.0), checkpoint=file))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be read"):
        list(fit(model, noise_batches(model), TrainConfig(epochs=1, batch_size=8), checkpoint=file))


def test_early_stopping_keeps_a_deep_copy_of_the_best():
    model, scores, seen = small_model(), iter([0.1, 0.5, 0.3, 0.2, 0.4, 0.9]), []

    def validate():
        seen.append(model.encode_text(TEXTS))
        assert not model.training
        return {"score": next(scores)}

    records = list(fit(model, noise_batches(model), TrainConfig(epochs=6, batch_size=8, learning_rate=0.05, patience=3), validate))
    assert len(seen) == 5 and [r.best for r in records if r.validation] == [True, True, False, False, False]
    assert torch.equal(model.encode_text(TEXTS), seen[1]) and not torch.equal(seen[4], seen[1])


def test_a_loss_that_is_no_number_stops_at_the_step_and_keeps_the_best():
    model = small_model()
    batches = noise_batches(model)
    batches.augment = lambda pictures, random: pictures * (float("nan") if len(calls) > 4 else 1.0) if not calls.append(0) else None
    calls, kept = [], []
    run = fit(model, batches, TrainConfig(epochs=9, batch_size=8), lambda: kept.append(model.encode_text(TEXTS)) or {"score": 1.0})
    with pytest.raises(MiniclipError, match="lower the learning rate"):
        list(run)
    assert len(kept) == 1 and torch.equal(model.encode_text(TEXTS), kept[0])
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_every_image_once_an_epoch_with_any_of_its_captions():
    owner = np.array([2, 0, 1, 0, 2, 2])
    batches = PairBatches(torch.arange(3), torch.arange(6), owner, 3)
    seen = {image: set() for image in range(3)}
    for seed in range(60):
        (images, texts, groups), = batches.epoch(generator(seed))
        assert sorted(images.tolist()) == [0, 1, 2] and torch.equal(groups, images)
        for image, text in zip(images.tolist(), texts.tolist()):
            assert owner[text] == image
            seen[image].add(text)
    assert seen == {0: {1, 3}, 1: {2}, 2: {0, 4, 5}}


@pytest.mark.parametrize("loss", list(losses.LOSSES))
def test_every_loss_trains(loss):
    model = small_model()
    records = list(fit(model, noise_batches(model), TrainConfig(epochs=15, batch_size=8, learning_rate=0.01, loss=loss)))
    assert np.mean([r.loss for r in records[-5:]]) < np.mean([r.loss for r in records[:5]])


def test_each_loss_gets_what_it_needs():
    """The loss of a batch against each loss called as its own tests call it."""
    random = generator(4)
    images, texts = (torch.nn.functional.normalize(torch.randn(6, 5, generator=random), dim=-1) for _ in range(2))
    scale, groups = torch.tensor(7.0), torch.tensor([0, 0, 1, 2, 2, 3])
    right = {"clip": losses.clip_loss(images, texts, scale), "chunked-clip": losses.clip_loss(images, texts, scale),
             "siglip": losses.siglip_loss(images, texts, scale, -10.0), "chunked-siglip": losses.siglip_loss(images, texts, scale, -10.0),
             "multi-positive": losses.multi_positive_loss(images, texts, scale, groups), "chunked-multi-positive": losses.multi_positive_loss(images, texts, scale, groups),
             "multi-view": losses.multi_view_loss(images, texts, scale, groups), "margin": losses.margin_loss(images, texts, 0.7)}
    assert right.keys() == losses.LOSSES.keys() and losses.margin_loss(images, texts, 0.7) != losses.margin_loss(images, texts)
    for name, value in right.items():
        torch.testing.assert_close(loss_of(TrainConfig(loss=name, margin=0.7), images, texts, scale, groups), value, msg=lambda said, name=name: f"{name}: {said}")
    found = loss_of(TrainConfig(loss="siglip"), images, texts, scale, groups, bias=torch.tensor(-3.0))
    torch.testing.assert_close(found, losses.siglip_loss(images, texts, scale, -3.0))


@pytest.mark.parametrize("call", [
    lambda: TrainConfig(epochs=0), lambda: TrainConfig(batch_size=1), lambda: TrainConfig(loss="clib"), lambda: TrainConfig(warmup=2),
    lambda: TrainConfig(learning_rate=float("nan")),
    lambda: PairBatches(torch.zeros(3), torch.zeros(2), [0, 1], 2), lambda: PairBatches(torch.zeros(3), torch.zeros(3), [0, 1], 2),
    lambda: PairBatches(torch.zeros(1), torch.zeros(1), [0], 2)])
def test_settings_that_cannot_work_are_told(call):
    with pytest.raises(UsageError):
        call()
