"""The efSearch slider: its numbers against a count by hand, its picture and its words driven from Python."""

import io

import numpy as np
import pytest
from PIL import Image

from miniclip_helpers import widgets
from miniclip_helpers.errors import UsageError
from miniclip_helpers.index import build_index, recall


@pytest.fixture(scope="module")
def setting():
    """(hnsw index, flat index, queries): vectors on which a short walk misses a lot."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(1500, 48)).astype(np.float32)
    rows, queries = (found / np.linalg.norm(found, axis=1, keepdims=True) for found in (rows, random.normal(size=(40, 48)).astype(np.float32)))
    names = [f"things/{number}.png" for number in range(len(rows))]
    return build_index(rows, names, "hnsw", m=8, ef_construction=20), build_index(rows, names, "flat"), queries


def by_hand(index, exact, queries, k):
    hits = 0
    for query in queries:
        ours, right = index.search(query[None], k)[1][0], exact.search(query[None], k)[1][0]
        hits += sum(name in ours for name in right)
    return hits / (k * len(queries))


def test_the_rows_against_a_count_by_hand(setting):
    index, exact, queries = setting
    index.ef_search = 33
    rows = widgets.trade_off_rows(index, exact, queries, k=10, values=(10, 60, 400))
    assert index.ef_search == 33  # as it was
    assert [row["ef_search"] for row in rows] == [10, 60, 400]
    for row in rows:
        index.ef_search = row["ef_search"]
        assert row["recall"] == pytest.approx(by_hand(index, exact, queries, 10), abs=1e-9)
        assert 0 < row["p50_ms"] <= row["p95_ms"] and row["found"] == index.search(queries, 10)[1]
    assert rows[0]["recall"] < 0.8 < rows[2]["recall"]


def test_missed_by_hand():
    assert widgets.missed(["c", "a", "x"], ["a", "b", "c"]) == [False, True, False]
    assert widgets.missed([], ["a"]) == [True]


def test_what_ties_with_the_last_answer_is_not_missed():
    """Three things at the same distance, two asked for: whichever of them is found, nothing is missed, as `index.recall` counts."""
    rows = np.eye(4, dtype=np.float32)[[0, 1, 1, 1, 3]]
    exact, query = build_index(rows, ["near", "b", "c", "d", "far"], "flat"), np.array([0.8, 0.6, 0, 0], np.float32)
    right = exact.search(query[None], 2)[1][0]
    other = next(name for name in "bcd" if name not in right)
    for found in (["near", other], ["near", "far"], [other, "far"]):
        gone = widgets.missed(found, right, exact, query)
        assert gone == ["near" not in found, other not in found]
        assert 1 - np.mean(gone) == recall([found], exact, query[None], 2)
    assert widgets.missed(["near", other], right) == [False, True]


def test_the_slider_moves_the_point_and_the_words(setting):
    index, exact, queries = setting
    asked = [f"question {number}" for number in range(len(queries))]
    panel = widgets.trade_off(index, exact, queries, asked, values=(10, 60, 400))
    assert panel.image.value == panel.picture.png and "efSearch 10:" in panel.status.value and "Missed for this question" in panel.status.value
    assert Image.open(io.BytesIO(panel.picture.png)).size[0] > 500
    seen = [panel.image.value]
    for name, value in [("ef_search", 2), ("question", panel.controls["question"].options[5][1]), ("ef_search", 1)]:
        panel.controls[name].value = value
        assert panel.image.value not in seen, name
        seen.append(panel.image.value)
    assert "efSearch 60:" in panel.status.value


def test_the_hardest_question_comes_first(setting):
    index, exact, queries = setting
    panel = widgets.trade_off(index, exact, queries, [str(number) for number in range(len(queries))], values=(10, 400))
    index.ef_search = 10
    lost = [sum(widgets.missed(*pair)) for pair in zip(index.search(queries, 10)[1], exact.search(queries, 10)[1])]
    listed = [number for _, number in panel.controls["question"].options]
    assert lost[listed[0]] == max(lost) and len(listed) == 30
    assert [lost[number] for number in listed] == sorted((lost[number] for number in listed), reverse=True)


def test_pictures_are_drawn_where_they_are_given(setting):
    index, exact, queries = setting
    asked, called = ["q"] * len(queries), []

    def picture_of(name):
        called.append(name)
        return Image.new("RGB", (20, 20), (10, 200, 10))

    panel = widgets.trade_off(index, exact, queries, asked, k=4, values=(10, 50), picture_of=picture_of)
    assert called == exact.search(queries[panel.controls["question"].value][None], 4)[1][0]
    plain = widgets.trade_off(index, exact, queries, asked, k=4, values=(10, 50))
    assert plain.picture.png != panel.picture.png


def test_what_does_not_fit_is_said(setting):
    index, exact, queries = setting
    with pytest.raises(UsageError, match="one question per query"):
        widgets.trade_off(index, exact, queries, ["one"])
    with pytest.raises(UsageError, match="only an hnsw index"):
        widgets.trade_off(exact, exact, queries, ["q"] * len(queries))
