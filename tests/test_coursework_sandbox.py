"""The sandbox: one job with a cell for each thing that a learner's code may do, and what became of it. Needs Linux for the walls of the system."""

import asyncio
import json
import pathlib
import shutil
import sys

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from miniclip_helpers.coursework import kernels, limits, running, slices
from miniclip_helpers.coursework.workers import Worker

linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")

# name: (cell, state, what is said). Each runs as a check does; later ones show that the one before stopped nobody else.
CELLS = {
    "plain": ("import os, ctypes, torch\nc = ctypes.CDLL(None, use_errno=True)\nprint(torch.ones(2) @ torch.ones(2))", "ok", ""),
    "thread": ("import threading\nt = threading.Thread(target=print, args=('from a thread',)); t.start(); t.join()", "ok", ""),
    "own file": ("open('mine.txt', 'w').write('x'); assert open('mine.txt').read() == 'x'", "ok", ""),
    "fork": ("os.fork()", "error", limits.NO_PROCESSES),
    "fork below Python": ("assert c.fork() == -1 and c.syscall(57) == -1 and c.syscall(435, None, 0) == -1", "ok", ""),
    "subprocess": ("import subprocess; subprocess.run(['true'])", "error", limits.NO_PROCESSES),
    "shell line": ("!ls", "error", limits.NO_PROCESSES),
    "network": ("import socket; socket.create_connection(('127.0.0.1', 9))", "error", limits.NO_NETWORK),
    "network below Python": ("assert c.socket(2, 1, 0) == -1 and ctypes.get_errno() == 13, 'IPv4'\nassert c.socket(10, 1, 0) == -1, 'IPv6'\nassert c.socket(16, 3, 0) == -1", "ok", ""),
    "kill the grader": ("os.kill(os.getppid(), 0)", "error", limits.NO_SIGNALS),
    "kill below Python": ("assert c.kill(os.getppid(), 0) == -1 and c.kill(-1, 0) == -1", "ok", ""),
    "limit the grader": ("import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))", "error", "PermissionError"),
    "raise a limit": ("import resource; resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))\nassert resource.getrlimit(resource.RLIMIT_DATA)[0] != -1", "error", ""),
    "read the course": ("open({secret!r}).read()", "error", "PermissionError"),
    "write elsewhere": ("open({secret!r} + '.new', 'w')", "error", "PermissionError"),
    "change the checks": ("import miniclip_helpers.checks as m; open(m.__file__, 'a')", "error", "PermissionError"),
    "a huge file": ("f = open('big', 'wb')\nfor _ in range(100): f.write(bytes(2**22))", "error", "File too large"),
    "memory": ("bytearray(2**31)", "error", "MemoryError"),
    "memory bit by bit": ("import time\nheld = []\nfor _ in range(38): held.append(b'x' * 2**24)\ntime.sleep(9)", "stopped", "more than 400 MB"),
    "memory that is shared": ("import mmap\nm = mmap.mmap(-1, 2**30)\nfor i in range(2**18): m[i * 4096] = 1\nimport time; time.sleep(5)", "stopped", "more than 400 MB"),
    "input": ("input('your answer?')", "error", limits.NO_INPUT),
    "sys.exit": ("import sys; sys.exit(0)", "error", "SystemExit"),
    "exit": ("exit()", "ok", ""),
    "a moment after that": ("import time; time.sleep(0.5)", "ok", ""),
    "recursion": ("def again(): return again()\nagain()", "error", "RecursionError"),
    "syntax": ("def broken(:", "error", "SyntaxError"),
    "silenced errors": ("get_ipython().set_custom_exc((Exception,), lambda *a, **k: None)\nget_ipython().showtraceback = lambda *a, **k: None", "ok", ""),
    "an error after that": ("assert False, 'still seen'", "error", "still seen"),
    "cells rewritten": ("get_ipython().input_transformers_post.append(lambda lines: ['pass'])\nget_ipython().run_cell = lambda *a, **k: None", "ok", ""),
    "a cell after that": ("assert False, 'still run'", "error", "still run"),
    "a warning and a number": ("import warnings; warnings.warn('odd'); 0.5", "ok", ""),
    "loop": ("while True: pass", "stopped", "computed for more than 1 s"),
    "loop that catches": ("while True:\n    try:\n        while True: pass\n    except BaseException: pass", "stopped", "computed for more than 1 s"),
    "sleep": ("import time; time.sleep(500)", "stopped", "did not end"),
    "os._exit": ("import os; os._exit(3)", "stopped", "exit code 3"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "stopped", "segmentation fault"),
    "threads without end": ("import threading, time\nthreading.stack_size(65536)\nfor _ in range(2000): threading.Thread(target=time.sleep, args=(90,), daemon=True).start()\n"
                            "time.sleep(9)", "stopped", "threads and processes"),
    "flood": ("while True: print('x' * 1000)", "stopped", ""),
    "html": ("from IPython.display import HTML, display; display(HTML('<script>alert(1)</script>'))", "ok", ""),
    "the end": ("print('still here')", "ok", ""),
}


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    found = Worker()
    found.scratch = kernels.scratch_base()
    yield found
    found.close()
    shutil.rmtree(found.scratch)


@pytest.fixture(scope="module")
def job(tmp_path_factory, worker):
    """(results by name, outputs by name, the answer) of one job over all cells."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "secret.txt").write_text("the solutions", encoding="utf8")
    texts = [text.replace("{secret!r}", repr(str(folder / "secret.txt"))) for text, *_ in CELLS.values()]
    return run(worker, folder, texts, list(CELLS), seconds=1, memory_mb=400)


def ordered(scratch, folder, texts, roles=None, needs=None, beside=None, **limit):
    file = folder / "in.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(text) for text in texts]), file)
    steps = [{"cell": place, "role": roles[place] if roles else slices.CHECK, "source": text, "needs": (needs or {}).get(place, [])} for place, text in enumerate(texts)]
    return {"notebook": str(file), "executed": str(folder / "out.ipynb"), "steps": steps, "files": beside, "scratch": scratch,
            "limits": vars(limits.Limits(file_mb=100, **limit))}


def run(worker, folder, texts, names, roles=None, needs=None, beside=None, **limit):
    order = ordered(worker.scratch, folder, texts, roles, needs, beside, **limit)
    answer = worker.run(order, 600)
    assert "failed" not in answer, answer
    book = nbformat.read(folder / "out.ipynb", as_version=4)
    return ({name: answer["results"][str(place)] for place, name in enumerate(names)}, dict(zip(names, [cell.outputs for cell in book.cells], strict=True)), answer)


@linux
@pytest.mark.parametrize("name", CELLS)
def test_each_cell_is_told_as_what_it_is(job, name):
    found, (_, state, said) = job[0][name], CELLS[name]
    assert found["state"] == state, found
    assert said in found["message"]


@linux
def test_all_walls_were_up(job):
    assert job[2]["walls"] == ["rlimits", "landlock", "seccomp", "audit"]


def test_an_output_flood_is_cut_and_a_browser_gets_nothing_to_run(job):
    flood = "".join(output.get("text", "") for output in job[1]["flood"])
    assert 1000 < len(flood) < 150 * 1024
    assert "script" not in json.dumps(job[1]["html"])


def test_warnings_and_numbers_count_as_no_failure_and_no_partial_grade(job):
    """nbgrader gives 0 points for anything on stderr, and 0.5 for a cell that ends in 0.5."""
    kinds = {(output.output_type, output.get("name")) for output in job[1]["a warning and a number"]}
    assert kinds == {("stream", "stdout"), ("display_data", None)}


def test_no_kernel_and_no_folder_is_left(job, worker):
    """What stays until the worker is closed: itself, and the process that forks kernels."""
    ours = [process for process in psutil.Process().children(recursive=True) if "miniclip_helpers.coursework" in " ".join(process.cmdline())]
    assert len(ours) == 2
    assert not list(pathlib.Path(kernels.tempfile.gettempdir()).glob("mc*/*/mine.txt"))


@linux
def test_a_crash_costs_its_own_cell_and_what_others_need_is_run_again(worker, tmp_path):
    texts = ["x = 41", "import os; os._exit(1)", "x += 1", "assert x == 42", "y = 0", "while True: pass", "assert (x, y) == (42, 0)"]
    roles = ["teaching", "own", "own", "check", "teaching", "exercise", "check"]
    results, outputs, _ = run(worker, tmp_path, texts, range(7), roles, {2: [0], 3: [0, 2], 6: [0, 2, 4]}, seconds=1)
    assert [results[place]["state"] for place in range(7)] == ["ok", "stopped", "ok", "ok", "ok", "stopped", "ok"]
    assert outputs[1][0].ename == "Stopped" and outputs[3] == []


@linux
def test_a_flood_is_stopped_long_before_its_time_is_up(worker, tmp_path):
    results, *_ = run(worker, tmp_path, ["while True: print('x' * 1000)"], ["flood"], seconds=60)
    assert results["flood"]["message"] == "this cell printed without end"


@linux
def test_files_beside_the_notebook_come_along_and_links_lead_nowhere(worker, tmp_path):
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "helper.py").write_text("value = 5", encoding="utf8")
    (tmp_path / "secret.txt").write_text("the solutions", encoding="utf8")
    (beside / "link.txt").symlink_to(tmp_path / "secret.txt")
    texts = ["import helper; assert helper.value == 5", "open('link.txt').read()", "import os; assert os.path.islink('link.txt')"]
    results, *_ = run(worker, tmp_path, texts, "abc", beside=str(beside))
    assert [results[name]["state"] for name in "abc"] == ["ok", "error", "ok"] and "PermissionError" in results["b"]["message"]


def test_a_kernel_that_is_not_forked_has_the_same_walls(tmp_path):
    """As on systems where a process that has imported torch cannot be forked."""
    nursery, scratch = kernels.Nursery(fork=False), kernels.scratch_base()
    texts = ["import os; os.fork()", "import socket; socket.create_connection(('127.0.0.1', 9))", "while True: pass", "import os; os._exit(4)", "print(1)"]
    try:
        job = running.Job(ordered(scratch, tmp_path, texts, seconds=1), nursery)
        results = asyncio.run(job.run())
    finally:
        shutil.rmtree(scratch)
    assert [results[place]["state"] for place in range(5)] == ["error", "error", "stopped", "stopped", "ok"]
    assert limits.NO_PROCESSES in results[0]["message"] and limits.NO_NETWORK in results[1]["message"] and "exit code 4" in results[3]["message"]
    assert "audit" in job.walls


def test_secrets_of_the_instructor_do_not_reach_a_kernel(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("my_api_key", "secret")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = kernels.environment()
    assert "secret" not in found.values() and "PYTHONDONTWRITEBYTECODE" not in found
    assert found["PATH"] and found["MINICLIP_OFFLINE"] == "1"


def test_the_guard_refuses_by_name_where_there_is_no_seccomp():
    for event, arguments, said in (("socket.connect", (None, ("192.0.2.1", 80)), limits.NO_NETWORK), ("subprocess.Popen", ("ls",), limits.NO_PROCESSES),
                                   ("os.fork", (), limits.NO_PROCESSES), ("os.kill", (1, 9), limits.NO_SIGNALS)):
        with pytest.raises(PermissionError, match=said):
            limits._guard(event, arguments)
    limits._guard("open", ("file", "r", 0))
    limits._guard("os.kill", (psutil.Process().pid, 0))
