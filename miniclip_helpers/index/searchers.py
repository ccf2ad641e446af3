"""The FAISS searchers behind an `Index`: exact (flat), a graph (hnsw), compressed lists with exact re-ranking (ivfpq)."""

import contextlib

import numpy as np

from ..errors import UsageError, unknown
from ..metrics.blocks import real

KINDS = ("flat", "hnsw", "ivfpq")
M, EF_CONSTRUCTION, EF_SEARCH = 16, 200, 64  # Malkov and Yashunin 2018: M and efConstruction in their middle range
LARGEST = float(np.finfo(np.float32).max) ** 0.5 / 2  # a row's length: the product, and the distance, of two such rows are still numbers
RERANK = 20  # candidates per answer that are compared exactly: measured, the codes alone lose half of the right answers
NUMBERS_PER_BYTE = 8  # of a code: it takes a thirty-second of the vector's room
TRAINING_POINTS, ROUNDS = 64, 10  # per centroid, and of k-means: measured to cost less than a point of recall, and a quarter of faiss's time


@contextlib.contextmanager
def one_thread():
    """FAISS on one thread: a graph that is built twice is then the same graph, and one query is timed as one query."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def check_kind(kind):
    """Raise a `UsageError` that names the nearest kind for an unknown one."""
    if kind not in ("auto", *KINDS):
        raise unknown("index kind", kind, ["auto", *KINDS])


def rows_of(values, what):
    """`values`, an array, lists or a tensor, as contiguous float32 rows (N, D), or a `UsageError` that says what is wrong with `what`.

    Rows are taken as they are: whoever wants cosines gives unit rows. A zero row scores 0 with everything. So large ones that their products would
    overflow are refused.
    """
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(real(values, what), dtype=np.float32)
    if values.ndim != 2 or not values.size:
        raise UsageError(f"expected {what} as rows (N, D), found the shape {values.shape}")
    most = max(values.max(), -values.min())  # without a second array of this size; NaN and infinity come through
    if not np.isfinite(most):
        bad = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise UsageError(f"{what} hold NaN or infinity, first in row {bad}; look for a broken picture or a model that diverged")
    if most > LARGEST / values.shape[1] ** 0.5:
        raise UsageError(f"{what} hold numbers up to {most:g}, whose products overflow; expected rows of length 1")
    return values


def make(kind, vectors, m=M, ef_construction=EF_CONSTRUCTION, refine=True):
    """A FAISS searcher of a kind that holds `vectors` (N, D); row numbers are its ids."""
    import faiss

    width = vectors.shape[1]
    if kind == "flat":
        searcher = faiss.IndexFlatIP(width)
    elif kind == "hnsw":
        searcher = faiss.IndexHNSWFlat(width, m, faiss.METRIC_INNER_PRODUCT)
        searcher.hnsw.efConstruction, searcher.hnsw.efSearch = ef_construction, EF_SEARCH
    else:
        searcher = _compressed(vectors, refine)
    append(searcher, vectors, 0)
    return searcher


def _compressed(vectors, refine):
    """Lists of nearby vectors, each vector as a byte for 8 of its numbers (Jégou et al. 2011), and the vectors themselves to re-rank by."""
    import faiss

    count, width = vectors.shape
    pieces = next(n for n in range(max(1, width // NUMBERS_PER_BYTE), 0, -1) if width % n == 0)
    bits = 8 if count >= 256 else 4
    if count < 2**bits:
        raise UsageError(f"an ivfpq index needs at least {2**bits} vectors to learn its codes, found {count}; take kind='flat'")
    lists = max(1, int(np.sqrt(count)))
    codes = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, lists, pieces, bits, faiss.METRIC_INNER_PRODUCT)
    for settings in (codes.cp, codes.pq.cp):
        settings.min_points_per_centroid, settings.max_points_per_centroid, settings.niter = 1, TRAINING_POINTS, ROUNDS
    with one_thread():
        codes.train(vectors)
    codes.nprobe = max(1, lists // 4)
    if not refine:
        return codes
    searcher = faiss.IndexRefine(codes, faiss.IndexFlatIP(width))
    searcher.k_factor = RERANK
    return searcher


def codes_of(searcher):
    """The inverted lists of an ivfpq searcher, which a re-ranking searcher holds inside."""
    import faiss

    return faiss.downcast_index(searcher.base_index) if hasattr(searcher, "base_index") else searcher


def exact_store(searcher):
    """The flat searcher that holds the vectors as they are: of hnsw its storage, of ivfpq what it re-ranks by, of flat itself; else None."""
    import faiss

    if hasattr(searcher, "hnsw"):
        return faiss.downcast_index(searcher.storage)
    if hasattr(searcher, "refine_index"):
        return faiss.downcast_index(searcher.refine_index)
    return None if hasattr(searcher, "nprobe") else searcher


def search_rows(searcher, queries, k, live=None):
    """Scores (Q, k) and rows (Q, k), best first. live: a bit per row, 0 for what a graph still holds and must not be found."""
    params = {}
    if live is not None and hasattr(searcher, "hnsw"):
        kept = max(searcher.hnsw.efSearch, k)  # what was removed takes up places on the way: at most as many again are added
        params = {"params": _filtered(live, kept + min(kept, 8 * len(live) - int(np.unpackbits(live).sum())))}
    scores, rows = searcher.search(queries, k, **params)
    short = (rows < 0).any(1)  # the lists, or the part of the graph, that were looked at hold fewer than k
    if short.any():
        scores[short], rows[short] = _look_everywhere(searcher, queries[short], k, live)
    return scores, rows


def _filtered(live, ef_search=None):
    import faiss

    rows = faiss.IDSelectorBitmap(live)
    return faiss.SearchParameters(sel=rows) if ef_search is None else faiss.SearchParametersHNSW(sel=rows, efSearch=ef_search)


def _look_everywhere(searcher, queries, k, live):
    if hasattr(searcher, "hnsw"):
        return exact_store(searcher).search(queries, k, **({} if live is None else {"params": _filtered(live)}))
    codes = codes_of(searcher)
    before, codes.nprobe = codes.nprobe, codes.nlist
    try:
        return searcher.search(queries, k)
    finally:
        codes.nprobe = before


def is_compressed(searcher):
    """Whether a searcher keeps codes in lists (ivfpq)."""
    return hasattr(codes_of(searcher), "nprobe")


def append(searcher, vectors, first):
    """Add vectors (N, D) as the rows from `first` on."""
    with one_thread():
        if not is_compressed(searcher):
            searcher.add(vectors)
            return
        codes_of(searcher).add_with_ids(vectors, np.arange(first, first + len(vectors)))
        if hasattr(searcher, "refine_index"):
            exact_store(searcher).add(vectors)
            searcher.ntotal = searcher.refine_index.ntotal


def forget(searcher, rows):
    """Take rows out. Of a flat searcher what follows moves up; of lists nothing moves; a graph cannot forget: its search leaves them out."""
    if is_compressed(searcher):
        codes_of(searcher).remove_ids(np.asarray(rows, np.int64))
    elif not hasattr(searcher, "hnsw"):
        searcher.remove_ids(np.asarray(rows, np.int64))


def vectors_of(searcher, rows):
    """The vectors (N, D) of some rows as they were added. A `UsageError` where only codes are kept."""
    store = exact_store(searcher)
    if store is None:
        raise UsageError("this index keeps codes alone (refine=False), not the vectors; build it with refine=True")
    return store.reconstruct_batch(np.asarray(rows, np.int64)) if len(rows) else np.zeros((0, searcher.d), np.float32)


def rebuilt(searcher, kept):
    """A graph, or re-ranked lists, of the rows `kept` alone, with the settings it has; codes stay as they were learnt."""
    import faiss

    vectors, width = vectors_of(searcher, kept), searcher.d
    if hasattr(searcher, "hnsw"):
        fresh = faiss.IndexHNSWFlat(width, searcher.hnsw.nb_neighbors(1), faiss.METRIC_INNER_PRODUCT)
        fresh.hnsw.efConstruction, fresh.hnsw.efSearch = searcher.hnsw.efConstruction, searcher.hnsw.efSearch
    else:
        codes_of(searcher).reset()
        fresh = faiss.IndexRefine(faiss.clone_index(codes_of(searcher)), faiss.IndexFlatIP(width))
        codes_of(fresh).nprobe, fresh.k_factor = codes_of(searcher).nprobe, searcher.k_factor
    with one_thread():
        fresh.add(vectors)
    return fresh


def size_of(searcher):
    """Bytes that a searcher takes when it is written, counted without holding or writing them."""
    import faiss

    total = 0

    def count(block):
        nonlocal total
        total += len(block)
        return len(block)

    writer = faiss.PyCallbackIOWriter(count)
    faiss.write_index(searcher, writer)
    del writer  # it hands over its last block when it goes
    return total


def distances(searcher, queries, k):
    """How many vectors a search compares with a query, mean over queries (Q, D): all, what a graph's walk meets, or what is in the lists looked into."""
    import faiss

    if exact_store(searcher) is searcher:
        return float(searcher.ntotal)
    stats = faiss.cvar.hnsw_stats if hasattr(searcher, "hnsw") else faiss.cvar.indexIVF_stats
    with one_thread():
        stats.reset()
        searcher.search(queries, k)
        return stats.ndis / len(queries) + (codes_of(searcher).nlist if is_compressed(searcher) else 0)


def misfit(searcher, kind, names):
    """Why a searcher that was read cannot be the one that was saved as `kind`, with a row for each of `names` (None for a removed one); None where it can."""
    import faiss

    inner, store = codes_of(searcher), exact_store(searcher)
    classes = {"flat": faiss.IndexFlatIP, "hnsw": faiss.IndexHNSWFlat, "ivfpq": faiss.IndexIVFPQ}
    if kind not in classes or type(inner) is not classes[kind] or type(searcher) not in (classes[kind], faiss.IndexRefine, faiss.IndexRefineFlat):
        return f"a {type(searcher).__name__} where {kind} was expected"
    if store is not None and (type(store) not in (faiss.IndexFlat, faiss.IndexFlatIP) or store.codes.size() != store.ntotal * store.d * 4 or store.d != searcher.d):
        return "its vectors are not all there"
    count = 0 if store is None else store.ntotal * store.d
    held = faiss.rev_swig_ptr(store.get_xb(), count) if count else np.zeros(1)
    if not np.isfinite([held.min(), held.max()]).all():  # not of all: that would take a quarter of the index's memory once more
        return "its vectors hold NaN or infinity"
    if any(part.metric_type != faiss.METRIC_INNER_PRODUCT for part in (searcher, inner, *([] if store is None else [store]))):
        return "it compares by another measure than the cosine"
    live = [name for name in names if name is not None]
    if not all(isinstance(name, str) for name in live) or len(set(live)) < len(live):
        return "its names are not texts that stand once each"
    if (store is not None and store.ntotal != len(names)) or inner.ntotal != (len(live) if kind == "ivfpq" else len(names)):
        return f"{searcher.ntotal} vectors for {len(live)} names"
    return _links_astray(searcher.hnsw, len(names)) if kind == "hnsw" else None


def _links_astray(graph, count):
    """Why a graph over `count` vectors cannot be walked, or None: FAISS follows each link to wherever it leads."""
    import faiss

    links = faiss.vector_to_array(graph.neighbors)
    if graph.entry_point >= count or (count and graph.entry_point < 0) or graph.max_level > 64 or graph.efSearch < 1:
        return "its graph begins nowhere"
    return "its graph has links that lead to no vector" if len(links) and (links.min() < -1 or links.max() >= count) else None
