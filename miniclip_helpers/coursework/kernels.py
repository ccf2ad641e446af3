"""Kernels in the sandbox, seen from outside: start one, watch it, interrupt it, kill it with all that it left behind, say how it ended."""

import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

from ..errors import MiniclipError

START = 180  # seconds for a kernel to answer, on a machine that reads torch from a cold disk
# Waiting threads that spin would burn a cell's computing time for nothing.
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "",
         "MINICLIP_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "MINICLIP_PROGRESS": "0", "MINICLIP_PROFILE": "smoke", "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0",
         "MINICLIP_COURSE": "1"}


# What Python, its libraries and the package look at; nothing else of the instructor's is handed on. The last line is Windows'.
PASSED = re.compile(r"""PATH | HOME | USER | LOGNAME | SHELL | TERM | TZ | LANG | LANGUAGE | LC_\w+ | TMPDIR | TEMP | TMP | VIRTUAL_ENV | CONDA_PREFIX | LD_LIBRARY_PATH | DYLD_\w+
    | XDG_CACHE_HOME | HF_HOME | HF_HUB_CACHE | TORCH_HOME | PYTHON\w+ | MINICLIP_\w+ | (OMP|GOMP|KMP|MKL|OPENBLAS|MALLOC)_\w+
    | SYSTEMROOT | SYSTEMDRIVE | WINDIR | COMSPEC | PATHEXT | USERPROFILE | USERNAME | APPDATA | LOCALAPPDATA | PROGRAMDATA | NUMBER_OF_PROCESSORS | PROCESSOR_\w+""", re.VERBOSE)


def environment():
    """The environment of a kernel: of this one's what is on the list `PASSED` and does not look like a secret, and `QUIET`."""
    secret = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "ACCESS_KEY")
    kept = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name.upper()) and not any(word in name.upper() for word in secret)}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept | QUIET


def scratch_base():
    """A new folder for the folders of kernels, on a short path: that of a Unix socket has at most 107 characters."""
    folder = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="mc", dir=folder if len(folder) < 40 or os.name != "posix" else "/tmp")


def remove_tree(folder):
    """Remove a folder that a learner's code filled, as far as that goes; no error. Thousands of nested folders are too deep for `shutil.rmtree`."""
    folder = os.fspath(folder)
    if os.name == "posix":
        subprocess.run(["rm", "-rf", "--", folder], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    else:
        with contextlib.suppress(OSError, RecursionError):
            shutil.rmtree(folder)


def kill_family(process):
    """Kill a process (psutil's) and all that it started, whatever of it is still there."""
    import psutil

    family = []
    with contextlib.suppress(psutil.Error):
        family = process.children(recursive=True)
    for one in [process, *family]:
        with contextlib.suppress(psutil.Error):
            one.kill()


def _left_behind(folder, names):
    """What is not copied beside a learner's notebook: other notebooks, hidden files, and pipes, sockets and devices, which copying would wait for."""
    plain = {name for name in names if any(kind(os.lstat(os.path.join(folder, name)).st_mode) for kind in (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK))}
    return {name for name in names if name not in plain or name.startswith(".") or name.endswith(".ipynb")}


class Nursery:
    """Starts kernels: on Linux one process that has imported torch forks them; elsewhere each is a Python of its own."""

    def __init__(self, fork=sys.platform == "linux"):
        self._fork, self._server = fork, None

    def _ask(self, order, seconds=30):
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return self._answer(seconds)

    def _answer(self, seconds):
        if not select.select([self._server.stdout], [], [], seconds)[0]:
            raise OSError("the process that forks kernels does not answer")
        line = self._server.stdout.readline()
        if not line:
            raise OSError("the process that forks kernels ended")
        return json.loads(line)

    def _command(self, *arguments):
        return [sys.executable, "-m", "miniclip_helpers.coursework.sandbox", *arguments]

    def start(self, order):
        """A process (psutil's) and a function that tells its exit code, or None while it lives."""
        import psutil

        if not self._fork:
            with open(order["log"], "ab") as log:
                child = subprocess.Popen(self._command("-f", order["file"]), env=environment() | {"MINICLIP_SANDBOX": json.dumps(order)},
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            return psutil.Process(child.pid), child.poll
        if self._server is None or self._server.poll() is not None:
            self._server = subprocess.Popen(self._command("--serve"), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._answer(START)
        pid = self._ask(order)["pid"]
        return psutil.Process(pid), lambda: self._ask({"wait": pid})["code"]

    def strays(self):
        """Processes that outlived their kernel: on Linux they have become children of the forking process."""
        import psutil

        return psutil.Process(self._server.pid).children(recursive=True) if self._server and self._server.poll() is None else []

    def close(self):
        if self._server:
            self._server.kill()
            self._server.wait()


class Kernel:
    """One running kernel in a folder of its own, which is its current folder and the only place where it may write."""

    def __init__(self, nursery, limits, files=None, base=None):
        self.scratch = tempfile.mkdtemp(prefix="k", dir=base or scratch_base())
        self._nursery, self._limits, self._exit = nursery, limits, None
        self._killed = False
        work = pathlib.Path(self.scratch, "work")
        if files:
            shutil.copytree(files, work, symlinks=True, ignore=_left_behind)
        for folder in (work, work.parent / "home", work.parent / "tmp"):
            folder.mkdir(exist_ok=True)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self):
        from jupyter_client.asynchronous import AsyncKernelClient
        from jupyter_client.connect import write_connection_file

        posix = os.name == "posix"
        file = os.path.join(self.scratch, "c.json")
        write_connection_file(file, transport="ipc" if posix else "tcp", ip=os.path.join(self.scratch, "k") if posix else "127.0.0.1", key=os.urandom(16).hex().encode())
        self._walls = os.path.join(self.scratch, "walls.json")
        places = {"HOME": "home", "IPYTHONDIR": "home/ipython", "TMPDIR": "tmp", "MINICLIP_CACHE": "home/cache", "MINICLIP_FIGURES": "home/figures",
                  "MINICLIP_BUILD": "home/build", "JUPYTER_CONFIG_DIR": "home/jupyter", "MPLCONFIGDIR": "home/matplotlib"}
        env = {name: os.path.join(self.scratch, folder) for name, folder in places.items()}
        env["HF_HOME"] = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
        order = {"file": file, "scratch": self.scratch, "env": env, "walls": self._walls, "limits": vars(self._limits), "log": os.path.join(self.scratch, "log")}
        self.process, self._code = self._nursery.start(order)

        alive = self.alive

        class Client(AsyncKernelClient):
            async def _async_is_alive(self):
                return alive()

            is_alive = _async_is_alive

        self.client = Client(connection_file=file)
        self.client.load_connection_file()
        self.client.context.maxmsgsize = 2**26  # a message of more than 64 MiB cuts the line, before it is read
        self.client.allow_stdin = False
        self.client.start_channels(stdin=False, hb=False)

    async def ready(self):
        """Wait until it answers; a `MiniclipError` where it does not. From here on its memory is counted."""
        try:
            await self.client.wait_for_ready(timeout=START)
            self.walls = json.loads(pathlib.Path(self._walls).read_text(encoding="utf8"))
            self._base = self.process.memory_info().rss
        except Exception as error:
            log = pathlib.Path(self.scratch, "log")
            said = log.read_text(encoding="utf8", errors="replace").strip().splitlines()[-1:] if log.exists() else []
            raise MiniclipError(f"the kernel did not start: {error} {' '.join(said)}") from error

    def alive(self):
        import psutil

        try:
            return not self._killed and self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def computed(self):
        """Seconds of computing so far, its children's included; the last known number where it has ended."""
        import psutil

        try:
            times = self.process.cpu_times()
            self._computed = times.user + times.system + sum(sum(child.cpu_times()[:2]) for child in self.process.children(recursive=True))
        except psutil.Error:
            pass
        return getattr(self, "_computed", 0.0)

    def excess(self):
        """A sentence on which limit it is over, or "" (memory that private limits do not count, threads and processes, files)."""
        import psutil

        try:
            family = [self.process, *self.process.children(recursive=True)]
            held = (sum(one.memory_info().rss for one in family) - self._base) / 2**20
            tasks = sum(one.num_threads() for one in family)
        except psutil.Error:
            return ""
        if held > self._limits.memory_mb + 100:
            return f"used more than {self._limits.memory_mb} MB of memory"
        if tasks > self._limits.processes:
            return f"started more than {self._limits.processes} threads and processes"
        if self._written(2 * self._limits.file_mb) > 2 * self._limits.file_mb:
            return f"wrote more than {2 * self._limits.file_mb} MB of files"
        return ""

    def _written(self, enough):
        """MiB below the scratch folder, at least 4 kB for each entry; no more is looked at once it is `enough`."""
        found, folders = 0, [self.scratch]
        while folders and found <= enough * 2**20:
            try:
                for entry in os.scandir(folders.pop()):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    size = entry.stat(follow_symlinks=False)
                    found += max(4096, size.st_blocks * 512 if os.name == "posix" else size.st_size)
            except OSError:
                continue
        return found / 2**20

    def interrupt(self):
        if self.alive():
            self.process.send_signal(signal.SIGINT if os.name == "posix" else signal.CTRL_C_EVENT)

    def ended(self):
        """How it ended, in words."""
        for _ in range(20):
            if self._exit is None:
                with contextlib.suppress(OSError):  # the one who knows may be gone
                    self._exit = self._code()
            if self._exit is not None:
                break
            time.sleep(0.05)
        code = self._exit
        if code is None or code >= 0:
            return f"ended the kernel (exit code {code}), as os._exit or exit() do" if code is not None else "the kernel ended"
        name = {getattr(signal, "SIGSEGV", 0): "a segmentation fault", getattr(signal, "SIGABRT", 0): "an abort", getattr(signal, "SIGXCPU", 0): "no computing time left",
                getattr(signal, "SIGKILL", 0): "a kill, perhaps for want of memory", getattr(signal, "SIGBUS", 0): "a bus error"}.get(-code, f"signal {-code}")
        return f"crashed the kernel: {name}"

    def kill(self):
        """Kill it and all that it started."""
        self._killed = True
        kill_family(self.process)

    def close(self):
        """Kill it, sweep up what outlived it, and remove its folder."""
        if hasattr(self, "process"):
            self.kill()
            self.ended()
        for stray in self._nursery.strays():
            stray.kill()
        if hasattr(self, "client"):
            self.client.stop_channels()
            self.client.context.destroy(linger=0)
        remove_tree(self.scratch)
