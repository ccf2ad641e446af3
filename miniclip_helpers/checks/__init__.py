"""Exercise verdicts: `check(id, answer)`, `hint(id)`, `solution(id)`, `progress()`. In the package, so that they work on Colab."""

import importlib
import inspect
import pathlib

from ..errors import unknown
from .core import Exercise, Note, Verdict, grade, worth

__all__ = ["Exercise", "Verdict", "check", "exercise", "exercises", "hint", "progress", "solution"]

_state = {}  # exercise id -> passed, this session
_opened = {}  # exercise id -> hints opened, this session


def exercises(notebook=None):
    """Every `Exercise` by its id, in order; of one notebook ("01") or of all. Each `nbNN.py` beside this file lists its own."""
    found = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("nb[0-9][0-9].py")):
        if notebook in (None, path.stem[2:]):
            module = importlib.import_module(f".{path.stem}", __package__)
            found |= {item.id: item for item in module.EXERCISES}
    return found


def exercise(exercise_id):
    """The `Exercise` with this id, like "01.clip_loss"; a `UsageError` names the nearest."""
    known = exercises(str(exercise_id)[:2])
    if exercise_id not in known:
        raise unknown("exercise", exercise_id, exercises())
    return known[exercise_id]


def check(exercise_id, answer, seed=None):
    """Run `answer`, a function, on several random inputs and say what is right or which mistake it looks like.

    Never raises for a wrong or crashing answer. seed: fixes the random inputs; fresh ones each time by default.
    """
    verdict = grade(exercise(exercise_id), answer, seed)
    if verdict.attempted:
        _state[exercise_id] = verdict.passed or _state.get(exercise_id, False)
    return verdict


def hint(exercise_id):
    """The next hint of an exercise: each call opens one more, up to three; afterwards the last one again."""
    hints = exercise(exercise_id).hints
    _opened[exercise_id] = number = min(_opened.get(exercise_id, 0) + 1, len(hints))
    rest = "" if number < len(hints) else f"\nThat was the last hint; checks.solution({exercise_id!r}) shows a solution."
    return Note(f"{exercise_id}: hint {number} of {len(hints)}", hints[number - 1] + rest)


def solution(exercise_id):
    """A solution of an exercise with its explanation. Try it yourself first: what you worked out stays."""
    found = exercise(exercise_id)
    return Note(f"{exercise_id}: a solution", found.explanation, inspect.getsource(found.reference).rstrip())


def progress(notebook=None):
    """Which exercises, of one notebook ("01") or of all, have passed since the notebook was started, with the points."""
    known = exercises(notebook)
    marks = {True: "passed", False: "not yet", None: "not attempted"}
    lines = [f"{marks[_state.get(key)]:<14}{key:<30}{worth(item.points)}, {item.level}: {item.title}" for key, item in known.items()]
    won = sum(item.points for key, item in known.items() if _state.get(key))
    return Note(f"{won} of {sum(item.points for item in known.values())} points in this session", "", "\n".join(lines))
