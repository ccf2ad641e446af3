"""The machinery of the exercises: what an exercise is, how an answer is run safely, compared, and told what it got wrong."""

import copy
import dataclasses
import html
import linecache
import traceback

import numpy as np

LEVELS = ("warm-up", "core", "stretch")
TRIALS = 4  # random inputs per check


class Wrong(Exception):
    """The answer is wrong; the text is the hint that the learner reads."""


class NotAttempted(Exception):
    """The stub still stands."""


@dataclasses.dataclass(frozen=True)
class Exercise:
    """One exercise and all that belongs to it.

    grade: function of (answer, random), random a `numpy.random.Generator`; raises `Wrong` with a hint, returns when all is well.
    reference: the solution, a function that a learner could paste into the notebook. explanation: why it is so.
    hints: up to three, each says more than the one before. needs: what must be known. passed: a sentence for whoever got it.
    """

    id: str
    title: str
    points: int
    minutes: int
    level: str
    needs: str
    hints: tuple
    grade: object
    reference: object
    explanation: str
    passed: str = "Right."

    def __post_init__(self):
        if self.level not in LEVELS or not 1 <= len(self.hints) <= 3 or self.points < 1:
            raise ValueError(f"exercise {self.id}: level one of {LEVELS}, one to three hints, at least one point")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a check found. It shows itself in a notebook as a coloured note, elsewhere as one line."""

    passed: bool
    message: str
    attempted: bool = True
    exercise_id: str = ""

    @property
    def state(self):
        return "passed" if self.passed else "not yet" if self.attempted else "not attempted"

    def __bool__(self):
        return self.passed

    def __repr__(self):
        return f"{self.exercise_id}: {self.state}. {self.message}"

    def _repr_html_(self):
        colour = "#009E73" if self.passed else "#D55E00" if self.attempted else "#7F7F7F"
        return note(f"{self.exercise_id}: {self.state}", self.message, colour)


def worth(points):
    return f"{points} point{'s' * (points != 1)}"


class Note:
    """A titled text that a cell shows: a hint, a solution, the progress. Code is shown as code."""

    def __init__(self, title, text, code=""):
        self.title, self.text, self.code = title, text, code

    def __repr__(self):
        return "\n\n".join(part for part in (self.title, self.code, self.text) if part)

    def _repr_html_(self):
        return note(self.title, self.text, "#0072B2", self.code)


def note(title, text, colour, code=""):
    """The HTML of a note, everything escaped."""
    shown = f"<pre style='margin:6px 0'>{html.escape(code)}</pre>" if code else ""
    body = html.escape(text).replace("\n", "<br>")
    return (f"<div style='border-left:5px solid {colour};padding:4px 12px;margin:6px 0'>"
            f"<b style='color:{colour}'>{html.escape(title)}</b>{shown}<div>{body}</div></div>")


def call(answer, *inputs):
    """Run the learner's function on copies of the inputs. What it raises becomes a `Wrong` that names the line."""
    try:
        found = answer(*copy.deepcopy(inputs))
    except NotImplementedError:
        raise NotAttempted from None
    except (Exception, SystemExit) as error:
        raise Wrong(f"Your code stopped{_where(error, answer)} with {type(error).__name__}: {str(error)[:300] or 'no message'}") from None
    if found is None:
        raise Wrong("Your function returned None. Did you forget `return`?")
    return found


def _where(error, answer):
    """Where it happened, as far as it is known: " in line 3 of your function (`return x / n`)"."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == code.co_filename]
    if not lines:
        return " at the call (are the arguments those of the stub?)"
    source = linecache.getline(code.co_filename, lines[-1]).strip()
    return f" in line {lines[-1] - code.co_firstlineno + 1} of your function" + (f" (`{source}`)" if source else "")


def array(value, what="the result"):
    """Whatever the learner returned, as a float64 array; `Wrong` where it holds no numbers."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
        found = np.asarray(value)
        return found.astype(np.float64)
    except (Exception, SystemExit) as error:
        raise Wrong(f"Expected {what} as numbers (a tensor, an array or a list), found {type(value).__name__}: {str(error)[:120]}") from None


def close(found, expected, rtol=1e-4, atol=1e-5):
    """Whether two arrays have the same shape and the same values."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return found.shape == expected.shape and bool(np.allclose(found, expected, rtol=rtol, atol=atol, equal_nan=False))


def compare(found, expected, mistakes=(), what="the result", rtol=1e-4, atol=1e-5):
    """Return when `found` is `expected`; else raise `Wrong`: with the hint of the mistake whose value it is, or with the difference.

    mistakes: (value or function that gives it, hint) in order; the first that fits is told.
    """
    expected = np.asarray(expected, dtype=np.float64)
    found = array(found, what)
    if close(found, expected, rtol, atol):
        return
    for value, hint in mistakes:
        if close(found, array(value() if callable(value) else value), rtol, atol):
            raise Wrong(hint)
    if found.shape != expected.shape:
        raise Wrong(f"Expected {what} of shape {expected.shape}, found {found.shape}.")
    if not np.isfinite(found).all():
        raise Wrong(f"There is {'a NaN' if np.isnan(found).any() else 'an infinity'} in {what}. Look for a division by zero or an exp of a large number.")
    place = np.unravel_index(np.abs(found - expected).argmax(), expected.shape)
    where = f" at position {tuple(int(i) for i in place)}" if expected.ndim else ""
    raise Wrong(f"The shape is right, the values are not: {what}{where} should be {expected[place]:.4g}, found {found[place]:.4g}.")


def grade(exercise, answer, seed=None):
    """The `Verdict` on an answer: the grader runs on TRIALS random inputs. seed: an int, or None for a fresh one each time."""
    if not callable(answer):
        return Verdict(False, f"Expected a function, found {type(answer).__name__}. Pass the function itself, without brackets.", True, exercise.id)
    random = np.random.default_rng(seed)
    try:
        for _ in range(TRIALS):
            exercise.grade(answer, random)
    except NotAttempted:
        return Verdict(False, f"Replace the line with NotImplementedError ({exercise.minutes} min, {worth(exercise.points)}).", False, exercise.id)
    except Wrong as wrong:
        return Verdict(False, str(wrong), True, exercise.id)
    return Verdict(True, exercise.passed, True, exercise.id)
