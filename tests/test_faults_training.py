"""Training killed with SIGKILL goes on to the same losses and weights, bit for bit. The long form has 20 moments."""

import os

import faults
import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks and SIGKILL are those of Linux and macOS")


def test_killed_training_resumes_to_the_same_bits(tmp_path):
    """Once each while it starts, in a step, inside a checkpoint's write, and after the last step but before the model is there."""
    faults.kill_and_resume(tmp_path, moments=4, seed=int(os.environ.get("MINICLIP_FAULT_SEED", 0)))
