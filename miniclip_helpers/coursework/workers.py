"""Processes that run submissions: one order after another, thrown away and made anew when one dies or is silent."""

import contextlib
import json
import os
import select
import subprocess
import sys

from .kernels import START, environment, kill_family

RESERVE = 120  # seconds beyond a job's own limit until its worker is given up


class Worker:
    """A process of `coursework.running`. Orders go in, answers come out; whatever an order does to it, the next finds one that works."""

    def __init__(self):
        self._process, self._stopped = None, False

    def run(self, order, seconds):
        """The answer to an order, {"results", "walls"} or {"failed": why}; tried twice."""
        for _ in range(2):
            try:
                return self._ask(order, seconds)
            except (OSError, ValueError) as error:
                failed = str(error)
                self.close()
                if self._stopped:
                    break
        return {"failed": failed}

    def _ask(self, order, seconds):
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen([sys.executable, "-m", "miniclip_helpers.coursework.running"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=subprocess.DEVNULL, env=environment(), start_new_session=os.name == "posix")
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        if os.name == "posix" and not select.select([self._process.stdout], [], [], seconds + START + RESERVE)[0]:
            raise OSError("the process that ran it did not answer")
        line = self._process.stdout.readline()
        if not line:
            raise OSError(f"the process that ran it ended (exit code {self._process.wait()})")
        return json.loads(line)

    def stop(self):
        """End it for good, from another thread: what it was doing is not tried again."""
        self._stopped = True
        self.close()

    def close(self):
        """End it and all that it started."""
        import psutil

        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            kill_family(psutil.Process(self._process.pid))
        self._process.communicate()
        self._process = None
