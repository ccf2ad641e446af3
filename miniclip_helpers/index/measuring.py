"""How good and how fast an index is: recall against exact search, the time of single queries; synthetic vectors like real ones."""

import time

import numpy as np

from ..metrics.blocks import whole
from . import searchers

TIE = 1e-6  # two cosines nearer than this are one


def measure(found, exact_index, queries, k=10, repeats=1):
    """What the index `found` loses against `exact_index`, and how long a query takes: one query at a time, as a user asks.

    {"recall@K": share of the exact K that it finds, "p50_ms", "p95_ms", "mean_ms": over all single queries, "queries": how many}.
    FAISS runs on one thread meanwhile. A picture as near as the exact ones counts as found: equal pictures may stand for each other.
    """
    queries, repeats = searchers.rows_of(queries, "queries"), whole(repeats, "repeats")
    seconds, answers = [], []
    with searchers.one_thread():
        found.search(queries[:1], k)  # the first one pays for what is loaded
        for _ in range(repeats):
            answers = []
            for row in range(len(queries)):
                begin = time.perf_counter()
                names = found.search(queries[row : row + 1], k)[1][0]
                seconds.append(time.perf_counter() - begin)
                answers.append(names)
    milliseconds = 1000 * np.array(seconds)
    return {f"recall@{k}": recall(answers, exact_index, queries, k), "p50_ms": float(np.percentile(milliseconds, 50)),
            "p95_ms": float(np.percentile(milliseconds, 95)), "mean_ms": float(milliseconds.mean()), "queries": len(queries)}


def recall(answers, exact_index, queries, k=10):
    """The share of the exact k nearest that `answers` (Q lists of names) hold, mean over queries; k is cut to the size of the index."""
    scores, right = exact_index.search(queries, k)
    shares = []
    for query, names, best, cosines in zip(queries, answers, right, scores):
        nearer = {name for name, cosine in zip(best, cosines) if cosine > cosines[-1] + TIE}
        others = [name for name in set(names) - nearer if name in exact_index]
        last = int((exact_index.vectors(others) @ query >= cosines[-1] - TIE).sum()) if others else 0
        shares.append((len(nearer & set(names)) + min(last, len(best) - len(nearer))) / len(best))
    return float(np.mean(shares))


def spectrum_like(vectors, count, seed):
    """Synthetic unit vectors (count, D), float32, with the mean and the covariance of real ones (N, D): as many directions that matter.

    Real vectors also come in clumps, which these do not: what is measured on them is about size, not about any one collection.
    """
    vectors, random = searchers.rows_of(vectors, "vectors").astype(np.float64), np.random.default_rng(seed)
    mean = vectors.mean(0)
    _, spread, directions = np.linalg.svd((vectors - mean) / max(1, len(vectors) - 1) ** 0.5, full_matrices=False)
    mixing, mean = (spread[:, None] * directions).astype(np.float32), mean.astype(np.float32)
    rows = np.empty((count, vectors.shape[1]), np.float32)
    for start in range(0, count, 65536):  # bounded: a million rows take their own room and little more
        stop = min(count, start + 65536)
        np.matmul(random.standard_normal((stop - start, len(mixing)), dtype=np.float32), mixing, out=rows[start:stop])
        rows[start:stop] += mean
        rows[start:stop] /= np.maximum(np.linalg.norm(rows[start:stop], axis=1, keepdims=True), 1e-12)
    return rows
