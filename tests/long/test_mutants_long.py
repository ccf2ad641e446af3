"""Mutation testing: of 400 faults in losses, metrics, model, tokenizers, index, training and checks the tests must notice 85 %. What survives: tests/mutants.md."""

import json
import pathlib
import subprocess
import sys

import pytest

MUTANTS = pathlib.Path(__file__).resolve().parent.parent / "mutants.py"


def test_85_of_100_mutants_are_noticed(tmp_path):
    pytest.importorskip("mutmut", reason="mutmut makes the mutants: uv sync")
    command = [sys.executable, "-W", "ignore", MUTANTS, "--seed", "0", "--number", "400"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3 * 3600)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-4000:]
    found = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    assert found["mutants"] == 400
    assert found["score"] >= 0.85, done.stdout
