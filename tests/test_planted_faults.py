"""Named results of notebooks can fail: their ranges have two sides and leave out what a useless model scores, and faults on purpose leave them.

Four faults run here, on cheap notebooks; the whole matrix is in tests/long/test_planted_long.py.
"""

import math
import re

import nbformat
import pytest
from conftest import ROOT
from planting import FAULTS, profiles, run_with

# What a trivial model or a broken measurement gives, where that is not 0: nothing found, nothing gained, nothing alike.
TRIVIAL = {
    "ensemble_minus_one_prompt": (-0.02, "templates that confuse; a gain of 0 is one picture of 113 away from what is measured, and must be allowed"),
    "three_libraries_differ_by": (1.0, "another network"), "unknown_words_leaky": (0.75, "the vocabulary of training captions alone"),
    "gpt2_first_token_a_start_mark": (0.44, "pooling that works"), "spread_first_token_a_start_mark": (0.94, "pooling that works"),
    "gpt2_first_token_the_brand": (0.44, "pooling that works"), "closed_form_gain": (-0.1, "heads in closed form that were never filled"),
    "moved_by_1e_7": (0.01, "a scorer that differs, or a rate that is not applied"), "gate_largest_difference": (0.01, "a training path that sees other pictures"),
    "other_left_at_the_worst_rate": (1.0, "heads that do not move"), "halved_r10_p": (0.5, "a test that cannot tell the two apart"),
    "halved_mrr_p": (0.5, "a test that cannot tell the two apart"), "centring_gain_second_hand": (-0.01, "means of the wrong side; 0 is allowed, as the second hand may gain nothing"),
    "own_before": (0.7, "a model that was told the words before"), "attack_as_it_came": (0.3, "an attack that works"), "attack_fitted_without_words": (0.3, "an attack that works"),
    "shuffled_rank_correlation": (1.0, "a map that does not look at the tower"), "shuffled_in_the_box": (0.75, "a map that does not look at the tower"),
    "r10_accumulated_minus_whole": (-0.05, "small batches that learn less, as one would think"), "wrong_ways_that_equal": (1.0, "gradients that nobody compares"),
}
WIDEST = 0.5  # half of what a share can be
RATIO = 3  # of the two ends of larger numbers
TIMES = {"passes_per_look"}  # quotients of seconds that promise nothing
TIMED = {"step_speedup": "a quotient of seconds, between a quiet machine and one that is busy with others"}


def named_results():
    """[(notebook, profile, result, range)] of every range in notebooks/profiles.yaml."""
    found = []
    for name, entry in profiles().items():
        found += [(name, "offline", result, span) for result, span in entry["results"].items()]
        found += [(name, profile, result, span) for profile in entry if profile != "results" for result, span in ((entry[profile] or {}).get("results") or {}).items()]
    return found


@pytest.mark.parametrize("name, profile, result, span", named_results(), ids=lambda value: value if isinstance(value, str) else None)
def test_a_range_has_two_finite_sides_and_can_be_missed(name, profile, result, span):
    assert isinstance(span, list) and len(span) == 2 and all(isinstance(side, (int, float)) and math.isfinite(side) for side in span)
    low, high = span
    assert low < high
    trivial, reason = TRIVIAL.get(result, (0.0, "nothing found, nothing gained, nothing alike"))
    assert not low <= trivial <= high, f"{result} may be {trivial}, which is what one gets with {reason}"
    assert result in TIMED or high - low <= WIDEST + 1e-9 or 0 < low and high <= RATIO * low, f"{result}: {low} to {high} is too wide to say anything"


def test_every_result_that_is_no_time_has_a_range():
    """By the names that stand in the notebooks; a name that a loop makes up is promised, and so measured, by the range itself."""
    for name, entry in profiles().items():
        book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        source = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
        without = {result for result in re.findall(r"series\.result\(\"(\w+)\",", source) if result not in entry["results"]}
        assert all(re.search("seconds|minutes", result) or result in TIMES for result in without), f"{name}: {without}"


def test_the_tables_name_no_result_that_is_gone():
    names = {result for _, _, result, _ in named_results()}
    assert set(TRIVIAL) | set(TIMED) <= names and len(names) >= 222


SMALL = [("worst_first", "00_start_here", True), ("shuffled_captions", "07_evaluate_retrieval", True), ("swapped_report", "07_evaluate_retrieval", True),
         ("frozen_head", "11_your_own_photos", True)]


@pytest.mark.parametrize("fault, name, stop", SMALL)
def test_a_planted_fault_leaves_the_range_of_a_named_result(fault, name, stop, tmp_path):
    found = run_with(fault, name, tmp_path, stop)
    assert found["code"] == 1 and found["outside"], found["said"]
    assert "lies outside" in found["said"], "and the run says so"


def test_the_package_knows_nothing_of_the_faults():
    for file in (ROOT / "miniclip_helpers").rglob("*.py"):
        assert "PLANTED" not in file.read_text(encoding="utf8"), file
    assert {fault for fault, _, _ in SMALL} <= set(FAULTS)
