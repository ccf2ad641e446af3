"""Search against a brute-force product; saving and loading; what is refused."""

import numpy as np
import pytest

from miniclip_helpers.errors import ModelError, UsageError
from miniclip_helpers.index import build_index, choose_kind, load_index


def unit(count, width=32, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(vectors, queries, k):
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), order


@pytest.mark.parametrize("kind, recall", [("flat", 1.0), ("hnsw", 0.95), ("ivfpq", 0.2)])
def test_search_against_brute_force(kind, recall, tmp_path):
    vectors, queries = unit(3000), unit(50, seed=1)
    index = build_index(vectors, [f"{n:04d}.jpg" for n in range(3000)], kind)
    scores, order = brute_force(vectors, queries, 10)
    found_scores, names = index.search(queries, 10)
    hits = np.mean([len({f"{n:04d}.jpg" for n in right} & set(row)) / 10 for right, row in zip(order, names)])
    assert hits >= recall
    if kind == "flat":
        np.testing.assert_allclose(found_scores, scores, atol=1e-5)
        assert names == [[f"{n:04d}.jpg" for n in row] for row in order]
    index.save(tmp_path / "index")
    again_scores, again = load_index(tmp_path / "index").search(queries, 10)
    assert again == names and np.array_equal(again_scores, found_scores)


def test_auto_is_exact_until_something_is_faster():
    assert choose_kind(950) == "flat" and choose_kind(50_000) == "hnsw"
    assert build_index(unit(20), [str(n) for n in range(20)]).kind == "flat"


def test_a_k_above_the_size_gives_all():
    scores, names = build_index(unit(3), ["a", "b", "c"]).search(unit(2, seed=1), 10)
    assert scores.shape == (2, 3) and sorted(names[0]) == ["a", "b", "c"]


@pytest.mark.parametrize("call, words", [
    (lambda: build_index(unit(3), ["a", "b"]), "2 names and 3 vectors"),
    (lambda: build_index(unit(3), ["a", "b", "a"]), "'a' stands twice"),
    (lambda: build_index(unit(3), ["a", "b", "c"], "hsnw"), "did you mean hnsw"),
    (lambda: build_index(unit(3) * np.nan, ["a", "b", "c"]), "NaN"),
    (lambda: build_index(np.zeros(3), ["a"]), "rows"),
    (lambda: build_index(unit(9), [str(n) for n in range(9)], "ivfpq"), "at least 16"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).search(unit(1, 16)), "32 numbers.*found 16"),
    (lambda: build_index(unit(3), ["a", "b", "c"]).search(unit(1), 0), "at least 1"),
])
def test_what_cannot_be_done_is_told(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_damaged_and_missing_folders_are_told(tmp_path):
    with pytest.raises(ModelError, match="holds no index"):
        load_index(tmp_path / "none")
    build_index(unit(9), [str(n) for n in range(9)]).save(tmp_path / "i")
    file = tmp_path / "i" / "index.faiss"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match="sha256 differs"):
        load_index(tmp_path / "i")
    (tmp_path / "i" / "index.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        load_index(tmp_path / "i")


def test_saving_replaces_an_index_and_nothing_else(tmp_path):
    index = build_index(unit(9), [str(n) for n in range(9)])
    index.save(tmp_path / "i")
    index.save(tmp_path / "i")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        index.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i", "mine"]
