"""The metrics in blocks: `Cosines` against the whole matrix and a naive loop, with every rule for ties; memory counted; what is not a number."""

import tracemalloc

import numpy as np
import pytest
from test_metrics import naive_ranks, random_case

from miniclip_helpers import metrics, retrieval
from miniclip_helpers.errors import UsageError
from miniclip_helpers.metrics import blocks
from miniclip_helpers.training.memory import peak_bytes


def vectors(seed=0, images=37, most=5, width=6, whole_numbers=False):
    """images (N, D), texts (M, D), owner (M,) out of order. Whole numbers make many ties, and products without rounding."""
    random = np.random.default_rng(seed)
    owner = random.permutation(np.repeat(np.arange(images), random.integers(1, most + 1, images)))
    draw = (lambda size: random.integers(-2, 3, size).astype(np.float32)) if whole_numbers else (lambda size: random.normal(size=size))
    rows = draw((images, width))
    return rows, (draw((len(owner), width)) if whole_numbers else rows[owner] + draw((len(owner), width))), owner


@pytest.mark.parametrize("block", [1, 7, 36, 500, None])
@pytest.mark.parametrize("whole_numbers", [False, True])
@pytest.mark.parametrize("ties", metrics.TIES)
def test_cosines_rank_as_the_whole_matrix(block, whole_numbers, ties):
    images, texts, owner = vectors(whole_numbers=whole_numbers)
    expected = metrics.ranks(images @ texts.T, owner, ties=ties)
    for asked in (metrics.Cosines(images, texts), images @ texts.T):
        found = metrics.ranks(asked, owner, block, ties)
        for direction in metrics.DIRECTIONS:
            assert found[direction].tolist() == expected[direction].tolist()
    if ties == "half":
        assert {way: rank.tolist() for way, rank in expected.items()} == naive_ranks(images @ texts.T, owner)


def test_the_cases_hold_ties_and_the_rules_differ():
    images, texts, owner = vectors(whole_numbers=True)
    found = [metrics.ranks(metrics.Cosines(images, texts), owner, 7, ties)["text_to_image"] for ties in metrics.TIES]
    assert (found[1] < found[0]).sum() > 20 and (found[0] < found[2]).sum() > 20


@pytest.mark.parametrize("seed", range(8))
def test_pictures_that_are_there_twice_tie_in_any_block(seed):
    """In float32, where products are rounded: the same picture, in another block, must have the very same score."""
    random = np.random.default_rng(seed)
    once = random.normal(size=(50, 48)).astype(np.float32)
    images, texts = np.concatenate([once, once]), random.normal(size=(100, 48)).astype(np.float32)
    odd = np.empty(images.size + seed, np.float32)[seed:].reshape(images.shape)  # at an address that is a multiple of nothing
    odd[:] = images
    scores = metrics.Cosines(odd, texts)
    won, lost = (metrics.ranks(scores, np.arange(100), 30, ties)["text_to_image"] for ties in ("optimistic", "pessimistic"))
    assert (lost == won + 1).all()


@pytest.mark.parametrize("numbers", [1, 300, 10**6])
def test_everything_that_takes_a_matrix_takes_cosines(numbers, monkeypatch):
    monkeypatch.setattr(blocks, "NUMBERS", numbers)
    images, texts, owner = vectors(whole_numbers=True)
    matrix, scores = images @ texts.T, metrics.Cosines(images, texts)
    assert retrieval.report(scores, owner) == retrieval.report(matrix, owner)
    assert retrieval.compare(matrix, scores, owner) == retrieval.compare(matrix, matrix, owner)
    assert metrics.retrieval_metrics(scores, owner, ties="pessimistic") == metrics.retrieval_metrics(matrix, owner, ties="pessimistic")
    assert metrics.target_ranks(scores, owner[: len(images)] % 5).tolist() == metrics.target_ranks(matrix, owner[: len(images)] % 5).tolist()
    assert metrics.k_occurrence(scores, 4).sum() == 4 * len(images)
    for direction in metrics.DIRECTIONS:
        assert retrieval.answers(scores, owner, direction, 3) == retrieval.answers(matrix, owner, direction, 3)


def test_evaluate_takes_blocks_where_the_matrix_is_large(monkeypatch):
    import torch

    images, texts, owner = vectors(whole_numbers=True)
    monkeypatch.setattr(retrieval, "_embeddings", lambda model, dataset: (torch.from_numpy(images), torch.from_numpy(texts)))

    class Data:
        pass

    Data.owner = owner
    whole = retrieval.evaluate(None, Data)
    assert isinstance(retrieval.cosines(None, Data), np.ndarray)
    monkeypatch.setattr(retrieval, "WHOLE", 100)
    assert isinstance(retrieval.cosines(None, Data), metrics.Cosines)
    assert retrieval.evaluate(None, Data) == whole


def most_held(function):
    """The most bytes that NumPy, Python and torch held inside, each at its own highest."""
    counted = peak_bytes(function)[1]  # apart: what this imports is none of it
    tracemalloc.start()
    try:
        function()
        return counted + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_matrix():
    """6,000 x 6,000 would be 144 MB: ranks hold a block or two of it, intervals no more than their blocks of draws."""
    random = np.random.default_rng(0)
    images, texts = (random.normal(size=(6000, 8)).astype(np.float32) for _ in range(2))
    scores = metrics.Cosines(images, texts)
    for ask in (metrics.ranks, metrics.target_ranks):
        assert 4 * blocks.NUMBERS < most_held(lambda: ask(scores, np.arange(6000))) < 16 * blocks.NUMBERS < 36e6  # noqa: B023
    assert most_held(lambda: scores.rows(0, 6000)) > 140e6  # what it would be
    rank = metrics.ranks(scores, np.arange(6000))
    assert most_held(lambda: metrics.rank_intervals(rank, np.arange(6000), (1,), draws=1000)) < 150e6 < 2 * 8 * 1000 * 12000


def test_draws_in_blocks_are_the_same_draws(monkeypatch):
    rank, groups = np.random.default_rng(0).integers(1, 30, 90), np.repeat(np.arange(30), 3)
    expected = {name: metrics.bootstrap_interval(rank, name, groups) for name in (1, "MRR", "MedR")}
    monkeypatch.setattr("miniclip_helpers.metrics.intervals.NUMBERS", 400)
    assert {name: metrics.bootstrap_interval(rank, name, groups) for name in expected} == expected


@pytest.mark.parametrize("where", [0, 36])
@pytest.mark.parametrize("worth", [np.nan, np.inf])
def test_what_is_not_a_number_is_refused(where, worth):
    """A NaN is neither above nor below anything: ranked in silence, a diverged model would be first everywhere."""
    images, texts, owner = vectors()
    images[where, 2] = worth
    with np.errstate(invalid="ignore"):
        matrix = images @ texts.T
    asks = [lambda: metrics.Cosines(images, texts), lambda: metrics.Cosines(texts, images), lambda: metrics.ranks(matrix, owner),
            lambda: metrics.target_ranks(matrix, owner[: len(images)]), lambda: metrics.hubness(matrix, 3), lambda: retrieval.report(matrix, owner)]
    for ask in asks:
        with pytest.raises(UsageError, match="NaN or infinity"):
            ask()


def test_two_models_are_not_compared_by_nan():
    """A mean that is no number is never above the one found: p would be the least there is."""
    hits = np.array([0.0, 1, 1, 0])
    for test in (metrics.sign_flip_test, metrics.paired_interval):
        with pytest.raises(UsageError, match="NaN or infinity"):
            test(hits, hits * np.nan)


def test_cosines_that_do_not_fit_or_overflow_are_told():
    with pytest.raises(UsageError, match=r"\(3, 4\) and \(5, 6\)"):
        metrics.Cosines(np.ones((3, 4)), np.ones((5, 6)))
    with pytest.raises(UsageError, match="NaN or infinity"):
        metrics.Cosines(np.full((2, 2), 1e30, dtype=np.float32), np.full((2, 2), 1e30, dtype=np.float32))
    for shape, owner in (((0, 5), []), ((3, 2), [0, 1])):
        with pytest.raises(UsageError):
            metrics.ranks(metrics.Cosines(np.ones((shape[0], 2)), np.ones((shape[1], 2))), np.array(owner, dtype=int))


def test_a_matrix_in_any_order_of_memory():
    similarity, owner = random_case(0, ties=True)
    expected = metrics.ranks(similarity, owner)
    for made in (np.asfortranarray(similarity), similarity.T.copy().T, np.repeat(similarity, 2, 0)[::2], similarity.tolist()):
        found = metrics.ranks(made, owner)
        assert all((found[way] == expected[way]).all() for way in expected)
