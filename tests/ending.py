"""Run a command, and leave nothing of it behind: past its time it is ended together with all that it started."""

import contextlib
import os
import signal
import subprocess

FAREWELL = 60  # seconds for a command that is told to end


def run(command, timeout, **options):
    """`subprocess.run` in a group of processes of its own. Past `timeout` seconds all of the group is told to end, then killed, and `TimeoutExpired` is raised."""
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, **options)
    try:
        said = process.communicate(timeout=timeout)
    except BaseException:
        _tell(process, "SIGTERM")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=FAREWELL)
        raise
    finally:
        _tell(process, "SIGKILL")
        process.wait()
    return subprocess.CompletedProcess(command, process.returncode, *said)


def _tell(process, name):
    if not hasattr(os, "killpg"):
        process.terminate() if name == "SIGTERM" else process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of it has ended; on macOS a group of the dead may not be told
        os.killpg(process.pid, getattr(signal, name))
