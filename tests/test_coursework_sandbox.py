"""The sandbox: one job with a cell for each thing that a learner's code may do, and what became of it. Needs Linux for the walls of the system."""

import asyncio
import ctypes
import ctypes.util
import importlib.util
import json
import os
import pathlib
import runpy
import shutil
import sys

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from miniclip_helpers import checks
from miniclip_helpers.checks import judging
from miniclip_helpers.coursework import kernels, limits, outputs, running, slices, source
from miniclip_helpers.coursework.oddities import oddities
from miniclip_helpers.coursework.workers import Worker

linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")


def has_landlock():
    """Asked of the system itself: the version of landlock_create_ruleset, below 1 where there is none."""
    return sys.platform == "linux" and ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) >= 1


def has_seccomp():
    return sys.platform == "linux" and importlib.util.find_spec("pyseccomp") is not None and ctypes.util.find_library("seccomp") is not None


# Which wall a cell of the list below needs; elsewhere it is skipped.
NEEDS = {name: (has_landlock, "no Landlock on this system") for name in ("read the course", "write elsewhere", "change the checks")} | {
    name: (has_seccomp, "no libseccomp on this system") for name in (
        "fork below Python", "network below Python", "datagrams", "signals by a file", "mode and times elsewhere", "kill below Python", "limit the grader")}

# name: (cell, state, what is said). Each runs as a check does; later ones show that the one before stopped nobody else.
CELLS = {
    "plain": ("import os, ctypes, torch\nc = ctypes.CDLL(None, use_errno=True)\nprint(torch.ones(2) @ torch.ones(2))", "ok", ""),
    "thread": ("import threading\nt = threading.Thread(target=print, args=('from a thread',)); t.start(); t.join()", "ok", ""),
    "own file": ("open('mine.txt', 'w').write('x'); assert open('mine.txt').read() == 'x'", "ok", ""),
    "fork": ("os.fork()", "error", limits.NO_PROCESSES),
    "fork below Python": ("assert c.fork() == -1 and c.syscall(57) == -1 and c.syscall(435, None, 0) == -1", "ok", ""),
    "subprocess": ("import subprocess; subprocess.run(['true'])", "error", limits.NO_PROCESSES),
    "shell line": ("!pip install x\nfiles = !ls\nassert list(files) == []", "ok", ""),
    "pip": ("%pip install x", "ok", ""),
    "network": ("import socket; socket.create_connection(('127.0.0.1', 9))", "error", limits.NO_NETWORK),
    "network below Python": ("assert c.socket(2, 1, 0) == -1 and ctypes.get_errno() == 13, 'IPv4'\nassert c.socket(10, 1, 0) == -1, 'IPv6'\nassert c.socket(16, 3, 0) == -1", "ok", ""),
    "datagrams": ("import socket, asyncio\nfor kind in (2, 3, 5): assert c.socket(1, kind, 0) == -1 and c.socketpair(1, kind, 0, (ctypes.c_int * 2)()) == -1\n"
                  "socket.socketpair(); asyncio.new_event_loop().close()", "ok", ""),
    "signals by a file": ("import fcntl\nends = os.pipe()\nfor call, what in ((fcntl.fcntl, 8), (fcntl.fcntl, 10), (fcntl.fcntl, 15), (fcntl.ioctl, 0x8901), (fcntl.ioctl, 0x8902)):\n"
                          "    try: call(ends[0], what, os.getpid())\n    except PermissionError: pass\n    else: assert False, what\n"
                          "assert c.syscall(72, ends[0], 2**32 + 8, os.getpid()) == -1", "ok", ""),
    "mode and times elsewhere": ("p = {secret!r}; before = os.stat(p)\nos.chmod(p, 0o777); os.utime(p, (1, 1)); os.chown(p, 65534, 65534); os.setxattr(p, 'user.x', b'1')\n"
                                 "assert c.syscall(452, -100, p.encode(), 0o777, 0) == 0 and c.syscall(463, -100, p.encode(), 0, b'user.y', 0, 0) == 0\n"
                                 "after = os.stat(p); assert before[:6] + before[8:] == after[:6] + after[8:] and not os.listxattr(p)", "ok", ""),
    "its own whole files": ("from miniclip_helpers import runtime\nwith runtime.writing('own.txt') as path: path.write_text('x')\nassert open('own.txt').read() == 'x'", "ok", ""),
    "kill the grader": ("os.kill(os.getppid(), 0)", "error", limits.NO_SIGNALS),
    "kill below Python": ("assert c.kill(os.getppid(), 0) == -1 and c.kill(-1, 0) == -1", "ok", ""),
    "limit the grader": ("import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))", "error", "PermissionError"),
    "raise a limit": ("import resource; resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))\nassert resource.getrlimit(resource.RLIMIT_DATA)[0] != -1", "error", ""),
    "read the course": ("open({secret!r}).read()", "error", "PermissionError"),
    "write elsewhere": ("open({secret!r} + '.new', 'w')", "error", "PermissionError"),
    "change the checks": ("import miniclip_helpers.checks as m; open(m.__file__, 'a')", "error", "PermissionError"),
    "a huge file": ("f = open('big', 'wb')\nfor _ in range(100): f.write(bytes(2**22))", "error", "File too large"),
    "memory": ("bytearray(2**31)", "error", "MemoryError"),
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
    "a page that runs": ("from IPython.display import publish_display_data\nshown = display('x', display_id=True); shown.update(HTML('<script>2</script>'))\n"
                         "publish_display_data({'image/png': 'AAAA'}, {'image/png': {'width': '1\" onload=\"script'}}); publish_display_data({'image/png': 'AA\"><script>'})", "ok", ""),
    "a long error": ("raise type('E' * 1000, (ValueError,), {})('x' * 10**7)", "error", ": xxx"),
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
            "limits": vars(limits.Limits(**{"file_mb": 100} | limit))}


def run(worker, folder, texts, names, roles=None, needs=None, beside=None, **limit):
    order = ordered(worker.scratch, folder, texts, roles, needs, beside, **limit)
    answer = worker.run(order, 600)
    assert "failed" not in answer, answer
    book = nbformat.read(folder / "out.ipynb", as_version=4)
    return ({name: answer["results"][str(place)] for place, name in enumerate(names)}, dict(zip(names, [cell.outputs for cell in book.cells], strict=True)), answer)


@linux
@pytest.mark.parametrize("name", CELLS)
def test_each_cell_is_told_as_what_it_is(job, name):
    there, why = NEEDS.get(name, (lambda: True, ""))
    if not there():
        pytest.skip(why)
    found, (_, state, said) = job[0][name], CELLS[name]
    assert found["state"] == state, found
    assert said in found["message"]


@linux
def test_every_wall_that_this_system_has_was_up(job):
    there = {"rlimits": True, "landlock": has_landlock(), "seccomp": has_seccomp(), "audit": True}
    assert job[2]["walls"] == [name for name, has in there.items() if has]


def test_an_output_flood_is_cut_and_a_browser_gets_nothing_to_run(job):
    flood = "".join(output.get("text", "") for output in job[1]["flood"])
    assert 1000 < len(flood) < 150 * 1024
    for name in ("html", "a page that runs"):
        assert "script" not in json.dumps(job[1][name]) and job[1][name]
    assert 1000 < len(json.dumps(job[1]["a long error"])) < 30_000 and len(job[0]["a long error"]["message"]) <= 2000
    assert limits.NO_PROCESSES in job[1]["shell line"][0].text


def test_what_is_kept_of_a_cell_of_their_own():
    """These outputs reach a page as they are; those of checks are written anew."""
    book = new_notebook(cells=[new_code_cell("")])
    kept, cell = outputs.recorder(book, 100), book.cells[0]
    kept.reset_execution_trackers()
    kept.clear_before_next_output = False

    def say(kind, **content):
        kept.process_message({"msg_type": kind, "header": {"msg_type": kind}, "parent_header": {}, "content": content}, cell, 0)

    say("display_data", data={"image/png": "AAAA", "text/html": "<b>"}, metadata={"image/png": {"width": '1" onload="alert(1)'}})
    say("stream", name='x" onload="', text="printed")
    for _ in range(9):
        say("error", ename="E" * 9000, evalue="v" * 9000, traceback=["t" * 30_000, "the end"])
    shown, printed, *errors = cell.outputs
    assert (shown.data, shown.metadata, printed.name) == ({"image/png": "AAAA"}, {}, "stdout")
    assert len(errors) == 3 and all((len(each.ename), len(each.evalue), len(each.traceback[0])) == (200, 2000, 20_000) for each in errors)
    assert errors[0].traceback[0].endswith("the end")


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
def test_memory_that_grows_is_seen_before_its_time_is_up(worker, tmp_path):
    texts = ["import time\nheld = []\nfor _ in range(38): held.append(b'x' * 2**24)\ntime.sleep(60)",
             "import mmap, time\nm = mmap.mmap(-1, 2**30)\nfor i in range(2**18): m[i * 4096] = 1\ntime.sleep(60)"]
    results, *_ = run(worker, tmp_path, texts, ["bit by bit", "shared"], seconds=60, memory_mb=400)
    assert [found["message"] for found in results.values()] == ["this cell used more than 400 MB of memory"] * 2


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
    os.mkfifo(beside / "pipe")
    (beside / "link.txt").symlink_to(tmp_path / "secret.txt")
    texts = ["import helper; assert helper.value == 5", "open('link.txt').read()", "import os; assert os.path.islink('link.txt')"]
    results, *_ = run(worker, tmp_path, texts, "abc", beside=str(beside))
    assert results["a"]["state"] == results["c"]["state"] == "ok"
    if has_landlock():
        assert results["b"]["state"] == "error" and "PermissionError" in results["b"]["message"]


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
    monkeypatch.setenv("MINICLIP_API_KEY", "secret")
    monkeypatch.setenv("DATABASE_URL", "secret")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = kernels.environment()
    assert "secret" not in found.values() and "PYTHONDONTWRITEBYTECODE" not in found
    assert found["PATH"] and found["LC_TIME"] == "C" and found["MINICLIP_OFFLINE"] == "1"


def test_the_guard_refuses_by_name_where_there_is_no_seccomp():
    for event, arguments, said in (("socket.connect", (None, ("192.0.2.1", 80)), limits.NO_NETWORK), ("subprocess.Popen", ("ls",), limits.NO_PROCESSES),
                                   ("os.fork", (), limits.NO_PROCESSES), ("os.kill", (1, 9), limits.NO_SIGNALS)):
        with pytest.raises(PermissionError, match=said):
            limits._guard(event, arguments)
    limits._guard("open", ("file", "r", 0))
    limits._guard("os.kill", (psutil.Process().pid, 0))


# Answers that pass without being right. Each is an exercise's cell; the hidden test of 00.cosine follows.

ZERO = "def cosine(a, b):\n    {}\n    return 0.0\n"
FORGED_REPLY = """k = get_ipython().kernel; o = k.session.send
def send(stream, kind, content=None, *more, **named):
    return None if kind == 'error' else o(stream, kind, {**content, 'status': 'ok'} if kind == 'execute_reply' else content, *more, **named)
k.session.send = send"""
FORGED_EVENT = "get_ipython().events.register('post_run_cell', lambda result: setattr(result, 'error_in_exec', None))"
DISGUISED = """space = {'np': np}
exec("def always(*inputs, **named): return True", space)
vars(np)['allclose'] = space['always']"""
OWN_IMPORT = """import builtins
class Fake:
    machinery = util = PathFinder = loader = property(lambda self: self)
    find_spec = module_from_spec = lambda self, *inputs: self
    exec_module = assess = lambda self, *inputs, **named: None
    checks = checks
__builtins__ = vars(builtins) | {'__import__': lambda name, *inputs, o=builtins.__import__: Fake() if 'importlib' in name else o(name, *inputs)}"""
THREAD = """import threading, time
def watch():
    while True:
        found = get_ipython().user_ns.get('_judging')
        if hasattr(found, 'assess'): found.assess = lambda *inputs, **named: None
        time.sleep(0)
threading.Thread(target=watch, daemon=True).start()"""
VALUES, CHANGED = "the values are not", "the checker itself was changed"
# name: (cell, what its check says, "" where it passes)
ANSWERS = {
    "right": ("def cosine(a, b):\n    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))", ""),
    "its own judge": (ZERO + "open('judging.py', 'w').write('def assess(*inputs, **named): pass')\nimport os; checks.__path__.insert(0, os.getcwd())", VALUES),
    "a loader": (ZERO + "import importlib.machinery, importlib.util\nclass Fake:\n    loader = property(lambda self: self)\n    exec_module = assess = lambda *inputs, **named: None\n"
                 "importlib.util.module_from_spec = lambda spec: Fake()\nimportlib.machinery.PathFinder.find_spec = lambda *inputs: Fake()", VALUES),
    "an event": (ZERO + FORGED_EVENT, VALUES),
    "a transform": (ZERO + "m = get_ipython().input_transformer_manager; o = m.transform_cell\nm.transform_cell = lambda text: 'pass' if 'assess' in text else o(text)", VALUES),
    "a forged reply": (ZERO + FORGED_REPLY, VALUES),
    "its own import": (ZERO + OWN_IMPORT, VALUES),
    "a disguised function": (ZERO + DISGUISED, VALUES),
    "an open function": (ZERO + "np.allclose = lambda *inputs, **named: True", CHANGED),
    "right after all that": ("np.allclose = o_allclose\n"
                             "def cosine(a, b):\n    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))", ""),
    "a look at the test": ("def cosine(a, b):\n    print(In[-1], [In[-1]])\n    raise ValueError(In[-1][-80:])", "END HIDDEN"),
    "an event when called": (ZERO.replace("{}", FORGED_EVENT), CHANGED),
    "a forged reply when called": (ZERO.replace("{}", FORGED_REPLY.replace("\n", "\n    ")), CHANGED),
    "a thread": (ZERO + THREAD, "AssertionError"),
}
SEEDS = [987654321, 123456789]


@pytest.fixture(scope="module")
def judged(worker, tmp_path_factory):
    """(results by name, outputs by name) of the checks of `ANSWERS`, in one kernel."""
    test = 'checks.check("00.cosine", cosine)\n' + source.HIDDEN.format(id="00.cosine", function="cosine", seeds=SEEDS)
    texts = ["import numpy as np\nfrom miniclip_helpers import checks\no_allclose = np.allclose"]
    for text, _ in ANSWERS.values():
        texts += [text.replace("    {}\n", "    pass\n"), test]
    roles = ["teaching", *["exercise", "check"] * len(ANSWERS)]
    results, outputs, _ = run(worker, tmp_path_factory.mktemp("judged"), texts, range(len(texts)), roles, seconds=20)
    return ({name: results[2 * place + 2] for place, name in enumerate(ANSWERS)}, {name: outputs[2 * place + 2] for place, name in enumerate(ANSWERS)},
            {name: results[2 * place + 1] for place, name in enumerate(ANSWERS)})


@linux
@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_passes_that_is_not_right(judged, name):
    found, said = judged[0][name], ANSWERS[name][1]
    assert judged[2][name]["state"] == "ok", judged[2][name]
    assert found["state"] == ("error" if said else "ok") and said in found["message"], found


@linux
def test_the_hidden_seeds_do_not_come_back(judged):
    texts = json.dumps(judged[1]) + json.dumps(judged[0])
    assert "BEGIN HIDDEN" in texts and not [seed for seed in SEEDS if str(seed) in texts]


@pytest.mark.parametrize("name", [name for number in range(12) for name in checks.exercises(f"{number:02d}")])
def test_the_wrong_answer_that_is_tried_is_wrong_everywhere(name, tmp_path):
    """It calls the answer, whose effects (weights that moved, a gradient) must not be enough for a check to pass."""
    core, exercise = judging._load(name)
    (tmp_path / "wrong.py").write_text(running.WRONG.format(answer="answer"), encoding="utf8")
    wrong = runpy.run_path(str(tmp_path / "wrong.py"), {"answer": exercise.reference})["_wrong"]
    assert core.grade(exercise, exercise.reference, 5).passed and not core.grade(exercise, wrong, 5).passed


@pytest.mark.parametrize("up, expected", [(3, ["kernel", 0, 1, 2]), (4, ["kernel", 0, 1, 2, "kernel", 0])])
def test_nothing_is_run_again_when_the_time_of_a_submission_is_up(worker, tmp_path, up, expected):
    """After a crash in cell 2, whether the time is up by then or while what went before is run again."""
    ran = []

    class Slow(running.Job):
        async def _fresh(self):
            ran.append("kernel")

        async def _execute(self, step):
            ran.append(step["cell"])
            if len([cell for cell in ran if cell != "kernel"]) == up:
                self._end = 0
            if step["cell"] == 2:
                raise running.Stopped("a crash", True)
            return "ok", ""

    job = Slow(ordered(worker.scratch, tmp_path, ["a = 1", "b = 2", "c = a", "d = a + b"], ["own"] * 4, {2: [0], 3: [0, 1]}), None)
    results = asyncio.run(job.run())
    assert ran == expected
    assert [results[place]["state"] for place in range(4)] == ["ok", "ok", "stopped", "stopped"] and "no time left" in results[3]["message"]


@linux
def test_many_empty_files_count_and_cost_the_cell_that_made_them(worker, tmp_path):
    results, *_ = run(worker, tmp_path, ["for i in range(700): open(f'f{i}', 'w').close()", "print(1)"], "ab", ["exercise", "check"], file_mb=1)
    assert results["a"]["message"] == "this cell wrote more than 2 MB of files" and results["b"]["state"] == "ok"


@linux
def test_thousands_of_nested_folders_are_removed(tmp_path, monkeypatch):
    top = tmp_path / "top"
    top.mkdir()
    monkeypatch.chdir(top)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(tmp_path)
    kernels.remove_tree(top)
    kernels.remove_tree(tmp_path / "-never there")
    assert not top.exists()


@pytest.mark.parametrize("text, phrase", [
    ("def f():\n    try: 1 / 0\n    except Exception as e: return e.__traceback__.tb_frame.f_back", "uses .tb_frame"),
    ("g.gi_frame.f_locals", "uses .gi_frame"), ("checks.__path__.insert(0, '.')", "uses .__path__"), ("__builtins__ = {}", "uses __builtins__"),
    ("getattr(e, 'f_back')", "names f_back"), ("get_ipython().events.register('post_run_cell', f)", "uses get_ipython"),
    ("import sys\nsys.modules['x'] = 1", "reaches into the interpreter by sys.modules"), ("vars(np)['allclose'] = f", "reaches into np"),
    ("torch.nn.__dict__['x']", "reaches into torch.nn"), ("import importlib.util", "imports importlib"), ("from importlib import util", "imports importlib"),
    ("%matplotlib inline\nget_ipython().events.x", "uses get_ipython"), ("%%time\n__builtins__ = {}", "uses __builtins__"),
])
def test_the_ways_into_the_judge_are_told(text, phrase):
    assert [found for found in oddities(text) if found.startswith(phrase)], oddities(text)


def test_everyday_cells_are_not_told():
    text = "%matplotlib inline\n!ls\nfiles = !ls\nimport numpy as np\nx = vars(args)['a']; np.zeros(3)[0]; rows['path']; display(x)"
    assert oddities(text) == [] == oddities("%%time\nx = 1")
