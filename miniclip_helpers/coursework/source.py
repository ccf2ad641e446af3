"""The source version of a notebook, as nbgrader takes it: solutions, hidden tests, points, and the questions that a person marks."""

from .. import checks, runtime
from ..errors import DataError
from . import written
from .anatomy import BEGIN_SOLUTION, END_SOLUTION, check_id, exercises_in, grade_id, question_id, reference_cell

SEEDS = 5  # of the hidden test of an exercise

HIDDEN = """### BEGIN HIDDEN TESTS
import importlib.machinery, importlib.util, miniclip_helpers.checks  # the checker itself, read afresh from its file
_spec = importlib.machinery.PathFinder.find_spec("judging", miniclip_helpers.checks.__path__)
_judging = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_judging)
_judging.assess("{id}", {function}, seeds={seeds})
### END HIDDEN TESTS"""


def source_version(notebook, stem, seed=0):
    """The source version of a committed notebook (nbformat's node, left as it is) as a new node, without outputs.

    stem: the notebook's name without its suffix. seed: fixes the hidden inputs. A notebook that lacks an exercise of the package, or that
    is already part of a course, is a `DataError`.
    """
    import copy

    book = copy.deepcopy(notebook)
    _check_fits(book, stem)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    solved = [(graded, reference_cell(graded, code[: code.index(graded.exercise)])) for graded in exercises_in(book)]
    for graded, source in solved:
        _mark_exercise(graded, source, seed)
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    _insert_start(book, stem)
    for question in questions_of(stem):
        _insert_question(book, stem, question)
    return book


def questions_of(stem):
    """The written questions of a notebook, in the order in which they are asked; none is fine."""
    return [question for question in written.questions().values() if question.id[:2] == stem[:2]]


def hidden_seeds(exercise_id, seed):
    """The seeds of the hidden test of an exercise; the same for the same `seed` of the course, and different for each exercise."""
    return [int(runtime.digest("hidden test", seed, exercise_id, number)[:8], 16) for number in range(SEEDS)]


def points_of(stem):
    """(points by machine, points by hand) of a notebook."""
    auto = sum(item.points for item in checks.exercises(stem[:2]).values())
    return auto, sum(question.points for question in questions_of(stem))


def _check_fits(book, stem):
    problems = [f"cell {cell.get('id')} carries nbgrader's marks already" for cell in book.cells if "nbgrader" in cell.metadata]
    here, known = [graded.exercise_id for graded in exercises_in(book)], checks.exercises(stem[:2])
    problems += [f"{name} is in the package and not in the notebook" for name in known if name not in here]
    problems += [f"{name} is in the notebook and not in the package" for name in here if name not in known]
    if problems:
        raise DataError(f"{stem} cannot become coursework as it is; take the notebooks of this version of the package", problems)


def _mark(cell, name, grade=False, solution=False, locked=False, points=None):
    cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": name, "cell_type": cell.cell_type, "task": False,
                                 "grade": grade, "solution": solution, "locked": locked} | ({} if points is None else {"points": points})


def _mark_exercise(graded, source, seed):
    graded.exercise.source = source
    _mark(graded.exercise, grade_id(graded.exercise_id), solution=True)
    test = HIDDEN.format(id=graded.exercise_id, function=graded.function, seeds=hidden_seeds(graded.exercise_id, seed))
    graded.check.source += "\n" + test
    _mark(graded.check, check_id(graded.exercise_id), grade=True, locked=True, points=checks.exercise(graded.exercise_id).points)


def _insert_start(book, stem):
    """Behind the cell that imports `checks`: what the notebook is worth, and solutions closed."""
    import nbformat

    name = f"{stem[:2]}-course"
    start = nbformat.v4.new_code_cell(f'checks.start_course("{stem[:2]}", points={sum(points_of(stem))})', id=name)
    _mark(start, name, locked=True)
    places = [place for place, cell in enumerate(book.cells) if cell.cell_type == "code" and "import checks" in cell.source]
    if not places:
        raise DataError(f"{stem}: expected a cell with `from miniclip_helpers import checks`, found none")
    book.cells.insert(places[0] + 1, start)


def _insert_question(book, stem, question):
    """Behind the cell `question.after`, and behind other questions that stand there: the text, and a cell for the answer."""
    import nbformat

    places = [place for place, cell in enumerate(book.cells) if cell.get("id") == question.after]
    if not places:
        raise DataError(f"question {question.id} belongs behind the cell {question.after!r}, which {stem} does not have")
    asked_already = {name for other in questions_of(stem) for name in (question_id(other.id), grade_id(other.id))}
    place = places[0] + 1
    while place < len(book.cells) and book.cells[place].id in asked_already:
        place += 1
    asked = nbformat.v4.new_markdown_cell(_asked(question), id=question_id(question.id))
    _mark(asked, question_id(question.id), locked=True)
    answer = nbformat.v4.new_markdown_cell(f"{BEGIN_SOLUTION}\n{question.answer}\n\n{rubric(question)}\n{END_SOLUTION}", id=grade_id(question.id))
    _mark(answer, grade_id(question.id), grade=True, solution=True, points=question.points)
    book.cells[place:place] = [asked, answer]


def _asked(question):
    return f"**Question: {question.title}** ({checks.worth(question.points)}, {question.minutes} min; marked by a person)\n\n{question.text}"


def rubric(question):
    """The rubric of a question as Markdown, one line for each criterion."""
    return "\n".join(["**Rubric**", "", *(f"- {checks.worth(points)}: {criterion}" for points, criterion in question.rubric)])
