"""The whole series twice on one machine: what it names is the same, to the bit, but for what is a time or the memory of a machine."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

MEASURES_THE_MACHINE = {"encode_seconds", "seconds_per_search", "seconds_for_all_class_vectors", "train_minutes", "step_speedup", "passes_per_look",
                        "activations_mb_per_pair", "plain_memory_growth", "chunked_memory_growth"}


def run(folder):
    """{notebook: {result: value}} of one offline run of the series, in an empty folder and an empty cache."""
    places = {f"MINICLIP_{name}": str(folder / name.lower()) for name in ("BUILD", "CACHE", "FIGURES")}
    done = subprocess.run([sys.executable, "-m", "miniclip_helpers.cli", "run"], cwd=ROOT, env=os.environ | places | {"MINICLIP_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    rows = json.loads((folder / "build" / "results.json").read_text(encoding="utf8"))
    print(f"{sum(row['seconds'] for row in rows.values()):.0f} s")
    return {name: row["results"] for name, row in rows.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return [run(tmp_path_factory.mktemp(name)) for name in ("first", "second")]


def numbers(results):
    found = {(name, key): value for name, row in results.items() for key, value in row.items() if key not in MEASURES_THE_MACHINE}
    assert len(found) > 150
    return found


def test_two_runs_name_the_same_results(runs):
    first, second = map(numbers, runs)
    print(f"{len(first)} results, {sum(first[key] == second.get(key) for key in first)} the same to the bit")
    assert first == second


def test_what_is_said_to_be_a_measure_of_the_machine_is_named_by_the_series(runs):
    assert {key for row in runs[0].values() for key in row} >= MEASURES_THE_MACHINE
