"""A whole course built and three submissions graded: all right, all wrong, half with every fault. Where the time goes.

    pytest tests/benchmarks/bench_coursework.py -s

The asked limit is 5 minutes on two quiet cores, build included. COURSEWORK_JOBS sets how many submissions run at once.
"""

import collections
import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from coursework_submissions import FILE_FAULTS, HARMLESS, right, with_faults, wrong

from miniclip_helpers.coursework import course, grading, scores
from miniclip_helpers.coursework.gradebook import Gradebook


def timed(seconds, kind, name, key):
    """Add what a method takes to `seconds[key]`."""
    plain = getattr(kind, name)

    def measured(*arguments, **options):
        start = time.perf_counter()
        try:
            return plain(*arguments, **options)
        finally:
            seconds[key] += time.perf_counter() - start

    return measured


def most_memory(stop, found):
    """Until `stop`: the most memory (MB) that this process and its descendants hold together, shared pages counted once. Linux."""
    while not stop.wait(0.5):
        held = 0
        for one in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                held += one.memory_full_info().pss / 2**20
            except psutil.Error:
                continue
        found[0] = max(found[0], held)


def test_build_and_grade_three_submissions(tmp_path, monkeypatch):
    seconds, quiet = collections.Counter(), {"say": lambda *_: None}
    monkeypatch.setattr(Gradebook, "grade", timed(seconds, Gradebook, "grade", "of it nbgrader's gradebook"))
    monkeypatch.setattr(Gradebook, "feedback", timed(seconds, Gradebook, "feedback", "of it feedback pages"))
    monkeypatch.setattr(grading._Task, "collect", timed(seconds, grading._Task, "collect", "of it collect and repair"))
    monkeypatch.setattr(scores, "write", timed(seconds, scores, "write", "of it tables"))
    start = time.perf_counter()
    course.build(tmp_path / "course", **quiet)
    seconds["build"] = time.perf_counter() - start
    told = {name: write(tmp_path / "course", tmp_path / "handed in" / name) for name, write in (("right", right), ("wrong", wrong), ("faults", with_faults))}
    stop, memory = threading.Event(), [0.0]
    threading.Thread(target=most_memory, args=(stop, memory), daemon=True).start()
    start = time.perf_counter()
    jobs = int(os.environ.get("COURSEWORK_JOBS", 2))
    found = grading.grade(tmp_path / "handed in", tmp_path / "out", tmp_path / "course", jobs=jobs, **quiet)
    seconds["grade"] = time.perf_counter() - start
    stop.set()
    start = time.perf_counter()
    grading.grade(tmp_path / "handed in", tmp_path / "out", tmp_path / "course", jobs=jobs, **quiet)
    seconds["grade again, nothing changed"] = time.perf_counter() - start
    _print(found, seconds, tmp_path / "out")
    print(f"at most {memory[0]:.0f} MB, {jobs} at once")
    auto = {name: sum(row["auto_points"] for row in found["rows"] if row["student"] == name) for name in told}
    most = sum(row["auto_max"] for row in found["rows"] if row["student"] == "right")
    assert auto["right"] == most and auto["wrong"] == 0
    states = {row["exercise"]: row["state"] for row in found["exercises"] if row["student"] == "faults"}
    assert {name for name, state in states.items() if state == "passed"} == {name for name, fault in told["faults"].items() if fault in HARMLESS}
    lines = " ".join(fault["fault"] for fault in found["faults"] if fault["student"] == "faults")
    dotted = lines.replace("-", ".")
    silent = [name for name, fault in told["faults"].items() if fault not in {None, *FILE_FAULTS.values()} and name not in dotted]
    assert not silent, f"no line on {silent}"


def _print(found, seconds, out):
    print(f"\n{'':<32} seconds")
    for key in ("build", "grade", "of it collect and repair", "of it nbgrader's gradebook", "of it feedback pages", "of it tables", "grade again, nothing changed"):
        print(f"{key:<32} {seconds[key]:7.1f}")
    print(f"{'build and grade':<32} {seconds['build'] + seconds['grade']:7.1f}   (asked: at most 300)\n")
    roles = collections.defaultdict(lambda: [0, 0.0, 0.0])
    for record in (json.loads(file.read_text(encoding="utf8")) for file in (out / grading.RECORDS).glob("*/*.json")):
        for result in record["results"].values():
            row = roles[f"{record['student']}, {result['role']}"]
            row[0], row[1], row[2] = row[0] + 1, row[1] + result["seconds"], max(row[2], result["seconds"])
    print(f"{'cells run':<32} {'cells':>7} {'seconds':>8} {'longest':>8}")
    for name, (count, total, longest) in sorted(roles.items()):
        print(f"{name:<32} {count:>7} {total:>8.1f} {longest:>8.1f}")
    print(scores.summary(found, out))
