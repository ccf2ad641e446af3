"""The tables of a grading: scores.csv, exercises.csv, and what is printed."""

import csv
import re

from .. import runtime
from . import limits
from .folders import shown

REFUSED = (limits.NO_NETWORK, limits.NO_PROCESSES, limits.NO_SIGNALS, limits.NO_INPUT, "MemoryError", "RecursionError", "SystemExit", "Permission denied",
           "checker itself was changed", "SyntaxError", "IndentationError", "calls the solution")
COLUMNS = ("student", "notebook", "auto_points", "auto_max", "written_points", "written_max", "written_waiting", "passed", "exercises", "faults")
EXERCISE_COLUMNS = ("student", "notebook", "exercise", "points", "max", "state", "message")


def write(out, records, sources, book):
    """Write both tables into the folder `out`, where rows on other notebooks stay; return {"rows", "exercises", "faults"} of this run, lists of dicts."""
    rows, exercises, faults = [], [], []
    for record in records.values():
        points = book.points(record["student"], record["stem"])[0] if record["graded"] else {}
        own = _exercises(record, sources[record["stem"]], points)
        lines = faults_of(record, own)
        exercises += own
        faults += [{"student": record["student"], "notebook": record["stem"], "fault": line} for line in lines]
        rows.append(_row(record, sources[record["stem"]], points, own, lines))
    for name, columns, table in (("scores.csv", COLUMNS, rows), ("exercises.csv", EXERCISE_COLUMNS, exercises)):
        kept = [row for row in _read(out / name) if row.get("notebook") not in sources]
        table = sorted(kept + [{key: _safe(value) for key, value in row.items()} for row in table], key=lambda row: (row["student"], row["notebook"]))
        with runtime.writing(out / name) as path, open(path, "w", encoding="utf8", errors="replace", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(table)
    return {"rows": rows, "exercises": exercises, "faults": faults}


def _read(file):
    if not file.is_file():
        return []
    with open(file, encoding="utf8", errors="replace", newline="") as table:
        return list(csv.DictReader(table))


def _safe(value):
    """A text that a spreadsheet takes for a formula gets an apostrophe in front; what steers a terminal is gone."""
    if not isinstance(value, str):
        return value
    return ("'" if value.lstrip()[:1] in ("=", "+", "-", "@") else "") + re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", value)


def _graded(source, kind):
    return {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader.points for cell in source.cells
            if cell.cell_type == kind and cell.metadata.get("nbgrader", {}).get("grade")}


def _row(record, source, points, own, lines):
    auto, written = _graded(source, "code"), _graded(source, "markdown")
    won = lambda names: sum(points[name]["points"] for name in names if name in points)  # noqa: E731
    return {"student": record["student"], "notebook": record["stem"], "auto_points": won(auto), "auto_max": sum(auto.values()),
            "written_points": won(written), "written_max": sum(written.values()),
            "written_waiting": sum(points[name]["waiting"] for name in written if name in points),
            "passed": sum(row["state"] == "passed" for row in own), "exercises": len(own), "faults": "; ".join(lines)}


def _exercises(record, source, points):
    """A row for each exercise: its points as the gradebook has them, what became of it, and what its learner reads."""
    rows = []
    for name, most in _graded(source, "code").items():
        state, message = state_of(record, name)
        rows.append({"student": record["student"], "notebook": record["stem"], "exercise": name.removesuffix("-test").replace("-", ".", 1),
                     "points": points.get(name, {}).get("points", 0), "max": most, "state": state, "message": message})
    return rows


def state_of(record, name):
    """(state, message) of the check called `name`: passed, not yet, not attempted, stopped, or missing where nothing was run."""
    step = next((step for step in record.get("steps", []) if step["cell"] == record.get("checks", {}).get(name)), None)
    found = record["results"].get(str(step["cell"])) if step else None
    if not found:
        return "missing", ""
    if found["state"] == "ok":
        return "passed", ""
    answer = record["results"].get(str(step["exercise"]), {})
    if answer.get("state") in ("error", "stopped"):
        return "stopped" if answer["state"] == "stopped" else "not yet", f"the exercise's own cell: {answer['message']}"
    message = found["message"].removeprefix("AssertionError: ")
    if found["state"] == "stopped":
        return "stopped", message
    return "not attempted" if message.startswith("Replace the line with NotImplementedError") else "not yet", message


def faults_of(record, own):
    """One line for everything about a submission that an instructor should know beyond right and wrong."""
    lines = list(record["findings"])
    for row in own:
        if row["state"] == "stopped" or any(word in row["message"] for word in REFUSED):
            lines.append(f"{row['exercise']}: {row['message'].splitlines()[0]}")
    for step in record.get("steps", []):
        found = record["results"].get(str(step["cell"]), {})
        if step["role"] in ("own", "teaching") and (found.get("state") == "stopped" or any(word in found.get("message", "") for word in REFUSED)):
            lines.append(f"{'a cell of their own' if step['role'] == 'own' else 'a cell of the series'} (number {step['cell'] + 1}): {found['message'].splitlines()[0]}")
    return lines


def brief(record):
    """A line on one submission while others are still running."""
    states = [state_of(record, name)[0] for name in record.get("checks", {})]
    return f"{states.count('passed')} of {len(states)} exercises passed"


def summary(found, out):
    """What `grade` prints at its end: a row for each student, then the faults, then where everything lies."""
    lines = ["", f"{'student':<20} {'by machine':>12} {'by hand':>10} {'to mark':>8} {'exercises':>10}"]
    for student in dict.fromkeys(row["student"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["student"] == student]
        add = lambda key, rows=rows: sum(row[key] for row in rows)  # noqa: E731
        lines.append(f"{shown(student):<20} {add('auto_points'):>5g} of {add('auto_max'):<3g} {add('written_points'):>3g} of {add('written_max'):<3g} "
                     f"{add('written_waiting'):>8} {add('passed'):>4} of {add('exercises'):<3}")
    absent = {}
    for fault in found["faults"]:
        if fault["fault"] == "not handed in":
            absent.setdefault(fault["student"], []).append(fault["notebook"])
        else:
            lines.append(f"  {shown(', '.join(filter(None, [fault['student'], fault['notebook']])))}: {shown(fault['fault'])}")
    lines += [f"  {shown(student)}: not handed in: {', '.join(stems)}" for student, stems in absent.items()]
    lines.append(f"\nsandbox: {', '.join(found['walls'])}" if found["walls"] else "\nnothing had to be run")
    if found["walls"] and "seccomp" not in found["walls"]:
        lines.append("  No seccomp here: only Python-level guards kept code from the network and from new processes. Grade strangers' code on Linux.")
    if found["ungraded"]:
        lines.append(f"{found['ungraded']} without a grade or feedback, as told above: mend that and grade again")
    lines.append(shown(f"{out / 'scores.csv'}, {out / 'exercises.csv'}, {out / 'feedback'}; {found['seconds']:.0f} s"))
    return "\n".join(lines)
