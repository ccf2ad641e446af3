"""Batches of pairs in a seeded order: each image once an epoch, with one of its captions."""

import inspect

import numpy as np
import torch

from ..errors import UsageError
from .gathering import shard_rows


class PairBatches:
    """Pairs out of two tensors that fit into memory: pixels and token ids, or the features of locked towers.

    images: (N, ...). texts: (M, ...). owner: (M,) the image of each text. groups: (N,) integers, equal for images that show the same
    thing, by default each its own. augment: function of (images, generator), applied to each batch of images. together: the images of
    a group come side by side, so that a batch holds them all but where it ends; the groups are shuffled.
    """

    def __init__(self, images, texts, owner, batch_size, groups=None, augment=None, together=False):
        owner = np.asarray(owner)
        if len(owner) != len(texts):
            raise UsageError(f"expected one owner per text, found {len(owner)} owners and {len(texts)} texts")
        if len(images) < 2 or batch_size < 2:
            raise UsageError(f"contrastive batches need at least two pairs, found {len(images)} images and a batch size of {batch_size}")
        count = np.bincount(owner, minlength=len(images))
        if len(count) > len(images) or not count.all():
            raise UsageError(f"every image needs a caption, and every caption an image; {int((count == 0).sum())} images have none")
        self.images, self.texts, self.augment, self.together = images, texts, augment, together
        self.batch_size = min(batch_size, len(images))
        self.groups = torch.arange(len(images)) if groups is None else torch.as_tensor(groups)
        self.order = torch.from_numpy(np.argsort(owner, kind="stable"))  # texts, those of one image side by side
        self.count = torch.from_numpy(count)
        self.first = self.count.cumsum(0) - self.count

    def __len__(self):
        """Batches per epoch. What does not fill a last batch waits for the next epoch's shuffle."""
        return len(self.images) // self.batch_size

    def epoch(self, generator, share=(0, 1), put=None):
        """Yield (images (B, ...), texts (B, ...), groups (B,)) in an order drawn from `generator`.

        share: (process, processes): of each batch only this process's rows, B / processes. All draw alike, whatever their number, so
        that together they have the same batches as one; `augment` is told (rows, B) as `share` where it takes that, and else sees
        the whole batch. put: function of a tensor that brings it where it is used.
        """
        put = put or (lambda tensor: tensor)
        mine = shard_rows(self.batch_size, *share)
        order = torch.randperm(len(self.images), generator=generator)
        if self.together:
            number = torch.unique(self.groups, return_inverse=True)[1]
            order = order[torch.randperm(len(number), generator=generator)[number][order].argsort(stable=True)]
        drawn = (torch.rand(len(self.images), generator=generator) * self.count).long()  # which caption each image has this time
        said = self.order[self.first + drawn]
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            rows = order[start : start + self.batch_size]
            pictures = self._pictures(rows, mine, generator, put)
            yield pictures, put(self.texts[said[rows[mine]]]), put(self.groups[rows[mine]])

    def _pictures(self, rows, mine, generator, put):
        """The pictures of `mine` among a batch's `rows`, augmented with the draws of the whole batch."""
        if self.augment is None:
            return put(self.images[rows[mine]])
        if len(rows[mine]) == len(rows):
            return self.augment(put(self.images[rows]), generator)
        if "share" in inspect.signature(self.augment).parameters:
            return self.augment(put(self.images[rows[mine]]), generator, share=(mine, len(rows)))
        return self.augment(put(self.images[rows]), generator)[mine]
