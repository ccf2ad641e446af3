"""What tests/test_train_processes.py trains, in one process or as one of several: `python share_training.py FOLDER` under a launcher."""

import contextlib
import pathlib
import sys

import numpy as np
import torch
from torch import nn

from miniclip_helpers.encoders import BagOfWords, SmallCNN
from miniclip_helpers.errors import MiniclipError
from miniclip_helpers.images import augment
from miniclip_helpers.model import LinearHead, TwoTowers
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import Machine, PairBatches, TrainConfig, fit

COUNT, WORDS = 30, ["a", "red", "ball", "dogs", "blue", "cat", "on", "grass"]
CASES = {"clip": {}, "multi-positive": {}, "siglip": {}, "margin": {}, "chunked-clip": {}, "chunk": {"chunk": 3}, "batch norm": {}, "features": {}, "bf16": {"precision": "bf16"}}


class Flat(nn.Module):
    """A tower of two layers over the pixels, without batch statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 24), nn.GELU(), nn.LayerNorm(24))
        self.spare = nn.Linear(3, 3)  # weights that no step asks, as the poolers of some published towers are

    def forward(self, pixels):
        return self.layers(pixels)


def model_of(case):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        text = BagOfWords(WORDS, width=12)
        if case == "batch norm":
            image = SmallCNN(channels=4, size=16)
            return TwoTowers(image, text, LinearHead(image.width, 6), LinearHead(12, 6), logit_scale=5.0)
        if case == "features":
            return TwoTowers(nn.Identity(), nn.Identity(), LinearHead(20, 6), LinearHead(12, 6), logit_scale=5.0)
        return TwoTowers(Flat(), text, LinearHead(24, 6), LinearHead(12, 6), logit_scale=5.0)


def batches_of(case):
    """Pictures with one to three captions each; two of them of the same thing."""
    random = generator(1)
    owner = np.repeat(np.arange(COUNT), np.arange(COUNT) % 3 + 1)
    texts = torch.randint(0, len(WORDS) + 2, (len(owner), 5), generator=random)
    texts[:, 0] = torch.from_numpy(owner % 8 + 2)
    if case == "features":
        return PairBatches(torch.randn(COUNT, 20, generator=random), torch.randn(len(owner), 12, generator=random), owner, 10)
    pixels = torch.randint(0, 256, (COUNT, 3, 8, 8), generator=random, dtype=torch.uint8)
    return PairBatches(pixels, texts, owner, 10, groups=torch.arange(COUNT) // 2, augment=augment)


def train(case, machine=None, **more):
    """The records and the weights after three epochs."""
    model, config = model_of(case), TrainConfig(epochs=3, batch_size=10, learning_rate=3e-3, loss=case if case in ("multi-positive", "siglip", "margin", "chunked-clip") else "clip")
    machine = machine or Machine("cpu", **CASES[case])
    records = list(fit(model, batches_of(case), config, machine=machine, **more))
    return records, {key: value.detach().clone() for key, value in model.state_dict().items()}


def cut(file, epochs, machine=None):
    """A run that is stopped after `epochs` epochs, and leaves its checkpoint."""
    config = TrainConfig(epochs=3, batch_size=10, learning_rate=3e-3)
    run = fit(model_of("clip"), batches_of("clip"), config, checkpoint=file, machine=machine or Machine("cpu"))
    with contextlib.closing(run):
        for record in run:
            if record.epoch == epochs:
                return  # in the first step of the next one: what it did is lost


def fail():
    raise MiniclipError("no more")


def work(folder):
    """All cases, one after the other, as one of several; each process writes what it got."""
    found, folder, machine = {}, pathlib.Path(folder), Machine("cpu")
    for case in CASES:
        records, state = train(case)
        found[case] = {"loss": [record.loss for record in records], "norm": [record.grad_norm for record in records], "state": state}
    with machine:
        cut(folder / "cut.pt", 2, machine)
        records, state = train("clip", machine, checkpoint=folder / "one.pt")  # what one process began
        found["resumed"] = {"loss": [record.loss for record in records], "state": state}
        torch.manual_seed(0)
        machine.seed(0, 1)
        found["dice"] = torch.rand(5)
    torch.save(found, folder / f"found-{machine.rank}.pt")


if __name__ == "__main__":
    work(sys.argv[1])
