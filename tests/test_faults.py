"""Nothing half written: faults at every kind of write, in the small form; tests/long/test_faults_long.py has the long one."""

import os

import faults
import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks, signals and limits are those of Linux and macOS")


def test_faults_at_writes_break_no_file(tmp_path):
    """A file is the old one or the new one; an error is one line that says what to do; nothing is left but by a kill; and the same call then works."""
    assert sum(faults.strike_all(tmp_path, per_kind=3, seed=int(os.environ.get("MINICLIP_FAULT_SEED", 0))).values()) >= 40
