"""Which kind of index: exact search unless another answers faster at the recall that is asked for."""

from ..errors import UsageError
from . import measuring, searchers

HNSW_FROM = {0.9: 5_000, 0.99: 10_000, 0.999: 20_000}  # measured at d = 512: below, exact search is as fast at this recall, or nearly
IVFPQ_FROM = 200_000  # a graph of 100,000 takes minutes to build, and more than ten times that for a million; lists of a million take two minutes
STEP_COST = 4  # measured, d = 512: a distance on the way through a graph jumps about in memory and costs as much as 2.5 to 4 in a row
QUEUE_COST = 1 / 16  # measured: FAISS looks through its ef_search candidates at each step, which costs as much as ef_search**2 / 16 distances
KNOB = {"hnsw": "ef_search", "ivfpq": "nprobe"}
EF_SEARCHES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
RERANKS = (searchers.RERANK, 5 * searchers.RERANK)
FASTER = 0.9  # a kind is faster than exact search when it takes at most this share of its time: less may be chance


def check_recall(recall):
    """Raise a `UsageError` unless recall is a share above 0 and at most 1."""
    if isinstance(recall, str) or not 0 < recall <= 1:
        raise UsageError(f"expected a recall above 0 and at most 1, like 0.99, found {recall!r}")


def choose_kind(count, recall=0.99):
    """Which kind "auto" tries for `count` vectors, by the measured table: "flat" below the size from which another can be faster at this recall."""
    check_recall(recall)
    least = next((size for share, size in HNSW_FROM.items() if recall <= share), None)
    if least is None or count < least:
        return "flat"
    return "hnsw" if count < IVFPQ_FROM else "ivfpq"


def settings(index):
    """What to try, fastest first: values of ef_search, or pairs of nprobe and rerank, as {attribute: value}."""
    if index.kind == "hnsw":
        return [{"ef_search": value} for value in EF_SEARCHES]
    lists = searchers.codes_of(index.searcher).nlist
    probes = sorted({min(lists, 2**power) for power in range(lists.bit_length() + 1)})
    if not hasattr(index.searcher, "k_factor"):
        return [{"nprobe": value} for value in probes]
    return [{"nprobe": value, "rerank": again} for again in RERANKS for value in probes]


def setting(index):
    """What the index searches with, in words: "ef_search 64"; nothing for an exact one."""
    if index.kind == "flat":
        return ""
    again = f", rerank {index.rerank}" if hasattr(index.searcher, "k_factor") else ""
    return f"{KNOB[index.kind]} {getattr(index, KNOB[index.kind])}{again}"


def tune(index, exact, queries, recall=0.99, k=10):
    """Set ef_search, or nprobe and rerank, to the least that finds `recall` of the exact k nearest of `queries`; whether any does. No timing: always the same."""
    check_recall(recall)
    for values in settings(index):
        for attribute, value in values.items():
            setattr(index, attribute, value)
        if measuring.recall(index.search(queries, k)[1], exact, queries, k) >= recall:
            return True
    return False


def is_worth_it(index, queries, k=10):
    """Whether a tuned index answers faster than exact search, by counted work: no timing, so always the same. Unit: one distance of exact search."""
    work = searchers.distances(index.searcher, queries, k)
    if index.kind == "hnsw":
        work = STEP_COST * work + QUEUE_COST * index.ef_search**2
    if index.kind == "ivfpq":
        work += STEP_COST * k * (index.rerank if hasattr(index.searcher, "k_factor") else 0)
    return work < FASTER * len(index)


def decide(rows, count, k, recall):
    """The kind to take of measured `rows` ({kind: {"reached", "p50_ms"}}), and why."""
    flat = rows["flat"]["p50_ms"]
    able = {kind: row["p50_ms"] for kind, row in rows.items() if kind != "flat" and row["reached"]}
    best = min(able, key=able.get, default=None)
    asked = f"at {count:,} vectors and recall@{k} of {recall:g}"
    if best is None:
        return "flat", f"{asked} only exact search finds enough"
    if able[best] <= FASTER * flat:
        return best, f"{asked} {best} takes {able[best]:.3f} ms, exact search {flat:.3f} ms"
    return "flat", f"{asked} exact search takes {flat:.3f} ms; {best}, the fastest of the others, {able[best]:.3f} ms: not a tenth less"
