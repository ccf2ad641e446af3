"""Runs a command until it ends or until who started this ends: then the command and all that it started are gone, kernels in sessions of their own, too.

    python keeper.py COMMAND ...        its standard input is a pipe; at the pipe's end, which also a killed parent brings, everything is stopped

What is left behind by its parent falls to this process (Linux: PR_SET_CHILD_SUBREAPER), so that it can be found.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading

import psutil

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 5  # seconds to end by itself


def stop(command):
    """First kindly, then not; until nobody is left."""
    family = everyone()
    command.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(PATIENCE)
    while family := [one for one in {*family, *everyone()} if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(family, timeout=PATIENCE)


def everyone():
    with contextlib.suppress(psutil.Error):
        return psutil.Process().children(recursive=True)
    return []


def closed():
    """Wait for the end of the standard input."""
    while os.read(0, 1024):
        pass


def main():
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    over = threading.Event()
    for wait in (closed, command.wait):
        threading.Thread(target=lambda wait=wait: (wait(), over.set()), daemon=True).start()
    over.wait()
    code = command.poll()
    stop(command)
    os._exit(code or 0)  # a thread may still wait for the pipe


if __name__ == "__main__":
    main()
