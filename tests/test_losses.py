"""Losses against open_clip's own, against hand-worked cases and against their limits."""

import math

import open_clip.loss
import pytest
import torch
from torch.nn import functional as F

from miniclip_helpers import losses
from miniclip_helpers.errors import UsageError
from miniclip_helpers.runtime import generator


def pairs(batch=12, width=8, seed=0):
    random = generator(seed)
    return [F.normalize(torch.randn(batch, width, generator=random, dtype=torch.float64), dim=-1).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_clip_loss_equals_open_clip(batch):
    images, texts = pairs(batch)
    scale = torch.tensor(14.3, dtype=torch.float64)
    torch.testing.assert_close(losses.clip_loss(images, texts, scale), open_clip.loss.ClipLoss()(images, texts, scale), rtol=1e-12, atol=1e-12)


def test_clip_loss_by_hand():
    """Two pairs at right angles, scale 1: each row costs log(e + 1) - 1."""
    eye = torch.eye(2, dtype=torch.float64)
    assert float(losses.clip_loss(eye, eye, 1.0)) == pytest.approx(math.log(math.e + 1) - 1, abs=1e-12)


def test_both_directions_count():
    """Texts that all agree make rows and columns cost differently: one direction alone would give another value."""
    images = F.normalize(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), dim=-1)
    texts = F.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.2], [0.2, 1.0]]), dim=-1)
    logits, target = 5 * images @ texts.T, torch.arange(3)
    rows, columns = F.cross_entropy(logits, target), F.cross_entropy(logits.T, target)
    assert abs(rows - columns) > 1e-3
    torch.testing.assert_close(losses.clip_loss(images, texts, 5.0), (rows + columns) / 2)


@pytest.mark.parametrize("batch", [2, 5, 100])
def test_uniform_logits_cost_log_batch(batch):
    same = torch.ones(batch, 4, dtype=torch.float64) / 2
    for loss in (losses.clip_loss(same, same, 10.0), losses.chunked_clip_loss(same, same, 10.0, 3)):
        assert float(loss) == pytest.approx(math.log(batch), abs=1e-9)


def test_a_batch_of_one_teaches_nothing():
    images, texts = pairs(1)
    loss = losses.clip_loss(images, texts, 10.0)
    loss.backward()
    assert loss.item() == 0 and float(images.grad.abs().max()) == 0


@pytest.mark.parametrize("chunk", [1, 5, 12, 1000])
def test_chunked_loss_and_gradients_equal_the_plain_ones(chunk):
    images, texts = pairs()
    scale = torch.tensor(17.0, dtype=torch.float64, requires_grad=True)
    plain, chunked = losses.clip_loss(images, texts, scale), losses.chunked_clip_loss(images, texts, scale, chunk)
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(chunked, (images, texts, scale)), torch.autograd.grad(plain, (images, texts, scale))):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 5, 12, 1000])
@pytest.mark.parametrize("name", ["multi-positive", "siglip"])
def test_the_other_losses_in_chunks(name, chunk):
    """Value and all gradients, in float64; a group of three, one of two, and pairs that stand alone."""
    images, texts = pairs()
    numbers = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in (17.0, -8.0)]
    groups = torch.tensor([4, 4, 0, 9, 4, 1, 2, 3, 9, 5, 6, 7])
    extra = (numbers[0], groups) if name == "multi-positive" else tuple(numbers)
    asked = [images, texts, *(number for number in extra if number.requires_grad)]
    plain, chunked = (losses.get_loss(full)(images, texts, *extra, *more) for full, more in ((name, ()), (f"chunked-{name}", (chunk,))))
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(chunked, asked), torch.autograd.grad(plain, asked)):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_multi_positive_is_clip_when_all_groups_differ():
    images, texts = pairs()
    torch.testing.assert_close(losses.multi_positive_loss(images, texts, 9.0, torch.arange(12)), losses.clip_loss(images, texts, 9.0))


def test_multi_positive_by_hand():
    """Groups 0, 0, 1: the first two rows spread their target over two columns."""
    images, texts = pairs(3)
    logits = 4 * images @ texts.T
    target = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]], dtype=torch.float64)
    by_hand = -(target * logits.log_softmax(1)).sum(1).mean() / 2 - (target * logits.T.log_softmax(1)).sum(1).mean() / 2
    torch.testing.assert_close(losses.multi_positive_loss(images, texts, 4.0, torch.tensor([0, 0, 1])), by_hand)


def test_siglip_equals_open_clip():
    images, texts = pairs()
    ours = losses.siglip_loss(images, texts, torch.tensor(10.0), torch.tensor(-10.0))
    theirs = open_clip.loss.SigLipLoss()(images, texts, torch.tensor(10.0), torch.tensor(-10.0))
    torch.testing.assert_close(ours, theirs)


def test_margin_loss_by_hand():
    """Cosines [[.9, .8], [.1, .5]] with margin .2: hinges by row .1 and 0, by column 0 and .5."""
    images = torch.tensor([[0.9, 0.8], [0.1, 0.5]])
    assert float(losses.margin_loss(images, torch.eye(2), 0.2)) == pytest.approx((0.1 + 0 + 0 + 0.5) / 2 / 2, abs=1e-6)


@pytest.mark.parametrize("texts", [torch.zeros(3, 8), torch.zeros(12, 4), torch.zeros(12)])
def test_shapes_that_do_not_fit_are_told(texts):
    with pytest.raises(UsageError, match=r"\(12, 8\)"):
        losses.clip_loss(torch.zeros(12, 8), texts, 1.0)


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean siglip"):
        losses.get_loss("sigclip")
