"""Faults on purpose in the package, each in the notebooks that it concerns: every one must end the run, and say where. Twelve minutes on two cores.

Most leave the range of a named result. Some meet a comparison of the notebook's own first, where it holds the package against what it has just written
out by hand, or do not fit: the widths of two towers that were swapped, the groups of directions that were. What no notebook sees is in `UNSEEN`, with the reason.
"""

import re

import pytest
from planting import FAULTS, run_with

from miniclip_helpers.series import notebook_names

NAMES = {name[:2]: name for name in notebook_names()}
BY_RESULT = [
    ("shuffled_captions", "01"), ("shuffled_captions", "05"), ("shuffled_captions", "06"), ("shuffled_captions", "07"), ("frozen_head", "05"), ("frozen_head", "06"),
    ("frozen_head", "11"), ("swapped_report", "07"), ("no_normalisation", "00"), ("no_normalisation", "07"), ("no_temperature", "01"), ("wrong_positives", "06"),
    ("test_is_train", "05"), ("test_is_train", "06"), ("worst_first", "00"), ("blind_tower", "00"), ("blind_tower", "09"), ("next_label", "02"), ("next_label", "11"),
    ("next_head", "07"), ("wrong_axis", "11"),
]
BY_COMPARISON = [  # the cell that fails, and what it says
    ("swapped_directions", "07", "AssertionError"), ("swapped_directions", "06", "don't have the same length|as many groups"),
    ("swapped_towers", "07", "shapes cannot be multiplied"), ("swapped_towers", "04", "must match the size"), ("wrong_positives", "10", "Scalars are not close"),
    ("wrong_positives", "01", "Scalars are not close"), ("no_normalisation", "01", "Tensor-likes are not close"), ("shuffled_captions", "03", "AssertionError"),
    ("worst_first", "08", "AssertionError"),
]
UNSEEN = [("wrong_axis", "02")]  # its accuracies are read from cosines, and its calibration from a softmax of its own; notebook 11 sees it


@pytest.mark.parametrize("fault, number", BY_RESULT)
def test_a_fault_leaves_the_range_of_a_result(fault, number, tmp_path):
    found = run_with(fault, NAMES[number], tmp_path, stop=True)
    assert found["code"] == 1 and found["outside"], found["said"]
    print(f"{fault} in {number}: {found['outside']}")


@pytest.mark.parametrize("fault, number, words", BY_COMPARISON)
def test_a_fault_meets_what_the_notebook_wrote_by_hand(fault, number, words, tmp_path):
    found = run_with(fault, NAMES[number], tmp_path, stop=True)
    assert found["code"] == 1 and "failed: " in found["said"] and re.search(words, found["said"]), found["said"]


@pytest.mark.parametrize("fault, number", UNSEEN)
def test_what_is_known_to_stay_unseen(fault, number, tmp_path):
    assert run_with(fault, NAMES[number], tmp_path, stop=True)["code"] == 0, "it is seen now: move it up"
    assert fault in {other for other, _ in BY_RESULT}, "a fault that no notebook sees is a hole"


@pytest.mark.parametrize("number", ["00", "01", "07", "11"])
def test_without_a_fault_the_same_run_is_well(number, tmp_path):
    found = run_with("none", NAMES[number], tmp_path)
    assert found["code"] == 0 and not found["outside"], found["said"]


def test_every_notebook_has_a_fault_that_it_sees():
    assert {number for _, number, *_ in BY_RESULT + BY_COMPARISON} == set(NAMES)


def test_every_fault_is_planted():
    assert set(FAULTS) == {fault for fault, *_ in BY_RESULT + BY_COMPARISON}
