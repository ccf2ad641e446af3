"""Indexes against brute force in numpy and a plain dict; the chooser; what is measured; saving and loading; what is refused."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniclip_helpers import index as indexes
from miniclip_helpers.errors import MiniclipError, ModelError, UsageError
from miniclip_helpers.index import build_index, choose, choose_kind, choosing, load_index, measure, recall, searchers, spectrum_like


def unit(count, width=32, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def named(count, first=0):
    return [f"{number:04d}.jpg" for number in range(first, first + count)]


def brute_force(vectors, queries, k):
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), order


def share_found(index, vectors, queries, k=10):
    _, order = brute_force(vectors, queries, k)
    return np.mean([len({f"{n:04d}.jpg" for n in right} & set(row)) / k for right, row in zip(order, index.search(queries, k)[1])])


@pytest.fixture(scope="module")
def three_kinds():
    """2,000 vectors, 50 queries, and an index of each kind, not to be changed."""
    vectors = unit(2000)
    return vectors, unit(50, seed=1), {kind: build_index(vectors, named(2000), kind) for kind in indexes.KINDS}


@pytest.mark.parametrize("kind, least", [("flat", 1.0), ("hnsw", 0.95), ("ivfpq", 0.6)])
def test_search_against_brute_force(kind, least, three_kinds, tmp_path):
    vectors, queries, built = three_kinds
    index = built[kind]
    scores, order = brute_force(vectors, queries, 10)
    found_scores, names = index.search(queries, 10)
    assert share_found(index, vectors, queries) >= least
    assert (np.diff(found_scores, axis=1) <= 0).all()
    rows = np.array([[int(name[:4]) for name in found] for found in names])
    np.testing.assert_allclose(found_scores, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-5)  # re-ranked by the true cosine, whatever the kind
    if kind == "flat":
        np.testing.assert_allclose(found_scores, scores, atol=1e-5)
        assert names == [[f"{n:04d}.jpg" for n in row] for row in order]
    index.save(tmp_path / "index")
    again = load_index(tmp_path / "index")
    again_scores, again_names = again.search(queries, 10)
    assert again_names == names and np.array_equal(again_scores, found_scores) and (again.kind, again.names) == (kind, index.names)


def test_more_effort_finds_more(three_kinds):
    vectors, queries, built = three_kinds
    for kind, knob, values in (("hnsw", "ef_search", (10, 40, 1024)), ("ivfpq", "nprobe", (1, 8, 44))):
        before, shares = getattr(built[kind], knob), []
        for value in values:
            setattr(built[kind], knob, value)
            assert getattr(built[kind], knob) == value
            shares.append(share_found(built[kind], vectors, queries))
        setattr(built[kind], knob, before)
        assert shares[0] < shares[1] < shares[2] and shares[2] > 0.97, kind


def test_work_is_counted(three_kinds):
    """Of exact search all vectors; of lists, by hand, the vectors of those looked into and the lists; of a graph, more with more effort."""
    _, queries, built = three_kinds
    assert searchers.distances(built["flat"].searcher, queries, 10) == 2000
    before, built["ivfpq"].nprobe = built["ivfpq"].nprobe, 44
    assert searchers.distances(built["ivfpq"].searcher, queries, 10) == 2044 and not choosing.is_worth_it(built["ivfpq"], queries)
    built["ivfpq"].nprobe = 1
    assert searchers.distances(built["ivfpq"].searcher, queries, 10) < 300 and choosing.is_worth_it(built["ivfpq"], queries)
    built["ivfpq"].nprobe = before
    walks = []
    for built["hnsw"].ef_search in (16, 256, 64):
        walks.append(searchers.distances(built["hnsw"].searcher, queries, 10))
    assert walks[0] < walks[2] < walks[1] <= 2100


def test_reranking_more_finds_more(three_kinds):
    vectors, queries, built = three_kinds
    index, shares = built["ivfpq"], []
    before = (index.nprobe, index.rerank)
    for index.nprobe, index.rerank in ((44, 1), (44, 5), (44, 200)):
        shares.append(share_found(index, vectors, queries))
    index.nprobe, index.rerank = before
    assert shares[0] < shares[1] < shares[2] == 1


def test_codes_alone_are_small_and_coarse(three_kinds):
    vectors, queries, built = three_kinds
    coarse = build_index(vectors, named(2000), "ivfpq", refine=False)
    coarse.nprobe = 10**6
    assert coarse.nprobe == 44  # all lists there are
    assert share_found(coarse, vectors, queries) < share_found(built["ivfpq"], vectors, queries)
    assert coarse.memory() < built["flat"].memory() / 2 < built["ivfpq"].memory()
    coarse.remove(named(1000))
    assert min(sum(coarse.search(queries, 5)[1], [])) >= "1000.jpg" and len(coarse) == 1000
    for call in (lambda: coarse.first(3), lambda: coarse.rerank):
        with pytest.raises(UsageError, match="codes alone"):
            call()


def test_the_same_input_gives_the_same_graph(three_kinds):
    import faiss

    vectors, queries, built = three_kinds
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(4)  # which would insert in any order
    again = build_index(vectors, named(2000), "hnsw")
    assert faiss.omp_get_max_threads() == 4
    faiss.omp_set_num_threads(threads)
    before, built["hnsw"].ef_search = built["hnsw"].ef_search, 64
    assert again.search(queries, 10)[1] == built["hnsw"].search(queries, 10)[1]
    built["hnsw"].ef_search = before
    assert np.array_equal(*(faiss.vector_to_array(index.searcher.hnsw.neighbors) for index in (again, built["hnsw"])))


def test_memory_is_the_size_of_the_saved_searcher(three_kinds, tmp_path):
    for kind, index in three_kinds[2].items():
        index.save(tmp_path / kind)
        assert index.memory() == (tmp_path / kind / "index.faiss").stat().st_size >= 2000 * 32 * 4


def test_m_sets_the_links(three_kinds):
    vectors = three_kinds[0][:500]
    few, many = (build_index(vectors, named(500), "hnsw", m=m).memory() for m in (4, 32))
    assert many - few == pytest.approx(500 * 2 * (32 - 4) * 4, rel=0.2)  # 2 M links of four bytes on the ground floor


def test_a_k_above_the_size_gives_all(three_kinds):
    scores, names = build_index(unit(3), ["a", "b", "c"]).search(unit(2, seed=1), 10)
    assert scores.shape == (2, 3) and sorted(names[0]) == ["a", "b", "c"]
    for index in three_kinds[2].values():  # also where the lists or the walk would end long before
        scores, names = index.search(unit(1, seed=1), 5000)
        assert scores.shape == (1, 2000) and sorted(names[0]) == named(2000)


@pytest.mark.parametrize("kind", indexes.KINDS)
def test_added_and_removed(kind, tmp_path):
    vectors, queries = unit(900), unit(30, seed=1)
    index = build_index(vectors[:600], named(600), kind)
    index.add(vectors[600:], named(300, 600))
    assert len(index) == 900 and index.search(vectors[700:701], 1)[1] == [["0700.jpg"]]
    nearest = [row[0] for row in index.search(queries, 1)[1]]
    index.remove(nearest)  # a few: the graph keeps them as steps on the way
    found = index.search(queries, 20)
    assert found[0].shape == (30, 20) and not set(sum(found[1], [])) & set(nearest)
    index.save(tmp_path / "i")
    assert load_index(tmp_path / "i").search(queries, 20)[1] == found[1] and len(load_index(tmp_path / "i")) == len(index)
    index.add(unit(1, seed=77), ["late"])  # after a search that knew which rows were gone
    assert index.search(unit(1, seed=77), 1)[1] == [["late"]]
    index.remove("late")
    index.remove(index.names[:500])  # many: it is built anew
    assert len(index) == 900 - len(set(nearest)) - 500
    kept = [int(name[:4]) for name in index.names]
    for name in ("a", "b"):
        index.add(unit(1, seed=ord(name)), [name])
    everything = np.concatenate([vectors[kept], unit(1, seed=ord("a")), unit(1, seed=ord("b"))])
    assert index.search(everything[-2:], 1)[1] == [["a"], ["b"]]
    names, size = np.array(index.names), len(index)
    order = brute_force(everything, queries, size)[1]
    assert [sorted(row) for row in index.search(queries, size)[1]] == [sorted(names)] * 30
    if kind == "flat":
        assert index.search(queries, size)[1] == names[order].tolist()
    index.remove(index.names)
    assert len(index) == 0 and index.search(queries, 3)[1] == [[]] * 30
    index.add(vectors[:1], ["0000.jpg"])
    assert index.search(queries[:1], 3)[1] == [["0000.jpg"]]


def test_a_graph_finds_k_among_removed_neighbours():
    """150 of the nearest are removed, fewer than a fifth of the index: the walk meets hardly anything else, and still finds k, and the right ones."""
    vectors, shares = unit(1000), []
    for seed in range(1, 9):
        index, query = build_index(vectors, named(1000), "hnsw"), unit(1, seed=seed)
        index.ef_search = 16
        order = [f"{row:04d}.jpg" for row in brute_force(vectors, query, 1000)[1][0]]
        index.remove(order[10:160])
        names = index.search(query, 30)[1][0]
        assert len(set(names)) == 30 and not set(names) & set(order[10:160]) and index.searcher.ntotal == 1000
        shares.append(len(set(names) & {*order[:10], *order[160:180]}) / 30)
    assert np.mean(shares) > 0.9  # 0.83 where the removed ones took up the places of others


ACTIONS = st.lists(st.tuples(st.sampled_from(["add", "remove", "search", "again"]), st.integers(1, 40), st.integers(0, 10**6)), min_size=3, max_size=12)


@pytest.mark.parametrize("kind", indexes.KINDS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(actions=ACTIONS)
def test_any_sequence_of_changes_equals_a_dict(kind, actions, tmp_path_factory):
    """The model: {name: vector} and a product. Flat answers equal it exactly; the others never give a removed name, nor one twice, nor fewer than k."""
    vectors = unit(120, 8)
    index, held, fresh = build_index(vectors, named(120), kind), dict(zip(named(120), vectors)), 120
    for action, count, seed in [*actions, ("search", 7, 1)]:
        if action == "add":
            index.add(unit(count, 8, fresh), named(count, fresh))
            held |= dict(zip(named(count, fresh), unit(count, 8, fresh)))
            fresh += count
        elif action == "remove" and held:
            leaving = list(np.random.default_rng(seed).permutation(list(held))[:count])
            index.remove(leaving)
            held = {name: vector for name, vector in held.items() if name not in leaving}
        elif action == "again":
            folder = tmp_path_factory.mktemp("i") / "index"
            index.save(folder)
            index = load_index(folder)
            shutil.rmtree(folder)
        query, k = unit(3, 8, seed), min(count, len(held))
        scores, names = index.search(query, count)
        assert index.names == list(held) and len(index) == len(held) and scores.shape == (3, k)
        assert all(len(set(row)) == k and set(row) <= held.keys() for row in names)
        for row, answer in enumerate(names):
            np.testing.assert_allclose(scores[row], [held[name] @ query[row] for name in answer], atol=1e-5)
        if kind == "flat" and held:
            best, order = brute_force(np.array(list(held.values())), query, k)
            np.testing.assert_allclose(scores, best, atol=1e-5)
            assert names == [[list(held)[place] for place in row] for row in order]


def test_first_is_the_oldest_exactly(three_kinds):
    vectors, queries, built = three_kinds
    for index in built.values():
        part = index.first(100)
        assert part.kind == "flat" and part.names == named(100)
        assert part.search(queries, 5)[1] == [[f"{n:04d}.jpg" for n in row] for row in brute_force(vectors[:100], queries, 5)[1]]
    assert len(built["flat"].first(10**6)) == 2000


def test_recall_by_hand():
    """Four vectors, two of them equal: either may stand for the other."""
    vectors = np.float32([[1, 0], [0.8, 0.6], [0.8, 0.6], [0, 1]])
    exact = build_index(vectors, ["a", "b", "b again", "c"], "flat")
    query = np.float32([[1, 0]])
    assert recall([["a", "b"]], exact, query, 2) == recall([["a", "b again"]], exact, query, 2) == 1
    assert recall([["a", "c"]], exact, query, 2) == recall([["b", "b again"]], exact, query, 2) == 0.5
    assert recall([["c"]], exact, query, 2) == 0 and recall([["a", "not there"]], exact, query, 2) == 0.5
    assert recall([["c", "b", "a", "b again"]], exact, query, 99) == 1


def test_measure_asks_one_query_at_a_time(three_kinds, monkeypatch):
    """Times come from a clock of our own: query n takes n ms, so the percentiles are known."""
    import faiss

    vectors, queries, built = three_kinds
    asked, clock, threads = [], [0.0], set()
    search = type(built["flat"]).search
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 3)
    monkeypatch.setattr(faiss, "omp_set_num_threads", threads.add)

    def watched(self, rows, k=5):
        if self is built["hnsw"]:
            asked.append((len(rows), *threads))
            clock[0] += len(asked) / 1000
        return search(self, rows, k)

    monkeypatch.setattr(type(built["flat"]), "search", watched)
    monkeypatch.setattr(indexes.measuring.time, "perf_counter", lambda: clock[0])
    found = measure(built["hnsw"], built["flat"], queries[:20], k=10, repeats=5)
    assert asked == [(1, 1)] * 101 and threads == {1, 3}  # one query, on one thread, which is undone; the first one is not counted
    times = np.arange(2, 102)
    assert set(found) == {"recall@10", "p50_ms", "p95_ms", "mean_ms", "queries"} and found["queries"] == 20
    assert found["p50_ms"] == pytest.approx(np.percentile(times, 50)) and found["p95_ms"] == pytest.approx(np.percentile(times, 95)) and found["mean_ms"] == pytest.approx(51.5)
    assert found["recall@10"] == pytest.approx(share_found(built["hnsw"], vectors, queries[:20]))
    assert measure(built["flat"], built["flat"], queries[:3])["recall@10"] == 1


def test_auto_is_exact_until_something_is_faster(monkeypatch):
    assert choose_kind(950) == choose_kind(8_000, 0.99) == choose_kind(50_000, 1.0) == "flat" and choose_kind(50_000) == "hnsw"
    assert choose_kind(10**6) == "ivfpq"
    assert [choose_kind(count, 0.9) for count in (1000, 10_000)] == ["flat", "hnsw"]
    assert build_index(unit(20), named(20)).kind == "flat"
    monkeypatch.setattr(choosing, "HNSW_FROM", {0.99: 1000})
    vectors = unit(2000, 64)  # 64 directions of equal weight: nothing is near, a graph has to look at nearly everything
    assert build_index(vectors, named(2000), "auto").kind == "flat"
    easy = spectrum_like(unit(100, 3) @ unit(3, 64, seed=1), 6000, seed=0)  # three directions: a walk is short
    found = build_index(easy, [str(n) for n in range(6000)], "auto")
    assert found.kind == "hnsw" and searchers.distances(found.searcher, easy[:50], 10) < 1500
    assert build_index(easy, [str(n) for n in range(6000)], "auto", recall=1.0).kind == "flat"
    monkeypatch.setattr(choosing, "tune", lambda *args: False)  # fast, and does not find enough
    assert build_index(easy, [str(n) for n in range(6000)], "auto").kind == "flat"


def test_queries_set_the_least_effort_that_finds_enough(three_kinds):
    vectors, queries, built = three_kinds
    for kind, knob in (("hnsw", "ef_search"), ("ivfpq", "nprobe")):
        tuned = build_index(vectors, named(2000), kind, queries=queries, recall=0.9)
        assert share_found(tuned, vectors, queries) >= 0.9
        setattr(tuned, knob, getattr(tuned, knob) // 2)
        assert share_found(tuned, vectors, queries) < 0.9


@pytest.mark.parametrize("times, reached, expected", [
    ((1.0, 0.5, 0.8), (True, True), "hnsw"), ((1.0, 0.8, 0.5), (True, True), "ivfpq"), ((1.0, 0.5, 0.8), (False, True), "ivfpq"),
    ((1.0, 0.95, 2.0), (True, True), "flat"), ((1.0, 0.1, 0.1), (False, False), "flat"), ((1.0, 3.0, 2.0), (True, True), "flat")])
def test_the_decision_by_hand(times, reached, expected):
    """Exact search unless another that finds enough takes a tenth less."""
    rows = {kind: {"p50_ms": time, "reached": good} for kind, time, good in zip(indexes.KINDS, times, (True, *reached))}
    kind, why = choosing.decide(rows, 1000, 10, 0.99)
    assert kind == expected and "1,000 vectors" in why and "recall@10 of 0.99" in why


def test_choose_measures_every_kind():
    vectors = unit(700)
    kind, table = choose(vectors, unit(10, seed=1), recall=0.9)
    assert list(table.columns) == ["setting", "reached", *table.columns[2:-2], "build_s", "MB"] and table.loc["hnsw", "setting"].startswith("ef_search ")
    assert list(table.index) == list(indexes.KINDS) and table.loc["flat", "recall@10"] == 1 and "700 vectors" in table.attrs["why"]
    assert (table.round(1)["recall@10"] * 10 % 1 == 0).all()  # numbers, which round
    assert kind == choosing.decide(table.to_dict("index"), 700, 10, 0.9)[0]
    assert (table.loc[table["reached"].astype(bool), "recall@10"] >= 0.9).all()
    assert "300 vectors" in choose(vectors, recall=0.9, sample=300)[1].attrs["why"]
    assert choose(unit(9))[0] == "flat"


def test_spectrum_like_keeps_mean_and_covariance():
    """Against the moments themselves: the directions and their shares are those of the real vectors."""
    real = unit(2000, 16) * np.geomspace(1, 0.02, 16).astype(np.float32) + 0.3
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    made = spectrum_like(real, 70_000, seed=3)
    assert made.dtype == np.float32 and np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(made.mean(0), real.mean(0), atol=0.02)
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(made.T))[-8:], np.linalg.eigvalsh(np.cov(real.T))[-8:], rtol=0.25)
    assert np.array_equal(made[:5], spectrum_like(real, 70_000, seed=3)[:5]) and not np.allclose(made[:5], spectrum_like(real, 5, seed=4))


@pytest.mark.parametrize("call, words", [
    (lambda: build_index(unit(3), ["a", "b"]), "2 names and 3 vectors"),
    (lambda: build_index(unit(3), ["a", "b", "a"]), "'a' stands twice"),
    (lambda: build_index(unit(2), ["a", 7]), "names as strings, found 7"),
    (lambda: build_index(unit(3), ["a", "b", "c"], "hsnw"), "did you mean hnsw"),
    (lambda: build_index(unit(3) * np.float32([[1], [np.nan], [1]]), ["a", "b", "c"]), "NaN or infinity, first in row 1"),
    (lambda: build_index(np.zeros(3), ["a"]), "rows"),
    (lambda: build_index(np.zeros((0, 4)), []), "rows"),
    (lambda: build_index(unit(9), named(9), "ivfpq"), "at least 16"),
    (lambda: build_index(unit(9), named(9), "hnsw", m=0), "expected m as a whole number of at least 1, found 0"),
    (lambda: build_index(unit(9), named(9), recall=99), "recall above 0 and at most 1"),
    (lambda: build_index(unit(9), named(9), "hnsw", queries=unit(2, 8)), "32 numbers.*found 8"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).search(unit(1, 16)), "32 numbers.*found 16"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).search(unit(1), 0), "at least 1"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).search(unit(1), 2.5), "whole number"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).search(unit(1) * np.nan), "queries hold NaN"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).add(unit(1), ["b"]), "holds 'b' already"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).add(unit(2), ["d", "d"]), "'d' stands twice"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).add(unit(1, 8), ["d"]), "32 numbers.*found 8"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).remove(["b", "x", "y"]), "no 'x', nor 1 more.*nothing was removed"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).ef_search, "only an hnsw index has ef_search; this one is flat"),
    (lambda: setattr(build_index(unit(3), ["a", "b", "c"], "hnsw"), "ef_search", 0), "ef_search as a whole number of at least 1"),
    (lambda: build_index(unit(3), ["a", "b", "c"], "hnsw").nprobe, "only an ivfpq index has nprobe; this one is hnsw"),
])
def test_what_cannot_be_done_is_told(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_a_refused_change_changes_nothing():
    index = build_index(unit(9), named(9), "hnsw")
    for call in (lambda: index.add(unit(2), ["new", "0001.jpg"]), lambda: index.remove(["0001.jpg", "no"]), lambda: index.add(unit(1) * np.nan, ["new"])):
        with pytest.raises(UsageError):
            call()
        assert index.names == named(9) and index.searcher.ntotal == 9


@pytest.fixture
def saved(tmp_path):
    build_index(unit(9), named(9)).save(tmp_path / "i")
    return tmp_path / "i"


def truncate(folder):
    (folder / "index.faiss").write_bytes((folder / "index.faiss").read_bytes()[:-8])


def swap(folder):
    build_index(unit(9, seed=5), named(9)).save(folder.parent / "other")
    shutil.copy(folder.parent / "other" / "index.faiss", folder / "index.faiss")


def rename_a_picture(folder):
    file = folder / "index.json"
    file.write_text(file.read_text().replace("0003.jpg", "0300.jpg"))


def another_format(folder):
    about = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(about | {"format": "miniclip-index-9"}))


@pytest.mark.parametrize("spoil, words", [
    (truncate, "index.faiss' is not the file that was saved.*truncated"), (swap, "index.faiss' is not the file.*sha256 differs"),
    (lambda folder: (folder / "index.faiss").unlink(), "index.faiss' is missing"), (lambda folder: (folder / "index.json").unlink(), "holds no index"),
    (lambda folder: (folder / "index.json").write_text("{"), "index.json' is damaged"), (lambda folder: (folder / "index.json").write_text("[]"), "not an index of the format"),
    (lambda folder: (folder / "index.json").write_bytes((folder / "index.json").read_bytes()[:-9]), "index.json' is damaged"),
    (rename_a_picture, "index.json' was altered"), (another_format, "not an index of the format"), (shutil.rmtree, "holds no index"),
    (lambda folder: [shutil.rmtree(folder), folder.write_text("a file")], "holds no index")])
def test_a_damaged_index_is_told_by_its_file(spoil, words, saved):
    spoil(saved)
    with pytest.raises(ModelError, match=words):
        load_index(saved)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_looking_for_nan_takes_no_memory(bad):
    import tracemalloc

    rows = np.random.default_rng(0).standard_normal((20_000, 16), dtype=np.float32)
    names = [str(row) for row in range(20_000)]
    searcher = searchers.make("flat", rows)
    tracemalloc.start()
    try:
        for look in (lambda: searchers.rows_of(rows, "rows"), lambda: searchers.misfit(searcher, "flat", []).startswith("20000 vectors")):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            assert look() is not False
            assert tracemalloc.get_traced_memory()[1] - before < rows.size / 4  # bytes; a byte a number before
    finally:
        tracemalloc.stop()
    rows[19_999, 7] = bad
    with pytest.raises(UsageError, match="NaN or infinity, first in row 19999"):
        searchers.rows_of(rows, "rows")
    assert searchers.misfit(searchers.make("flat", rows), "flat", names) == "its vectors hold NaN or infinity"


def test_saving_replaces_an_index_and_nothing_else(saved):
    index, tmp_path = load_index(saved), saved.parent
    index.save(saved)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        index.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(MiniclipError, match="cannot be written"):
        index.save(tmp_path / "mine" / "thesis.txt" / "i")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i", "mine"]


@pytest.mark.parametrize("kind", indexes.KINDS)
def test_adding_to_a_loaded_index(kind, tmp_path):
    vectors = unit(400)
    build_index(vectors[:300], named(300), kind).save(tmp_path / "i")
    index = load_index(tmp_path / "i")
    index.add(vectors[300:], named(100, 300))
    index.remove(named(150))
    assert index.search(vectors[[200, 350]], 1)[1] == [["0200.jpg"], ["0350.jpg"]]
