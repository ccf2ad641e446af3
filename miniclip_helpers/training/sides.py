"""What the loop is fed: features where a tower is locked, pixels and token ids where it learns."""

import torch

from .. import embedding, images
from ..model import Identity, TwoTowers
from .batches import PairBatches
from .locked import measure

BATCH = 256


class OnFeatures(torch.nn.Module):
    """A `TwoTowers` whose locked sides take features in the place of pictures or texts. It shares the model's weights."""

    def __init__(self, model):
        super().__init__()
        self.image_tower = Identity() if model.image_tower.pretrained else model.image_tower
        self.text_tower = Identity() if model.text_tower.pretrained else model.text_tower
        self.image_head, self.text_head, self.log_logit_scale = model.image_head, model.text_head, model.log_logit_scale

    logit_scale, forward = TwoTowers.logit_scale, TwoTowers.forward
    project_images, project_texts = TwoTowers.project_images, TwoTowers.project_texts


def on_features(model):
    """`model` as the loop calls it."""
    return OnFeatures(model) if model.image_tower.pretrained or model.text_tower.pretrained else model


def image_inputs(tower, dataset):
    """Features (N, width) of a locked tower, else pixels (N, 3, S, S) uint8: what `batches` hold."""
    return embedding.image_features(tower, dataset) if tower.pretrained else images.stack_pixels(dataset.images(), tower.options["size"])


def text_inputs(tower, dataset):
    """Features (M, width) of a locked tower, else token ids (M, L)."""
    return embedding.text_features(tower, dataset.all_captions) if tower.pretrained else tower.prepare(dataset.all_captions)


def normalised(tower, pixels):
    """uint8 or [0, 1] pixels as `tower` takes them."""
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return images.normalise(pixels, tower.preprocess.mean, tower.preprocess.std)


def pair_batches(model, dataset, config):
    """The batches of a dataset; pictures that a tower learns from are augmented, on their pixels."""
    tower = model.image_tower
    augment = None if tower.pretrained else lambda pixels, generator: normalised(tower, images.augment(pixels, generator))
    return PairBatches(image_inputs(tower, dataset), text_inputs(model.text_tower, dataset), dataset.owner, config.batch_size, augment=augment)


def validation(model, dataset):
    """A function of no arguments that measures the model on `dataset` by retrieval; None where it has no images."""
    if not len(dataset):
        return None
    pictures, texts, owner = image_inputs(model.image_tower, dataset), text_inputs(model.text_tower, dataset), torch.from_numpy(dataset.owner)
    if not model.image_tower.pretrained:
        pictures = normalised(model.image_tower, pictures)
    called = on_features(model)

    def validate():
        was_training = called.training
        called.eval()
        with torch.no_grad():
            image_rows = torch.cat([called.project_images(called.image_tower(part)) for part in pictures.split(BATCH)])
            text_rows = torch.cat([called.project_texts(called.text_tower(part)) for part in texts.split(BATCH)])
        called.train(was_training)
        return measure(image_rows @ text_rows.T, owner)

    return validate
