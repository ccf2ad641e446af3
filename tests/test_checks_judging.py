"""Judging for coursework: nothing that a notebook changes makes a wrong answer pass, and nothing stays changed."""

import functools
import importlib.util
import math
import pathlib
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from miniclip_helpers import checks
from miniclip_helpers.checks import core, judging, nb01
from miniclip_helpers.checks.judging import assess
from miniclip_helpers.coursework.bank import load_bank, stub

BANK = load_bank()
NAMES = list(checks.exercises())


def cosines_only(image, text, log_scale):
    return F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


def logits(image, text, log_scale):
    return log_scale.exp() * cosines_only(image, text, log_scale)


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_pass_and_wrong_ones_do_not(name):
    assess(name, BANK[name]["right"][0], [1])  # which the canaries, too, have to let pass
    for words, answer in BANK[name]["wrong"][:1]:
        with pytest.raises(AssertionError) as caught:
            assess(name, answer, [1])
        assert any(word in str(caught.value) for word in ([words] if isinstance(words, str) else words))
    with pytest.raises(AssertionError, match="Replace the line with NotImplementedError"):
        assess(name, stub, [1])


def yes(*inputs, **named):
    return True


def from_the_notebook(function):
    """The same function as if a cell had defined it."""
    return types.FunctionType(function.__code__, vars(sys.modules["__main__"]), function.__name__, function.__defaults__, function.__closure__)


@pytest.mark.parametrize("owner, name", [(np, "allclose"), (torch, "equal")])
def test_no_comparison_that_always_agrees_lets_a_wrong_answer_pass(monkeypatch, owner, name):
    """A replacement that comes from somewhere else, an imported file: the canaries find it. Each exercise with a wrong answer of its own."""
    monkeypatch.setattr(owner, name, yes)
    for exercise_id in NAMES[:: 1 if name == "allclose" else 5]:
        with pytest.raises(AssertionError):
            assess(exercise_id, BANK[exercise_id]["wrong"][0][1], [3])


class Agrees:
    def __call__(self, *inputs, **named):
        return True


@pytest.mark.parametrize("owner, name", [(np, "array_equal"), (torch.Tensor, "norm"), (torch.nn.functional, "normalize"), (np.random, "default_rng"), (math, "prod")])
@pytest.mark.parametrize("disguise", [lambda f: f, functools.partial, lambda f: types.MethodType(f, np)])
def test_a_function_of_the_notebook_in_a_library_is_named(monkeypatch, owner, name, disguise):
    monkeypatch.setattr(owner, name, disguise(from_the_notebook(yes)))
    with pytest.raises(AssertionError, match=rf"checker itself was changed: {owner.__module__ if isinstance(owner, type) else owner.__name__}.*\.{name} is one of this notebook's own"):
        assess("00.cosine", BANK["00.cosine"]["right"][0], [1])


def test_an_object_of_the_notebook_in_a_library_is_named(monkeypatch):
    monkeypatch.setattr(Agrees, "__module__", "__main__")
    for replacement in (Agrees(), Agrees):
        monkeypatch.setattr(np, "array_equal", replacement)
        with pytest.raises(AssertionError, match=r"numpy\.array_equal is one of"):
            assess("00.cosine", BANK["00.cosine"]["right"][0], [1])


def test_a_changed_comparison_is_named(monkeypatch):
    monkeypatch.setattr(np, "allclose", yes)
    with pytest.raises(AssertionError, match="checker itself was changed: it accepts a wrong answer"):
        assess("01.logits", cosines_only, [1])
    with pytest.raises(AssertionError, match="checker itself was changed"):
        assess("01.logits", logits, [1])  # whoever changes the checker gets nothing, not even for a right answer


def test_a_checker_that_refuses_everything_is_named(monkeypatch):
    monkeypatch.setattr(np, "allclose", lambda *a, **k: False)
    with pytest.raises(AssertionError, match="checker itself was changed: it refuses the right answer"):
        assess("01.logits", logits, [1])


@pytest.mark.parametrize("owner, name, value", [
    (checks, "check", lambda *a, **k: core.Verdict(True, "Right.")), (checks, "grade", lambda *a, **k: core.Verdict(True, "Right.")), (core, "grade", lambda *a: core.Verdict(True, "")),
    (core, "compare", yes), (core, "close", yes), (nb01, "compare", yes), (nb01, "grade_logits", yes), (core.Verdict, "passed", True),
    (checks, "Verdict", lambda *a: None), (judging, "_prove", yes), (core, "TRIALS", 0)])
def test_what_a_notebook_changes_in_the_package_has_no_effect(monkeypatch, owner, name, value):
    monkeypatch.setattr(owner, name, value, raising=False)
    assess("01.logits", logits, [1])
    with pytest.raises(AssertionError, match="These are the cosines"):
        assess("01.logits", cosines_only, [1])


def test_an_answer_that_changes_the_comparison_while_it_runs_is_caught(monkeypatch):
    original = np.allclose

    def sly(image, text, log_scale):
        np.allclose = yes
        return cosines_only(image, text, log_scale)

    try:
        with pytest.raises(AssertionError, match="checker itself was changed"):
            assess("01.logits", sly, [1])
    finally:
        np.allclose = original


def test_the_package_s_own_solution_is_closed_while_an_answer_is_judged():
    with pytest.raises(AssertionError, match="the solution that is in the package"):
        assess("01.logits", lambda *inputs: checks.exercise("01.logits").reference(*inputs), [1])
    with pytest.raises(AssertionError, match="the solution that is in the package"):
        assess("01.logits", lambda *inputs: nb01.logits(*inputs), [1])
    assert checks.check("01.logits", nb01.logits).passed  # and open again


@pytest.mark.parametrize("name", NAMES)
def test_every_solution_is_closed(name):
    with pytest.raises(AssertionError, match="the solution that is in the package"):
        assess(name, lambda *inputs: checks.exercise(name).reference(*inputs), [1])


@pytest.mark.parametrize("other", [np.dot, lambda: None, 3, None])
def test_something_else_in_the_solution_s_place_does_no_harm(monkeypatch, other):
    """A right answer passes and a wrong one does not."""
    monkeypatch.setattr(nb01, "logits", other)
    assert assess("01.logits", logits, [1]) is None
    with pytest.raises(AssertionError):
        assess("01.logits", cosines_only, [1])


def test_it_works_as_a_hidden_test_loads_it_and_leaves_nothing_behind():
    """From its file, under a name of its own, without a parent."""
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location("_judge", pathlib.Path(judging.__file__))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.assess("01.logits", logits, seeds=[1, 2, 3])
    with pytest.raises(AssertionError, match="These are the cosines"):
        module.assess("01.logits", cosines_only, seeds=[1, 2, 3])
    assert set(sys.modules) == before


def test_every_seed_counts():
    """An answer that is right for square batches only passes under some seeds; not under all."""

    def square_only(features):
        return F.normalize(features, dim=-1) if len(features) == features.shape[1] else features

    passed = []
    for seed in range(40):
        try:
            assess("01.l2_normalise", square_only, [seed])
            passed.append(seed)
        except AssertionError:
            pass
    assert 0 < len(passed) < 40
    failed = next(seed for seed in range(40) if seed not in passed)
    with pytest.raises(AssertionError):
        assess("01.l2_normalise", square_only, [passed[0], failed])
    with pytest.raises(ValueError, match="at least one seed"):
        assess("01.l2_normalise", square_only, [])


def test_moved_keeps_the_shape_and_changes_what_it_should():
    value = {"a": [1, 0.5, True, None, "x"], "b": (torch.ones(2, 3), np.zeros(2, dtype=bool)), "c": {3}}
    moved = judging._moved(value)
    assert moved["a"] == [10, 8.5, False, True, "x?"] and moved["c"] == {16}
    assert moved["b"][0].shape == (2, 3) and (moved["b"][0] == 10).all() and moved["b"][1].all()
    assert judging._moved(value, 0)["a"] == [10, 0.5, True, None, "x"] and judging._moved(value, -1)["c"] == {16}
    assert judging._moved([], -1) == []
