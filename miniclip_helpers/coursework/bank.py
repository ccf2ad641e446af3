"""The bank of answers of tests/exercises, run for real: what each check accepts, what it rejects, and with which hint."""

import importlib.util
import json
import sys
import time
import warnings

from .. import checks, runtime
from ..errors import MiniclipError
from .written import questions

SEEDS = range(5)  # the random inputs under which every answer is tried


def load_bank():
    """{exercise id: {"right": [functions], "wrong": [(words of the hint, function)]}}, from tests/exercises of the checkout.

    Right answers come beside the reference, which is not among them. Raises `MiniclipError` where there is no checkout, or no pytest.
    """
    folder = runtime.CHECKOUT / "tests" / "exercises"
    if not folder.is_dir():
        raise MiniclipError("the answers that the checks are tried on lie in tests/exercises of a checkout, which an installed package does not have; "
                            "clone the repository, and run `uv run miniclip coursework report` there")
    bank = {}
    sys.path.insert(0, str(folder))  # each file takes its helper from beside itself
    try:
        for file in sorted(folder.glob("test_nb[0-9][0-9].py")):
            spec = importlib.util.spec_from_file_location(f"_bank_{file.stem}", file)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            bank |= module.BANK
    except ModuleNotFoundError as error:
        raise MiniclipError(f"the bank of answers needs {error.name}, which is not installed; run `uv sync`") from None
    finally:
        sys.path.remove(str(folder))
    return bank


def stub(*inputs):
    """An exercise that nobody has begun."""
    raise NotImplementedError("your turn")


def verdicts(exercise_id, answer):
    """The `Verdict` on an answer under each of SEEDS. This session's progress does not change."""
    found = checks.exercise(exercise_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wrong answers divide by zero
        return [checks.core.grade(found, answer, seed) for seed in SEEDS]


def fault(exercise_id, answer, words):
    """What is wrong with the check's verdicts on one answer, as one line; None if nothing is.

    words: None for a right answer, "stub" for the empty exercise; else those that stand in the hint, or a tuple of which one stands there.
    """
    for seed, verdict in zip(SEEDS, verdicts(exercise_id, answer), strict=True):
        if words is None:
            fine = verdict.passed
        elif words == "stub":
            fine = not verdict.passed and not verdict.attempted
        else:
            known = (words,) if isinstance(words, str) else words
            fine = not verdict.passed and verdict.attempted and any(word in verdict.message for word in known)
        if not fine:
            return f"{exercise_id}, seed {seed}, expected {'passed' if words is None else repr(words)}: {verdict.state}. {verdict.message}"
    return None


def report(as_json=False, say=print):
    """Try the whole bank and say what came out, a table with a line per exercise; returns it as a dict whose "ok" is False if anything failed.

    as_json: True or "-" says JSON in place of the table; a path writes JSON there and says the table. It takes half a minute.
    """
    start, bank = time.perf_counter(), load_bank()
    known = checks.exercises()
    rows, faults = [], [f"{name}: {'an exercise without' if name in known else 'no exercise, and yet'} answers in the bank" for name in sorted(bank.keys() ^ known.keys())]
    for item in known.values():
        row, told = _row(item, bank.get(item.id, {"right": [], "wrong": []}))
        rows.append(row)
        faults += told
    asked = [{"id": found.id, "title": found.title, "points": found.points, "minutes": found.minutes} for found in questions().values()]
    found = {"exercises": rows, "written": asked, "totals": _totals(rows, asked), "seeds": len(SEEDS), "faults": faults, "ok": not faults,
             "seconds": round(time.perf_counter() - start, 1)}
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    if as_json and as_json not in (True, "-"):
        with runtime.writing(as_json) as path:
            path.write_text(text, encoding="utf8")
    say(text.rstrip() if as_json in (True, "-") else _table(found))
    return found


def _row(item, answers):
    """What the bank says about one exercise, and its faults."""
    right = [fault(item.id, answer, None) for answer in (item.reference, *answers["right"])]
    wrong = [fault(item.id, answer, words) for words, answer in answers["wrong"]]
    empty = fault(item.id, stub, "stub")
    row = {"id": item.id, "title": item.title, "points": item.points, "minutes": item.minutes, "level": item.level,
           "right_accepted": right.count(None), "right": len(right), "wrong_rejected": wrong.count(None), "wrong": len(wrong),
           "hints": len({words for words, _ in answers["wrong"]}), "stub": "taken for an answer" if empty else "not attempted"}
    return row, [said for said in (*right, *wrong, empty) if said]


def _totals(rows, asked):
    keys = ("points", "minutes", "right_accepted", "right", "wrong_rejected", "wrong", "hints")
    return {"exercises": len(rows), **{key: sum(row[key] for row in rows) for key in keys},
            "written": len(asked), "written_points": sum(row["points"] for row in asked), "written_minutes": sum(row["minutes"] for row in asked)}


def _table(found):
    """The report as lines of text."""
    lines = [f"{'exercise':<25}{'points':>7}{'min':>5}  {'level':<9}{'right':>8}{'wrong':>9}{'hints':>7}  {'stub':<15}title"]
    for row in found["exercises"]:
        right, wrong = f"{row['right_accepted']}/{row['right']}", f"{row['wrong_rejected']}/{row['wrong']}"
        lines.append(f"{row['id']:<25}{row['points']:>7}{row['minutes']:>5}  {row['level']:<9}{right:>8}{wrong:>9}{row['hints']:>7}  {row['stub']:<15}{row['title']}")
    lines += ["", f"{'written question':<25}{'points':>7}{'min':>5}  title"]
    lines += [f"{row['id']:<25}{row['points']:>7}{row['minutes']:>5}  {row['title']}" for row in found["written"]]
    t = found["totals"]
    lines += ["", f"{t['exercises']} exercises, {t['points']} points, {t['minutes']} minutes; {t['right_accepted']} of {t['right']} right answers accepted, "
              f"{t['wrong_rejected']} of {t['wrong']} wrong ones rejected with their own hint ({t['hints']} hints), under {found['seeds']} seeds each",
              f"{t['written']} written questions, {t['written_points']} points, {t['written_minutes']} minutes; {found['seconds']} s"]
    return "\n".join(lines + [f"FAULT  {said}" for said in found["faults"]])
