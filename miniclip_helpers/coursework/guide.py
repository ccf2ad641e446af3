"""The texts of a course for its instructor: nbgrader's settings, the guide, the rubrics."""

from .. import checks
from .anatomy import STUB
from .source import points_of, questions_of, rubric

ANSWER = "Write your answer here."
COURSE = {"course_id": "miniclip"}
CLEARED = {"code_stub": {"python": STUB}, "text_stub": ANSWER}

CONFIG = f'''"""nbgrader's settings for this course. Run nbgrader's commands, and `jupyter lab`, in this folder."""

import os
import pathlib
import tempfile

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = {COURSE["course_id"]!r}
c.ClearSolutions.code_stub = {CLEARED["code_stub"]}
c.ClearSolutions.text_stub = {ANSWER!r}
c.Execute.timeout = 600  # nbgrader's own 30 s is too short for a cell that trains
c.IgnorePattern.enabled = True  # else nbgrader gives 0 points to a right answer that comes with a warning
c.IgnorePattern.pattern = ".*"
os.environ.setdefault("MINICLIP_PROGRESS", "0")
os.environ.setdefault("MINICLIP_FIGURES", str(pathlib.Path(tempfile.gettempdir()) / "miniclip_figures"))
'''


def rubrics(stems):
    """rubrics.md: each written question of these notebooks with its rubric and a good answer."""
    parts = ["# Rubrics", "For whoever marks; not for students. Each criterion is met or not; an answer in other words counts as much."]
    for stem in stems:
        for question in questions_of(stem):
            parts += [f"## {question.id}: {question.title}", f"Notebook `{stem}`, {checks.worth(question.points)}, {question.minutes} min.",
                      question.text, rubric(question), f"**A good answer**\n\n{question.answer}"]
    if len(parts) == 2:
        parts.append("These notebooks have no written questions.")
    return "\n\n".join(parts) + "\n"


def readme(stems):
    """README.md of a course: what is there, and what to do next."""
    rows = [(stem, len(checks.exercises(stem[:2])), len(questions_of(stem)), *points_of(stem)) for stem in stems]
    table = "\n".join(f"| `{stem}` | {exercises} | {auto} | {questions} | {by_hand} |" for stem, exercises, questions, auto, by_hand in rows)
    exercises, questions, auto, by_hand = (sum(column) for column in list(zip(*rows))[1:])
    return README.format(table=table, exercises=exercises, questions=questions, auto=auto, by_hand=by_hand, first=stems[0])


README = """# A MiniCLIP course

Made by `miniclip coursework build`. One nbgrader assignment for each notebook.

| assignment | exercises | points by machine | questions | points by hand |
|---|---|---|---|---|
{table}
| all | {exercises} | {auto} | {questions} | {by_hand} |

## What is here
| | for | holds |
|---|---|---|
| `release/` | students | the notebooks with empty exercises |
| `source/` | you | the same with solutions, hidden tests, good answers |
| `rubrics.md` | who marks | each written question with its rubric and a good answer |
| `gradebook.db` | nbgrader | assignments and points; later the grades |
| `nbgrader_config.py` | nbgrader | the settings; run its commands in this folder |
| `course.json` | `miniclip` | what was built, so that a later build knows what you changed |

Give out `release/` alone. Everything else tells the answers.

## What to do next
1. **Look.** Open `release/{first}/{first}.ipynb` and run it: it runs to its end with its exercises empty. Students need the package
   `miniclip_helpers` of this version, and no nbgrader.
2. **Give out** the folders in `release/`: as files, or by nbgrader's exchange (`nbgrader release_assignment {first}`).
3. **Collect** one folder for each student: `submitted/STUDENT/{first}/{first}.ipynb`. `nbgrader collect {first}` makes them so from the
   exchange; from elsewhere copy the files to `submitted/STUDENT/`, whatever they are called.
4. **Grade**, in this folder:
   ```
   miniclip coursework grade submitted --out .
   ```
   Each notebook runs in a process of its own, with limits on time and memory and without a network. `scores.csv` has the points,
   `exercises.csv` each exercise, `feedback/` a page for each student and notebook; `submitted/` stays as it is. What is graded and unchanged
   is not run again.
   nbgrader's own `nbgrader autograde {first}` gives the same points. But it runs whole notebooks, minutes each, with your rights and your
   network: use it only for code that you trust.
5. **Mark the written answers** by `rubrics.md`, in nbgrader's formgrader: `jupyter lab` in this folder, menu Nbgrader, Formgrader. Then grade
   again: your marks stay, and stand in the scores and in the feedback. (nbgrader may complain of an exchange that it cannot write to; without
   one you need none.)
6. **Hand back** `feedback/STUDENT/`, or `nbgrader release_feedback {first}` where you use the exchange.

## To know
- Hidden tests are the checks that students run, on inputs they have not seen: who passes in the notebook passes here, unless the answer only
  fits what was seen. Points are all or nothing.
- The series and its solutions are public. In a release `checks.solution` is closed, which stops nobody who looks for them elsewhere. Ask
  students to explain an answer, and let the written questions count.
- Points say how much work there is, not what your course values: the final project of notebook 11 has 100. Weigh the columns of `scores.csv` as
  you see fit.
- Build again into this folder, `miniclip coursework build --out . --notebooks 04`, to add notebooks or to renew those that nobody has handed in.
  Grades and sources that you edited are never overwritten: you are told instead. After editing a source, `nbgrader generate_assignment NAME --force`
  makes its release.
"""
