"""From one state per token to one vector per text. Which token speaks for the whole text is a choice, and a wrong one costs everything."""

import torch

from ..errors import UsageError, unknown

POOLINGS = ("first", "cls", "last-position", "last-token", "mean")


def pool(states, mask, how):
    """(B, L, W) states of B texts to (B, W). mask: (B, L) bool, True at real tokens; padding is on the right, every text has a token.

    how: "first" or "cls", the first position: in a causal model it has seen nothing but itself. "last-position": position L - 1,
    which is padding in all but the longest text. "last-token": the last real one. "mean": over the real ones.
    """
    if states.ndim != 3 or mask.shape != states.shape[:2]:
        raise UsageError(f"expected states (B, L, W) and a mask (B, L), found {tuple(states.shape)} and {tuple(mask.shape)}")
    if how in ("first", "cls"):
        return states[:, 0]
    if how == "last-position":
        return states[:, -1]
    if how == "last-token":
        last = mask.sum(1).clamp_min(1) - 1  # (B,)
        return states[torch.arange(len(states), device=states.device), last]
    if how == "mean":
        keep = mask[..., None].to(states.dtype)
        return (states * keep).sum(1) / keep.sum(1).clamp_min(1)
    raise unknown("pooling", how, POOLINGS)


def check_pooling(tower, how, allowed):
    """`how`, if the tower can pool so; else a `UsageError`."""
    if how not in allowed:
        raise unknown(f"pooling of {tower}", how, allowed)
    return how
