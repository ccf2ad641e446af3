"""Text towers of project 001, trained from zero: a bidirectional LSTM over packed sequences, and a small Transformer."""

import math

import torch
from torch import nn

from .base import Tower
from .ids import ReadsIds, caption_ids, trim
from .pooling import check_pooling, pool


class BiLSTM(ReadsIds, Tower):
    """Two bidirectional layers of 256 each way over word vectors of 128, packed. (B, L) ids, 0 is padding, to (B, 512).

    The features are the last state of the forward reading, which ends at the last real word, beside that of the backward reading,
    which ends at the first: project 001 does not say which states it takes. Dropout acts on the word vectors and between the layers.
    vocabulary: words, merges, or None for CLIP's own pieces. length: ids at most.
    """

    name = "bilstm"

    def __init__(self, vocabulary=None, word_width=128, hidden=256, layers=2, dropout=0.2, length=32):
        super().__init__(vocabulary=vocabulary and list(vocabulary), word_width=word_width, hidden=hidden, layers=layers, dropout=dropout, length=length)
        self.ids, self.width = caption_ids(vocabulary, length), 2 * hidden
        self.words, self.drop = nn.Embedding(self.ids.size, word_width, padding_idx=0), nn.Dropout(dropout)
        self.lstm = nn.LSTM(word_width, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0)

    def prepare(self, texts):
        return self.ids(texts)

    def forward(self, batch):
        batch = trim(batch)
        length = (batch != 0).sum(1).clamp_min(1)  # an empty text is read as one padding vector, which is zero
        words = self.drop(self.words(batch))  # (B, L, word_width)
        packed = nn.utils.rnn.pack_padded_sequence(words, length.cpu(), batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)  # (2 * layers, B, hidden): the top layer's forward and backward states stand last
        return torch.cat([last[-2], last[-1]], 1)


def sinusoids(length, width):
    """(length, width) position vectors: sines and cosines of wavelengths from 2 pi to 20,000 pi. Source: Vaswani et al. 2017, section 3.5."""
    angle = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


class SmallTransformer(ReadsIds, Tower):
    """Two layers, four heads, sinusoidal positions, a CLS vector in front, norms before each part. (B, L) ids, 0 is padding, to (B, 256).

    Project 001 does not say how wide it is; here 256, with a hidden layer of four times that. pooling: "cls" (as 001), "mean",
    "last-token", "last-position" or "first", the same as "cls". vocabulary: words, merges, or None for CLIP's own pieces.
    """

    name = "transformer"

    def __init__(self, vocabulary=None, hidden=256, layers=2, heads=4, dropout=0.2, length=32, pooling="cls"):
        super().__init__(vocabulary=vocabulary and list(vocabulary), hidden=hidden, layers=layers, heads=heads, dropout=dropout, length=length, pooling=pooling)
        self.pooling = check_pooling(self.name, pooling, ("cls", "first", "last-position", "last-token", "mean"))
        self.ids, self.width = caption_ids(vocabulary, length), hidden
        self.words, self.drop = nn.Embedding(self.ids.size, hidden, padding_idx=0), nn.Dropout(dropout)
        nn.init.normal_(self.words.weight[1:], std=hidden**-0.5)  # times sqrt(hidden) in forward: as long as the positions
        self.cls = nn.Parameter(torch.randn(hidden))
        self.register_buffer("positions", sinusoids(length + 1, hidden), persistent=False)
        block = nn.TransformerEncoderLayer(hidden, heads, 4 * hidden, dropout, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(hidden), enable_nested_tensor=False)

    def prepare(self, texts):
        return self.ids(texts)

    def forward(self, batch):
        batch = trim(batch)
        words = self.words(batch) * self.options["hidden"] ** 0.5
        x = torch.cat([self.cls.expand(len(batch), 1, -1), words], 1)  # (B, 1 + L, hidden)
        mask = torch.cat([torch.ones_like(batch[:, :1], dtype=torch.bool), batch != 0], 1)  # the CLS vector is always there
        states = self.blocks(self.drop(x + self.positions[: x.shape[1]]), src_key_padding_mask=~mask)
        return pool(states, mask, self.pooling)
