"""What the steps are fed: pixels and token ids where a tower learns, its features, computed once, where it does not."""

import torch

from .. import embedding, images
from ..errors import DataError, UsageError
from ..model import Identity, TwoTowers, lengths
from ..training import PairBatches
from ..training.loop import clamp_scale
from ..training.sides import measure_finite
from .methods import SIDES, tower_of

IMAGE_BLOCK, TEXT_BLOCK = embedding.IMAGE_BATCH, embedding.TEXT_BATCH  # the batches of zero-shot evaluation, so that the same weights give the same bits


class Learner(torch.nn.Module):
    """A model as the loop calls it: a side in `learning` takes what its tower prepares, the other the features of its tower.

    Its modules are the model's own, and stay in evaluation mode: some hundred pictures are too few to estimate batch statistics anew, and without
    dropout a step depends on nothing but its batch. The temperature is clamped from the first step on: CLIP's own starts at the limit.
    """

    def __init__(self, model, learning):
        super().__init__()
        self.image_tower = model.image_tower if "image" in learning else Identity()
        self.text_tower = model.text_tower if "text" in learning else Identity()
        self.image_head, self.text_head, self.log_logit_scale = model.image_head, model.text_head, model.log_logit_scale

        clamp_scale(self)

    logit_scale, forward = TwoTowers.logit_scale, TwoTowers.forward
    project_images, project_texts = TwoTowers.project_images, TwoTowers.project_texts

    def train(self, mode=True):
        return super().train(False)


class Pictures:
    """All pictures of a dataset as a tower takes them, decoded and resized once; bytes in memory where the tower's normalisation is known."""

    def __init__(self, tower, dataset):
        self.normalisation = getattr(tower, "preprocess", None)
        blocks, waiting = [], []
        for picture in dataset.images():
            waiting.append(picture)
            if len(waiting) == 64:
                blocks.append(self._packed(tower.prepare(waiting)))
                waiting = []
        if waiting:
            blocks.append(self._packed(tower.prepare(waiting)))
        self.values = joined(blocks)

    def _packed(self, values):
        """uint8 where that brings back the same numbers, else the numbers."""
        if isinstance(values, dict):
            return {key: self._packed(value) for key, value in values.items()}
        if self.normalisation is None:
            return values
        mean, std = (torch.tensor(getattr(self.normalisation, name))[:, None, None] for name in ("mean", "std"))
        pixels = (values * std + mean).mul(255).round()
        fits = pixels.min() >= 0 and pixels.max() <= 255
        return pixels.to(torch.uint8) if fits and torch.allclose(self._unpacked(pixels.to(torch.uint8)), values, atol=1e-5) else values

    def _unpacked(self, values):
        if isinstance(values, dict):
            return {key: self._unpacked(value) for key, value in values.items()}
        return images.normalise(values.float() / 255, self.normalisation.mean, self.normalisation.std) if values.dtype == torch.uint8 else values

    def __len__(self):
        return length(self.values)

    def __getitem__(self, rows):
        return self._unpacked(picked(self.values, rows))


class Tokens:
    """All texts of a dataset as a tower takes them; a batch is cut to its longest text."""

    def __init__(self, tower, texts):
        lengths.tell_long(tower, texts)
        self.values, self.texts = tower.prepare(texts), texts

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, rows):
        values = picked(self.values, rows)
        mask = values.get("attention_mask") if isinstance(values, dict) else None
        if mask is None:
            return values
        longest = int(mask.any(0).nonzero().max()) + 1 if mask.any() else 1
        return {key: value[:, :longest] if value.shape == mask.shape else value for key, value in values.items()}


def joined(blocks):
    if isinstance(blocks[0], dict):
        return {key: joined([block[key] for block in blocks]) for key in blocks[0]}
    return torch.cat(blocks)


def picked(values, rows):
    return {key: value[rows] for key, value in values.items()} if isinstance(values, dict) else values[rows]


def length(values):
    return len(next(iter(values.values())) if isinstance(values, dict) else values)


class Inputs:
    """One part of the data for one learner: `images` (N), `texts` (M) as it takes them, `owner` (M,) the image of each text.

    data: an `ImageTextDataset`, or a `training.locked.Features` where no tower learns.
    """

    def __init__(self, model, data, learning):
        self.learning = tuple(side for side in SIDES if side in learning)
        if not hasattr(data, "captions"):
            if self.learning:
                raise UsageError(f"the {' and '.join(self.learning)} tower learns from pictures and texts, and features hold none: pass the dataset")
            self.images, self.texts, self.owner, self.order = data.images, data.texts, torch.as_tensor(data.owner), None
            return
        said, self.owner = data.all_captions, torch.from_numpy(data.owner)
        image_tower, text_tower = tower_of(model, "image"), tower_of(model, "text")
        self.images = Pictures(image_tower, data) if "image" in learning else embedding.image_features(image_tower, data)
        self.texts = Tokens(text_tower, said) if "text" in learning else embedding.text_features(text_tower, said)
        first = {text: place for place, text in reversed(list(enumerate(said)))}
        self.order = sorted(first.values(), key=lambda place: len(said[place]))  # as zero-shot evaluation encodes them
        self.same = torch.tensor([first[text] for text in said])

    def batches(self, batch_size):
        """Batches for the loop: each image once an epoch with one of its captions, so that no caption is a wrong answer to its own image."""
        return PairBatches(self.images, self.texts, self.owner, batch_size)

    def similarity(self, learner):
        """Cosines (N, M) of all images with all texts, without gradients."""
        learner.eval()
        with torch.no_grad():
            return self._image_rows(learner) @ self._text_rows(learner).T

    def _image_rows(self, learner):
        if "image" not in self.learning:
            return learner.project_images(self.images)
        blocks = torch.arange(len(self.images)).split(IMAGE_BLOCK)
        with embedding.as_encoding():  # the threads of zero-shot evaluation, for the same reason
            rows = torch.cat([learner.image_tower(self.images[rows]) for rows in blocks])
        return learner.project_images(rows)

    def _text_rows(self, learner):
        if "text" not in self.learning:
            return learner.project_texts(self.texts)
        order = torch.tensor(self.order)
        found = torch.cat([learner.text_tower(self.texts[rows]) for rows in order.split(TEXT_BLOCK)])
        features = found.new_zeros(len(self.texts), found.shape[1])
        features[order] = found
        return learner.project_texts(features[self.same])

    def validation(self, learner):
        """A function of no arguments for the loop: retrieval on this part, and "score", the mean of both directions' reciprocal ranks."""
        return lambda: measure_finite(self.similarity(learner), self.owner)


def check_data(data, part="train"):
    """Refuse what cannot be learned from: fewer than two images, images without captions, one caption or one picture throughout."""
    if not hasattr(data, "captions"):
        return
    lonely = [name for name, said in zip(data.names, data.captions, strict=True) if not said]
    if lonely:
        raise DataError(f"{len(lonely)} of {len(data)} images of the part {part} have no caption; fine-tuning needs one each", lonely)
    if part != "train":
        return
    if len(data) < 2:
        raise DataError(f"fine-tuning needs at least two images with captions, found {len(data)}: the other images of a batch are the wrong answers")
    if len(set(data.all_captions)) < 2:
        raise DataError(f"all captions are {data.all_captions[0]!r}; there is nothing to tell the images apart by")
    if len({data.fingerprint(row) for row in range(len(data))}) < 2:
        raise DataError("all pictures are the same; there is nothing to learn from them")
