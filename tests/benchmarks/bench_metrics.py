"""Metrics at the size of Flickr8k's test, 1,000 images and 5,000 captions of 512 numbers, beside clip_benchmark's own, in one run; and the intervals."""

import numpy as np
import pytest
import torch

from miniclip_helpers import metrics

IMAGES, EACH, DIM, KS = 1000, 5, 512, (1, 5, 10)


@pytest.fixture(scope="module")
def vectors():
    """images (N, D), texts (M, D) unit rows, owner (M,)."""
    random = np.random.default_rng(0)
    unit = lambda rows: (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
    images, owner = unit(random.normal(size=(IMAGES, DIM))), np.repeat(np.arange(IMAGES), EACH)
    return images, unit(images[owner] + 0.3 * random.normal(size=(IMAGES * EACH, DIM))), owner


def theirs(images, texts, owner):
    """What clip_benchmark.metrics.zeroshot_retrieval.evaluate does after encoding: its lines, its functions, batches of 64."""
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    scores = torch.from_numpy(texts) @ torch.from_numpy(images).T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), torch.from_numpy(owner)] = True
    found = {}
    for k in KS:
        found[f"text_to_image R@{k}"] = (batchify(recall_at_k, scores, positive, 64, "cpu", k=k) > 0).double().mean().item()
        found[f"image_to_text R@{k}"] = (batchify(recall_at_k, scores.T, positive.T, 64, "cpu", k=k) > 0).double().mean().item()
    return found


def ours(images, texts, owner):
    return metrics.retrieval_metrics(images @ texts.T, owner, KS)


def test_ours(benchmark, vectors):
    """The product, and R@K, MRR, MedR and mean rank in both directions."""
    found, other = benchmark.pedantic(ours, vectors, rounds=5, warmup_rounds=1), theirs(*vectors)
    for direction in metrics.DIRECTIONS:
        for k in KS:
            assert found[direction][f"R@{k}"] == pytest.approx(other[f"{direction} R@{k}"], abs=1e-9)


def test_clip_benchmark(benchmark, vectors):
    """The product, and R@K in both directions; it has no other figure."""
    benchmark.pedantic(theirs, vectors, rounds=2, warmup_rounds=0)


def test_intervals(benchmark, vectors):
    """95 % intervals of five figures in both directions, 2,000 draws of whole images, ranks included."""
    images, texts, owner = vectors
    benchmark.pedantic(metrics.retrieval_intervals, (images @ texts.T, owner), rounds=2, warmup_rounds=0)


def test_two_models(benchmark, vectors):
    """The sign-flip test of text to image, 10,000 draws over 1,000 images."""
    _, _, owner = vectors
    random = np.random.default_rng(0)
    hits = [random.random(len(owner)) < share for share in (0.5, 0.52)]
    benchmark.pedantic(metrics.sign_flip_test, (*hits, owner), rounds=2, warmup_rounds=0)
