"""The machinery of the exercises: nothing a learner writes may raise, and what is shown is escaped."""

import math
import re
import runpy

import numpy as np
import pytest
import torch

from miniclip_helpers import checks
from miniclip_helpers.checks import core
from miniclip_helpers.errors import UsageError


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    monkeypatch.setattr(checks, "_state", {})
    monkeypatch.setattr(checks, "_opened", {})
    monkeypatch.setattr(checks, "_course", set())
    monkeypatch.delenv("MINICLIP_COURSE", raising=False)


def right(a, b):
    return sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))


def breaks(a, b):
    total = 0
    return a[0] / total[1]


@pytest.mark.parametrize("answer", [None, 3, "cosine", [1.0], object()])
def test_an_answer_that_is_no_function_is_told_so(answer):
    verdict = checks.check("00.cosine", answer)
    assert not verdict.passed and "Expected a function" in verdict.message


def test_a_crash_is_reported_with_its_line():
    verdict = checks.check("00.cosine", breaks)
    assert not verdict.passed and verdict.attempted
    assert "line 3" in verdict.message and "total[1]" in verdict.message and "TypeError" in verdict.message


def test_wrong_arguments_are_reported_as_the_call():
    assert "at the call" in checks.check("00.cosine", lambda a: 1.0).message


@pytest.mark.parametrize("error", [SystemExit(3), RecursionError("deep"), Exception(), AssertionError("<b>")])
def test_nothing_a_learner_raises_comes_through(error):
    def answer(a, b):
        raise error

    assert type(error).__name__ in checks.check("00.cosine", answer).message


@pytest.mark.parametrize("value", ["text", {"a": 1}, {1, 2}, [[1], [1, 2]], [], float("nan"), float("inf"), 1j, range, b"", True])
@pytest.mark.parametrize("name", ["00.cosine", "00.best_five", "01.l2_normalise", "01.logits", "01.clip_loss", "01.multi_positive_target"])
def test_odd_values_are_wrong_and_never_raise(name, value):
    verdict = checks.check(name, lambda *inputs: value)
    assert not verdict.passed and verdict.attempted and verdict.message


def disturbed(value):
    """The same shape with other numbers, as no mistake makes them."""
    if isinstance(value, dict):
        return {key: disturbed(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(disturbed(part) for part in value)
    fractional = isinstance(value, float | np.floating) or isinstance(value, np.ndarray) and value.dtype.kind == "f" or isinstance(value, torch.Tensor) and value.is_floating_point()
    return value * 1.37 + 0.0123 if fractional else value


IN_WHOLE_NUMBERS = {"00.best_five", "03.split_by_image", "03.find_the_leak", "03.bpe_merge", "06.gate", "07.ranks", "08.choose", "10.second_pass", "11.captions", "11.duplicates",
                    "11.failing_query"}  # names, places and orders: nothing to disturb


@pytest.mark.parametrize("name", sorted(checks.exercises().keys() - IN_WHOLE_NUMBERS))
def test_a_mistake_that_no_hint_knows_is_told_with_its_place_and_both_numbers(name):
    """The thing has its own name in each exercise, and the numbers are those of the answer and of the solution."""
    verdict = checks.check(name, lambda *inputs: disturbed(checks.exercise(name).reference(*inputs)), seed=1)
    told = re.fullmatch(r"The shape is right, the values are not: (.+?)( at position \([\d, ]+\))? should be (\S+), found (\S+)\.", verdict.message)
    assert told and not verdict.passed, verdict.message
    assert told[1] != "the result" and "None" not in told[1] and float(told[4]) == pytest.approx(1.37 * float(told[3]) + 0.0123, rel=0.01, abs=0.01)


def test_a_learner_cannot_change_the_inputs():
    """An answer that works in place is judged by what it returns, under the same inputs that the expected value has."""

    def in_place(features):
        features /= features.norm(dim=-1, keepdim=True)
        return features

    assert checks.check("01.l2_normalise", in_place).passed


def test_inputs_are_fresh_each_time_and_fixed_by_a_seed():
    seen = []

    def answer(a, b):
        seen.append(tuple(a))
        return right(a, b)

    for seed in (None, None, 5, 5):
        assert checks.check("00.cosine", answer, seed=seed).passed
    assert seen[0] != seen[4] and seen[8] == seen[12] and len(set(seen[:4])) == 4


def test_a_verdict_shows_itself_escaped():
    verdict = core.Verdict(False, "found <script>alert(1)</script> & more", True, "00.cosine")
    assert "<script>" not in verdict._repr_html_() and "&lt;script&gt;" in verdict._repr_html_()
    assert repr(verdict) == "00.cosine: not yet. found <script>alert(1)</script> & more"
    assert not verdict and core.Verdict(True, "Right.")


def test_a_verdict_has_the_colour_of_its_state():
    passed, wrong, empty = core.Verdict(True, "a"), core.Verdict(False, "b"), core.Verdict(False, "c", attempted=False)
    assert [verdict.state for verdict in (passed, wrong, empty)] == ["passed", "not yet", "not attempted"]
    shown = [re.findall("(?:solid |color:)([^;']+)[;']", verdict._repr_html_()) for verdict in (passed, wrong, empty)]
    assert shown == [["#009E73"] * 2, ["#D55E00"] * 2, ["#7F7F7F"] * 2]
    assert repr(core.Note("Title", "text")) == "Title\n\ntext" and repr(core.Note("Title", "", "code")) == "Title\n\ncode"


def test_a_note_holds_what_it_was_given_and_no_more():
    assert re.sub("<[^>]*>", "|", core.note("Title", "one\ntwo", "#000000")) == "||Title||one|two||"
    assert re.sub("<[^>]*>", "|", core.note("Title", "one", "#000000", "x < 1")) == "||Title||x &lt; 1||one||"


@pytest.mark.parametrize("found, expected, words", [
    (2.0, 1.0, "The shape is right, the values are not: the cosine should be 1, found 2."),
    ([1.0, 5.0], [1.0, 2.0], "The shape is right, the values are not: the cosine at position (1,) should be 2, found 5."),
    ([1.0, 5.0], 1.0, "Expected the cosine of shape (), found (2,)."),
    (math.nan, 1.0, "There is a NaN in the cosine. Look for a division by zero or an exp of a large number."),
    ([math.inf, 0.0], [1.0, 0.0], "There is an infinity in the cosine. Look for a division by zero or an exp of a large number."),
])
def test_the_difference_in_words(found, expected, words):
    with pytest.raises(core.Wrong) as told:
        core.compare(found, expected, what="the cosine")
    assert str(told.value) == words


@pytest.mark.parametrize("off, fine", [(0.5e-4, True), (3e-4, False)])
def test_a_ten_thousandth_is_near_enough(off, fine):
    assert core.close([1 + off, 2.0], [1.0, 2.0]) is fine and core.close([1 - off, 2.0], [1.0, 2.0]) is fine
    assert core.close([1 + off], [1.0], rtol=off / 10, atol=0) is False


def test_hints_open_one_after_another():
    texts = [repr(checks.hint("01.clip_loss")) for _ in range(4)]
    assert "hint 1 of 3" in texts[0] and "hint 2 of 3" in texts[1] and "hint 3 of 3" in texts[2] and texts[3] == texts[2]
    assert "solution" not in texts[0] and "checks.solution('01.clip_loss')" in texts[2]


def test_a_solution_shows_code_that_passes(tmp_path):
    note = checks.solution("00.cosine")
    (tmp_path / "pasted.py").write_text(f"import numpy as np\n\n{note.code}\n")
    cosine = runpy.run_path(str(tmp_path / "pasted.py"))["cosine"]
    assert checks.check("00.cosine", cosine).passed and note.text in repr(note) and "<pre" in note._repr_html_()


def test_progress_counts_what_passed():
    assert "0 of" in checks.progress().title
    checks.check("00.cosine", breaks)
    checks.check("00.best_five", lambda scores: [place for _, place in sorted(zip(-scores, range(len(scores)), strict=True))][:5])
    report = repr(checks.progress())
    points = sum(item.points for item in checks.exercises().values())
    assert f"1 of {points} points" in report
    assert [line.split()[0] for line in report.splitlines() if "00." in line] == ["not", "passed"]


def test_what_passed_once_stays_passed():
    checks.check("00.cosine", right)
    checks.check("00.cosine", breaks)
    assert checks.progress().title.startswith("1 of")


def test_an_unknown_exercise_names_the_nearest():
    with pytest.raises(UsageError, match=r"did you mean 00\.cosine"):
        checks.check("00.cosin", right)


def test_every_exercise_says_what_it_needs():
    for name, item in checks.exercises().items():
        assert name == item.id and item.points >= 1 and 1 <= item.minutes <= 30 and item.needs and item.explanation and item.title
        assert len(set(item.hints)) == len(item.hints) <= 3
        assert checks.solution(name).code.startswith("def "), name


def test_coursework_says_what_a_notebook_is_worth_and_closes_the_solutions():
    note = checks.start_course("01", points=14)
    assert "notebook 01, 14 points" in note.title and "8 points for 4 exercises" in note.text and "6 points for what you write" in note.text
    closed = checks.solution("00.cosine")
    assert "This is coursework" in repr(closed) and "norm" not in repr(closed) and not closed.code
    last = [repr(checks.hint("01.clip_loss")) for _ in range(3)][-1]
    assert "That was the last hint." in last and "solution" not in last


def test_coursework_without_written_questions_speaks_of_exercises_only():
    assert "marked by a person" not in repr(checks.start_course("00")) and "notebook 00, 2 points" in repr(checks.start_course("00"))
    with pytest.raises(UsageError, match="unknown notebook '12'"):
        checks.start_course("12")
    assert checks._course == {"00"}


@pytest.mark.parametrize("value, closed", [("1", True), ("0", False), ("", False)])
def test_the_environment_closes_the_solutions_too(monkeypatch, value, closed):
    monkeypatch.setenv("MINICLIP_COURSE", value)
    assert ("This is coursework" in repr(checks.solution("00.cosine"))) is closed
