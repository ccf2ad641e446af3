"""Gradient caching: the gradient of one large batch, with the activations of a small one in memory."""

import torch

from ..errors import UsageError
from .loop import DIVERGED, Diverged


class _Dice:
    """The state of the random numbers at a moment, to throw the same dice again: dropout must drop the same numbers in both passes."""

    def __init__(self, device):
        self.card = torch.get_device_module(device) if device.type in ("cuda", "mps") else None
        self.which = (device,) if device.type == "cuda" else ()  # there is one MPS
        self.state = torch.get_rng_state(), self.card and self.card.get_rng_state(*self.which)

    def restore(self):
        torch.set_rng_state(self.state[0])
        if self.card:
            self.card.set_rng_state(self.state[1], *self.which)


def check_norms(model):
    """Refuse a model with a batch normalisation that learns from its batch."""
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.training:
            raise UsageError(f"{name} is a batch normalisation: its rows depend on their whole batch, so chunks would give another gradient; "
                             "put it into evaluation mode, or take a model without one")


def gradient_cached_step(model, images, texts, loss, chunk):
    """Forward and backward of one batch in chunks. Returns the loss, a scalar without graph; the gradients are in `.grad`, as after `loss.backward()`.

    model: called as model(images, texts) -> (image_embeddings, text_embeddings, logit_scale). images, texts: (N, ...), anything that slices.
    loss: function of the three. chunk: pairs whose activations are held at once. First pass: all embeddings, without graph. The loss of
    all N, and its gradient on each embedding: the cache. Second pass: chunk by chunk with graph, each pulled by its rows of the cache.
    One forward pass more than the plain step. Raises `Diverged` at a loss that is not finite, before any gradient is made.
    Source: Gao et al. 2021 (GradCache), algorithm in section 3.
    """
    if len(images) != len(texts) or int(chunk) < 1:
        raise UsageError(f"expected as many images as texts, and chunks of at least one pair, found {len(images)}, {len(texts)} and a chunk of {chunk}")
    check_norms(model)
    parts = [slice(start, start + int(chunk)) for start in range(0, len(images), int(chunk))]
    device = next(model.parameters()).device
    dice, rows = [], []
    with torch.no_grad():
        for part in parts:
            dice.append(_Dice(device))
            rows.append(model(images[part], texts[part]))
    image_leaf, text_leaf = (torch.cat([row[side] for row in rows]).requires_grad_() for side in (0, 1))  # (N, D) each
    scale_leaf = rows[0][2].detach().clone().requires_grad_()
    del rows
    found = loss(image_leaf, text_leaf, scale_leaf)
    if not torch.isfinite(found):
        raise Diverged(f"the loss {DIVERGED}")
    found.backward()
    pull_scale = 0.0 if scale_leaf.grad is None else scale_leaf.grad  # a loss may do without a temperature
    for number, part in enumerate(parts):
        dice[number].restore()
        image_rows, text_rows, scale = model(images[part], texts[part])
        pull = (image_rows * image_leaf.grad[part]).sum() + (text_rows * text_leaf.grad[part]).sum()
        (pull + scale * pull_scale if number == 0 else pull).backward()  # the temperature is one number: pulled once
    return found.detach()
