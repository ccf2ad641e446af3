"""The bank of answers: what each check must accept, and what it must reject with which hint. Used by the test_nbNN.py beside it."""

import pytest

from miniclip_helpers import checks

SEEDS = range(5)


def cases(bank):
    """The parameters of `check_verdict` for a bank {exercise id: {"right": [functions], "wrong": [(words of the hint, function)]}}.

    The reference and the stub are added to each exercise; fewer than one other right answer or four wrong ones is an error.
    """
    found = []
    for name, answers in bank.items():
        assert answers["right"] and len(answers["wrong"]) >= 4, f"{name}: at least one other right answer, and four wrong ones"
        found += [pytest.param(name, checks.exercise(name).reference, None, id=f"{name}-reference"), pytest.param(name, _stub, "stub", id=f"{name}-stub")]
        found += [pytest.param(name, answer, None, id=f"{name}-right{number}") for number, answer in enumerate(answers["right"])]
        found += [pytest.param(name, answer, words, id=f"{name}-wrong{number}") for number, (words, answer) in enumerate(answers["wrong"])]
    return found


def _stub(*inputs):
    raise NotImplementedError("your turn")


def check_verdict(name, answer, words):
    """Assert the verdict under each seed: passed where `words` is None, not attempted for "stub", else a hint that holds `words`."""
    for seed in SEEDS:
        verdict = checks.check(name, answer, seed=seed)
        if words is None:
            assert verdict.passed, f"seed {seed}: {verdict}"
        elif words == "stub":
            assert not verdict.passed and not verdict.attempted
        else:
            assert not verdict.passed and verdict.attempted and words in verdict.message, f"seed {seed}: {verdict}"
