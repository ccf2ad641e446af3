"""Which of the two towers fails: each is asked alone."""

import numpy as np

from .. import embedding, zero_shot
from ..errors import UsageError
from .core import interval


def caption_cosine(model, probe):
    """The mean cosine of the right caption and the first wrong one, over the questions: near 1, no picture can tell them apart by more than a hair."""
    right = [captions[answer] for captions, answer in zip(probe.choices, probe.right, strict=True)]
    wrong = [captions[1 if answer == 0 else 0] for captions, answer in zip(probe.choices, probe.right, strict=True)]
    return float((embedding.text_embeddings(model, right) * embedding.text_embeddings(model, wrong)).sum(1).mean())


def linear_readout(model, probe, word=lambda caption: caption, folds=5, seed=0, strength=10.0):
    """(share, (low, high)): how often a linear probe on the image tower's features, before the head, says `word` of the right caption.

    Cross-validated: of the folds one is tested, the others train; pictures of one group stay together. Far above the probe's own accuracy, the answer is in
    the picture's features, and the words do not reach it.
    """
    features = embedding.image_features(model.image_tower, probe.pictures).numpy()
    said = [word(captions[answer]) for captions, answer in zip(probe.choices, probe.right, strict=True)]
    targets = np.unique(said, return_inverse=True)[1]
    groups = np.arange(len(targets)) if probe.groups is None else np.unique(probe.groups, return_inverse=True)[1]
    if groups.max() < 1:
        raise UsageError("expected two groups of pictures or more: one to learn from, one to test on")
    fold = np.random.default_rng(seed).permutation(groups.max() + 1)[groups] % min(folds, groups.max() + 1)
    hits = np.zeros(len(targets))
    for part in range(fold.max() + 1):
        test = fold == part
        hits[test] = zero_shot.linear_probe(features[~test], targets[~test], features[test], strengths=(strength,)).predicted == targets[test]
    return float(hits.mean()), interval(hits, probe.groups)
