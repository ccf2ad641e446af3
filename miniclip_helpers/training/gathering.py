"""What processes exchange: embeddings with their gradients, batch statistics, the mean of gradients; and who has which rows of a batch."""

import functools

import torch
from torch import distributed

from ..errors import UsageError


class _Gather(torch.autograd.Function):
    """All processes' rows, one after the other. Backward: every process's gradient of my rows, added up."""

    @staticmethod
    def forward(ctx, rows):
        found = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(found, rows.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous().clone()
        distributed.all_reduce(grad)  # the sum over the processes
        return grad.chunk(distributed.get_world_size())[distributed.get_rank()]


def gather_with_gradients(rows, check=True):
    """(B, D) of this process to (W x B, D), those of all W processes in the order of their numbers. Without a process group: the rows as they are.

    `torch.distributed.all_gather` returns tensors without a graph: the other processes' embeddings would be constants, and each tower would
    never hear that it stood in somebody else's way. Every process must bring as many rows; otherwise all of them raise a `UsageError`.
    check: False spares that question, and an exchange, where the shares are known to be equal.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    if check:
        sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(distributed.get_world_size())]
        distributed.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
        sizes = [int(size) for size in sizes]
        if len(set(sizes)) > 1:
            raise UsageError(f"every process must bring as many rows, found {sizes}; drop the last, smaller batch")
    return _Gather.apply(rows)


class _Sum(torch.autograd.Function):
    """The sum over the processes. Backward: every process's gradient, added up."""

    @staticmethod
    def forward(ctx, value):
        value = value.contiguous().clone()
        distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous().clone()
        distributed.all_reduce(grad)
        return grad


def batch_norm_across(norm, rows):
    """What the batch normalisation `norm` does in training, with the statistics of all processes' rows (B, C, ...), as many in each.

    torch's own SyncBatchNorm is for cards alone.
    """
    if not norm.training:
        return type(norm).forward(norm, rows)
    over, shape = [0, *range(2, rows.ndim)], [1, -1] + [1] * (rows.ndim - 2)
    values, count = rows.float(), rows.numel() // rows.shape[1] * distributed.get_world_size()
    mean = _Sum.apply(values.sum(over)) / count  # (C,)
    centred = values - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(over)) / count
    with torch.no_grad():
        norm.num_batches_tracked += 1
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * count / (count - 1), momentum)
    scaled = centred * (variance + norm.eps).rsqrt().view(shape)
    return (scaled * norm.weight.view(shape) + norm.bias.view(shape)).to(rows.dtype)


def share_norms(model, cards):
    """Let batch normalisations take the statistics of the whole batch, not of a process's share. Returns {name: module} of them, for `own_norms`."""
    norms = {name: part for name, part in model.named_modules() if name and isinstance(part, torch.nn.modules.batchnorm._BatchNorm)}
    if cards:
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # new modules around the same weights and statistics
        return norms
    for norm in norms.values():
        if norm.track_running_stats and norm.affine:
            norm.forward = functools.partial(batch_norm_across, norm)
    return norms


def own_norms(model, norms):
    """Undo `share_norms`; what was learned stays."""
    for name, norm in norms.items():
        vars(norm).pop("forward", None)
        model.get_submodule(name.rpartition(".")[0]).register_module(name.rpartition(".")[2], norm)


def shard_rows(count, rank, processes):
    """The rows of `count` that belong to process number `rank` of `processes`: a slice; the shares follow each other.

    >>> shard_rows(12, 1, 3)
    slice(4, 8, None)
    """
    if processes < 1 or not 0 <= rank < processes or count % processes:
        raise UsageError(f"expected a batch that {processes} processes share equally, and a rank below {processes}, found {count} rows and rank {rank}")
    share = count // processes
    return slice(rank * share, (rank + 1) * share)


def average_gradients(model):
    """Put the mean over the processes into each `.grad`, in one exchange: what DDP does where it wraps the model."""
    held = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = torch.cat([grad.flatten() for grad in held])
    distributed.all_reduce(flat)
    for grad, mean in zip(held, (flat / distributed.get_world_size()).split([grad.numel() for grad in held]), strict=True):
        grad.copy_(mean.view_as(grad))


def copy_from_first(model):
    """Weights and buffers of process 0 in all processes."""
    for value in model.state_dict().values():
        distributed.broadcast(value, 0)
