"""Nearest neighbours with FAISS: build, choose, search, save, load. Names are file names, scores are cosines."""

import json
import pathlib

import numpy as np

from . import runtime
from .errors import ModelError, UsageError, unknown

KINDS = ("flat", "hnsw", "ivfpq")
HNSW_FROM = 10_000  # measured at d = 512 on two threads: below this, exact search answers faster than HNSW at equal recall
HNSW_M, EF_CONSTRUCTION, EF_SEARCH = 16, 200, 64  # Malkov and Yashunin 2018: M and efConstruction in their middle range
FORMAT = "miniclip-index-1"


def choose_kind(count):
    """Which index to build for `count` vectors: exact search until something else is faster."""
    return "flat" if count < HNSW_FROM else "hnsw"


class Index:
    """Vectors that can be asked for the nearest to a query. names: N unique strings. about: what made it, plain JSON."""

    def __init__(self, searcher, names, kind, about=None):
        self.searcher, self.names, self.kind, self.about = searcher, list(names), kind, dict(about or {})

    def __len__(self):
        return len(self.names)

    def __repr__(self):
        return f"{self.kind} index of {len(self)} vectors of {self.searcher.d} numbers"

    def search(self, queries, k=5):
        """queries (Q, D) unit rows to scores (Q, k) float32, best first, and names, Q lists of k.

        A k above the number of vectors gives all of them.
        """
        queries = _rows(queries, "queries")
        if queries.shape[1] != self.searcher.d:
            raise UsageError(f"expected queries of {self.searcher.d} numbers, as the index holds, found {queries.shape[1]}; encode them with the same model")
        if k < 1:
            raise UsageError(f"expected k of at least 1, found {k}")
        scores, rows = self.searcher.search(queries, min(int(k), len(self)))
        return scores, [[self.names[row] for row in found if row >= 0] for found in rows]

    def save(self, folder):
        """Write index.faiss and index.json, whole or not at all."""
        import faiss

        check_target(folder)
        with runtime.writing_folder(folder) as fresh:
            faiss.write_index(self.searcher, str(fresh / "index.faiss"))
            about = {"format": FORMAT, "kind": self.kind, "names": self.names, "about": self.about, "sha256": runtime.sha256(fresh / "index.faiss")}
            (fresh / "index.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def check_target(folder):
    """Raise a `UsageError` unless an index may be written to `folder`: it is absent, empty, or an index."""
    runtime.check_replaceable(folder, ("index.faiss", "index.json"))


def _rows(values, what):
    values = np.ascontiguousarray(np.asarray(values), dtype=np.float32)
    if values.ndim != 2 or not values.size:
        raise UsageError(f"expected {what} as rows (N, D), found the shape {values.shape}")
    if not np.isfinite(values).all():
        raise UsageError(f"{what} hold NaN or infinity; look for a broken picture or a model that diverged")
    return values


def build_index(embeddings, names, kind="auto", about=None):
    """An `Index` of embeddings (N, D), unit rows, under N unique names. kind: "flat", "hnsw", "ivfpq" or "auto"."""
    vectors = _rows(embeddings, "embeddings")
    check_kind(kind)
    if len(names) != len(vectors):
        raise UsageError(f"expected one name per vector, found {len(names)} names and {len(vectors)} vectors")
    if len(set(names)) != len(names):
        raise UsageError(f"names must be unique; {next(n for n in names if list(names).count(n) > 1)!r} stands twice")
    kind = choose_kind(len(vectors)) if kind == "auto" else kind
    searcher = _searcher(kind, vectors)
    searcher.add(vectors)
    return Index(searcher, names, kind, about)


def check_kind(kind):
    """Raise a `UsageError` that names the nearest kind for an unknown one."""
    if kind not in ("auto", *KINDS):
        raise unknown("index kind", kind, ["auto", *KINDS])


def _searcher(kind, vectors):
    import faiss

    count, width = vectors.shape
    if kind == "flat":
        return faiss.IndexFlatIP(width)
    if kind == "hnsw":
        searcher = faiss.IndexHNSWFlat(width, HNSW_M, faiss.METRIC_INNER_PRODUCT)
        searcher.hnsw.efConstruction, searcher.hnsw.efSearch = EF_CONSTRUCTION, EF_SEARCH
        return searcher
    pieces = next((m for m in (64, 48, 32, 16, 8, 4, 2) if width % m == 0), 1)
    bits = 8 if count >= 256 else 4
    if count < 2**bits:
        raise UsageError(f"an ivfpq index needs at least {2**bits} vectors to learn its codes, found {count}; take kind='flat'")
    lists = max(1, int(np.sqrt(count)))
    searcher = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, lists, pieces, bits, faiss.METRIC_INNER_PRODUCT)
    searcher.train(vectors)
    searcher.nprobe = max(1, lists // 8)
    return searcher


def load_index(folder):
    """The `Index` that `save` wrote. A `ModelError` for a missing, truncated or altered one."""
    import faiss

    folder = pathlib.Path(folder)
    try:
        about = json.loads((folder / "index.json").read_text(encoding="utf8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"'{folder}' holds no index; make one with: miniclip index PHOTOS --out {folder}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{folder}/index.json' is damaged: {error}; build the index again") from error
    file, kinds = folder / "index.faiss", {"names": list, "about": dict, "sha256": str, "kind": str}
    whole = isinstance(about, dict) and all(isinstance(about.get(key), kind) for key, kind in kinds.items())
    if not whole or about.get("format") != FORMAT or not file.is_file():
        raise ModelError(f"'{folder}' is not an index of the format {FORMAT}; build it again")
    if runtime.sha256(file) != about["sha256"]:
        raise ModelError(f"'{file}' is not the file that was saved (its sha256 differs); build the index again")
    searcher = faiss.read_index(str(file))
    if searcher.ntotal != len(about["names"]):
        raise ModelError(f"'{folder}' holds {searcher.ntotal} vectors and {len(about['names'])} names; build the index again")
    return Index(searcher, about["names"], about["kind"], about["about"])
