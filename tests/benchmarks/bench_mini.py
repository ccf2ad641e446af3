"""`mini` without any training on real data: retrieval among Flickr8k's and the everyday photos, and naming ten kinds of thing when pictures are small or blurred.

    pytest tests/benchmarks/bench_mini.py -s

The ten kinds are CIFAR-10's, a data set that is not at hand. A picture counts as one of them where most of its captions name that kind, by the words below,
and none names another. The stamps among them were trained on at full size (no photo was): they are told apart.
"""

import collections
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import shared

from miniclip_helpers import embedding, metrics, zero_shot
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.pretrained import load_model
from miniclip_helpers.retrieval import as_table, evaluate
from miniclip_helpers.training.mini_data import words

KINDS = {
    "airplane": "airplane plane aeroplane jet", "automobile": "car automobile taxi suv",
    "bird": "bird parrot eagle owl duck gull seagull pigeon sparrow robin crow penguin swan flamingo goose chicken hen rooster peacock pelican",
    "cat": "cat kitten", "deer": "deer elk moose reindeer", "dog": "dog puppy", "frog": "frog toad", "horse": "horse pony",
    "ship": "ship boat sailboat ferry", "truck": "truck lorry"}
LOOKS = {
    "as they are": lambda picture: picture,
    "shrunk to 32 px": lambda picture: picture.resize((32, 32), Image.BICUBIC),
    "shrunk to 16 px": lambda picture: picture.resize((16, 16), Image.BICUBIC),
    "224 px, blurred by 3 px": lambda picture: picture.resize((224, 224), Image.BICUBIC).filter(ImageFilter.GaussianBlur(3)),
    "224 px, blurred by 6 px": lambda picture: picture.resize((224, 224), Image.BICUBIC).filter(ImageFilter.GaussianBlur(6))}


def kinds_of(dataset):
    """[(row, number of its kind)] of the pictures that show one of `KINDS`."""
    found = []
    for row, captions in enumerate(dataset.captions):
        said = [words(caption) for caption in captions]
        named = collections.Counter(place for place, (kind, list_) in enumerate(KINDS.items()) for caption in said if caption & {kind, *list_.split()})
        if len(named) == 1 and named.most_common()[0][1] > len(captions) / 2:
            found.append((row, named.most_common()[0][0]))
    return found


@pytest.mark.parametrize("name", ["flickr8k", "everyday_photos"])
def test_retrieval_without_training(name):
    report = evaluate(load_model("mini"), load_dataset(shared(name)))
    print(f"\n{name}, {report['n_images']} pictures\n{as_table(report).to_string()}")
    assert name != "flickr8k" or min(report[direction]["R@1"] for direction in metrics.DIRECTIONS) >= 0.10


def test_small_and_blurred_pictures():
    model = load_model("mini")
    classes = zero_shot.class_embeddings(model, list(KINDS), zero_shot.TEMPLATES)
    pictures, kind, photo = [], [], []
    for dataset in (load_dataset(shared("flickr8k")), load_dataset(shared("everyday_photos")), load_dataset("stamps")):
        for row, place in kinds_of(dataset):
            pictures.append(dataset.image(row)), kind.append(place), photo.append(dataset.name != "stamps")
    kind, photo = torch.tensor(kind), torch.tensor(photo)
    print(f"\n{int(photo.sum())} photos and {int((~photo).sum())} stamps: {dict(zip(KINDS, torch.bincount(kind, minlength=10).tolist()))}")
    share = {}
    for look, change in LOOKS.items():
        right = (embedding.image_embeddings(model, [change(picture) for picture in pictures]) @ classes.T).argmax(1) == kind
        per_kind = torch.stack([right[kind == place].float().mean() for place in range(len(KINDS))])
        low, high = metrics.proportion_interval(int(right[photo].sum()), int(photo.sum()))
        share[look] = right[photo].float().mean().item(), per_kind.mean().item()
        print(f"{look:26s} photos {100 * share[look][0]:.1f} [{100 * low:.0f}, {100 * high:.0f}]  stamps {100 * right[~photo].float().mean():.1f}  mean of ten kinds {100 * share[look][1]:.1f}")
    assert min(share["shrunk to 32 px"]) >= 0.45
