"""Small towers that are trained from zero in minutes: a convolutional network and a bag of words."""

import torch
from torch import nn

from ..images import Preprocess
from ..tokenizers import WordTokenizer, words
from .base import Tower


def convolution(before, after, stride=1, size=3):
    """A convolution and batch normalisation, which takes the place of its bias. (B, before, H, W) to (B, after, H/stride, W/stride)."""
    return nn.Sequential(nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after))


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a short way round (He et al. 2016). Halves the side: (B, C, H, W) to (B, after, H/2, W/2)."""

    def __init__(self, before, after):
        super().__init__()
        self.long = nn.Sequential(convolution(before, after, stride=2), nn.ReLU(inplace=True), convolution(after, after))
        self.short = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), convolution(before, after, size=1))  # averaging first loses no pixel
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.long(x) + self.short(x))


class SmallCNN(Tower):
    """A stem and two residual blocks, each halving the side; then the last map laid out flat. (B, 3, size, size) to (B, width).

    channels: of the stem; the blocks have twice and four times as many. cells: the last map is pooled to cells x cells places,
    which keep *where* a thing is; a mean over the whole picture (cells=1) forgets it. width: 4 * channels * cells ** 2.
    """

    name = "small-cnn"

    def __init__(self, channels=32, size=32, cells=4):
        super().__init__(channels=channels, size=size, cells=cells)
        self.preprocess, self.width = Preprocess(size=size, mode="squash"), 4 * channels * cells**2
        self.layers = nn.Sequential(
            convolution(3, channels, stride=2), nn.ReLU(inplace=True),  # (B, channels, size/2, size/2)
            Residual(channels, 2 * channels), Residual(2 * channels, 4 * channels),  # (B, 4 * channels, size/8, size/8)
            nn.Identity() if -(-size // 8) == cells else nn.AdaptiveAvgPool2d(cells),  # a pooling that changes nothing costs a twentieth of the step
            nn.Flatten())

    def prepare(self, images):
        return self.preprocess.batch(images)

    def forward(self, batch):
        return self.layers(batch.contiguous(memory_format=torch.channels_last))  # the faster layout on a CPU


class BagOfWords(Tower):
    """The mean of learned word vectors, order forgotten, and one hidden layer. (B, L) ids, 0 is padding, to (B, width)."""

    name = "bag-of-words"

    def __init__(self, vocabulary, width=256, word_width=128, length=32):
        super().__init__(vocabulary=list(vocabulary), width=width, word_width=word_width, length=length)
        self.tokenizer, self.width = WordTokenizer(vocabulary, length), width
        self.words = nn.EmbeddingBag(self.tokenizer.size, word_width, mode="mean", padding_idx=0)
        self.hidden = nn.Sequential(nn.Linear(word_width, width), nn.ReLU())

    def prepare(self, texts):
        return self.tokenizer(texts)

    @property
    def context(self):
        """How many words are read."""
        return self.options["length"]

    def token_counts(self, texts):
        """The words of each text, uncut."""
        return [len(words(text)) for text in texts]

    def forward(self, batch):
        return self.hidden(self.words(batch))
