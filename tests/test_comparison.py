"""Comparisons of towers over seeds: shares by hand, the interval against a direct bootstrap, the table's rows."""

import numpy as np
import pytest

from miniclip_helpers.training.comparison import Comparison, comparison_table, percent_table, quickest

RANK = np.array([[1, 2, 150, 7], [1, 101, 3, 9]])  # two seeds, four questions


def test_shares_and_seeds_by_hand():
    found = Comparison(RANK)
    assert found.share(1)[0] == 2 / 8 and found.share()[0] == 6 / 8
    assert found.seeds() == (0.75, 0.75) and found.seeds(2) == (0.25, 0.5)


def test_the_interval_draws_questions_with_all_their_answers():
    """Against a bootstrap written out; and three equal seeds know no more than one."""
    random = np.random.default_rng(1)
    rank = random.integers(1, 400, size=(3, 200))
    _, low, high = Comparison(rank).share()
    hits = (rank <= 100).mean(0)
    draws = [hits[random.integers(0, 200, 200)].mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.006)
    one, thrice = Comparison(rank[:1]).share(), Comparison(rank[[0, 0, 0]]).share()
    assert thrice == pytest.approx(one, abs=0.01) and high - low < 0.8 * (one[2] - one[1])


def test_the_table_has_a_row_per_pair():
    table = comparison_table({"a": Comparison(RANK, 2.5, 1_500_000), "b": Comparison(RANK + 1)}, k=2)
    assert list(table.index) == ["a", "b"] and table.loc["a", "top-1"] == "25.0%" and table.loc["a", "top-2"] == "37.5%"
    assert table.loc["a", "lowest to highest seed"] == "25.0% to 50.0%" and table.loc["a", "weights that learn"] == "1.50 M" and table.loc["a", "seconds"] == "2.5"


def test_quickest_runs_as_often_as_told():
    seen = []
    assert 0 <= quickest(seen.append, 1, times=4) < 1 and seen == [1, 1, 1, 1]


def test_shares_become_percentages():
    table = percent_table({"a": {"x": 0.5, "y": 0.125}, "b": {"x": 1.0, "y": 0.0}})
    assert table.loc["y", "a"] == "12.5%" and table.loc["x", "b"] == "100.0%"
    grid = percent_table({(0.1, 32, 8): 0.25, (0.1, 64, 8): 0.5, (0.2, 32, 8): 0.75, (0.2, 64, 8): 1.0})
    assert grid.loc[0.2, (32, 8)] == "75.0%" and grid.shape == (2, 2)
