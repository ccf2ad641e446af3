"""The questions that a person marks, out of questions.yaml: text, rubric, a good answer. They stand in no notebook; `build` puts them into a course."""

import dataclasses
import pathlib

import yaml

from ..errors import unknown


@dataclasses.dataclass(frozen=True)
class Question:
    """One question for manual grading.

    id: the notebook's number, then `.w_` and a name. after: the cell of that notebook behind which it is asked; all that is needed stands above it.
    rubric: pairs (points, what earns them), which add up to `points`. answer: what a good student writes.
    """

    id: str
    title: str
    points: int
    minutes: int
    after: str
    text: str
    rubric: tuple
    answer: str

    def __post_init__(self):
        if sum(points for points, _ in self.rubric) != self.points or any(points < 1 for points, _ in self.rubric):
            raise ValueError(f"question {self.id}: the rubric must add up to {self.points} points, in whole points of at least one")


def questions(notebook=None):
    """Every `Question` by its id, in order; of one notebook ("01") or of all. An unknown notebook is a `UsageError`."""
    known = {question.id[:2] for question in QUESTIONS}
    if notebook is not None and str(notebook) not in known:
        raise unknown("notebook with written questions", notebook, sorted(known))
    return {question.id: question for question in QUESTIONS if notebook in (None, question.id[:2])}


def _read():
    rows = yaml.safe_load((pathlib.Path(__file__).parent / "questions.yaml").read_text(encoding="utf8"))
    return tuple(Question(**row | {"text": row["text"].strip(), "answer": row["answer"].strip(), "rubric": tuple(map(tuple, row["rubric"]))}) for row in rows)


QUESTIONS = _read()
