"""What grows: the chunked loss's memory, precision and edges; what is counted without content; laws fitted to cases whose law is known."""

import functools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from miniclip_helpers import losses
from miniclip_helpers.errors import UsageError
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import scaling
from miniclip_helpers.training.memory import loss_bytes, peak_bytes, vit_b32


def pairs(batch=13, width=6, seed=0, dtype=torch.float64):
    random = generator(seed)
    return [F.normalize(torch.randn(batch, width, generator=random, dtype=torch.float64), dim=-1).to(dtype).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize("chunk", [1, 4, 6, 13, 50])
def test_gradients_by_finite_differences(chunk):
    """13 rows: no chunk of 4 or 6 divides them."""
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i, t, s: losses.chunked_clip_loss(i, t, s, chunk), (*pairs(), scale))


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_float32_against_the_plain_loss_in_float64(chunk, scale):
    small, large = pairs(90, 16, dtype=torch.float32), pairs(90, 16)
    found = torch.autograd.grad(losses.chunked_clip_loss(*small, torch.tensor(scale), chunk), small)
    expected = torch.autograd.grad(losses.clip_loss(*large, torch.tensor(scale, dtype=torch.float64)), large)
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6 * scale)


def test_memory_grows_with_the_batch_and_not_with_its_square():
    most = {}
    for batch in (256, 512, 1024):
        for name, loss in (("plain", losses.clip_loss), ("chunked", functools.partial(losses.chunked_clip_loss, chunk_size=32))):
            images, texts = pairs(batch, 8, dtype=torch.float32)
            most[name, batch] = peak_bytes(lambda: loss(images, texts, torch.tensor(9.0)).backward())[1]  # noqa: B023
    for batch in (256, 512):
        assert most["plain", 2 * batch] > 3.7 * most["plain", batch]
        assert most["chunked", 2 * batch] < 2.1 * most["chunked", batch]
    assert most["plain", 1024] > 4 * 1024**2 * 4 and most["chunked", 1024] < 5 * 32 * 1024 * 4


@pytest.mark.parametrize("loss, limit", [(losses.chunked_clip_loss, 0.45e9), (functools.partial(losses.chunked_siglip_loss, logit_bias=-10.0), 0.6e9)])
def test_a_batch_of_32768_fits_where_the_plain_loss_does_not(loss, limit):
    """d 512, float32, forward and backward, with the embeddings and their gradients, 268 MB: counted at the full size, through tensors without content."""
    assert loss_bytes(loss, 32768) < limit < 1e9 < 17e9 < loss_bytes(losses.clip_loss, 32768)


def test_the_other_chunked_losses_hold_less_too():
    groups = torch.arange(1024) // 2
    ways = {"multi-positive": ((9.0, groups), losses.multi_positive_loss, losses.chunked_multi_positive_loss),
            "siglip": ((9.0, -10.0), losses.siglip_loss, losses.chunked_siglip_loss)}
    for extra, plain, chunked in ways.values():
        images, texts = pairs(1024, 8, dtype=torch.float32)
        held = [peak_bytes(lambda: loss(images, texts, *extra).backward())[1] for loss in (plain, functools.partial(chunked, chunk_size=32))]  # noqa: B023
        assert held[0] > 4 * 1024**2 * 4 and held[1] < 8 * 32 * 1024 * 4


@pytest.mark.parametrize("loss", [lambda i, t: losses.chunked_multi_positive_loss(i, t, 100.0, torch.arange(200) // 2, 33),
                                  lambda i, t: losses.chunked_siglip_loss(i, t, 100.0, -10.0, 33)])
def test_the_other_chunked_losses_are_float32_under_autocast(loss):
    images, texts = pairs(200, 32, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(images, texts)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(images.float(), texts.float()))
    found.backward()
    assert images.grad.dtype == torch.bfloat16 and torch.isfinite(images.grad).all()


def test_more_of_it_in_larger_chunks():
    images, texts = pairs(1024, 8, dtype=torch.float32)
    small, large = (peak_bytes(lambda: losses.chunked_clip_loss(images, texts, 9.0, chunk).backward())[1] for chunk in (16, 256))  # noqa: B023
    assert small < large / 4


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_comes_in_and_the_loss_is_float32(autocast):
    """At scale 100 the plain loss in bfloat16 is off by hundredths and more; the chunked one sees the same rounded rows in float32."""
    images, texts = pairs(200, 32, dtype=torch.bfloat16)
    exact = losses.clip_loss(images.double(), texts.double(), 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = losses.chunked_clip_loss(images, texts, 100.0, 33)
        full = losses.chunked_clip_loss(images.float(), texts.float(), 100.0, 33)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(full.double(), exact, rtol=1e-5, atol=0)
    assert abs(losses.clip_loss(images, texts, 100.0).double() - exact) > 1e-2
    found.backward()
    assert images.grad.dtype == torch.bfloat16
    torch.testing.assert_close(images.grad.double(), torch.autograd.grad(exact, images)[0].double(), rtol=0.02, atol=1e-2)


def test_large_logits_do_not_overflow():
    """At scale 100 a naive sum of exponentials is infinite in float32."""
    images, texts = pairs(40, 8, dtype=torch.float32)
    scale = torch.tensor(100.0)
    assert torch.isinf(torch.full((), 100.0).exp())
    torch.testing.assert_close(losses.chunked_clip_loss(images, texts, scale, 7), losses.clip_loss(images, texts, scale))


def test_gradients_of_gradients_are_refused_not_wrong():
    """They would lack the way through the sums of exponentials."""
    images, texts = pairs()
    (first,) = torch.autograd.grad(losses.chunked_clip_loss(images, texts, 5.0, 4), images, create_graph=True)
    assert not first.requires_grad
    (first,) = torch.autograd.grad(losses.chunked_clip_loss(images, texts, 5.0, 4) ** 2, images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("chunk", [0, -3])
def test_a_chunk_of_nothing_is_told(chunk):
    with pytest.raises(UsageError, match="at least 1 row"):
        losses.chunked_clip_loss(*pairs(), 5.0, chunk)


def test_only_what_asks_gets_a_gradient():
    """A locked side, as in LiT, and a fixed temperature."""
    images, texts = pairs()
    locked = images.detach()
    (found,) = torch.autograd.grad(losses.chunked_clip_loss(locked, texts, 5.0, 4), texts)
    (expected,) = torch.autograd.grad(losses.clip_loss(locked, texts, 5.0), texts)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", [losses.clip_loss, functools.partial(losses.chunked_clip_loss, chunk_size=64)])
def test_counting_without_content_is_counting(loss):
    """A walk through empty tensors finds what a real pass holds; so it may be believed where no machine could follow."""
    images, texts = (rows.detach().clone().requires_grad_() for rows in pairs(300, 16, dtype=torch.float32))
    scale = torch.tensor(9.0, requires_grad=True)
    assert loss_bytes(loss, 300, 16) == pytest.approx(peak_bytes(lambda: loss(images, texts, scale).backward())[1], rel=0.02)
    assert loss_bytes(losses.clip_loss, 65536) > 4 * 65536**2 * 4


def test_the_smallest_clip_is_what_was_published():
    """151.28 million weights and 14.78 GFLOP: open_clip's docs/model_profile.csv."""
    found = vit_b32()
    assert found["weights"] / 1e6 == pytest.approx(151.28, abs=0.005) and found["flops"] / 1e9 == pytest.approx(14.78, abs=0.005)
    tokens = 12 * (50 * 768 + 77 * 512) * 4  # bytes of one tensor of each layer
    assert 10 * tokens < found["bytes_per_pair"] < 40 * tokens


def test_a_law_that_is_known_is_found():
    sizes = [50, 100, 200, 400, 800, 1600]
    exact = 2.0 * np.array(sizes, dtype=float) ** -0.25
    alpha, law = scaling.fit_power_law(sizes, exact)
    assert alpha == pytest.approx(0.25) and law(3200) == pytest.approx(2 * 3200**-0.25)
    floor, a, alpha = scaling.fit_floor(sizes, 0.2 + 3 * np.array(sizes, dtype=float) ** -0.5)
    assert (floor, a, alpha) == pytest.approx((0.2, 3, 0.5), rel=1e-3)
    judged = scaling.judge_law(sizes, exact * np.exp(0.01 * np.random.default_rng(0).normal(size=(8, 6))))
    assert judged["alpha95"][0] < 0.25 < judged["alpha95"][1] and judged["measured"] == pytest.approx(judged["predicted"], rel=0.02)
    bent = scaling.judge_law(sizes, [[*exact[:-1], 0.5 * exact[-1]]] * 3)
    assert bent["measured"] / bent["predicted"] == pytest.approx(0.5)  # the largest size is not in the fit


def test_accumulation_is_the_mean_of_the_small_batches():
    images, texts = torch.randn(10, 6, generator=generator(0)), torch.randn(10, 5, generator=generator(1))
    towers = scaling.small_towers(6, 5)
    value = scaling.accumulated_step(towers, images, texts, 4)
    found = scaling.flat_gradient(towers)
    towers.zero_grad()
    parts = [losses.clip_loss(*towers(images[i : i + 4], texts[i : i + 4])) * len(images[i : i + 4]) / 10 for i in (0, 4, 8)]
    sum(parts).backward()
    assert value == pytest.approx(sum(parts).item())
    torch.testing.assert_close(found, scaling.flat_gradient(towers))
    assert len(found) == sum(weight.numel() for weight in towers.parameters()) - 1


def test_small_towers_learn_and_stop_where_asked():
    thing = torch.randn(64, 8, generator=generator(0))
    stops = {step: losses.clip_loss(*towers(thing, thing)).item() for step, towers in scaling.train_small(thing, thing, (5, 30), size=16)}
    assert list(stops) == [0, 5, 30] and stops[30] < stops[0] / 2
    assert scaling.small_scores(thing, thing, thing, thing, 30, seeds=1)[0] > 0.9
    assert scaling.recall_at_10(torch.eye(30), torch.eye(30)) == 1 and scaling.recall_at_10(torch.eye(30), torch.eye(30).flip(0)) < 0.7


def test_emoji_of_two_hands_keep_their_distances():
    """Every 200th concept. The axes are those of every other one of the first hand: between these, distances stay as they were."""
    from miniclip_helpers import pretrained
    from miniclip_helpers.datasets import load_dataset

    model = pretrained.load_model("mini")
    pairs = scaling.emoji_pairs(model, every=200)
    emoji = load_dataset("emoji")
    assert list(pairs.pictures) == list(pairs.features) == ["noto", "twemoji"] and 5 < len(pairs.names) < 20
    for hand in pairs.pictures:
        part = emoji.where("source", hand)
        rows = [next(row for row, said in enumerate(part.captions) if said[0] == name) for name in pairs.names]
        features = model.image_tower.encode([part.image(row) for row in rows])
        torch.testing.assert_close(pairs.features[hand], features, rtol=1e-3, atol=1e-3)
        assert pairs.pictures[hand].shape[0] == len(pairs.names)
    unit = F.normalize(pairs.features["noto"].sign() * pairs.features["noto"].abs().sqrt(), dim=-1)[::2]
    torch.testing.assert_close(torch.cdist(pairs.pictures["noto"][::2], pairs.pictures["noto"][::2]), torch.cdist(unit, unit), rtol=1e-3, atol=1e-4)
    said = F.normalize(model.text_tower.encode(pairs.names), dim=-1)
    torch.testing.assert_close(pairs.captions, said, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(F.normalize(pairs.said, dim=-1), pairs.captions)


def test_recall_at_10_looks_at_directions_alone():
    rows = torch.randn(40, 6, generator=generator(8))
    lengths = torch.linspace(0.1, 30, 40)[:, None]
    assert scaling.recall_at_10(rows * lengths, rows) == scaling.recall_at_10(rows, rows * lengths) == 1


def test_a_learning_curve_on_made_up_concepts():
    """Two sights of a linear world: more concepts, fewer errors; the second hand, which draws noise, does not help; what is held out is not trained on."""
    random = generator(3)
    world = torch.randn(160, 12, generator=random)
    said = F.normalize(world @ torch.randn(12, 20, generator=random), dim=-1)
    drawn = world @ torch.randn(12, 30, generator=random) + 5 * torch.randn(160, 30, generator=random)
    made = scaling.Pairs([], {}, said, {"one": drawn, "two": torch.randn(160, 30, generator=random)}, said)
    errors, doubled = scaling.learning_curve(made, [8, 30, 100], test=60, shrink=0.1, seed=0)
    assert errors[0] > errors[1] > errors[2] and doubled > errors[2]
    assert scaling.learning_curve(made, [8, 30, 100], test=60, shrink=0.1, seed=0) == (errors, doubled)
    with pytest.raises(UsageError, match="at most 100 concepts"):
        scaling.learning_curve(made, [101], test=60)
