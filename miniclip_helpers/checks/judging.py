"""Verdicts for coursework: the checks, loaded afresh from their files, and believed only after they have been tried on answers that are known.

A hidden test loads this file on its own, under a name of its own. Hence nothing is imported from the package: what a student changed in the
modules that his notebook has imported (`checks.check`, `Verdict`, a grader) is not what judges here.
"""

import contextlib
import functools
import importlib.machinery
import importlib.util
import inspect
import itertools
import pathlib
import sys
import types

_FOLDER = pathlib.Path(__file__).resolve().parent
_numbers = itertools.count()

LIBRARIES = ("builtins", "math", "copy", "numpy", "numpy.linalg", "numpy.random", "torch", "torch:Tensor", "torch.linalg", "torch.nn", "torch.nn.functional")

CHANGED = "the checker itself was changed: {}. Something in this notebook alters the checks, NumPy or torch. Restart, and run without that cell."


def assess(exercise_id, answer, seeds):
    """Return when `answer` passes the check of `exercise_id` under every seed; else raise AssertionError with what the check says.

    Before the first seed and after each, the check must accept its own reference and refuse answers that are plainly wrong, and no function
    of NumPy or torch may be the notebook's own. Else, after `np.allclose` was replaced for instance, AssertionError says that the checker
    itself was changed. An answer that calls the package's own solution is told so. seeds: at least one whole number.
    """
    seeds = [int(seed) for seed in seeds]
    if not seeds:
        raise ValueError("expected at least one seed, found none")
    core, exercise = _load(exercise_id)
    _prove(core, exercise, seeds[0])
    for seed in seeds:
        with _solution_closed(exercise):
            verdict = core.grade(exercise, answer, seed)
        _prove(core, exercise, seed)
        if verdict.passed is not True:
            raise AssertionError(verdict.message)


def _load(exercise_id):
    """The fresh `core` and the fresh `Exercise`, from the files beside this one, in a package of their own that leaves no trace."""
    package = f"_judged_{next(_numbers)}"
    parent = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(package, None, is_package=True))
    parent.__path__ = [str(_FOLDER)]
    sys.modules[package] = parent
    try:
        core, exercises = (_module(f"{package}.{name}") for name in ("core", f"nb{exercise_id[:2]}"))
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]
    return core, next(item for item in exercises.EXERCISES if item.id == exercise_id)


def _module(name):
    spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name.partition('.')[2]}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _solution_closed(exercise):
    """While an answer is judged, the solution in the package that everybody can import raises. Whoever copies its text is not stopped by this."""
    public = sys.modules.get(f"miniclip_helpers.checks.nb{exercise.id[:2]}")
    solution = inspect.unwrap(getattr(public, exercise.reference.__name__, _stub))
    if type(solution) is not types.FunctionType or solution.__closure__:  # not the package's any more
        solution = _stub
    code, solution.__code__ = solution.__code__, _closed.__code__
    try:
        yield
    finally:
        solution.__code__ = code


def _closed(*inputs, **named):
    raise AssertionError("this calls the solution that is in the package; write your own")


def _prove(core, exercise, seed):
    """Raise AssertionError unless the check does what it must on answers whose verdict is known."""
    for name in _replaced():
        raise AssertionError(CHANGED.format(f"{name} is one of this notebook's own"))
    if not core.grade(exercise, exercise.reference, seed).passed:
        raise AssertionError(CHANGED.format("it refuses the right answer"))
    for answer in _canaries(exercise.reference):
        if core.grade(exercise, answer, seed).passed:
            raise AssertionError(CHANGED.format("it accepts a wrong answer"))
    if core.grade(exercise, _stub, seed).attempted:
        raise AssertionError(CHANGED.format("it takes the empty exercise for an answer"))


def _stub(*inputs):
    raise NotImplementedError("your turn")


def _canaries(reference):
    """Answers that no check may accept: the input given back, a zero, and the right answer with one part of it moved, its first, its last, or all."""
    yield lambda *inputs: inputs[0]
    yield lambda *inputs: 0.0
    for which in (0, -1, None):
        yield lambda *inputs, which=which: _moved(reference(*inputs), which)


def _moved(value, which=None):
    """The same shape, other numbers, in the part of number `which` or in all; texts and truths change, too. What always says "equal" is caught by it."""
    count = sum(1 for _ in _parts(value))
    places = set(range(count)) if which is None else {which % count} if count else set()
    number = itertools.count()

    def change(value):
        if isinstance(value, dict):
            return {key: change(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set)):
            return type(value)([change(item) for item in value])
        return _other(value) if next(number) in places else value

    return change(value)


def _parts(value):
    """What is no container, in order."""
    if isinstance(value, (list, tuple, set, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _parts(item)
    else:
        yield value


def _other(value):
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, str):
        return value + "?"
    if str(getattr(value, "dtype", "")).endswith("bool"):
        return ~value
    if callable(getattr(value, "parameters", None)):  # a network: the gradients that it was given
        for weight in value.parameters():
            weight.grad = None if weight.grad is None else weight.grad * 3 + 7
        return value
    try:
        return value * 3 + 7
    except TypeError:
        return "something else"


def _replaced():
    """The names of functions in Python, NumPy and torch in whose place stands one that was written in the notebook."""
    for place in LIBRARIES:
        module, _, inner = place.partition(":")
        found = sys.modules.get(module)
        for name, thing in list(vars(getattr(found, inner) if inner else found).items()) if found else ():
            if written_here(thing):
                yield f"{place.replace(':', '.')}.{name}"


def written_here(thing):
    """Whether a function, a class, or an object that is called like one, comes from the notebook itself."""
    if type(thing) is functools.partial:
        thing = thing.func
    if type(thing) is types.MethodType:
        thing = thing.__func__
    if type(thing) is types.FunctionType:
        return thing.__globals__ is vars(sys.modules["__main__"])
    return "__main__" in (type(thing).__module__, thing.__module__ if isinstance(thing, type) else "")
