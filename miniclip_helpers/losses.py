"""Contrastive losses: pure functions of unit embeddings. Row i of the images belongs to row i of the texts.

`logit_scale` is 1 / temperature, already exponentiated. Uniform similarities cost log B: the value a loss starts from,
and the value it is stuck at when nothing is learned.

Embeddings are floating-point tensors; of two dtypes the wider counts. Float16 and bfloat16 give the loss of their own numbers within the rounding
of their logits, and no infinity where the exact loss is a finite number of theirs. What is not finite, a temperature of 0 among it, gives NaN or
infinity and no error: a loss must not look at its numbers, and `training.train_step` stops there. A zero row is as near to everything. What is no
tensor, no floating-point number, or no batch of pairs is a `UsageError`.
"""

import contextlib

import torch
import torch.nn.functional as F

from .errors import UsageError, unknown

CHUNK = 512  # rows of logits at a time: 64 MB a block at a batch of 32,768 in float32; measured no slower than larger blocks


def _check(image_embeddings, text_embeddings):
    for rows in (image_embeddings, text_embeddings):
        if not torch.is_tensor(rows) or not rows.is_floating_point():
            raise UsageError(f"expected embeddings as floating-point tensors, found {getattr(rows, 'dtype', type(rows).__name__)}; torch.from_numpy(array).float() makes one")
    if image_embeddings.ndim != 2 or image_embeddings.shape != text_embeddings.shape:
        raise UsageError(
            "expected image and text embeddings of one shape (B, D), found "
            f"{tuple(image_embeddings.shape)} and {tuple(text_embeddings.shape)}; give one caption per image")
    if len(image_embeddings) == 0:
        raise UsageError("expected at least one pair, found an empty batch")


def _checked_groups(image_embeddings, groups):
    """(B,) integers on the embeddings' device, out of a tensor, an array or a list."""
    groups = torch.as_tensor(groups, device=image_embeddings.device)
    if groups.shape != image_embeddings.shape[:1] or groups.is_floating_point() or groups.is_complex():
        raise UsageError(f"expected one group per pair, ({len(image_embeddings)},) integers, found {groups.dtype} {tuple(groups.shape)}")
    return groups


def similarity_logits(image_embeddings, text_embeddings, logit_scale):
    """(B, D) and (C, D) unit rows to (B, C) logits: rows are images, columns are texts. Of two dtypes the wider counts."""
    if image_embeddings.dtype != text_embeddings.dtype:
        wider = torch.promote_types(image_embeddings.dtype, text_embeddings.dtype)
        image_embeddings, text_embeddings = image_embeddings.to(wider), text_embeddings.to(wider)
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
    groups = _checked_groups(image_embeddings, groups)
    logits = similarity_logits(image_embeddings, text_embeddings, logit_scale)  # (B, B)
    same = (groups[:, None] == groups[None, :]).to(logits.dtype)
    target = same / same.sum(1, keepdim=True)  # symmetric, so it serves both directions
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def supervised_loss(embeddings, logit_scale, groups):
    """Rows of one kind among themselves: each picks those of its own group among all the others; who is alone in a group asks nothing.

    embeddings: (B, D), unit rows. groups: (B,) integers. Returns a scalar >= 0, the mean over who asks; 0 where nobody does.
    Source: SupCon, Khosla et al. 2020, its "out" form.
    """
    _check(embeddings, embeddings)
    groups = _checked_groups(embeddings, groups)
    itself = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    same = (groups[:, None] == groups[None, :]) & ~itself
    asks = same.any(1)
    if not asks.any():
        return embeddings.sum() * 0  # a gradient of zero, where there must be one
    logits = similarity_logits(embeddings, embeddings, logit_scale)  # (B, B)
    logits = logits.masked_fill(itself, torch.finfo(logits.dtype).min / 2)  # not -inf, as 0 times that is no number
    target = same / same.sum(1, keepdim=True).clamp_min(1)
    return F.cross_entropy(logits[asks], target[asks].to(logits.dtype))


def multi_view_loss(image_embeddings, text_embeddings, logit_scale, groups, weight=0.5):
    """`multi_positive_loss`, and `weight` times the `supervised_loss` of the images: several pictures of one thing also find each other.

    Wants batches in which things come several times (`PairBatches(..., together=True)`); where none does it is `clip_loss`.
    """
    return multi_positive_loss(image_embeddings, text_embeddings, logit_scale, groups) + weight * supervised_loss(image_embeddings, logit_scale, groups)


def siglip_loss(image_embeddings, text_embeddings, logit_scale, logit_bias):
    """A yes-or-no question for each of the B x B pairs, summed over the matrix and divided by B.

    logit_bias: about -10 at the start, so that the many negatives do not drown the positives.
    Source: Zhai et al. 2023 (SigLIP), algorithm 1.
    """
    _check(image_embeddings, text_embeddings)
    logits = similarity_logits(image_embeddings, text_embeddings, logit_scale) + logit_bias
    sign = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    wide = torch.promote_types(logits.dtype, torch.float32)  # the sum of a thousand rows overflows float16
    return (-F.logsigmoid(sign * logits).sum(dtype=wide) / len(logits)).to(logits.dtype)


def margin_loss(image_embeddings, text_embeddings, margin=0.2):
    """Each pair must beat its hardest negative in the batch by `margin`, in cosine, both ways; mean over the batch.

    Source: Faghri et al. 2018 (VSE++), the max of hinges. Needs at least two pairs to teach anything.
    """
    _check(image_embeddings, text_embeddings)
    cosine = similarity_logits(image_embeddings, text_embeddings, 1)  # (B, B)
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
    if batch * processes != len(image_all) or rank not in range(processes):
        raise UsageError(f"expected {len(image_all)} gathered pairs to be equal shares of {batch}, and this process's number among them, found rank {rank}")
    target = rank * batch + torch.arange(batch, device=image_local.device)
    by_image, by_text = similarity_logits(image_local, text_all, logit_scale), similarity_logits(text_local, image_all, logit_scale)  # (B, N) each
    return (F.cross_entropy(by_image, target) + F.cross_entropy(by_text, target)) / 2


def _group_means(rows, groups):
    """(B, D): the mean row of each row's group; groups (B,)."""
    _, number, count = torch.unique(groups, return_inverse=True, return_counts=True)
    sums = rows.new_zeros(len(count), rows.shape[1]).index_add_(0, number, rows)
    return (sums / count[:, None])[number]


def _pull(image, text, scale, row_lse, column_lse):
    """(b, N): softmax of each row plus softmax of each column: what every logit of a block adds to the gradient, right pairs aside.

    It holds two blocks at once, not more: whence the work in place.
    """
    weight = (scale * image) @ text.T
    by_column = (weight - column_lse).exp_()
    return weight.sub_(row_lse[:, None]).exp_().add_(by_column)


class _ChunkedClipLoss(torch.autograd.Function):
    """Forward and backward in blocks of rows: never more than two blocks of chunk x B logits in memory.

    right_text: (B, D), for each image the mean of its right texts; right_image: for each text the mean of its right images.
    """

    @staticmethod
    def forward(ctx, image, text, scale, right_text, right_image, chunk):
        batch = len(image)
        row_lse = image.new_empty(batch)
        column_lse = image.new_full((batch,), -torch.inf)
        for start in range(0, batch, chunk):
            logits = (scale * image[start : start + chunk]) @ text.T
            row_lse[start : start + chunk] = logits.logsumexp(1)
            column_lse = torch.logaddexp(column_lse, logits.logsumexp(0))
            del logits  # or it would still be there while the next is made
        right = scale * (image * right_text).sum(1)
        ctx.save_for_backward(image, text, scale, right_text, right_image, row_lse, column_lse)
        ctx.chunk = chunk
        return ((row_lse + column_lse - 2 * right).mean() / 2).clamp_min(0)  # rounding alone goes below

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        image, text, scale, right_text, right_image, row_lse, column_lse = ctx.saved_tensors
        grad_image, grad_text = torch.empty_like(image), -2 * right_image
        for start in range(0, len(image), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            weight = _pull(image[rows], text, scale, row_lse[rows], column_lse)
            torch.addmm(right_text[rows], weight, text, beta=-2, out=grad_image[rows])
            grad_text.addmm_(weight.T, image[rows])
            del weight
        factor = grad / (2 * len(image))
        grad_scale = factor * (grad_image * image).sum()  # the sum of weight x cosine, without the cosines
        return grad_image.mul_(factor * scale), grad_text.mul_(factor * scale), grad_scale, None, None, None


def _without_autocast(device):
    known = torch.amp.is_autocast_available(device.type)  # tensors without content ("meta"), which only count, know none
    return torch.autocast(device.type, enabled=False) if known else contextlib.nullcontext()


def _full(image_embeddings, text_embeddings, chunk_size, *numbers):
    """Checked, and in float32 at least: (image, text, *numbers), and the chunk."""
    _check(image_embeddings, text_embeddings)
    if chunk_size != chunk_size or int(chunk_size) < 1:  # noqa: PLR0124
        raise UsageError(f"expected a chunk_size of at least 1 row, found {chunk_size}")
    wider = torch.promote_types(image_embeddings.dtype, text_embeddings.dtype)
    dtype, device = torch.promote_types(wider, torch.float32), image_embeddings.device
    return (image_embeddings.to(dtype), text_embeddings.to(dtype), *(torch.as_tensor(number, dtype=dtype, device=device) for number in numbers)), int(chunk_size)


def chunked_clip_loss(image_embeddings, text_embeddings, logit_scale, chunk_size=CHUNK):
    """`clip_loss`, the same value and gradients, with memory that grows with chunk_size x B instead of B x B.

    Computed in float32 at least, under autocast too: in bfloat16 a logit of 100 is only known to 0.25. Differentiable once.
    """
    (image, text, scale), chunk = _full(image_embeddings, text_embeddings, chunk_size, logit_scale)
    with _without_autocast(image.device):
        return _ChunkedClipLoss.apply(image, text, scale, text.detach(), image.detach(), chunk)


def chunked_multi_positive_loss(image_embeddings, text_embeddings, logit_scale, groups, chunk_size=CHUNK):
    """`multi_positive_loss` with the memory of `chunked_clip_loss`: a sum over the positives of a row is a product with their mean."""
    (image, text, scale), chunk = _full(image_embeddings, text_embeddings, chunk_size, logit_scale)
    groups = _checked_groups(image, groups)
    with _without_autocast(image.device):
        right = [_group_means(rows.detach(), groups) for rows in (text, image)]
        return _ChunkedClipLoss.apply(image, text, scale, *right, chunk)


def chunked_siglip_loss(image_embeddings, text_embeddings, logit_scale, logit_bias, chunk_size=CHUNK):
    """`siglip_loss` in blocks of rows, each made anew on the way back: memory grows with chunk_size x B. In float32 at least."""
    from torch.utils.checkpoint import checkpoint

    (image, text, scale, bias), chunk = _full(image_embeddings, text_embeddings, chunk_size, logit_scale, logit_bias)

    def block(rows, first):
        logits = bias + similarity_logits(rows, text, scale)
        signed = -logits
        signed.diagonal(first).neg_()
        return -F.logsigmoid(signed).sum()

    with _without_autocast(image.device):
        parts = [checkpoint(block, image[start : start + chunk], start, use_reentrant=False, preserve_rng_state=False) for start in range(0, len(image), chunk)]
        return torch.stack(parts).sum() / len(image)


LOSSES = {
    "clip": clip_loss,
    "chunked-clip": chunked_clip_loss,
    "chunked-multi-positive": chunked_multi_positive_loss,
    "chunked-siglip": chunked_siglip_loss,
    "multi-positive": multi_positive_loss,
    "multi-view": multi_view_loss,
    "siglip": siglip_loss,
    "margin": margin_loss,
}


def get_loss(name):
    """The loss called `name`, a key of `LOSSES`; a `UsageError` names the nearest."""
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return LOSSES[name]
