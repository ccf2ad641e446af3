"""Batches of pairs in a seeded order: each image once an epoch, with one of its captions."""

import numpy as np
import torch

from ..errors import UsageError


class PairBatches:
    """Pairs out of two tensors that fit into memory: pixels and token ids, or the features of locked towers.

    images: (N, ...). texts: (M, ...). owner: (M,) the image of each text. groups: (N,) integers, equal for images that show the same
    thing, by default each its own. augment: function of (images, generator), applied to each batch of images.
    """

    def __init__(self, images, texts, owner, batch_size, groups=None, augment=None):
        owner = np.asarray(owner)
        if len(owner) != len(texts):
            raise UsageError(f"expected one owner per text, found {len(owner)} owners and {len(texts)} texts")
        if len(images) < 2 or batch_size < 2:
            raise UsageError(f"contrastive batches need at least two pairs, found {len(images)} images and a batch size of {batch_size}")
        count = np.bincount(owner, minlength=len(images))
        if len(count) > len(images) or not count.all():
            raise UsageError(f"every image needs a caption, and every caption an image; {int((count == 0).sum())} images have none")
        self.images, self.texts, self.augment = images, texts, augment
        self.batch_size = min(batch_size, len(images))
        self.groups = torch.arange(len(images)) if groups is None else torch.as_tensor(groups)
        self.order = torch.from_numpy(np.argsort(owner, kind="stable"))  # texts, those of one image side by side
        self.count = torch.from_numpy(count)
        self.first = self.count.cumsum(0) - self.count

    def __len__(self):
        """Batches per epoch. What does not fill a last batch waits for the next epoch's shuffle."""
        return len(self.images) // self.batch_size

    def epoch(self, generator):
        """Yield (images (B, ...), texts (B, ...), groups (B,)) in an order drawn from `generator`."""
        order = torch.randperm(len(self.images), generator=generator)
        drawn = (torch.rand(len(self.images), generator=generator) * self.count).long()  # which caption each image has this time
        said = self.order[self.first + drawn]
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            rows = order[start : start + self.batch_size]
            pictures = self.images[rows]
            if self.augment is not None:
                pictures = self.augment(pictures, generator)
            yield pictures, self.texts[said[rows]], self.groups[rows]
