"""Coursework: an nbgrader course out of the series, submissions graded one process each, and the bank of answers reported."""

__all__ = ["build", "grade", "report"]


def build(out, notebooks=(), seed=None, say=print):
    """Make an nbgrader course in the folder `out`; see `coursework.course.build`."""
    from . import course

    return course.build(out, notebooks, seed, say)


def grade(submissions, out, course=None, notebooks=(), **limits):
    """Grade a folder of submissions; see `coursework.grading.grade`, which has the limits."""
    from . import grading

    return grading.grade(submissions, out, course, notebooks, **limits)


def report(as_json=False, say=print):
    """Run the bank of answers and tell what was accepted and rejected; see `coursework.bank.report`."""
    from . import bank

    return bank.report(as_json, say)
