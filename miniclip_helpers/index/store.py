"""`Index`: vectors under names, whatever searches them. Search, add, remove, save, count the bytes."""

import collections

import numpy as np

from ..errors import UsageError
from ..metrics.blocks import whole
from . import saving, searchers
from .searchers import rows_of

REBUILD_FROM = 0.2  # a graph keeps removed vectors as steps on the way; above this share it is built anew without them


class Index:
    """Vectors that can be asked for the nearest to a query. names: unique strings, None for a row that was removed. about: what made it, plain JSON."""

    def __init__(self, searcher, names, kind, about=None):
        self.searcher, self.kind, self.about = searcher, kind, dict(about or {})
        self._rows = list(names)
        self._row_of = {name: row for row, name in enumerate(self._rows) if name is not None}
        self._bits = None

    def __len__(self):
        return len(self._row_of)

    def __contains__(self, name):
        return name in self._row_of

    def __repr__(self):
        return f"{self.kind} index of {len(self)} vectors of {self.width} numbers"

    @property
    def names(self):
        """The names, oldest first."""
        return list(self._row_of)

    @property
    def width(self):
        """Numbers per vector, D."""
        return self.searcher.d

    @property
    def ef_search(self):
        """How many candidates an hnsw index keeps while it walks: more find more, and take longer."""
        return self._graph().efSearch

    @ef_search.setter
    def ef_search(self, value):
        self._graph().efSearch = whole(value, "ef_search")

    def _graph(self):
        if self.kind != "hnsw":
            raise UsageError(f"only an hnsw index has ef_search; this one is {self.kind}")
        return self.searcher.hnsw

    @property
    def nprobe(self):
        """How many of its lists an ivfpq index looks into: more find more, and take longer."""
        return self._codes().nprobe

    @nprobe.setter
    def nprobe(self, value):
        codes = self._codes()
        codes.nprobe = min(whole(value, "nprobe"), codes.nlist)

    @property
    def rerank(self):
        """How many candidates per answer an ivfpq index compares exactly: more find more, and take longer."""
        return int(self._reranking().k_factor)

    @rerank.setter
    def rerank(self, value):
        self._reranking().k_factor = whole(value, "rerank")

    def _reranking(self):
        self._codes()
        if not hasattr(self.searcher, "k_factor"):
            raise UsageError("this index keeps codes alone (refine=False): there is nothing to re-rank by")
        return self.searcher

    def _codes(self):
        if self.kind != "ivfpq":
            raise UsageError(f"only an ivfpq index has nprobe; this one is {self.kind}")
        return searchers.codes_of(self.searcher)

    def search(self, queries, k=5):
        """queries (Q, D) unit rows to scores (Q, k) float32, best first, and names, Q lists of k.

        A k above the number of vectors gives all of them. Equal scores stand in no promised order: vectors that are there twice tie. A query of zeros
        scores 0 with everything. A `UsageError` for NaN, infinity, no query, another width, or a k below 1.
        """
        queries = self.fitting(queries, "queries")
        k = min(whole(k, "k"), len(self))
        if not k:
            return np.zeros((len(queries), 0), np.float32), [[] for _ in queries]
        scores, rows = searchers.search_rows(self.searcher, queries, k, self._live())
        return scores, [[self._rows[row] for row in found] for found in rows]

    def _live(self):
        """One bit per row, 0 where it was removed; None where none was."""
        if self._bits is None and len(self._rows) > len(self):
            self._bits = np.packbits([name is not None for name in self._rows], bitorder="little")
        return self._bits

    def fitting(self, vectors, what):
        """`vectors` as float32 rows (N, D) of the index's own width, or a `UsageError`."""
        vectors = rows_of(vectors, what)
        if vectors.shape[1] != self.width:
            raise UsageError(f"expected {what} of {self.width} numbers, as the index holds, found {vectors.shape[1]}; encode them with the same model")
        return vectors

    def add(self, embeddings, names):
        """Add embeddings (N, D), unit rows, under N names that are not there yet. Codes of an ivfpq index stay as they were learnt."""
        vectors, names = self.fitting(embeddings, "embeddings"), list(names)
        check_names(names, vectors)
        there = next((name for name in names if name in self._row_of), None)
        if there is not None:
            raise UsageError(f"the index holds {there!r} already; remove it first, or name the new one differently")
        searchers.append(self.searcher, vectors, len(self._rows))
        self._row_of |= {name: row for row, name in enumerate(names, len(self._rows))}
        self._rows += names
        self._bits = None

    def remove(self, names):
        """Remove what stands under these names. A flat index forgets the vectors at once; the others when a fifth of them is gone."""
        names = list(dict.fromkeys([names] if isinstance(names, str) else names))
        missing = [name for name in names if name not in self._row_of]
        if missing:
            raise UsageError(f"the index holds no {missing[0]!r}" + f", nor {len(missing) - 1} more of these names" * (len(missing) > 1) + "; nothing was removed")
        rows = [self._row_of.pop(name) for name in names]
        for row in rows:
            self._rows[row] = None
        searchers.forget(self.searcher, rows)
        gone, self._bits = len(self._rows) - len(self), None
        kept = [row for row, name in enumerate(self._rows) if name is not None]
        if self.kind != "flat":
            if gone <= REBUILD_FROM * len(self._rows) or searchers.exact_store(self.searcher) is None:
                return  # codes without vectors are forgotten for good; only their row numbers stay
            self.searcher = searchers.rebuilt(self.searcher, kept)
        self._rows = [self._rows[row] for row in kept]
        self._row_of = {name: row for row, name in enumerate(self._rows)}

    def vectors(self, names):
        """The vectors (N, D) under these names, as they were added; a `UsageError` for a name that the index does not hold."""
        names = list(names)
        missing = next((name for name in names if name not in self._row_of), None)
        if missing is not None:
            raise UsageError(f"the index holds no {missing!r}")
        return searchers.vectors_of(self.searcher, [self._row_of[name] for name in names])

    def first(self, count):
        """An exact `Index` of the `count` oldest vectors alone."""
        names = self.names[: whole(count, "count")]
        return Index(searchers.make("flat", self.vectors(names)), names, "flat", self.about)

    def memory(self):
        """Bytes of vectors, links and codes: the size of the saved searcher, without writing it."""
        return searchers.size_of(self.searcher)

    def save(self, folder):
        """Write index.faiss and index.json, whole or not at all."""
        saving.save(self, self._rows, folder)


def check_names(names, vectors):
    """Raise a `UsageError` unless there is one name for each vector, and none stands twice."""
    if len(names) != len(vectors):
        raise UsageError(f"expected one name per vector, found {len(names)} names and {len(vectors)} vectors")
    odd = next((name for name in names if not isinstance(name, str)), None)
    if odd is not None:
        raise UsageError(f"expected names as strings, found {odd!r}")
    if len(set(names)) != len(names):
        raise UsageError(f"names must be unique; {collections.Counter(names).most_common(1)[0][0]!r} stands twice")
