"""Heads: a tower's features to the shared space, (B, width) to (B, dim). `TwoTowers` normalises what they give."""

import math

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
    """(features - mean) @ weight: one linear map after centring."""

    kind = "linear"

    def __init__(self, width, dim):
        super().__init__(width=width, dim=dim)
        self.register_buffer("mean", torch.zeros(width))
        self.weight = nn.Parameter(torch.randn(width, dim) * width**-0.5)

    def forward(self, features):
        return (features - self.mean) @ self.weight


class MlpHead(Head):
    """Two linear maps with batch normalisation, ReLU and dropout between them, as project 001 projects its pictures.

    hidden: twice `dim` unless said; the project names none. In training the rows of a batch share their statistics, so it needs two rows;
    `TwoTowers` tells a batch of one.
    """

    kind = "mlp"

    def __init__(self, width, dim, hidden=None, dropout=0.2):
        hidden = hidden or 2 * dim
        super().__init__(width=width, dim=dim, hidden=hidden, dropout=dropout)
        self.layers = nn.Sequential(nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim))

    def forward(self, features):
        return self.layers(features)


def root(features):
    """sign(x) * sqrt(|x|) of every number: tames the few loud channels."""
    return features.sign() * features.abs().sqrt()


class BlockHead(Head):
    """One linear map over several blocks of features, each block made comparable first.

    Every block is rooted, sign(x) * sqrt(|x|), which tames the few loud channels, and brought to unit length; then
    (blocks - mean) @ weight. widths: the blocks' widths, in order. rooted: False leaves the root out, as texts need.
    """

    kind = "blocks"

    def __init__(self, widths, dim, rooted=True):
        super().__init__(widths=list(widths), dim=dim, rooted=rooted)
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.weight = nn.Parameter(torch.randn(sum(widths), dim) * sum(widths) ** -0.5)

    def blocks(self, features):
        """(B, sum of widths): the features as `mean` and `weight` see them."""
        if self.options["rooted"]:
            features = root(features)
        return torch.cat([nn.functional.normalize(block, dim=-1) for block in features.split(self.options["widths"], dim=-1)], dim=-1)

    def forward(self, features):
        return (self.blocks(features) - self.mean) @ self.weight


class ConseHead(Head):
    """Class logits (B, classes) to the mean of the classes' text vectors, weighted by softmax(logits / temperature).

    `weight` (classes, dim) holds one text vector per class. Source: Norouzi et al. 2014, ConSE.
    """

    kind = "conse"

    def __init__(self, classes, dim, temperature=1.0):
        super().__init__(classes=classes, dim=dim, temperature=temperature)
        self.weight = nn.Parameter(torch.randn(classes, dim) * classes**-0.5)

    def forward(self, features):
        return (features / self.options["temperature"]).softmax(-1) @ self.weight


class ConcatHead(Head):
    """Several heads side by side: unit vectors times sqrt(share). The dot product of two such rows is the mean of the parts'
    cosines, weighted by their shares.

    parts: one {"kind", "options", "columns": [first, after], "share"} per head; columns say which features it sees.
    """

    kind = "concat"

    def __init__(self, parts):
        super().__init__(parts=parts)
        self.heads = nn.ModuleList(build_head(part["kind"], part["options"]) for part in parts)

    def forward(self, features):
        rows = []
        for head, part in zip(self.heads, self.options["parts"], strict=True):
            rows.append(part["share"] ** 0.5 * nn.functional.normalize(head(features[..., slice(*part["columns"])]), dim=-1))
        return torch.cat(rows, dim=-1)


class HubHead(Head):
    """A head, and beside its unit vector how close that lies to a bank of the other side's training vectors.

    closeness = log(mean(exp(sharpness * cosines with the bank))) / sharpness, in [-1, 1]: between the mean cosine and the highest. An image and a
    text vector of such heads have the dot product cosine - strength * (closeness of the image + closeness of the text). All rows have the length
    sqrt(1 + 2 * strength), so normalising them divides that by 1 + 2 * strength and changes no rank.

    head: {"kind", "options"} of the head inside, dim its width. rows: the size of the bank; 0 leaves the closeness of this side out. side: "image"
    or "text". strength: how much of the closeness is taken off, the same on both sides. (B, width) to (B, dim + 4).
    """

    kind = "hubs"

    def __init__(self, head, dim, side, rows, sharpness=10.0, strength=1.0):
        super().__init__(head=head, dim=dim, side=side, rows=rows, sharpness=sharpness, strength=strength)
        self.head = build_head(head["kind"], head["options"])
        self.register_buffer("bank", torch.zeros(rows, dim))

    def closeness(self, unit):
        """(B, dim) unit rows to (B,)."""
        if not len(self.bank):
            return unit.new_zeros(len(unit))
        sharpness = self.options["sharpness"]
        return ((sharpness * unit @ self.bank.T).logsumexp(1) - math.log(len(self.bank))) / sharpness

    def forward(self, features):
        unit = nn.functional.normalize(self.head(features), dim=-1)
        near = self.closeness(unit)
        one, zero, rest = torch.ones_like(near), torch.zeros_like(near), (1 - near.square()).clamp_min(0).sqrt()
        beside = (-near, one, rest, zero) if self.options["side"] == "image" else (one, -near, zero, rest)
        return torch.cat([unit, self.options["strength"] ** 0.5 * torch.stack(beside, 1)], 1)


HEADS = {head.kind: head for head in (Identity, LinearHead, MlpHead, BlockHead, ConseHead, ConcatHead, HubHead)}


def build_head(kind, options):
    """The head of this `kind` with these options, its weights untrained."""
    if kind not in HEADS:
        raise unknown("head", kind, HEADS)
    return HEADS[kind](**options)
