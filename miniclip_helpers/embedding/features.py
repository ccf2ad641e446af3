"""Datasets, pictures and texts to features and embeddings, through the cache: a second run encodes nothing."""

import contextlib

import numpy as np
import torch

from .. import images, runtime
from ..errors import DataError, UsageError
from ..model import lengths
from .cache import FeatureCache
from .running import run_batches

TEXT_BATCH = 64
SAVE_EVERY = 256


def _cached(tower, keys, encode_missing, description):
    """The features of `keys`, (N, width): from the cache, and where they are not in it, from `encode_missing(positions)`."""
    with contextlib.closing(FeatureCache(tower.fingerprint, tower.width)) as cache:
        found = cache.get(keys)
        first = {key: position for position, key in reversed(list(enumerate(keys)))}
        missing = sorted(position for key, position in first.items() if key not in found)
        fresh = {}
        batches = runtime.progress(encode_missing(missing), description, total=len(missing))
        try:
            for position, row in batches:
                fresh[keys[position]] = row
                if len(fresh) >= SAVE_EVERY:
                    cache.put(fresh)
                    found.update(fresh)
                    fresh = {}
        finally:
            cache.put(fresh)  # what is encoded stays, whatever stops the rest
        found.update(fresh)
    return torch.from_numpy(np.stack([found[key] for key in keys])) if keys else torch.zeros(0, tower.width)


def image_features(tower, source, compile=None, device=None):
    """image_features (N, width) of an `ImageTextDataset` or a list of pictures, cached. All unreadable pictures are listed in one error.

    compile: whether to compile the tower first, which takes from 15 s to minutes and pays from some thousands of pictures on; by default as
    MINICLIP_COMPILE says. device: "cuda" or "auto" to run the tower there for once, in float32: the cache means the same wherever it was filled.
    """
    dataset = source if hasattr(source, "fingerprint") else None
    pictures = None if dataset is not None else [images.open_image(picture) for picture in source]
    if not len(source):
        raise UsageError("expected at least one picture, found none")
    if dataset is not None:
        keys = [dataset.fingerprint(row) for row in range(len(dataset))]
    else:
        keys = [runtime.digest(picture.size, picture.tobytes()) for picture in pictures]
    open_row = pictures.__getitem__ if dataset is None else dataset.image

    def encode_missing(missing):
        problems = []
        for row, found in run_batches(tower, missing, open_row, compile, device):
            if isinstance(found, str):
                problems.append(found if dataset is None or dataset.names[row] in found else f"{dataset.names[row]}: {found}")
            else:
                yield row, found
        if problems:
            raise DataError(f"{len(problems)} of {len(keys)} pictures cannot be read; mend or remove them, or pass skip_problems (--skip-problems)", problems)

    return _cached(tower, keys, encode_missing, f"encoding pictures with {tower.name}")


def text_features(tower, texts, tell=True):
    """text_features (M, width) of a list of texts, cached. Texts of similar length share a batch, so that little is padded.

    Texts longer than the tower's context are cut, with a `LongTextWarning`, unless `tell` is False.
    """
    texts = list(texts)
    if not texts:
        raise UsageError("expected at least one text, found none")
    if tell:
        lengths.tell_long(tower, texts)
    return _cached(tower, [runtime.digest(text) for text in texts], lambda missing: run_texts(tower, texts, missing), f"encoding texts with {tower.name}")


def run_texts(tower, texts, rows):
    """Yield (row, feature (width,) numpy) of these rows of a list of texts, shortest first."""
    ordered = sorted(rows, key=lambda row: len(texts[row]))
    for start in range(0, len(ordered), TEXT_BATCH):
        batch = ordered[start : start + TEXT_BATCH]
        yield from zip(batch, tower.encode([texts[row] for row in batch]).cpu().numpy())


def image_embeddings(model, source, compile=None, device=None):
    """image_embeddings (N, D), unit rows, of a dataset or a list of pictures; the tower's features come from the cache."""
    with torch.no_grad():
        return model.eval().project_images(image_features(model.image_tower, source, compile, device))


def text_embeddings(model, texts):
    """text_embeddings (M, D), unit rows, of a list of texts; the tower's features come from the cache."""
    with torch.no_grad():
        return model.eval().project_texts(text_features(model.text_tower, texts))
