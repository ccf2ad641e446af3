"""Intervals, tests of two models, baselines, hubs: against scipy, enumeration, simulation and cases by hand; and the published tables where the data is."""

import itertools
import json
import re

import numpy as np
import pytest
import scipy.stats
from conftest import shared

from miniclip_helpers import finetuning, metrics
from miniclip_helpers.errors import UsageError


def ranks_and_groups(seed=0, images=40):
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(images), random.integers(1, 6, images))
    return random.integers(1, 30, len(groups)), groups


# --- ties ------------------------------------------------------------------------------------------------------------------------


def test_the_three_rules_for_ties_by_hand():
    owner, same = np.repeat(np.arange(4), 2), np.zeros((4, 8))
    found = {ties: metrics.ranks(same, owner, ties=ties) for ties in metrics.TIES}
    # four pictures, three of them wrong; eight captions, six of them wrong
    assert set(found["optimistic"]["text_to_image"]) == {1} and set(found["half"]["text_to_image"]) == {3} and set(found["pessimistic"]["text_to_image"]) == {4}
    assert set(found["optimistic"]["image_to_text"]) == {1} and set(found["half"]["image_to_text"]) == {4} and set(found["pessimistic"]["image_to_text"]) == {7}
    assert metrics.target_ranks(same[:, :5], [0, 1, 2, 3], "pessimistic").tolist() == [5] * 4
    assert metrics.retrieval_metrics(same, owner, ties="optimistic")["text_to_image"]["R@1"] == 1


def test_without_ties_the_rules_agree():
    similarity = np.random.default_rng(0).normal(size=(9, 20))
    owner = np.arange(20) % 9
    for direction in metrics.DIRECTIONS:
        assert len({tuple(metrics.ranks(similarity, owner, ties=ties)[direction]) for ties in metrics.TIES}) == 1


@pytest.mark.parametrize("ask", [lambda: metrics.ranks(np.eye(2), np.arange(2), ties="lucky"), lambda: metrics.target_ranks(np.eye(2), np.arange(2), "lucky")])
def test_an_unknown_rule_is_refused(ask):
    with pytest.raises(UsageError, match="half, optimistic, pessimistic"):
        ask()


# --- intervals -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, function", [("MRR", lambda rank: np.mean(1 / rank)), ("MedR", np.median), ("MeanR", np.mean), (5, lambda rank: np.mean(rank <= 5))])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_fast_statistics_equal_the_same_draws_one_by_one(name, function, grouped):
    """The closed forms (weighted means, weighted medians) against repeating each rank as often as it was drawn."""
    rank, groups = ranks_and_groups()
    groups = groups if grouped else None
    fast = metrics.bootstrap_interval(rank, name, groups, draws=600)
    assert fast == pytest.approx(metrics.bootstrap_interval(rank, function, groups, draws=600), abs=1e-12)
    assert fast[0] <= function(rank) <= fast[1] and fast[0] < fast[1]


def test_the_median_of_an_even_number_lies_between_two_ranks():
    """Two ranks, 1 and 9: a quarter of the draws has median 1, half have 5, a quarter has 9."""
    assert metrics.bootstrap_interval([1, 9], "MedR", level=0.4) == (5, 5) and metrics.bootstrap_interval([1, 9], "MedR", level=0.9) == (1, 9)


def test_the_bootstrap_of_mrr_agrees_with_scipy():
    rank, _ = ranks_and_groups(images=120)
    theirs = scipy.stats.bootstrap((1 / rank,), np.mean, method="percentile", n_resamples=4000, random_state=0).confidence_interval
    assert metrics.bootstrap_interval(rank, "MRR", draws=4000) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_intervals_of_a_matrix_hold_every_statistic():
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(30), 3)
    easy = random.choice([0, 4], 30)  # captions of one image go together
    similarity = random.normal(size=(30, 90)) + easy[:, None] * (np.arange(30)[:, None] == owner)
    point, found = metrics.retrieval_metrics(similarity, owner), metrics.retrieval_intervals(similarity, owner)
    for direction in metrics.DIRECTIONS:
        assert set(found[direction]) == {"R@1", "R@5", "R@10", "MRR", "MedR"}
        assert all(low <= point[direction][key] <= high for key, (low, high) in found[direction].items())
    rank = metrics.ranks(similarity, owner)["text_to_image"]
    assert found["text_to_image"]["R@1"] == list(metrics.bootstrap_interval(rank, 1, owner)) != list(metrics.bootstrap_interval(rank, 1))


@pytest.mark.parametrize("inputs, words", [(([1, 2], "R@1"), "MRR, MedR, MeanR"), (([], 1), "at least one rank"), (([1, 2], 1, [0]), "as many groups")])
def test_what_has_no_interval_is_told(inputs, words):
    with pytest.raises(UsageError, match=words):
        metrics.bootstrap_interval(*inputs)


def test_the_interval_over_images_covers_and_the_one_over_captions_does_not():
    """300 experiments with a known truth: images differ, their five captions go together. 95 % must mean 95 %."""
    random, covered = np.random.default_rng(0), {"images": 0, "captions": 0}
    owner = np.repeat(np.arange(50), 5)
    for _ in range(300):
        easy = random.beta(0.5, 0.5, 50)  # mean 0.5: some images are found by all captions, some by none
        rank = np.where(random.random(250) < easy[owner], 1, 2)
        for name, groups in (("images", owner), ("captions", None)):
            low, high = metrics.bootstrap_interval(rank, 1, groups, draws=200)
            covered[name] += low <= 0.5 <= high
    assert covered["images"] / 300 > 0.9 and covered["captions"] / 300 < 0.8


# --- two models ------------------------------------------------------------------------------------------------------------------


def test_the_sign_flip_equals_enumeration():
    """All 2^9 signs, once each, against drawn ones."""
    random = np.random.default_rng(4)
    before, after = random.random(9), random.random(9) + 0.2
    difference = after - before
    every = [abs(np.dot(signs, difference)) >= abs(difference.sum()) - 1e-12 for signs in itertools.product((-1, 1), repeat=9)]
    assert metrics.sign_flip_test(before, after, draws=40_000) == pytest.approx(np.mean(every), abs=0.01)


def test_the_sign_flip_of_hits_is_mcnemar():
    random = np.random.default_rng(1)
    before = random.random(200) < 0.5
    after = np.where(random.random(200) < 0.15, random.random(200) < 0.8, before)
    lost, won, p = metrics.mcnemar_test(before, after)
    assert (lost, won) == ((before & ~after).sum(), (~before & after).sum()) and 0 < lost < won
    assert p == pytest.approx(scipy.stats.binomtest(min(lost, won), lost + won).pvalue)
    assert metrics.sign_flip_test(before, after, draws=40_000) == pytest.approx(p, abs=0.01)


def test_p_values_are_even_when_there_is_no_difference_and_only_by_image():
    """Two equal models, captions of an image going together: at level 0.05 about 5 % of experiments reject, with images; many more without."""
    random, rejected = np.random.default_rng(0), {"images": 0, "captions": 0}
    owner = np.repeat(np.arange(40), 5)
    for _ in range(300):
        difference = np.repeat(random.normal(size=40), 5) + 0.3 * random.normal(size=200)
        for name, groups in (("images", owner), ("captions", None)):
            rejected[name] += metrics.sign_flip_test(np.zeros(200), difference, groups, draws=200) <= 0.05
    assert 0.02 < rejected["images"] / 300 < 0.09 and rejected["captions"] / 300 > 0.25


def test_the_edges_of_the_tests():
    assert metrics.sign_flip_test([1, 0, 1], [1, 0, 1]) == 1 and metrics.mcnemar_test([1, 0], [1, 0]) == (0, 0, 1.0)
    assert metrics.sign_flip_test(np.zeros(60), np.ones(60), draws=999) == 1 / 1000  # never 0: the draw found counts
    with pytest.raises(UsageError, match="sign_flip_test"):
        metrics.mcnemar_test([0.5, 1], [1, 1])
    for test in (metrics.sign_flip_test, metrics.mcnemar_test):
        with pytest.raises(UsageError, match="one score per query"):
            test([1], [1, 0])


# --- baselines -------------------------------------------------------------------------------------------------------------------


def test_chance_of_mrr_and_mean_rank_equals_simulation():
    owner = np.repeat(np.arange(8), [1, 2, 3, 4, 1, 2, 3, 4])
    expected, random = metrics.chance(8, owner), np.random.default_rng(0)
    reports = [metrics.retrieval_metrics(random.normal(size=(8, 20)), owner) for _ in range(3000)]
    for direction in metrics.DIRECTIONS:
        assert np.mean([r[direction]["MRR"] for r in reports]) == pytest.approx(expected[direction]["MRR"], abs=0.01)
        assert np.mean([r[direction]["MeanR"] for r in reports]) == pytest.approx(expected[direction]["MeanR"], rel=0.02)
    assert expected["text_to_image"]["MeanR"] == 4.5


def test_a_bag_of_words_knows_its_vocabulary_only():
    full = metrics.bag_of_words_similarity(["a red dog"], ["a red cat"])
    assert full[0, 0] == pytest.approx(2 / 3)
    assert metrics.bag_of_words_similarity(["a red dog"], ["a red cat"], {"red", "dog"})[0, 0] == pytest.approx(2**-0.5)
    assert metrics.bag_of_words_similarity(["dog"], ["dog"], {"cat"})[0, 0] == 0


def test_the_caption_baseline_by_hand():
    captions, owner = ["a red dog", "the dog", "blue sea", "the sea", "one", "two"], [0, 0, 1, 1, 2, 2]
    assert metrics.caption_baseline(captions, owner).tolist() == [1, 2, 1, 2, 2, 2]
    # "the dog" is nearer to "the sea" than to "a red dog"; "the sea" ties with "the dog"; "one" shares nothing with anything, so everything ties
    assert metrics.caption_baseline(captions, owner, ties="optimistic").tolist() == [1, 2, 1, 1, 1, 1]
    assert metrics.caption_baseline(captions, owner, vocabulary={"dog", "sea"}).tolist() == [1, 1, 1, 1, 2, 2]
    with pytest.raises(UsageError, match="two captions"):
        metrics.caption_baseline(["a", "b", "c"], [0, 0, 1])


# --- hubs ------------------------------------------------------------------------------------------------------------------------


def test_intervals_hang_on_seed_draws_and_level_alone():
    owner = np.repeat(np.arange(12), 2)
    similarity = np.random.default_rng(5).normal(size=(12, 24))
    one = metrics.retrieval_intervals(similarity, owner, draws=60)
    assert metrics.retrieval_intervals(similarity, owner, draws=60, seed=0) == one != metrics.retrieval_intervals(similarity, owner, draws=60, seed=1)
    assert metrics.retrieval_intervals(similarity, owner, draws=61) != one
    narrow = metrics.retrieval_intervals(similarity, owner, draws=60, level=0.5)["text_to_image"]["MRR"]
    assert one["text_to_image"]["MRR"][0] < narrow[0] < narrow[1] < one["text_to_image"]["MRR"][1]
    assert list(metrics.retrieval_intervals(similarity, owner, ks=(2,), draws=60)["image_to_text"]) == ["R@2", "MRR", "MedR"]


def test_k_occurrence_by_a_loop():
    similarity = np.random.default_rng(0).normal(size=(30, 12))
    times = np.zeros(12, int)
    for row in similarity:
        for place in sorted(range(12), key=lambda c: -row[c])[:4]:
            times[place] += 1
    assert metrics.k_occurrence(similarity, 4).tolist() == times.tolist() and times.sum() == 120
    with pytest.raises(UsageError, match="k 13"):
        metrics.k_occurrence(similarity, 13)


def test_a_hub_is_seen():
    fair = np.eye(20)
    assert metrics.hubness(fair, 1) == {"skewness": 0.0, "anti_hubs": 0.0, "largest": 0.05, "fair": 0.05}
    hub = np.eye(20)
    hub[:, 3] = 2
    found = metrics.hubness(hub, 1)
    assert found["largest"] == 1 and found["anti_hubs"] == 0.95 and found["skewness"] > 4
    twice = metrics.hubness(np.vstack([fair, fair]), 1)  # 40 queries for 20 candidates
    assert twice == {"skewness": 0.0, "anti_hubs": 0.0, "largest": 0.05, "fair": 0.05}
    slight = np.eye(20)
    slight[0, :2] = 0, 1  # one query goes to its neighbour: found 0, 2 and 18 times 1
    times = np.array([0, 2] + [1] * 18)
    assert metrics.hubness(slight, 1)["skewness"] == pytest.approx(scipy.stats.skew(times), abs=1e-12)
    times = np.array([0, 0, 3] + [1] * 17)
    slight[1, :3] = slight[0, :3] = 0, 0, 1
    assert metrics.hubness(slight, 1)["skewness"] == pytest.approx(scipy.stats.skew(times)) != 0 and times.std() < 1


def test_the_inverted_softmax_repairs_a_hub_and_equals_a_loop():
    """A column that pleases everybody: raised by 1, it wins every query; the bank's queries tell, and the rank of each right answer comes back."""
    random = np.random.default_rng(0)
    texts, images = random.normal(size=(30, 40)), random.normal(size=(30, 40))
    clean = random.normal(scale=0.2, size=(30, 30)) + np.eye(30)
    bank = random.normal(scale=0.2, size=(200, 30))
    spoilt, spoilt_bank = clean.copy(), bank.copy()
    spoilt[:, 7] += 1.5
    spoilt_bank[:, 7] += 1.5
    before, after = (metrics.target_ranks(found, np.arange(30)) for found in (spoilt, metrics.inverted_softmax(spoilt, spoilt_bank, 10.0)))
    assert (before == 1).mean() < 0.2 and (after == 1).mean() > 0.9
    loop = np.array([[10 * spoilt[q, c] - np.log(sum(np.exp(10 * spoilt_bank[b, c]) for b in range(200))) for c in range(30)] for q in range(3)])
    np.testing.assert_allclose(metrics.inverted_softmax(spoilt, spoilt_bank, 10.0)[:3], loop)
    assert np.isfinite(metrics.inverted_softmax(spoilt, spoilt_bank, 1e4)).all()  # the maximum is taken out first
    with pytest.raises(UsageError, match="same candidates"):
        metrics.inverted_softmax(texts @ images.T, bank[:, :5], 10.0)


def test_querybank_normalisation_touches_only_queries_that_meet_a_hub():
    similarity = np.array([[0.9, 0.1, 0.2], [0.1, 0.8, 0.7]])
    bank = np.array([[0.0, 0.9, 0.1], [0.1, 0.7, 0.0]])  # candidate 1 is the bank's hub
    found, repaired = metrics.querybank_normalised(similarity, bank, 10.0), metrics.inverted_softmax(similarity, bank, 10.0)
    np.testing.assert_allclose(found[0], 10 * similarity[0])
    np.testing.assert_allclose(found[1], repaired[1])
    assert found[1].argmax() == 2


# --- published tables ------------------------------------------------------------------------------------------------------------


def test_project_001_three_values_of_one_figure():
    """39.06, 37.5 and 40.6 % are 25, 24 and 26 of 64: each lies deep inside the others' interval. 25 of 64 means 28 to 51."""
    assert [round(100 * hits / 64, 2) for hits in (25, 24, 26)] == [39.06, 37.5, 40.62]
    low, high = metrics.proportion_interval(25, 64)
    assert (round(100 * low), round(100 * high)) == (28, 51)
    for hits in (24, 25, 26):
        low, high = metrics.proportion_interval(hits, 64)
        assert low < 24 / 64 and high > 26 / 64


def test_project_001_random_line():
    """R@1 3.13, R@5 15.63, R@10 31.25 %, MRR .127: 32 candidates."""
    found = metrics.chance(32, np.repeat(np.arange(32), 2))["text_to_image"]
    assert [round(100 * found[f"R@{k}"], 2) for k in (1, 5, 10)] == [3.12, 15.62, 31.25] and round(found["MRR"], 3) == 0.127


def test_project_001_bag_of_words_compares_captions():
    """9.38, 20.31 and 26.56 % are 6, 13 and 17 of 64. They come out when each caption looks among the 63 others, files sorted by name, zeros last first:
    56 of 64 captions share no word with their sister, so most of it is the order of ties (one of many orders tried; the MRR differs by .005).
    """
    folder = shared("everyday_photos")
    said = {}
    for row in json.loads((folder / "captions.json").read_text(encoding="utf8")):
        said.setdefault(row["file_name"], []).append(row["caption"])
    names = sorted(json.loads((folder / "split_seed42.json").read_text(encoding="utf8"))["test"])
    captions, owner = [caption for name in names for caption in said[name]], np.repeat(np.arange(32), 2)
    cosines = metrics.bag_of_words_similarity(captions, captions).astype(np.float32)
    np.fill_diagonal(cosines, -1)
    sister = np.arange(64) ^ 1
    assert (cosines[np.arange(64), sister] == 0).sum() == 56
    order = np.argsort(cosines, axis=1, kind="stable")[:, ::-1]
    rank = 1 + (order == sister[:, None]).argmax(1)
    assert [int((rank <= k).sum()) for k in (1, 5, 10)] == [6, 13, 17]
    share = {ties: np.mean(metrics.caption_baseline(captions, owner, ties=ties) <= 1) for ties in metrics.TIES}
    assert share["half"] == pytest.approx(5 / 64) and share["optimistic"] > 0.35  # the same scores, another rule
    trained = {word for name, row in said.items() if name not in names for caption in row for word in re.findall(r"\w+", caption.lower())}
    assert np.mean(metrics.caption_baseline(captions, owner, trained) <= 1) < share["half"]  # a vocabulary that has seen the test reports more


def test_project_002_sizes_chance_and_ceiling():
    """1,215 images and 6,075 captions; chance is .08 % in both directions; its scorer gives a perfect model .08 %; the vectors are unit rows."""
    folder = shared("flickr8k_clip_b32")
    vectors = np.load(folder / "test_image_embeddings.npz")
    lines = [json.loads(line) for line in (folder / "test_captions.jsonl").read_text(encoding="utf8").splitlines()]
    place = {name: row for row, name in enumerate(vectors["image_id"].tolist())}
    owner = np.array([place[line["image_id"]] for line in lines])
    assert vectors["embedding"].shape == (1215, 512) and len(owner) == 6075 and (np.bincount(owner) == 5).all()
    np.testing.assert_allclose(np.linalg.norm(vectors["embedding"], axis=1), 1, atol=1e-4)
    found = metrics.chance(1215, owner)
    assert found["text_to_image"]["R@1"] == pytest.approx(1 / 1215) and found["image_to_text"]["R@1"] == pytest.approx(5 / 6075)
    assert found["text_to_image"]["R@10"] == pytest.approx(10 / 1215) and found["image_to_text"]["R@10"] == pytest.approx(1 - (1 - 10 / 6075) ** 5, rel=0.01)
    # each image's nearest other image, as a stand-in for texts: the metrics run at the published size, and a perfect model is perfect
    perfect = vectors["embedding"] @ vectors["embedding"][owner].T
    assert metrics.retrieval_metrics(perfect, owner)["text_to_image"]["R@1"] > 0.99
    assert finetuning.broken_scorer(perfect, owner)["R@1"] == pytest.approx(5 / 6075)
