"""The bank of answers: what each check must accept, and what it must reject with which hint. Used by the test_nbNN.py beside it."""

import pytest

from miniclip_helpers import checks
from miniclip_helpers.coursework.bank import fault, stub


def cases(bank):
    """The parameters of `check_verdict` for a bank {exercise id: {"right": [functions], "wrong": [(words of the hint, function)]}}.

    The reference and the stub are added to each exercise; fewer than one other right answer or four wrong ones is an error. Words are a text, or
    a tuple of texts where the hint depends on the inputs; two wrong answers that have the same words make the same mistake.
    """
    found = []
    for name, answers in bank.items():
        assert answers["right"] and len({words for words, _ in answers["wrong"]}) >= 4, f"{name}: at least one other right answer, and four mistakes"
        found += [pytest.param(name, checks.exercise(name).reference, None, id=f"{name}-reference"), pytest.param(name, stub, "stub", id=f"{name}-stub")]
        found += [pytest.param(name, answer, None, id=f"{name}-right{number}") for number, answer in enumerate(answers["right"])]
        found += [pytest.param(name, answer, words, id=f"{name}-wrong{number}") for number, (words, answer) in enumerate(answers["wrong"])]
    return found


def check_verdict(name, answer, words):
    """Assert the verdict under each seed: passed where `words` is None, not attempted for "stub", else a hint that holds `words`."""
    assert fault(name, answer, words) is None
