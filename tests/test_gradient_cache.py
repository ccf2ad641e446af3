"""Gradient caching against the plain step, with and without dropout; memory counted; what it refuses."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from miniclip_helpers.errors import MiniclipError, UsageError
from miniclip_helpers.losses import chunked_clip_loss, clip_loss, multi_positive_loss
from miniclip_helpers.model import TwoTowers
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import PairBatches
from miniclip_helpers.training.gradient_cache import gradient_cached_step
from miniclip_helpers.training.memory import peak_bytes


def towers(dropout=0.0, dtype=torch.float64, hidden=20, depth=1, norm=nn.LayerNorm):
    """Two small towers with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sides = []
        for width in (12, 9):
            layers = [nn.Linear(width, hidden), norm(hidden)]
            for _ in range(depth):
                layers += [nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, hidden)]
            sides.append(nn.Sequential(*layers, nn.Linear(hidden, 8)))
        return TwoTowers(*sides, logit_scale=6.0).to(dtype)


def batch(count=22, dtype=torch.float64):
    random = generator(1)
    return torch.randn(count, 12, generator=random, dtype=dtype), torch.randn(count, 9, generator=random, dtype=dtype)


def gradients(model):
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def assert_same(ours, theirs, **limits):
    assert ours.keys() == theirs.keys() and "log_logit_scale" in ours
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **limits)


@pytest.mark.parametrize("chunk", [1, 4, 7, 22, 1000])
@pytest.mark.parametrize("loss", [clip_loss, lambda i, t, s: chunked_clip_loss(i, t, s, 5)])
def test_gradients_equal_the_plain_step(chunk, loss):
    """Chunks that divide the batch and chunks that do not; the temperature's gradient among them."""
    model, (images, texts) = towers(), batch()
    plain = clip_loss(*model(images, texts))
    plain.backward()
    expected = gradients(model)
    model.zero_grad()
    found = gradient_cached_step(model, images, texts, loss, chunk)
    assert not found.requires_grad
    torch.testing.assert_close(found, plain.detach(), rtol=1e-12, atol=1e-12)
    assert_same(gradients(model), expected, rtol=1e-10, atol=1e-12)


def test_in_float32_to_a_millionth():
    model, (images, texts) = towers(dtype=torch.float32), batch(64, torch.float32)
    clip_loss(*model(images, texts)).backward()
    expected = gradients(model)
    model.zero_grad()
    gradient_cached_step(model, images, texts, clip_loss, 16)
    assert_same(gradients(model), expected, rtol=0, atol=1e-6)


def test_accumulation_is_another_gradient():
    """What gradient caching is not: the mean of the small batches' losses has fewer negatives, another value and another direction."""
    model, (images, texts) = towers(), batch(20)
    whole = clip_loss(*model(images, texts))
    whole.backward()
    expected = gradients(model)
    model.zero_grad()
    small = [clip_loss(*model(images[i : i + 5], texts[i : i + 5])) / 4 for i in range(0, 20, 5)]
    sum(small).backward()
    found = gradients(model)
    assert sum(small) < whole - 1 and max((found[name] - expected[name]).abs().max() for name in found) > 1e-3


@pytest.mark.parametrize("replayed", [True, False])
def test_dropout_throws_the_same_dice_twice(replayed, monkeypatch):
    """Against one graph over chunks that were encoded one by one, from the same state of the random numbers. Without the replay it fails."""
    if not replayed:
        monkeypatch.setattr("miniclip_helpers.training.gradient_cache._Dice.restore", lambda self: None)
    model, (images, texts) = towers(dropout=0.4).train(), batch()
    torch.manual_seed(5)
    parts = [model(images[start : start + 6], texts[start : start + 6]) for start in range(0, 22, 6)]
    plain = clip_loss(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]), parts[0][2])
    plain.backward()
    after = torch.get_rng_state()
    expected = gradients(model)
    model.zero_grad()
    torch.manual_seed(5)
    found = gradient_cached_step(model, images, texts, clip_loss, 6)
    torch.testing.assert_close(found, plain.detach())
    if replayed:
        assert_same(gradients(model), expected, rtol=1e-10, atol=1e-12)
        assert torch.equal(torch.get_rng_state(), after)  # what follows throws the dice that the plain step would have left
    else:
        assert max((ours - expected[name]).abs().max() for name, ours in gradients(model).items()) > 1e-3


def test_gradients_add_up_like_backward_s():
    model, (images, texts) = towers(), batch()
    gradient_cached_step(model, images, texts, clip_loss, 5)
    once = gradients(model)
    gradient_cached_step(model, images, texts, clip_loss, 5)
    assert_same(gradients(model), {name: 2 * value for name, value in once.items()})


def test_other_losses_and_a_temperature_at_its_limit():
    """Multi-positive through a closure; a loss without a temperature; a clamped scale, whose gradient is zero."""
    model, (images, texts) = towers(), batch()
    groups = torch.arange(22) // 2
    multi_positive_loss(*model(images, texts), groups).backward()
    expected = gradients(model)
    model.zero_grad()
    gradient_cached_step(model, images, texts, lambda i, t, s: multi_positive_loss(i, t, s, groups), 5)
    assert_same(gradients(model), expected, rtol=1e-10, atol=1e-12)
    model.zero_grad()
    gradient_cached_step(model, images, texts, lambda i, t, s: (i * t).sum(), 5)
    assert model.log_logit_scale.grad is None or float(model.log_logit_scale.grad) == 0
    with torch.no_grad():
        model.log_logit_scale.fill_(math.log(200))
    model.zero_grad()
    gradient_cached_step(model, images, texts, clip_loss, 5)
    assert float(model.log_logit_scale.grad) == 0


def test_the_loop_s_batches_go_in():
    """Three steps on `PairBatches`: the weights end where the plain steps put them."""
    ends = []
    for cached in (False, True):
        model, (images, texts) = towers(), batch(48)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for pictures, said, _ in PairBatches(images, texts, range(48), 16).epoch(generator(0)):
            optimizer.zero_grad()
            gradient_cached_step(model, pictures, said, clip_loss, 4) if cached else clip_loss(*model(pictures, said)).backward()
            optimizer.step()
        ends.append({name: weight.detach() for name, weight in model.named_parameters()})
    assert_same(*ends, rtol=1e-10, atol=1e-12)


def test_what_cannot_be_chunked_is_refused():
    model, (images, texts) = towers(norm=nn.BatchNorm1d), batch()
    with pytest.raises(UsageError, match=r"image_tower\.1 is a batch normalisation"):
        gradient_cached_step(model.train(), images, texts, clip_loss, 5)
    gradient_cached_step(model.eval(), images, texts, clip_loss, 5)
    for wrong in ((images[:5], texts, 5), (images, texts, 0)):
        with pytest.raises(UsageError, match="as many images as texts"):
            gradient_cached_step(towers(), *wrong[:2], clip_loss, wrong[2])


def test_a_loss_that_is_no_number_leaves_no_gradient():
    model, (images, texts) = towers(), batch()
    with pytest.raises(MiniclipError, match="loss is not a number"):
        gradient_cached_step(model, images * math.nan, texts, clip_loss, 5)
    assert all(weight.grad is None for weight in model.parameters())


def test_memory_is_the_chunk_s():
    """Deep towers: the plain step holds every pair's activations, the cached one those of a chunk, whatever the batch."""
    model, chunk = towers(dtype=torch.float32, hidden=64, depth=8), 32

    def plain_step(images, texts):
        clip_loss(*model(images, texts)).backward()

    def cached_step(images, texts):
        gradient_cached_step(model, images, texts, lambda i, t, s: chunked_clip_loss(i, t, s, chunk), chunk)

    def most(step, count):
        model.zero_grad()
        return peak_bytes(functools.partial(step, *batch(count, torch.float32)))[1]

    plain, cached = ({count: most(step, count) for count in (256, 1024)} for step in (plain_step, cached_step))
    activations = 2 * 8 * 64 * 4  # bytes a pair at the least: two towers, eight layers of 64 numbers
    assert plain[1024] > 1024 * activations and cached[1024] < plain[1024] / 5
    assert plain[1024] - plain[256] > 768 * activations and cached[1024] - cached[256] < 0.2 * 768 * activations


def test_the_memory_grows_by_the_embeddings_alone():
    """Chunks of 32: each pair more costs its two rows of embeddings, their gradients and the loss's blocks, and nothing of the towers."""
    model, chunk = towers(dtype=torch.float32, hidden=64, depth=8), 32

    def most(count):
        images, texts = batch(count, torch.float32)
        gradient_cached_step(model, images, texts, clip_loss, chunk)  # the weights have their gradients then
        return peak_bytes(lambda: gradient_cached_step(model, images, texts, lambda i, t, s: chunked_clip_loss(i, t, s, chunk), chunk))[1]

    held = {count: most(count) for count in (128, 256, 512, 1024)}
    row = 2 * 8 * 4  # bytes of a pair's two embeddings
    for count in (128, 256, 512):
        assert held[2 * count] - held[count] <= count * (8 * row + 3 * chunk * 4)
    assert held[1024] < held[128] + 900 * 1024


def test_peak_bytes_by_hand_and_by_the_profiler():
    """Three tensors of 4,000 bytes, the first gone before the third is made; then a loss, against the allocator's own records."""
    def three():
        first = torch.zeros(1000)
        second = first + 1
        del first
        return (second + 1).view(10, 100)

    made, most = peak_bytes(three)
    assert made.shape == (10, 100) and most == 8000
    assert peak_bytes(lambda: made.view(-1)[:10])[1] in (0, 4000)
    images, texts = (torch.randn(256, 32, requires_grad=True) for _ in range(2))
    for step in (lambda: clip_loss(images, texts, 0.1).backward(), lambda: chunked_clip_loss(images, texts, 0.1, 64).backward()):
        images.grad = texts.grad = None
        counted = peak_bytes(step)[1]
        images.grad = texts.grad = None
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            step()
        events = sorted((event.start_ns(), event.nbytes()) for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]")
        now = most = 0
        for _, size in events:
            now += size
            most = max(most, now)
        assert most == pytest.approx(counted, rel=0.35)
