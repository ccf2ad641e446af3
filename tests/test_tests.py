"""Tests that cannot fail, searched for by reading them. ruff's rules (pyproject.toml) find others: comparisons with itself, `raises` too broad or with several statements."""

import ast
import importlib
import io
import sys

import pytest
from conftest import ROOT

LISTS = ("glob", "rglob", "iterdir", "listdir", "findall", "finditer", "splitlines", "walk")  # what may give nothing
METHODS = ("all", "any", "exists", "is_dir", "is_file", "is_set", "startswith", "endswith", "equal", "allclose")  # true where they are not called


def called(node):
    """The last name of what a call calls: `raises` of `pytest.raises(...)`."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def judges(node):
    """Whether this can end a test: an assertion, or a call that makes one."""
    return isinstance(node, ast.Assert | ast.Raise) or isinstance(node, ast.Call) and (called(node) in ("raises", "warns", "fail") or called(node).startswith("assert_"))


def judging(trees):
    """The names of all functions that can end a test, by themselves or by what they call."""
    bodies = {}
    for tree in trees:
        for function in functions(tree):
            bodies.setdefault(function.name, []).extend(ast.walk(function))
    found = {name for name, nodes in bodies.items() if any(judges(node) for node in nodes)}
    while more := {name for name, nodes in bodies.items() if name not in found and any(isinstance(node, ast.Call) and called(node) in found for node in nodes)}:
        found |= more
    return found


def always_true(node):
    """Whether a condition holds whatever the code does."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        return any(always_true(value) for value in node.values)
    if isinstance(node, ast.BoolOp):
        return any(always_true(value) and not isinstance(value, ast.Name) for value in node.values)
    if isinstance(node, ast.Constant):
        return bool(node.value)
    return isinstance(node, ast.Lambda | ast.GeneratorExp | ast.JoinedStr) or isinstance(node, ast.Tuple) and bool(node.elts) \
        or isinstance(node, ast.Attribute) and node.attr in METHODS


def may_be_empty(iterable):
    return any(isinstance(node, ast.Call) and called(node) in LISTS for node in ast.walk(iterable))


def faults(tree, judging_names):
    """What is wrong with the tests of a file: (line, what)."""
    found = [(node.lineno, "an assertion that always holds") for node in ast.walk(tree) if isinstance(node, ast.Assert) and always_true(node.test)]
    for test in functions(tree):
        if not test.name.startswith("test"):
            continue
        nodes = list(ast.walk(test))
        if not any(judges(node) or isinstance(node, ast.Call) and called(node) in judging_names for node in nodes):
            found.append((test.lineno, f"{test.name} asserts nothing"))
        swallowed = [node for node in nodes if isinstance(node, ast.Try) and any(isinstance(inner, ast.Assert) for part in node.body for inner in ast.walk(part))
                     and any(called_name in ("AssertionError", "Exception", "BaseException", "") for handler in node.handlers for called_name in caught(handler) if not uses(handler))]
        found += [(node.lineno, f"{test.name} catches its own assertion") for node in swallowed]
        in_loops = {id(inner) for node in nodes if isinstance(node, ast.For) and may_be_empty(node.iter) for inner in ast.walk(node)}
        if in_loops and all(id(node) in in_loops for node in nodes if judges(node)):
            found.append((test.lineno, f"{test.name} asserts only in a loop over a list that may be empty"))
    return found


def uses(handler):
    """Whether an `except` does something with the error it took, as a thread does that hands it on."""
    return handler.name is not None and any(isinstance(node, ast.Name) and node.id == handler.name for part in handler.body for node in ast.walk(part))


def caught(handler):
    """The names of the errors that an `except` takes; "" for all."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return [getattr(kind, "id", getattr(kind, "attr", "")) for kind in kinds]


def test_every_test_can_fail():
    files = [file for file in sorted((ROOT / "tests").rglob("*.py")) if "benchmarks" not in file.parts and "__pycache__" not in file.parts]
    trees = {file: ast.parse(file.read_text(encoding="utf8")) for file in files}
    names = judging(trees.values())
    found = [f"{file.relative_to(ROOT)}:{line}: {what}" for file, tree in trees.items() if file.name.startswith("test_") for line, what in faults(tree, names)]
    assert len(files) > 80 and "check_verdict" in names
    assert not found, "\n".join(found)


@pytest.mark.parametrize("body", [
    "value = compute()", "print(compute())", "assert compute() or True", "assert (compute() == 2, 'two')", "assert 'text'", "assert (x for x in compute())", "assert path.exists",
    "assert 1 and f'{compute()}'", "for file in folder.glob('*.py'):\n        assert file.read_text()", "for line in compute().splitlines():\n        with pytest.raises(KeyError):\n            line()",
    "try:\n        assert compute() == 2\n    except Exception:\n        pass", "try:\n        assert compute()\n    except:\n        pass", "assert lambda: compute()",
])
def test_the_search_finds_what_cannot_fail(body):
    assert faults(ast.parse(f"def test_it():\n    {body}\n"), {"check"})


@pytest.mark.parametrize("body", [
    "assert compute() == 2", "check(compute())", "np.testing.assert_allclose(compute(), 2)", "with pytest.raises(KeyError):\n        compute()", "assert path.exists()",
    "files = folder.glob('*.py')\n    assert files\n    for file in folder.glob('*.py'):\n        assert file.read_text()", "for number in range(3):\n        assert compute() == number",
    "found = []\n    try:\n        assert compute()\n    except Exception as error:\n        found.append(error)\n    assert not found",
    "try:\n        compute()\n    except KeyError as error:\n        assert error", "assert compute() or other()",
])
def test_the_search_leaves_others_alone(body):
    assert not faults(ast.parse(f"def test_it():\n    {body}\n"), {"check"})


def test_a_helper_s_helper_may_assert():
    tree = ast.parse("def inner(x):\n    assert x\ndef outer(x):\n    inner(x)\ndef idle(x):\n    return x\n")
    assert judging([tree]) == {"inner", "outer"}


def test_no_second_io_is_made(monkeypatch):
    """Where another module of that name is asked for, the first one is given, and it is told by whom."""
    ours = sys.modules["_io"]
    monkeypatch.delitem(sys.modules, "_io")
    with pytest.warns(RuntimeWarning, match="_io was not among the modules(?s:.)*test_no_second_io_is_made"):
        assert importlib.import_module("_io") is ours
    with pytest.raises(io.UnsupportedOperation):
        io.BytesIO().fileno()
