"""Small towers that are trained from zero in minutes: a convolutional network and a bag of words."""

import torch
from torch import nn

from ..images import Preprocess
from ..tokenizers import WordTokenizer
from .base import Tower


class SmallCNN(Tower):
    """Eight 3 x 3 convolutions in four stages, then the mean over space. (B, 3, S, S) to (B, 8 * channels)."""

    name = "small-cnn"

    def __init__(self, channels=32, size=48):
        super().__init__(channels=channels, size=size)
        self.preprocess, self.width = Preprocess(size=size, mode="squash"), 8 * channels
        layers, before = [], 3
        for stage in range(4):
            for stride in (2, 1):
                layers += [nn.Conv2d(before, channels << stage, 3, stride, 1, bias=False), nn.BatchNorm2d(channels << stage), nn.ReLU(inplace=True)]
                before = channels << stage
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def prepare(self, images):
        return self.preprocess.batch(images)

    def forward(self, batch):
        return self.layers(batch)


class BagOfWords(Tower):
    """The mean of learned word vectors, order forgotten. (B, L) ids, 0 is padding, to (B, width)."""

    name = "bag-of-words"

    def __init__(self, vocabulary, width=128, length=32):
        super().__init__(vocabulary=list(vocabulary), width=width, length=length)
        self.tokenizer, self.width = WordTokenizer(vocabulary, length), width
        self.words = nn.EmbeddingBag(self.tokenizer.size, width, mode="mean", padding_idx=0)

    def prepare(self, texts):
        return self.tokenizer(texts)

    def forward(self, batch):
        return self.words(batch)
