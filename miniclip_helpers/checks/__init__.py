"""Exercise verdicts: `check(id, answer)`, `hint(id)`, `solution(id)`, `progress()`. In the package, so that they work on Colab."""

import importlib
import inspect
import os
import pathlib

from ..errors import unknown
from .core import Exercise, Note, Verdict, grade, worth

__all__ = ["Exercise", "Verdict", "check", "exercise", "exercises", "hint", "progress", "solution", "start_course"]

_state = {}  # exercise id -> passed, this session
_opened = {}  # exercise id -> hints opened, this session
_course = set()  # the notebooks that are coursework, this session


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
    more = "." if _is_course() else f"; checks.solution({exercise_id!r}) shows a solution."
    rest = "" if number < len(hints) else f"\nThat was the last hint{more}"
    return Note(f"{exercise_id}: hint {number} of {len(hints)}", hints[number - 1] + rest)


def solution(exercise_id):
    """A solution of an exercise with its explanation. Try it yourself first: what you worked out stays. Closed in coursework."""
    found = exercise(exercise_id)
    if _is_course():
        return Note(f"{exercise_id}: closed", "This is coursework: solutions stay closed. checks.hint opens up to three hints; then ask your instructor.")
    return Note(f"{exercise_id}: a solution", found.explanation, inspect.getsource(found.reference).rstrip())


def start_course(notebook, points=None):
    """Say what a notebook ("01") is worth as coursework, and close `solution` for this session. MINICLIP_COURSE=1 in the environment closes it, too.

    points: of the whole notebook, questions that a person marks included; default: those of the exercises.
    """
    known = exercises(str(notebook))
    if not known:
        raise unknown("notebook", notebook, sorted({key[:2] for key in exercises()}))
    _course.add(str(notebook))
    auto = sum(item.points for item in known.values())
    total = auto if points is None else points
    rest = f", and {worth(total - auto)} for what you write, marked by a person" if total > auto else ""
    return Note(f"Coursework: notebook {notebook}, {worth(total)}",
                f"{worth(auto)} for {len(known)} exercises, checked by machine{rest}. Run the check under each exercise as often as you like; hints cost nothing. "
                "What counts are fresh inputs that you have not seen. Solutions stay closed.")


def _is_course():
    return bool(_course) or os.environ.get("MINICLIP_COURSE", "") not in ("", "0")


def progress(notebook=None):
    """Which exercises, of one notebook ("01") or of all, have passed since the notebook was started, with the points."""
    known = exercises(notebook)
    marks = {True: "passed", False: "not yet", None: "not attempted"}
    lines = [f"{marks[_state.get(key)]:<14}{key:<30}{worth(item.points)}, {item.level}: {item.title}" for key, item in known.items()]
    won = sum(item.points for key, item in known.items() if _state.get(key))
    return Note(f"{won} of {sum(item.points for item in known.values())} points in this session", "", "\n".join(lines))
