"""The commands of a course: coursework build, coursework grade, coursework report."""

import pathlib

from .common import add_json, command, write_json


def add_coursework(commands):
    """The commands of a course: coursework build, coursework grade, coursework report."""
    group = commands.add_parser("coursework", help="make a course out of the series, grade what comes back",
                                description="Make an nbgrader course out of the series, grade what comes back, report what the checks accept and reject.")
    parts = group.add_subparsers(dest="part", metavar="PART", required=True)
    _add_build(parts)
    _add_grade(parts)
    report = command(parts, "report", report_bank, "run the bank of right and wrong answers through every check, and print the table",
        ["miniclip coursework report",
         "miniclip coursework report --json bank.json"])
    report.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON in place of the table, on the screen or into FILE")


def _add_notebooks(parser):
    parser.add_argument("--notebooks", default="", metavar="LIST", help="only these, like 01,04; all by default")


def _add_build(parts):
    build = command(parts, "build", build_course, "make an nbgrader course: source with solutions and hidden tests, release for students",
        ["miniclip coursework build --out course",
         "miniclip coursework build --out course --notebooks 01,04",
         "miniclip coursework build --out course --seed 20261121"],
        lambda args: f"what stands in '{args.out}' is whole; the same command goes on")
    build.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR", help="a new folder, or a course to update")
    _add_notebooks(build)
    build.add_argument("--seed", type=int, metavar="N", help="fixes the inputs of the hidden tests (default: the course's, 0 for a new one); take your own, and keep it secret")


def _add_grade(parts):
    grade = command(parts, "grade", grade_submissions, "grade submissions: each student's code in a process of its own, without a network",
        ["miniclip coursework grade course/submitted --out course",
         "miniclip coursework grade homework --out graded --course course --notebooks 01 --jobs 2"],
        lambda args: f"what is graded is kept in '{args.out}'; the same command goes on")
    grade.add_argument("submissions", type=pathlib.Path, metavar="SUBMISSIONS", help="STUDENT/NOTEBOOK.ipynb, or STUDENT/NOTEBOOK/NOTEBOOK.ipynb as nbgrader collects them")
    grade.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR",
                       help="the course itself, or another folder: scores, feedback and grades go here; a second run goes on from it")
    grade.add_argument("--course", type=pathlib.Path, metavar="DIR", help="the course that was given out (default: DIR of --out, or the folder around SUBMISSIONS)")
    _add_notebooks(grade)
    grade.add_argument("--jobs", type=int, metavar="N", help="notebooks at once (default: one for each processor)")
    grade.add_argument("--seconds", type=float, metavar="S", help="computing time of one cell (default 30)")
    grade.add_argument("--memory-mb", type=int, metavar="M", help="memory of one notebook, beyond what its kernel starts with (default 2000)")
    add_json(grade)


def _names(args):
    return args.notebooks.replace(",", " ").split()


def build_course(args):
    from .. import coursework

    coursework.build(args.out, _names(args), args.seed)


def grade_submissions(args):
    from .. import coursework

    limits = {name: getattr(args, name) for name in ("jobs", "seconds", "memory_mb") if getattr(args, name) is not None}
    found = coursework.grade(args.submissions, args.out, course=args.course, notebooks=_names(args), **limits)
    write_json(args.json, found)
    return 1 if found["ungraded"] else 0


def report_bank(args):
    from .. import coursework

    return 0 if coursework.report(as_json=args.json)["ok"] else 1
