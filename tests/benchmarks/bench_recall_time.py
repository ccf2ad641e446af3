"""Time to the same R@10 on 600 photos of Flickr8k, towers locked: the plain loop that tutorials write, and ours.

    pytest tests/benchmarks/bench_recall_time.py -s

The plain loop opens the pictures and runs both towers at every step. Ours runs them once and keeps the features; then the heads learn by the same steps
on the same batches, or come in closed form. Same towers, same heads, same AdamW, same seed. Validation is on the 100 other photos, from features that are at hand, and
its time counts for nobody. The towers' weights are read before any clock starts.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import shared

from miniclip_helpers import runtime, training
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.encoders import load_encoder
from miniclip_helpers.model import BlockHead, TwoTowers
from miniclip_helpers.training import sides
from miniclip_helpers.training.locked import ClosedForm, features_of, measure, similarity

PHOTOS, LEVEL = 600, 0.75  # of R@10, the mean of both directions; beside the best that the steps reach in all their epochs, less half a point
CONFIG = training.TrainConfig(epochs=20)  # the package's own batches of 128 and rate of 1e-3, kept constant as tutorials do
DIM, SEED = 256, 0


class PhotosAndCaptions(torch.utils.data.Dataset):
    """A picture and a caption by their numbers, as tutorials write it: opened, resized and normalised each time."""

    def __init__(self, dataset, tower):
        self.dataset, self.preprocess, self.captions = dataset, tower.preprocess, dataset.all_captions

    def __getitem__(self, pair):
        with Image.open(self.dataset.path(pair[0])) as picture:
            return self.preprocess(picture.convert("RGB")), self.captions[pair[1]], pair[0]


class Pairs:
    """The numbers of the pairs in `training.PairBatches`' own order, one list per batch of one epoch."""

    def __init__(self, dataset):
        self.batches = training.PairBatches(torch.arange(len(dataset)), torch.arange(len(dataset.owner)), dataset.owner, CONFIG.batch_size)
        self.generator = runtime.generator(SEED)

    def __iter__(self):
        for pictures, captions, _ in self.batches.epoch(self.generator):
            yield list(zip(pictures.tolist(), captions.tolist(), strict=True))


def new_model(towers, features):
    """Linear heads that start from the seed's noise, centred on the features of the training photos."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        heads = BlockHead(towers[0].block_widths, DIM), BlockHead([towers[1].width], DIM, rooted=False)
    for head, rows in zip(heads, (features.images, features.texts), strict=True):
        head.mean.copy_(head.blocks(rows).mean(0))
    return TwoTowers(*towers, *heads)


def recall(model, val):
    """R@10 on validation, the mean of both directions."""
    found = measure(similarity(model.eval(), val), val.owner)
    return (found["val_image_to_text_R@10"] + found["val_text_to_image_R@10"]) / 2


def until(model, called, epochs, val, level):
    """Train `called`, which shares the heads of `model`, epoch by epoch until validation reaches `level`: [(R@10, seconds of training so far)]."""
    optimizer, seconds, curve = training.build_optimizer(called, CONFIG), 0.0, []
    for batches in epochs:
        begin = time.perf_counter()
        called.train()
        for batch in batches:
            training.train_step(called, batch, optimizer, CONFIG)
        seconds += time.perf_counter() - begin
        curve.append((recall(model, val), seconds))
        if curve[-1][0] >= level:
            break
    return curve


def plain(towers, dataset, model, val, level):
    """Both towers at every step."""
    def collate(rows):
        pixels, captions, groups = zip(*rows, strict=True)
        return torch.stack(pixels), towers[1].prepare(captions), torch.tensor(groups)

    loader = DataLoader(PhotosAndCaptions(dataset, towers[0]), batch_sampler=Pairs(dataset), collate_fn=collate, num_workers=2)
    return until(model, model, (loader for _ in range(CONFIG.epochs)), val, level)


def on_features(features, model, val, level):
    """The same steps on features that were computed once."""
    batches, generator = training.PairBatches(features.images, features.texts, features.owner, CONFIG.batch_size), runtime.generator(SEED)
    return until(model, sides.on_features(model), (batches.epoch(generator) for _ in range(CONFIG.epochs)), val, level)


def in_closed_form(towers, features, val):
    """The same heads without steps, and without those of `mini` beside them: (R@10, seconds)."""
    begin = time.perf_counter()
    model = TwoTowers(*towers, *ClosedForm(*towers, features).heads(20.0, 3.0))
    return recall(model, val), time.perf_counter() - begin


@contextlib.contextmanager
def empty_cache(folder):
    """The feature cache lies in `folder`."""
    before = os.environ.get("MINICLIP_CACHE")
    os.environ["MINICLIP_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("MINICLIP_CACHE")
        if before is not None:
            os.environ["MINICLIP_CACHE"] = before


def timed(work, *inputs):
    begin = time.perf_counter()
    return work(*inputs), time.perf_counter() - begin


def compared(dataset, folder, photos=PHOTOS):
    """(the curves of the plain loop and of the same steps on features, [(R@10, seconds)] of the closed form, seconds to encode, to read again).

    The plain loop stops where it has come as far as the steps' best epoch, less half a point.
    """
    towers = load_encoder("efficientnet-lite0"), load_encoder("minilm")
    order = np.random.default_rng(SEED).permutation(len(dataset))
    train, held = dataset.subset(sorted(order[:photos])), dataset.subset(sorted(order[photos:]))
    val = features_of(*towers, held)  # reads the weights, too
    with empty_cache(folder):
        features, first = timed(features_of, *towers, train)
        features, again = timed(features_of, *towers, train)
    curve = on_features(features, new_model(towers, features), val, 1.1)
    closed = in_closed_form(towers, features, val)
    slow = plain(towers, train, new_model(towers, features), val, best(curve))
    return slow, curve, [closed], first, again


def best(curve):
    return max(value for value, _ in curve) - 0.005


def to_level(curve, level):
    """(epoch, seconds) at which a curve first reaches a level."""
    return next(((epoch, seconds) for epoch, (value, seconds) in enumerate(curve, 1) if value >= level), (None, float("nan")))


def test_time_to_the_same_recall(tmp_path):
    slow, curve, closed, first, again = compared(load_dataset(shared("flickr8k")), tmp_path)
    print(f"\nfirst encoding {first:.1f} s, reading it again {again:.2f} s\n| R@10 | way | epochs | seconds, features kept | with the first encoding | times faster | with the first encoding |")
    for level in (LEVEL, best(curve)):
        epochs, whole = to_level(slow, level)
        print(f"| {100 * level:.1f} | plain loop | {epochs} | | {whole:.1f} | | |")
        for way, found in (("the same steps on kept features", curve), ("closed form", closed)):
            epochs, seconds = to_level(found, level)
            print(f"| {100 * level:.1f} | {way} | {epochs} | {seconds + again:.2f} | {seconds + first:.1f} | {whole / (seconds + again):.0f} | {whole / (seconds + first):.1f} |")
    print("R@10 by epoch, plain:", " ".join(f"{100 * value:.1f}" for value, _ in slow), "| on features:", " ".join(f"{100 * value:.1f}" for value, _ in curve),
          f"| closed form: {100 * closed[0][0]:.1f}")
    assert [value for value, _ in slow] == pytest.approx([value for value, _ in curve[: len(slow)]], abs=0.02)  # the same steps
    assert closed[0][0] >= best(curve) <= slow[-1][0]
