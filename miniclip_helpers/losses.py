"""Contrastive losses: pure functions of unit embeddings. Row i of the images belongs to row i of the texts.

`logit_scale` is 1 / temperature, already exponentiated. Uniform similarities cost log B: the value a loss starts from,
and the value it is stuck at when nothing is learned.
"""

import contextlib

import torch
import torch.nn.functional as F

from .errors import UsageError, unknown


def _check(image_embeddings, text_embeddings):
    if image_embeddings.ndim != 2 or image_embeddings.shape != text_embeddings.shape:
        raise UsageError(
            "expected image and text embeddings of one shape (B, D), found "
            f"{tuple(image_embeddings.shape)} and {tuple(text_embeddings.shape)}; give one caption per image")
    if len(image_embeddings) == 0:
        raise UsageError("expected at least one pair, found an empty batch")


def similarity_logits(image_embeddings, text_embeddings, logit_scale):
    """(B, D) and (C, D) unit rows to (B, C) logits: rows are images, columns are texts."""
    return logit_scale * image_embeddings @ text_embeddings.T


def clip_loss(image_embeddings, text_embeddings, logit_scale):
    """Symmetric cross-entropy over the B x B matrix (InfoNCE both ways), the mean of the two directions.

    image_embeddings, text_embeddings: (B, D), unit rows. Returns a scalar >= 0; a batch of one gives 0, and teaches nothing.
    Source: Radford et al. 2021, figure 3; van den Oord et al. 2018 (InfoNCE).
    """
    _check(image_embeddings, text_embeddings)
    logits = similarity_logits(image_embeddings, text_embeddings, logit_scale)  # (B, B)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def multi_positive_loss(image_embeddings, text_embeddings, logit_scale, groups):
    """The same where several pairs of a batch may belong together: each target row is uniform over its positives.

    groups: (B,) integers; pairs with the same number describe the same thing, and all of them are right answers for each
    other. With B different groups this is `clip_loss`. Source: SupCon, Khosla et al. 2020; UniCL, Yang et al. 2022.
    """
    _check(image_embeddings, text_embeddings)
    if groups.shape != image_embeddings.shape[:1]:
        raise UsageError(f"expected one group per pair, ({len(image_embeddings)},), found {tuple(groups.shape)}")
    logits = similarity_logits(image_embeddings, text_embeddings, logit_scale)  # (B, B)
    same = (groups[:, None] == groups[None, :]).to(logits.dtype)
    target = same / same.sum(1, keepdim=True)  # symmetric, so it serves both directions
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def siglip_loss(image_embeddings, text_embeddings, logit_scale, logit_bias):
    """A yes-or-no question for each of the B x B pairs, summed over the matrix and divided by B.

    logit_bias: about -10 at the start, so that the many negatives do not drown the positives.
    Source: Zhai et al. 2023 (SigLIP), algorithm 1.
    """
    _check(image_embeddings, text_embeddings)
    logits = similarity_logits(image_embeddings, text_embeddings, logit_scale) + logit_bias
    sign = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)


def margin_loss(image_embeddings, text_embeddings, margin=0.2):
    """Each pair must beat its hardest negative in the batch by `margin`, in cosine, both ways; mean over the batch.

    Source: Faghri et al. 2018 (VSE++), the max of hinges. Needs at least two pairs to teach anything.
    """
    _check(image_embeddings, text_embeddings)
    cosine = image_embeddings @ text_embeddings.T  # (B, B)
    right = cosine.diagonal()
    if len(cosine) == 1:
        return cosine.sum() * 0
    wrong = cosine.masked_fill(torch.eye(len(cosine), dtype=torch.bool, device=cosine.device), -torch.inf)
    by_image = (margin + wrong.amax(1) - right).clamp_min(0)
    by_text = (margin + wrong.amax(0) - right).clamp_min(0)
    return (by_image + by_text).mean() / 2


def clip_loss_local(image_local, text_local, image_all, text_all, logit_scale, rank):
    """One process's share of `clip_loss`: B of the N rows and the same B of the N columns, so 2 x B x N logits and never N x N.

    image_local, text_local: (B, D), the pairs of process number `rank`. image_all, text_all: (N, D), the pairs of all processes, B each, in
    the order of their numbers, gathered so that gradients flow back (`training.processes.gather_with_gradients`). The mean over the
    processes is `clip_loss` of all N pairs. Source: local loss of open_clip.
    """
    _check(image_local, text_local)
    _check(image_all, text_all)
    batch, processes = len(image_local), len(image_all) // len(image_local)
    if batch * processes != len(image_all) or not 0 <= rank < processes:
        raise UsageError(f"expected {len(image_all)} gathered pairs to be equal shares of {batch}, and this process's number among them, found rank {rank}")
    target = rank * batch + torch.arange(batch, device=image_local.device)
    by_image, by_text = similarity_logits(image_local, text_all, logit_scale), similarity_logits(text_local, image_all, logit_scale)  # (B, N) each
    return (F.cross_entropy(by_image, target) + F.cross_entropy(by_text, target)) / 2


def _pull(image, text, scale, row_lse, column_lse, first):
    """(b, N): softmax of each row plus softmax of each column, minus 2 at the right pairs: what every logit of a block adds to the gradient.

    The block's rows are number `first` and on. It holds two blocks at once, not more: whence the work in place.
    """
    weight = (scale * image) @ text.T
    by_column = (weight - column_lse).exp_()
    weight.sub_(row_lse[:, None]).exp_().add_(by_column)
    weight.diagonal(first).sub_(2)
    return weight


class _ChunkedClipLoss(torch.autograd.Function):
    """Forward and backward in blocks of rows: never more than two blocks of chunk x B logits in memory."""

    @staticmethod
    def forward(ctx, image, text, scale, chunk):
        batch = len(image)
        row_lse = image.new_empty(batch)
        column_lse = image.new_full((batch,), -torch.inf)
        for start in range(0, batch, chunk):
            logits = (scale * image[start : start + chunk]) @ text.T
            row_lse[start : start + chunk] = logits.logsumexp(1)
            column_lse = torch.logaddexp(column_lse, logits.logsumexp(0))
            del logits  # or it would still be there while the next is made
        right = scale * (image * text).sum(1)
        ctx.save_for_backward(image, text, scale, row_lse, column_lse)
        ctx.chunk = chunk
        return (row_lse + column_lse - 2 * right).mean() / 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        image, text, scale, row_lse, column_lse = ctx.saved_tensors
        grad_image, grad_text = torch.zeros_like(image), torch.zeros_like(text)
        for start in range(0, len(image), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            weight = _pull(image[rows], text, scale, row_lse[rows], column_lse, start)
            grad_image[rows] = weight @ text
            grad_text += weight.T @ image[rows]
            del weight
        factor = grad / (2 * len(image))
        grad_scale = (grad_image * image).sum()  # the sum of weight x cosine, without the cosines
        return factor * scale * grad_image, factor * scale * grad_text, factor * grad_scale, None


def chunked_clip_loss(image_embeddings, text_embeddings, logit_scale, chunk_size=1024):
    """`clip_loss`, the same value and gradients, with memory that grows with chunk_size x B instead of B x B.

    Computed in float32 at least, under autocast too: in bfloat16 a logit of 100 is only known to 0.25. Differentiable once.
    """
    _check(image_embeddings, text_embeddings)
    if int(chunk_size) < 1:
        raise UsageError(f"expected a chunk_size of at least 1 row, found {chunk_size}")
    dtype, device = torch.promote_types(image_embeddings.dtype, torch.float32), image_embeddings.device
    scale = torch.as_tensor(logit_scale, dtype=dtype, device=device)
    known = torch.amp.is_autocast_available(device.type)  # tensors without content ("meta"), which only count, know none
    with torch.autocast(device.type, enabled=False) if known else contextlib.nullcontext():
        return _ChunkedClipLoss.apply(image_embeddings.to(dtype), text_embeddings.to(dtype), scale, int(chunk_size))


LOSSES = {
    "clip": clip_loss,
    "chunked-clip": chunked_clip_loss,
    "multi-positive": multi_positive_loss,
    "siglip": siglip_loss,
    "margin": margin_loss,
}


def get_loss(name):
    """The loss called `name`, a key of `LOSSES`; a `UsageError` names the nearest."""
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return LOSSES[name]
