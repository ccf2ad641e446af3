"""Metrics against hand-made matrices, a naive loop, clip_benchmark's recall and scipy's intervals; mutants of the scorer are caught."""

import numpy as np
import pytest
import scipy.stats
import torch

from miniclip_helpers import metrics
from miniclip_helpers.errors import UsageError

TWO_BY_FOUR = np.array([[0.9, 0.1, 0.5, 0.2], [0.3, 0.4, 0.6, 0.1]])
OWNER = np.array([0, 0, 1, 1])


def random_case(seed, images=40, most=7, ties=False):
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), random.integers(1, most + 1, images))
    random.shuffle(owner)
    similarity = random.normal(size=(images, len(owner)))
    similarity[owner, np.arange(len(owner))] += 1
    return (np.round(similarity, 1) if ties else similarity), owner


def naive_ranks(similarity, owner):
    """One query at a time, with Python's own counting."""
    by_image, by_text = [], []
    for image, row in enumerate(similarity):
        best = max(score for score, whose in zip(row, owner) if whose == image)
        others = [score for score, whose in zip(row, owner) if whose != image]
        by_image.append(1 + sum(s > best for s in others) + -(-sum(s == best for s in others) // 2))
    for caption, whose in enumerate(owner):
        column = similarity[:, caption]
        others = [column[i] for i in range(len(column)) if i != whose]
        by_text.append(1 + sum(s > column[whose] for s in others) + -(-sum(s == column[whose] for s in others) // 2))
    return {"image_to_text": by_image, "text_to_image": by_text}


def clip_benchmark_recall(similarity, owner, k):
    """clip_benchmark's definition (texts as rows), through its own function."""
    from clip_benchmark.metrics.zeroshot_retrieval import recall_at_k

    scores = torch.from_numpy(similarity.T)
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(owner)), torch.from_numpy(owner)] = True
    by_text = (recall_at_k(scores, positive, k) > 0).double().mean().item()
    by_image = (recall_at_k(scores.T, positive.T, k) > 0).double().mean().item()
    return by_image, by_text


def test_two_images_four_captions_by_hand():
    rank = metrics.ranks(TWO_BY_FOUR, OWNER)
    assert rank["image_to_text"].tolist() == [1, 1] and rank["text_to_image"].tolist() == [1, 2, 1, 2]
    report = metrics.retrieval_metrics(TWO_BY_FOUR, OWNER)
    assert report["text_to_image"]["R@1"] == 0.5 and report["text_to_image"]["MRR"] == 0.75 and report["text_to_image"]["MedR"] == 1.5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ties", [False, True])
def test_ranks_equal_a_naive_loop(seed, ties):
    similarity, owner = random_case(seed, ties=ties)
    ours, theirs = metrics.ranks(similarity, owner, block=7), naive_ranks(similarity, owner)
    for direction in metrics.DIRECTIONS:
        assert ours[direction].tolist() == theirs[direction]


@pytest.mark.parametrize("seed", range(8))
def test_recall_equals_clip_benchmark(seed):
    similarity, owner = random_case(seed)
    ours = metrics.retrieval_metrics(similarity, owner)
    for k in (1, 5, 10):
        by_image, by_text = clip_benchmark_recall(similarity, owner, k)
        assert ours["image_to_text"][f"R@{k}"] == pytest.approx(by_image, abs=1e-9)
        assert ours["text_to_image"][f"R@{k}"] == pytest.approx(by_text, abs=1e-9)


def test_a_model_that_says_the_same_of_everything_does_not_win():
    rank = metrics.ranks(np.ones((9, 9)), np.arange(9))
    assert set(rank["image_to_text"]) == {5} and set(rank["text_to_image"]) == {5}


def test_a_large_k_counts_all():
    assert metrics.retrieval_metrics(TWO_BY_FOUR, OWNER, ks=(100,))["image_to_text"]["R@100"] == 1.0


def test_perfect_and_worst():
    perfect = np.repeat(np.eye(6), 2, axis=1)
    owner = np.repeat(np.arange(6), 2)
    assert metrics.retrieval_metrics(perfect, owner)["image_to_text"]["R@1"] == 1
    assert metrics.retrieval_metrics(-perfect, owner)["text_to_image"]["R@5"] == 0


def test_one_image_column_per_caption_is_refused():
    """The scorer of "0.0 % after fine-tuning": a square matrix with a column per caption, looked up among unique images."""
    with pytest.raises(UsageError, match="own no caption"):
        metrics.ranks(np.eye(10), np.repeat(np.arange(2), 5))


def test_chance_equals_simulation():
    owner = np.repeat(np.arange(8), [1, 2, 3, 4, 1, 2, 3, 4])
    expected = metrics.chance(8, owner)
    random = np.random.default_rng(0)
    reports = [metrics.retrieval_metrics(random.normal(size=(8, len(owner))), owner) for _ in range(3000)]
    for direction in metrics.DIRECTIONS:
        for k in ("R@1", "R@5"):
            assert np.mean([report[direction][k] for report in reports]) == pytest.approx(expected[direction][k], abs=0.01)


def test_bootstrap_covers_and_is_wider_by_image():
    """Five captions of one image that succeed together carry the information of one."""
    random = np.random.default_rng(1)
    hits = np.repeat(random.random(60) < 0.4, 5)
    rank, groups = np.where(hits, 1, 9), np.repeat(np.arange(60), 5)
    low, high = metrics.bootstrap_interval(rank, 1, groups)
    alone = metrics.bootstrap_interval(rank, 1)
    assert low < hits.mean() < high and high - low > 1.8 * (alone[1] - alone[0])
    normal = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 60)
    assert (high - low) / 2 == pytest.approx(normal, rel=0.15)


@pytest.mark.parametrize("hits, n", [(0, 5), (25, 64), (64, 64), (500, 1000)])
def test_wilson_equals_scipy(hits, n):
    theirs = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert metrics.proportion_interval(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_bag_of_words_by_hand():
    matrix = metrics.bag_of_words_similarity(["a red dog"], ["a red dog", "red", "two cats"])
    assert matrix[0].tolist() == pytest.approx([1, 3**-0.5, 0])


@pytest.mark.parametrize("similarity, owner, words", [
    (np.zeros((4, 2)), [0, 0, 1, 1], "transpose"),
    (TWO_BY_FOUR, [0, 0, 1, 2], "rows 0 to 1"),
    (TWO_BY_FOUR * np.nan, OWNER, "NaN"),
    (np.zeros((0, 0)), [], "at least one|rows are images"),
])
def test_what_cannot_be_scored_is_told(similarity, owner, words):
    with pytest.raises(UsageError, match=words):
        metrics.ranks(similarity, np.asarray(owner, dtype=int))


@pytest.mark.parametrize("owner", [[0, 0, 1, -1], [0.0, 0.0, 1.0, 1.0], [0, 0, 1, 2]])
def test_owners_that_are_no_rows_are_told(owner):
    """-1 would be the last picture in silence, and 1.0 is a number of something else."""
    with pytest.raises(UsageError, match="rows 0 to 1"):
        metrics.ranks(TWO_BY_FOUR, np.asarray(owner))


def test_top_k_accuracy_against_sklearn_and_by_hand():
    from sklearn.metrics import top_k_accuracy_score

    random = np.random.default_rng(3)
    scores, targets = random.normal(size=(60, 7)), random.integers(0, 7, 60)
    found = metrics.top_k_accuracy(scores, targets, ks=(1, 3, 99))
    assert found["top-1"] == pytest.approx(top_k_accuracy_score(targets, scores, k=1, labels=range(7)))
    assert found["top-3"] == pytest.approx(top_k_accuracy_score(targets, scores, k=3, labels=range(7))) and found["top-99"] == 1
    assert metrics.top_k_accuracy(np.ones((4, 4)), np.arange(4))["top-1"] == 0  # one that says the same of everything does not win
    for bad in (np.array([0, 7]), np.array([0.0, 1.0]), np.array([0])):
        with pytest.raises(UsageError, match="targets"):
            metrics.top_k_accuracy(np.ones((2, 3)), bad)


def test_calibration_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.25, 0.75], [0.65, 0.35]])
    table = metrics.calibration_table(probabilities, np.array([0, 1, 1, 0]), bins=10)
    assert table["count"].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0, 2]
    assert table["accuracy"][[6, 7, 9]].tolist() == [1, 1, 0.5] and np.isnan(table["accuracy"][0])
    # |0.65 - 1| / 4 + |0.75 - 1| / 4 + |0.95 - 0.5| / 2
    assert metrics.expected_calibration_error(probabilities, np.array([0, 1, 1, 0])) == pytest.approx(0.35 / 4 + 0.25 / 4 + 0.45 / 2)
    with pytest.raises(UsageError, match="softmax"):
        metrics.calibration_table(np.ones((2, 3)), np.array([0, 1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_in_half_precision_may_sum_to_a_little_more_than_one(dtype):
    rows = torch.tensor([[0.5, 0.504]]).to(dtype)
    assert 0.002 < rows.double().sum() - 1 < 0.01
    assert metrics.calibration_table(rows, [1], bins=2)["count"].tolist() == [0, 1]
    with pytest.raises(UsageError, match="softmax"):
        metrics.calibration_table(rows.float(), [1], bins=2)


def test_paired_interval_sees_what_two_separate_intervals_cannot():
    random = np.random.default_rng(0)
    before = random.random(400) < 0.5
    after = before | (random.random(400) < 0.05)  # better on a few, worse on none
    gain, low, high = metrics.paired_interval(before, after)
    assert gain == pytest.approx(after.mean() - before.mean()) and 0 < low < gain < high
    apart = metrics.proportion_interval(int(before.sum()), 400)
    assert apart[0] < after.mean() < apart[1]  # unpaired, the same gain drowns
    assert metrics.paired_interval(before, before) == (0, 0, 0)
    one = metrics.paired_interval(np.zeros(10), np.tile([1, 0], 5), groups=np.repeat(np.arange(5), 2))
    assert one == (0.5, 0.5, 0.5)  # each image gains the same: nothing varies between images
    with pytest.raises(UsageError, match="one score per query"):
        metrics.paired_interval([1, 0], [1])


def test_modality_gap_of_opposite_and_of_equal_clouds():
    east = np.tile([1.0, 0.0], (3, 1))
    assert metrics.modality_gap(east, -east) == 2 and metrics.modality_gap(east, east) == 0
