"""The bank of notebook 08."""

import statistics
import time

import numpy as np
import pytest
import torch
from bank import cases, check_verdict

from miniclip_helpers import checks, index


def times(search, queries, clock):
    seconds = []
    for query in queries:
        start = clock()
        search(query[None])
        seconds.append(clock() - start)
    return np.array(seconds)


def timed(rule, scale=1000):
    """An answer to 08.latency: `rule` of the right times in seconds, times `scale`."""
    return lambda search, queries, clock: tuple(scale * value for value in rule(times(search, queries, clock)))


def by_quantiles(search, queries, clock):
    search(queries)  # once to warm up
    taken = statistics.quantiles(times(search, queries, clock).tolist(), n=20, method="inclusive")
    return [1000 * taken[9], 1000 * taken[18]]


def by_sorting(search, queries, clock):
    ordered = sorted(times(search, queries, clock))
    return 1000 * ordered[(len(ordered) - 1) // 2], 1000 * ordered[int(0.95 * (len(ordered) - 1))]


def one_batch(search, queries, clock):
    start = clock()
    search(queries)
    each = [(clock() - start) / len(queries)] * len(queries)
    return tuple(1000 * np.percentile(each, [50, 95]))


def one_start(search, queries, clock):
    start, seconds = clock(), []
    for query in queries:
        search(query[None])
        seconds.append(clock() - start)
    return 1000 * np.percentile(seconds, [50, 95])


def after_only(search, queries, clock):
    seconds = []
    for query in queries:
        search(query[None])
        start = clock()
        seconds.append(clock() - start)
    return 1000 * np.percentile(seconds, [50, 95])


def one_dimension(search, queries, clock):
    for query in queries:
        search(query)
    return 1, 2


def shares(rule):
    """An answer to 08.recall: the mean of `rule` over the queries."""
    return lambda found, exact: np.mean([rule(ours, right) for ours, right in zip(found, exact)])


def both(ours, right):
    return len(set(ours) & set(right))


def by_loops(found, exact):
    hits = [name in ours for ours, right in zip(found, exact) for name in right]
    return torch.tensor(hits).float().mean()


def by_arrays(found, exact):
    return float(np.mean([np.isin(right, ours).mean() for ours, right in zip(found, exact)]))


def pot(found, exact):
    wanted = set(sum(exact, []))
    return len(set(sum(found, [])) & wanted) / len(wanted)


def fitting(rows, recall, memory):
    return [row for row in rows if row["recall"] >= recall and row["memory_mb"] <= memory]


def take(key, fits=fitting, otherwise="nothing", best=min):
    """An answer to 08.choose: the smallest `key` of the rows that `fits` lets through."""

    def answer(rows, recall, memory):
        rows = fits(rows, recall, memory)
        return best(rows, key=key if callable(key) else lambda row: row[key])["kind"] if rows else otherwise

    return answer


def by_sorted(rows, recall, memory):
    for row in sorted(rows, key=lambda row: row["p95_ms"]):
        if not (row["recall"] < recall or row["memory_mb"] > memory):
            return row["kind"]
    return "nothing"


def by_pandas(rows, recall, memory):
    import pandas as pd

    table = pd.DataFrame(rows).query("recall >= @recall and memory_mb <= @memory")
    return str(table.set_index("kind")["p95_ms"].idxmin()) if len(table) else "nothing"


BANK = {
    "08.latency": {
        "right": [by_quantiles, by_sorting, timed(lambda seconds: np.quantile(seconds, [0.5, 0.95]))],
        "wrong": [
            ("percentile of a constant", one_batch),
            ("These are seconds", timed(lambda seconds: np.percentile(seconds, [50, 95]), 1)),
            ("times 1000, once", timed(lambda seconds: np.percentile(seconds, [50, 95]), 1e6)),
            ("p50 first", timed(lambda seconds: np.percentile(seconds, [95, 50]))),
            ("from 0 to 100", timed(lambda seconds: np.percentile(seconds, [0.5, 0.95]))),
            ("started once", one_start),
            ("first number is the mean", timed(lambda seconds: (seconds.mean(), np.percentile(seconds, 95)))),
            ("bell curve", timed(lambda seconds: (seconds.mean(), seconds.mean() + 1.645 * seconds.std()))),
            ("slowest of all", timed(lambda seconds: (np.median(seconds), seconds.max()))),
            ("fifth percentile", timed(lambda seconds: np.percentile(seconds, [50, 5]))),
            ("p99", timed(lambda seconds: np.percentile(seconds, [50, 99]))),
            ("mean, twice", timed(lambda seconds: (seconds.mean(), seconds.mean()))),
            ("before and after", after_only),
            ("two numbers", timed(lambda seconds: np.percentile(seconds, [50]))),
            ("never call", lambda search, queries, clock: (1.0, 2.0)),
            ("queries[i:i + 1]", one_dimension),
            ("clock that you were given", lambda search, queries, clock: timed(lambda seconds: np.percentile(seconds, [50, 95]))(search, queries, time.perf_counter)),
        ],
    },
    "08.recall": {
        "right": [by_loops, by_arrays],
        "wrong": [
            ("same order", shares(lambda ours, right: ours == right)),
            ("All or nothing", shares(lambda ours, right: set(ours) == set(right))),
            ("place by place", shares(lambda ours, right: sum(a == b for a, b in zip(ours, right)) / len(right))),
            ("first answers", shares(lambda ours, right: ours[0] == right[0])),
            ("best exact answer", shares(lambda ours, right: right[0] in ours)),
            ("length of what was found", shares(lambda ours, right: both(ours, right) / len(ours))),
            ("Jaccard", shares(lambda ours, right: both(ours, right) / len(set(ours) | set(right)))),
            ("three times", shares(lambda ours, right: sum(name in right for name in ours) / len(right))),
            ("one pot", pot),
            ("One right answer", shares(lambda ours, right: both(ours, right) > 0)),
            ("number of hits", lambda found, exact: sum(map(both, found, exact))),
            ("hits per query", shares(both)),
            ("divide by 10", shares(lambda ours, right: both(ours, right) / 10)),
            ("In percent", shares(lambda ours, right: 100 * both(ours, right) / len(right))),
            ("was missed", shares(lambda ours, right: 1 - both(ours, right) / len(right))),
            ("their mean", lambda found, exact: [both(ours, right) / len(right) for ours, right in zip(found, exact)]),
        ],
    },
    "08.choose": {
        "right": [by_sorted, by_pandas],
        "wrong": [
            ("highest recall", take("recall", best=max)),
            ("smallest memory", take("memory_mb")),
            ("at `recall`", take("p95_ms", lambda rows, recall, memory: [row for row in rows if row["memory_mb"] <= memory])),
            ("into the memory", take("p95_ms", lambda rows, recall, memory: [row for row in rows if row["recall"] >= recall])),
            ("lowest mean", take("mean_ms")),
            ("lowest p50", take("p50_ms")),
            ("slowest", take("p95_ms", best=max)),
            ("exactly", take("p95_ms", lambda rows, recall, memory: [row for row in rows if row["recall"] > recall and row["memory_mb"] < memory])),
            ("stands first", lambda rows, recall, memory: (fitting(rows, recall, memory) or [{"kind": "nothing"}])[0]["kind"]),
            ("no ratio", take(lambda row: row["recall"] / row["p95_ms"], lambda rows, recall, memory: rows, best=max)),
            ("whole row", lambda rows, recall, memory: min(fitting(rows, recall, memory), key=lambda row: row["p95_ms"])),
            ("ValueError", lambda rows, recall, memory: min(fitting(rows, recall, memory), key=lambda row: row["p95_ms"])["kind"]),
            ("no row fits", lambda rows, recall, memory: take("p95_ms", otherwise=rows[0]["kind"])(rows, recall, memory)),
            ("not one of the kinds", take("p95_ms", lambda rows, recall, memory: [], otherwise="flat")),
            ("several rows do", take("p95_ms", lambda rows, recall, memory: [])),
            ("a string", lambda rows, recall, memory: int(np.argmin([row["p95_ms"] for row in rows]))),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_recall_is_that_of_the_package():
    """`index.measure` on an index that holds half of the vectors: both count the same names."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"{number}.png" for number in range(len(rows))]
    exact, half = index.build_index(rows, names, "flat"), index.build_index(rows[::2], names[::2], "flat")
    queries = rows[random.permutation(60)[:20]] + 0.01
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    ours = checks.exercise("08.recall").reference(half.search(queries, 10)[1], exact.search(queries, 10)[1])
    assert 0.2 < ours < 0.8
    assert index.measure(half, exact, queries, k=10)["recall@10"] == pytest.approx(ours)


def test_the_latency_is_one_query_at_a_time():
    """On a clock that counts rows: each query costs one, a batch of them would cost a third."""
    now, asked = [0.0], []

    def search(rows):
        asked.append(len(rows))
        now[0] += 0.001 * len(asked)

    p50, p95 = checks.exercise("08.latency").reference(search, np.zeros((101, 3)), lambda: now[0])
    assert asked == [1] * 101 and p50 == pytest.approx(51) and p95 == pytest.approx(96)
