"""The kernel in which a learner's code is graded: `python -m miniclip_helpers.coursework.sandbox -f CONNECTION_FILE`, walls up before a cell runs.

`--serve` imports torch once and forks a kernel for each line that it reads (Linux): a start then takes parts of a second, not seconds.
"""

import importlib
import json
import os
import signal
import sys
import tempfile

from . import limits

READY = ("numpy", "torch", "torch.nn.functional", "yaml", "PIL.Image", "ipykernel.kernelapp", "ipykernel.ipkernel", "IPython.core.completer", "miniclip_helpers.checks")


def kernel_class():
    """An IPython kernel that forgets, before each cell, whatever an earlier cell hung into the machinery that runs and judges cells."""
    from ipykernel.ipkernel import IPythonKernel

    from .machinery import Machinery

    class Kernel(IPythonKernel):
        def __init__(self, **options):
            super().__init__(**options)
            self.shell.ask_exit = lambda: None  # exit() would end the kernel a moment later, in the middle of another cell
            self.shell.system = self.shell.getoutput = _no_shell
            self._machinery = Machinery(self)

        def raw_input(self, prompt=""):
            """Not IPython's own error, which is a NotImplementedError: an exercise would count as not attempted."""
            raise EOFError(limits.NO_INPUT)

        getpass = raw_input

        async def do_execute(self, *arguments, **options):
            self._machinery.restore()
            return await super().do_execute(*arguments, **options)

    return Kernel


def _no_shell(command, **options):
    """For lines like `!pip install x`, which many notebooks begin with: they are told, and cost nothing. No lines, where lines are asked for."""
    print(limits.NO_PROCESSES)
    return []


def serve_kernel(order):
    """Become a kernel. order: {"file", "scratch", "limits", "env", "walls"}: connection file, the job's folder, where to tell which walls are up."""
    from ipykernel.iostream import IOPubThread
    from ipykernel.kernelapp import IPKernelApp

    # It opens a TCP port, for the output of forked children, which are not to be; ZeroMQ aborts where it may not.
    IOPubThread._setup_pipe_in = lambda thread: setattr(thread, "_pipe_flag", False)
    os.environ.update(order["env"])
    tempfile.tempdir = None  # it remembers the parent's
    os.chdir(os.path.join(order["scratch"], "work"))
    sys.path.append(os.getcwd())  # last, so that a learner's random.py is not everybody's
    up = limits.apply(limits.Limits(**order["limits"]), order["scratch"])
    with open(order["walls"], "w", encoding="utf8") as file:
        json.dump(up, file)
    IPKernelApp.launch_instance(argv=["-f", order["file"], "--HistoryManager.enabled=False", "--InteractiveShell.colors=nocolor",
                                          "--InteractiveShell.xmode=Plain"], kernel_class=kernel_class())


def _child(order):
    """What the forked process does before it is a kernel: a session of its own, no pipe of its parent's, the end with its parent."""
    os.setsid()
    die_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log, null = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.closerange(3, 256)
    serve_kernel(order)


def die_with_parent():
    """Be killed when the parent ends, and inherit what grandchildren leave behind (Linux: PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER)."""
    if sys.platform == "linux":
        libc = limits.ctypes.CDLL(None)
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        libc.prctl(36, 1, 0, 0, 0)


def serve():
    """Import what notebooks need, then answer one line of JSON with another: {"file": ...} forks a kernel, {"wait": pid} tells how one ended."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in READY:
        importlib.import_module(name)
    kernel_class()
    try:
        import pyseccomp  # noqa: F401 its search for the C library starts a process, which a kernel may not
    except (ImportError, RuntimeError, OSError):
        pass
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            found, status = os.waitpid(order["wait"], os.WNOHANG)
            print(json.dumps({"code": os.waitstatus_to_exitcode(status) if found else None}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            try:
                _child(order)
            finally:
                os._exit(70)  # never back into the loop
        print(json.dumps({"pid": pid}), flush=True)


def main():
    if "--serve" in sys.argv:
        serve()
    else:
        die_with_parent()
        serve_kernel({"file": sys.argv[sys.argv.index("-f") + 1]} | json.loads(os.environ.pop("MINICLIP_SANDBOX")))


if __name__ == "__main__":
    main()
