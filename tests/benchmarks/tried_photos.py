"""What `bench_tried.py` asks of the photos: their features in several views, their captions in several wordings, and parts of both."""

import dataclasses
import functools

import numpy as np
import torch
from torch.nn import functional as F

from miniclip_helpers import embedding
from miniclip_helpers.encoders import load_encoder
from miniclip_helpers.encoders.efficientnet import EfficientNetLite0, imagenet_names
from miniclip_helpers.encoders.minilm import MiniLM

LOGITS = slice(1904, 2904)  # of the features, the class logits


class Mirrored(EfficientNetLite0):
    """The mirrored picture, whole."""

    name = "efficientnet-lite0-mirrored"

    def prepare(self, images):
        return super().prepare([image.transpose(0) for image in images])  # 0: left and right change places


class Corners(EfficientNetLite0):
    """The mean of four views: the corners, each six tenths of the height and of the width."""

    name = "efficientnet-lite0-corners"

    def prepare(self, images):
        cut = []
        for image in images:
            width, height = image.size
            cut += [image.crop((round(x * width), round(y * height), round((x + 0.6) * width), round((y + 0.6) * height))) for x in (0, 0.4) for y in (0, 0.4)]
        return super().prepare(cut)

    def forward(self, batch):
        return super().forward(batch).unflatten(0, (-1, 4)).mean(1)


class Layers(MiniLM):
    """The mean over the words of their vectors before the first layer, after the third and after the last, (B, 3 x 384)."""

    name, width = "minilm-layers", 3 * 384

    def forward(self, batch):
        states, keep = self.net(**batch, output_hidden_states=True).hidden_states, batch["attention_mask"][..., None].float()
        return torch.cat([F.normalize((states[layer] * keep).sum(1) / keep.sum(1), dim=-1) for layer in (0, 3, 6)], 1)


TRIO = "both, trio"
VIEWS = {TRIO: lambda: load_encoder("efficientnet-lite-trio", mode="both"),
         "both": lambda: load_encoder("efficientnet-lite0", mode="both"), "squash": lambda: load_encoder("efficientnet-lite0"), "corners": Corners, "mirrored": Mirrored, "larger": lambda: load_encoder("efficientnet-lite0", size=288)}


def without_some_words(captions, share=0.2):
    """Each caption with about a fifth of its words left out, the same at each call."""
    random, found = np.random.default_rng(0), []
    for caption in captions:
        words = caption.split()
        kept = [word for word in words if random.random() >= share]
        found.append(" ".join(kept or words))
    return found


@functools.cache
def synonyms():
    """{word: another} out of the class names of ImageNet that have several of one word each."""
    sets = [[name for name in names if " " not in name and "-" not in name] for names in imagenet_names()]
    return {one.lower(): names[(place + 1) % len(names)].lower() for names in sets if len(names) > 1 for place, one in enumerate(names)}


def with_synonyms(captions):
    """Each caption with the words that ImageNet has another for exchanged."""
    return [" ".join(synonyms().get(word.lower(), word) for word in caption.split()) for caption in captions]


@functools.cache
def class_vectors():
    """(1000, 384) unit rows: what MiniLM says of the class names of ImageNet, the mean over the synonyms."""
    names = imagenet_names()
    rows, start, found = embedding.text_features(load_encoder("minilm"), [name for some in names for name in some]), 0, []
    for some in names:
        found.append(F.normalize(rows[start : start + len(some)], dim=-1).mean(0))
        start += len(some)
    return F.normalize(torch.stack(found), dim=-1)


class Photos:
    """A dataset with all that is asked of it. Whatever a tower says comes from the feature cache after the first time."""

    def __init__(self, dataset):
        self.dataset, self.owner = dataset, torch.from_numpy(dataset.owner)
        self.captions, self._kept = dataset.all_captions, {}

    def images(self, view):
        """(N, 2904) features."""
        return self._keep(view, lambda: embedding.image_features(VIEWS[view](), self.dataset))

    def texts(self, wording):
        """(M, width) features of the captions: as they are, in another wording, or by three layers."""
        rewritten = {"dropped": without_some_words, "synonyms": with_synonyms}.get(wording, list)
        tower = Layers() if wording == "layers" else load_encoder("minilm")
        return self._keep(wording, lambda: embedding.text_features(tower, rewritten(self.captions), tell=False))

    def tags(self):
        """(N, 384) features of a caption of each photo made of the three classes that the image tower thinks of first."""
        def said():
            first = self.images("both")[:, LOGITS].topk(3).indices.tolist()
            return [", ".join(imagenet_names()[number][0] for number in row) for row in first]

        return self._keep("tags", lambda: embedding.text_features(load_encoder("minilm"), said()))

    def _keep(self, key, make):
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclasses.dataclass(frozen=True)
class Part:
    """Some rows of `Photos`, in order; owner (M,) counts within the part. whole: the part and the photos to choose on, for who fits on both."""

    photos: Photos
    rows: np.ndarray
    whole: "Part | None" = None

    @functools.cached_property
    def mine(self):
        """(all captions,) whether a caption is of this part."""
        return torch.isin(self.photos.owner, torch.from_numpy(self.rows))

    @functools.cached_property
    def owner(self):
        return torch.searchsorted(torch.from_numpy(self.rows), self.photos.owner[self.mine])

    def images(self, view="both"):
        return self.photos.images(view)[self.rows]

    def texts(self, wording="plain"):
        return self.photos.texts(wording)[self.mine]

    def tags(self):
        return self.photos.tags()[self.rows]

    def captions(self):
        return [caption for caption, mine in zip(self.photos.captions, self.mine.tolist(), strict=True) if mine]


def drawn_parts(photos, counts, seed):
    """(the part to fit on, the part that is asked) of one seeded split by image. counts: photos to fit on, to choose on, asked."""
    order = np.random.default_rng(seed).permutation(len(photos.dataset))
    first, until, end = np.cumsum(counts)
    return Part(photos, np.sort(order[:first]), Part(photos, np.sort(order[:until]))), Part(photos, np.sort(order[until:end]))
