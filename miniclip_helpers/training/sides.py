"""What the loop is fed: features where a tower is locked, pixels and token ids where it learns."""

import numpy as np
import torch

from .. import embedding, images, metrics
from ..model import Identity, TwoTowers
from .batches import PairBatches
from .locked import Features, check_finite, measure
from .loop import DIVERGED, Diverged

BATCH = 256


class OnFeatures(torch.nn.Module):
    """A `TwoTowers` whose locked sides take features in the place of pictures or texts. It shares the model's weights."""

    def __init__(self, model):
        super().__init__()
        self.image_tower = Identity() if model.image_tower.locked else model.image_tower
        self.text_tower = Identity() if model.text_tower.locked else model.text_tower
        self.image_head, self.text_head, self.log_logit_scale = model.image_head, model.text_head, model.log_logit_scale

    logit_scale, forward = TwoTowers.logit_scale, TwoTowers.forward
    project_images, project_texts = TwoTowers.project_images, TwoTowers.project_texts


def on_features(model):
    """`model` as the loop calls it."""
    return OnFeatures(model) if model.image_tower.locked or model.text_tower.locked else model


def image_inputs(tower, dataset):
    """Features (N, width) of a locked tower, else pixels (N, 3, S, S) uint8: what `batches` hold."""
    return embedding.image_features(tower, dataset) if tower.locked else images.stack_pixels(dataset.images(), tower.options["size"])


def text_inputs(tower, dataset):
    """Features (M, width) of a locked tower, else token ids (M, L), 0 is padding."""
    if tower.locked:
        return embedding.text_features(tower, dataset.all_captions)
    found = tower.prepare(dataset.all_captions)
    return found["input_ids"] if isinstance(found, dict) else found


def normalised(tower, pixels):
    """uint8 or [0, 1] pixels as `tower` takes them."""
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return images.normalise(pixels, tower.preprocess.mean, tower.preprocess.std)


def inputs(model, dataset):
    """(pictures, texts) of a dataset as `batches` hold them; a `DataError` names those whose features hold NaN or infinity."""
    pictures, texts = image_inputs(model.image_tower, dataset), text_inputs(model.text_tower, dataset)
    rows = [side if tower.locked else torch.zeros(0, 1) for side, tower in ((pictures, model.image_tower), (texts, model.text_tower))]
    check_finite(Features(*rows, None), dataset.names, dataset.all_captions)
    return pictures, texts


def encode_share(image_tower, text_tower, dataset, rank, processes):
    """Encode what process number `rank` of `processes` owes the feature cache: every so manieth picture and caption, where the tower is locked."""
    rows = range(rank, len(dataset), processes)
    if image_tower.locked and rows:
        embedding.image_features(image_tower, dataset.subset(rows))
    captions = list(dict.fromkeys(dataset.all_captions))[rank::processes]
    if text_tower.locked and captions:
        embedding.text_features(text_tower, captions, tell=False)


def pair_batches(model, dataset, config):
    """The batches of a dataset; pictures that a tower learns from are augmented, on their pixels."""
    tower = model.image_tower

    def augment(pixels, generator, share=None):
        return normalised(tower, images.augment(pixels, generator, share=share))

    pictures, texts = inputs(model, dataset)
    return PairBatches(pictures, texts, dataset.owner, config.batch_size, augment=None if tower.locked else augment)


def caption_accuracy(cosines, captions, owner, ks=(1, 100)):
    """How often one of a picture's own captions is among the K best of all *different* captions, and how often by chance.

    cosines: (N, M) of all images with all captions. captions: M strings. owner: (M,) the image of each. Captions that read alike are one
    candidate, so that a product whose name stands twice is not called wrong for its twin. Returns {"top-1", "chance_top-1", ...}.
    Project 004 counts places in its list instead.
    """
    different, first, column = np.unique(np.asarray(captions, dtype=object), return_index=True, return_inverse=True)
    scores, owner = np.asarray(cosines)[:, first], np.asarray(owner)
    own = np.zeros(scores.shape, dtype=bool)
    own[owner, column] = True
    found = metrics.top_k_accuracy(scores, np.where(own, scores, -np.inf).argmax(1), ks)
    chance = {}
    for k in ks:
        missed = np.ones(len(own))  # C(U - p, K) / C(U, K), factor by factor
        for place in range(min(k, len(different))):
            missed *= np.clip(len(different) - own.sum(1) - place, 0, None) / (len(different) - place)
        chance[f"chance_top-{k}"] = float(1 - missed.mean())
    return found | chance


def embed(called, pictures, texts, seen=lambda part: part):
    """Inputs as `batches` hold them to unit rows (N, D) and (M, D): without gradients, in blocks, in evaluation mode.

    seen: function of a block of pictures, what the tower sees of it.
    """
    was_training, device = called.training, called.log_logit_scale.device
    called.eval()
    with torch.no_grad():
        image_rows = torch.cat([called.project_images(called.image_tower(seen(part.to(device)))).cpu() for part in pictures.split(BATCH)])
        text_rows = torch.cat([called.project_texts(called.text_tower(part.to(device))).cpu() for part in texts.split(BATCH)])
    called.train(was_training)
    return image_rows, text_rows


def measure_finite(cosines, owner):
    """`locked.measure` of the cosines (N, M) of a validation part, or `Diverged` where the model does not say numbers any more."""
    if not torch.isfinite(cosines).all():
        raise Diverged(f"what the model says of the validation images {DIVERGED}")
    return measure(cosines, owner)


def validation(model, dataset, accuracy=()):
    """A function of no arguments that measures the model on `dataset` by retrieval; None where it has no images.

    accuracy: each K adds "val_top-K" and "val_chance_top-K", see `caption_accuracy`.
    """
    if not len(dataset):
        return None
    (pictures, texts), owner = inputs(model, dataset), torch.from_numpy(dataset.owner)
    called, tower = on_features(model), model.image_tower
    seen = (lambda part: part) if tower.locked else lambda part: normalised(tower, part)  # block by block: pixels are kept as bytes

    def validate():
        image_rows, text_rows = embed(called, pictures, texts, seen)
        cosines = image_rows @ text_rows.T
        measured = measure_finite(cosines, owner)
        found = caption_accuracy(cosines, dataset.all_captions, dataset.owner, accuracy) if accuracy else {}
        return measured | {f"val_{key}": value for key, value in found.items()}

    return validate
