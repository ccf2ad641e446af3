"""The report of a model on a dataset, the comparison of two, and single answers: against `metrics`, loops and cases by hand."""

import numpy as np
import pytest

from miniclip_helpers import metrics, retrieval
from miniclip_helpers.errors import UsageError

OWNER = np.array([0, 0, 1, 2, 2, 2])
MATRIX = np.array([[0.9, 0.1, 0.5, 0.2, 0.3, 0.0],
                   [0.3, 0.4, 0.6, 0.6, 0.1, 0.2],
                   [0.2, 0.3, 0.1, 0.5, 0.2, 0.7]])


def case(seed=0, images=60, gain=1.0):
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), random.integers(1, 6, images))
    return random.normal(size=(images, len(owner))) + gain * (np.arange(images)[:, None] == owner), owner


def test_the_report_holds_metrics_intervals_and_chance():
    similarity, owner = case()
    found = retrieval.report(similarity, owner, ks=(1, 100))
    assert found["n_images"] == 60 and found["n_captions"] == len(owner)
    for direction in metrics.DIRECTIONS:
        assert set(found[direction]) == {"R@1", "R@100", "MRR", "MedR"} == set(found["interval95"][direction])
        assert found[direction]["MRR"] == metrics.retrieval_metrics(similarity, owner)[direction]["MRR"]
    assert found["text_to_image"]["R@100"] == 1 == found["chance"]["text_to_image"]["R@100"]  # a K above the candidates counts as all
    assert retrieval.as_table(found).loc["text to image", "chance R@1 %"] == "1.67"


def test_answers_are_sorted_and_a_tie_is_not_won():
    first, second, third = retrieval.answers(MATRIX, OWNER, "image_to_text", 1, 3)
    assert (first.candidate, first.right, second.candidate, second.right, third.candidate) == (3, False, 2, True, 1)  # both score 0.6: the right one stands last
    assert [a.candidate for a in retrieval.answers(MATRIX, OWNER, "text_to_image", 4)] == [0, 2, 1]
    assert [a.right for a in retrieval.answers(MATRIX, OWNER, "text_to_image", 4)] == [False, True, False]
    with pytest.raises(UsageError, match="image_to_text, text_to_image"):
        retrieval.answers(MATRIX, OWNER, "text", 0)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_right_answer_stands_at_the_pessimistic_rank_among_wrong_ones(seed):
    similarity, owner = case(seed, gain=0.7)
    rank = metrics.ranks(similarity, owner, ties="pessimistic")
    for direction in metrics.DIRECTIONS:
        for query in range(0, len(rank[direction]), 7):
            found = retrieval.answers(similarity, owner, direction, query, count=10**6)
            assert 1 + [answer.right for answer in found].index(True) == rank[direction][query]


def test_select():
    rank = np.array([1, 30, 2, 11, 1, 10])
    assert retrieval.select(rank).tolist() == [0, 1, 2, 3, 4, 5] and retrieval.select(rank, "right at 1").tolist() == [0, 4]
    assert retrieval.select(rank, "wrong at 1").tolist() == [1, 2, 3, 5]
    assert retrieval.select(rank, "rank > 10").tolist() == [1, 3] and retrieval.select(rank, "worst").tolist() == [1, 3, 5, 2, 0, 4]
    with pytest.raises(UsageError, match="'worst'"):
        retrieval.select(rank, "best")


def test_compare_is_paired_and_by_image():
    before, owner = case(1, gain=1.0)
    after = before + 0.8 * (np.arange(60)[:, None] == owner)
    found = retrieval.compare(before, after, owner)
    first, second = metrics.ranks(before, owner), metrics.ranks(after, owner)
    for direction, groups in (("image_to_text", None), ("text_to_image", owner)):
        row = found[direction]
        assert row["gain"] == pytest.approx(row["after"] - row["before"]) and row["before"] == np.mean(first[direction] == 1)
        assert row["interval95"] == list(metrics.paired_interval(first[direction] == 1, second[direction] == 1, groups)[1:])
        assert 0 < row["interval95"][0] and row["p"] < 0.01
    nothing = retrieval.compare(before, before, owner)["text_to_image"]
    assert nothing["gain"] == 0 and nothing["p"] == 1
    with pytest.raises(UsageError, match="same pictures"):
        retrieval.compare(before, before[:, :-1], owner)


def test_by_group_counts_each_query_once():
    rank, labels, owner = np.array([1, 2, 1, 9, 1, 1]), ["short", "long", "short", "long", "short", "mid"], np.array([0, 0, 1, 1, 2, 2])
    found = retrieval.by_group(rank, labels, owner)
    assert list(found) == ["short", "long", "mid"] and sum(row["n"] for row in found.values()) == 6
    assert found["short"]["R@1"] == 1 and found["long"]["R@1"] == 0 and found["long"]["MedR"] == 5.5
    assert retrieval.by_group(rank, labels, k=2)["long"]["R@2"] == 0.5
    with pytest.raises(UsageError, match="one label per rank"):
        retrieval.by_group(rank, labels[:2])
