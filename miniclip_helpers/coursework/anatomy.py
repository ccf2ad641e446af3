"""The anatomy of a notebook: which cell is an exercise, which is its check, what nbgrader calls them, and how a solved one reads."""

import ast
import collections
import dataclasses
import inspect
import re
import sys
import textwrap

from .. import checks
from ..errors import DataError

STUB = 'raise NotImplementedError("your turn")'
BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
_CHECK = re.compile(r"""checks\.check\(\s*["']([^"']+)["']\s*,\s*(\w+)\s*\)""")


@dataclasses.dataclass(frozen=True)
class Graded:
    """An exercise as it stands in a notebook: its id, the name of the learner's function, the cell of the function and the cell of the check."""

    exercise_id: str
    function: str
    exercise: object
    check: object


def grade_id(exercise_id):
    """What nbgrader calls the cell where "01.clip_loss" is answered: "01-clip_loss". A question's id works alike."""
    return exercise_id.replace(".", "-")


def check_id(exercise_id):
    """What nbgrader calls the check cell of "01.clip_loss": "01-clip_loss-test"."""
    return grade_id(exercise_id) + "-test"


def question_id(written_id):
    """What nbgrader calls the text of the question "01.w_log_n": "01-w_log_n-question"."""
    return grade_id(written_id) + "-question"


def exercises_in(notebook):
    """A `Graded` for each exercise of a notebook (nbformat's node), in order: plain, of a course's source, or of its release.

    A check without the cell that defines its function above it, or an exercise that is checked twice, is a `DataError` that lists them all.
    """
    found, problems = [], []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for place, cell in enumerate(code):
        checked = _CHECK.match(cell.source)
        if not checked:
            continue
        exercise_id, function = checked.groups()
        above = [other for other in code[:place] if re.search(rf"^def {function}\(", other.source, re.MULTILINE)]
        if not above:
            problems.append(f"{exercise_id}: no cell above its check defines {function}")
        else:
            found.append(Graded(exercise_id, function, above[-1], cell))
    times = collections.Counter(graded.exercise_id for graded in found)
    problems += [f"{exercise_id}: checked {count} times" for exercise_id, count in times.items() if count > 1]
    if problems:
        raise DataError("the exercises of this notebook are not as expected: one function each, and its check below it", problems)
    return found


def reference_cell(graded, above=()):
    """The exercise cell with the reference's body in a solution region where the stub says "your turn".

    above: the code cells above it; what they import is not imported again. A stub that is not the last line is a `DataError`.
    """
    head, stub, tail = graded.exercise.source.rpartition(STUB)
    indent = head.rpartition("\n")[2]
    if not stub or tail.strip() or not indent or indent.strip():
        raise DataError(f"{graded.exercise_id}: expected a cell that ends with {STUB}, indented")
    reference = checks.exercise(graded.exercise_id).reference
    body = [*missing_imports(reference, above), *_body(reference)]
    return head.removesuffix(indent) + textwrap.indent("\n".join([BEGIN_SOLUTION, *body, END_SOLUTION]), indent) + tail


def missing_imports(reference, above=()):
    """The import statements, of the file where the reference stands, that its body needs and that the cells above do not have."""
    known = {name: statement for cell in above for name, statement in _imports(cell.source).items()}
    offered = _imports(inspect.getsource(sys.modules[reference.__module__]))
    used = {node.id for node in ast.walk(_tree(reference)) if isinstance(node, ast.Name)}
    return [statement for name, statement in offered.items() if name in used and known.get(name) != statement]


def _tree(function):
    return ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]


def _body(function):
    """The lines of a function below its head and its docstring, without their indent."""
    tree = _tree(function)
    first = tree.body[ast.get_docstring(tree) is not None]
    lines = textwrap.dedent(inspect.getsource(function)).rstrip().splitlines()
    return textwrap.dedent("\n".join(lines[first.lineno - 1 :])).splitlines()


def _imports(source):
    """{name: the statement that binds it} of the absolute imports at the top of some code; nothing where it is no plain Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return {}
    bound = {}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0):
            for alias in node.names:
                single = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], 0)
                bound[alias.asname or alias.name.partition(".")[0]] = ast.unparse(single)
    return bound
