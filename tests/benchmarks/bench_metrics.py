"""Metrics at the size of Flickr8k's test, 1,000 images and 5,000 captions of 512 numbers, beside clip_benchmark's own, in one run; and the intervals."""

import time

import numpy as np
import pytest
import torch

from miniclip_helpers import metrics
from miniclip_helpers.metrics import blocks
from miniclip_helpers.training.memory import peak_bytes

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


@pytest.mark.parametrize("size", [5000, 25000])
def test_in_blocks(size):
    """Random unit rows of 64 numbers, one caption each: ranks of both directions, never the whole matrix; then all of the report."""
    random = np.random.default_rng(0)
    images, texts = (random.normal(size=(size, 64)).astype(np.float32) for _ in range(2))
    for rows in (images, texts):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores, owner = metrics.Cosines(images, texts), np.arange(size)
    begin = time.perf_counter()
    rank = metrics.ranks(scores, owner)
    took = time.perf_counter() - begin
    held = peak_bytes(lambda: scores.rows(0, blocks.NUMBERS // size))[1]
    begin = time.perf_counter()
    metrics.rank_intervals(rank, owner, KS)
    print(f"\n| {size:,} x {size:,} | ranks {took:.2f} s | intervals {time.perf_counter() - begin:.1f} s | a block {held / 1e6:.0f} MB, whole {4 * size**2 / 1e6:,.0f} MB |")
    if size == 5000:
        whole = metrics.ranks((torch.from_numpy(images) @ torch.from_numpy(texts).T).numpy(), owner)
        assert all((rank[way] != whole[way]).mean() < 1e-3 for way in rank)  # a rounding may part two that are as good as equal


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
