"""From vectors to an `Index`: build one, load one, or measure which kind suits."""

import time

import numpy as np

from ..metrics.blocks import whole
from . import choosing, measuring, saving, searchers
from .store import Index, check_names


def build_index(embeddings, names, kind="auto", about=None, *, m=searchers.M, ef_construction=searchers.EF_CONSTRUCTION, refine=True, queries=None, recall=0.99):
    """An `Index` of embeddings (N, D), unit rows, under N unique names.

    kind: "flat" (exact), "hnsw" (a graph; m links per vector, built with ef_construction candidates), "ivfpq" (compressed lists;
    refine: keep the vectors, too, and re-rank by them), or "auto": by measured sizes, exact search unless another is faster at this
    recall. queries (Q, D): real ones, by which ef_search, or nprobe and rerank, are set to the least that reaches `recall`; where
    none does, "auto" gives the exact index. The same input gives the same index.
    """
    vectors, names = searchers.rows_of(embeddings, "embeddings"), list(names)
    searchers.check_kind(kind)
    check_names(names, vectors)
    wanted = choosing.choose_kind(len(vectors), recall) if kind == "auto" else kind
    index = Index(searchers.make(wanted, vectors, whole(m, "m"), whole(ef_construction, "ef_construction"), refine), names, wanted, about)
    if wanted == "flat" or queries is None and kind != "auto":
        return index
    exact = Index(searchers.make("flat", vectors), names, "flat", about)
    queries = measuring.spectrum_like(sample_of(vectors, 2000), 100, seed=0) if queries is None else index.fitting(queries, "queries")
    reached = choosing.tune(index, exact, queries, recall)
    return index if kind != "auto" or reached and choosing.is_worth_it(index, queries) else exact


def sample_of(vectors, most):
    """At most so many of the vectors, evenly spread over the rows."""
    return vectors[np.linspace(0, len(vectors) - 1, min(most, len(vectors))).astype(int)]


def load_index(folder):
    """The `Index` that `save` wrote. A `ModelError` says which of its files is missing, truncated or another."""
    searcher, about = saving.read(folder)
    return Index(searcher, about["names"], about["kind"], about["about"])


def choose(embeddings, queries=None, k=10, recall=0.99, sample=20_000):
    """Measure the kinds on (at most `sample` of) these vectors, here and now: (kind, table).

    table: a pandas DataFrame, a row per kind at its least setting that finds `recall` of the exact k nearest: setting, recall, p50 and p95 of single
    queries in ms, seconds to build, MB; .attrs["why"] says it in a sentence. Another kind than exact search is chosen only where it is a tenth
    faster. queries (Q, D): real ones are best; without them, synthetic ones like the vectors.
    """
    import pandas

    choosing.check_recall(recall)
    vectors = sample_of(searchers.rows_of(embeddings, "embeddings"), sample)
    exact, rows = None, {}
    queries = measuring.spectrum_like(sample_of(vectors, 2000), 100, seed=0) if queries is None else searchers.rows_of(queries, "queries")
    for kind in searchers.KINDS if len(vectors) >= 16 else ["flat"]:
        begin = time.perf_counter()
        index = build_index(vectors, [str(row) for row in range(len(vectors))], kind)
        seconds, exact = time.perf_counter() - begin, exact or index
        reached = kind == "flat" or choosing.tune(index, exact, queries, recall, k)
        found = measuring.measure(index, exact, queries, k, repeats=3)
        rows[kind] = {"setting": choosing.setting(index), "reached": reached, **found, "build_s": seconds, "MB": index.memory() / 1e6}
    table = pandas.DataFrame(list(rows.values()), index=list(rows))
    kind, table.attrs["why"] = choosing.decide(rows, len(vectors), k, recall)
    return kind, table
