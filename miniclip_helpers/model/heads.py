"""Heads: a tower's features to the shared space, (B, width) to (B, dim). `TwoTowers` normalises what they give."""

import torch
from torch import nn

from ..errors import unknown


class Head(nn.Module):
    """What every head has: `kind`, its key in `HEADS`, and `options`, the plain JSON that rebuilds it."""

    kind = "head"

    def __init__(self, **options):
        super().__init__()
        self.options = options


class Identity(Head):
    """The features as they are: for towers that end in a projection of their own, as CLIP's do."""

    kind = "identity"

    def forward(self, features):
        return features


class LinearHead(Head):
    """(features - mean) @ weight: one linear map after centring. signed_sqrt: first sign(x) * sqrt(|x|), then unit length."""

    kind = "linear"

    def __init__(self, width, dim, signed_sqrt=False):
        super().__init__(width=width, dim=dim, signed_sqrt=signed_sqrt)
        self.register_buffer("mean", torch.zeros(width))
        self.weight = nn.Parameter(torch.randn(width, dim) * width**-0.5)

    def forward(self, features):
        if self.options["signed_sqrt"]:
            features = nn.functional.normalize(features.sign() * features.abs().sqrt(), dim=-1)
        return (features - self.mean) @ self.weight


HEADS = {head.kind: head for head in (Identity, LinearHead)}


def build_head(kind, options):
    """The head of this `kind` with these options, its weights untrained."""
    if kind not in HEADS:
        raise unknown("head", kind, HEADS)
    return HEADS[kind](**options)
