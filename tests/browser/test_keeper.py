"""Nothing is left behind: a server and what it started, in sessions of their own, end with whoever started them, killed or not."""

import pathlib
import signal
import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux alone")
KEEPER = pathlib.Path(__file__).with_name("keeper.py")
# A server with a kernel: it starts a process in a session of its own, which does not hear a kind word.
SERVER = """
import signal, subprocess, sys, time
kernel = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"],
                          start_new_session=True, stdout=subprocess.PIPE)
kernel.stdout.readline()
print(kernel.pid, flush=True)
time.sleep(600)
"""
# Starts the keeper as pytest does, and says who is there.
PARENT = """
import subprocess, sys, time
keeper = subprocess.Popen([sys.executable, sys.argv[1], sys.executable, "-c", sys.argv[2]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
print(keeper.pid, keeper.stdout.readline(), flush=True)
time.sleep(600)
"""


def gone(pids, seconds=60):
    """Whether all have ended within so many seconds."""
    there = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not [one for one in psutil.wait_procs(there, timeout=seconds)[1] if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_nothing_is_left_when_the_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT, str(KEEPER), SERVER], stdout=subprocess.PIPE, text=True) as parent:
        keeper, kernel = map(int, parent.stdout.readline().split())
        family = [keeper, kernel, *(one.pid for one in psutil.Process(keeper).children(recursive=True))]
        assert len(set(family)) == 3 and all(map(psutil.pid_exists, family))
        parent.send_signal(signal.SIGKILL)
        assert gone(family)


def test_orphans_of_a_server_that_dies_are_found():
    with subprocess.Popen([sys.executable, str(KEEPER), sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
        kernel = int(keeper.stdout.readline())
        (server,) = psutil.Process(keeper.pid).children()
        server.kill()
        assert gone([kernel, keeper.pid])


def test_the_code_of_a_command_is_passed_on():
    with subprocess.Popen([sys.executable, str(KEEPER), sys.executable, "-c", "raise SystemExit(3)"], stdin=subprocess.PIPE) as keeper:
        assert keeper.wait(60) == 3
