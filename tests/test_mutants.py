"""Twelve faults planted in the package, each of which the tests must notice; the runner itself must tell where they do not. All of it: tests/long/test_mutants_long.py."""

import json
import os
import select
import subprocess
import sys

import ending
import mutants
import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the mutants run in forks")


def test_a_command_past_its_time_is_ended_with_all_that_it_started(monkeypatch):
    """The pipe closes when the last process that holds it is gone. Both are deaf to SIGTERM."""
    monkeypatch.setattr(ending, "FAREWELL", 0.1)
    said = b""
    for seconds in (1, 10, 100):  # on a busy machine it takes longer to begin
        heard, told = os.pipe()
        with pytest.raises(subprocess.TimeoutExpired):
            ending.run(["sh", "-c", "trap '' TERM; (echo begun; exec sleep 6000) & wait"], seconds, stdout=told)
        os.close(told)
        while select.select([heard], [], [], 60)[0] and (part := os.read(heard, 100)):
            said += part
        assert select.select([heard], [], [], 0)[0], "what was started holds the pipe still"
        os.close(heard)
        if said:
            break
    assert said == b"begun\n"


@pytest.fixture(scope="module")
def planted():
    """What `python tests/mutants.py plant` says: a process of its own, because this one has imported the package."""
    done = ending.run([sys.executable, "-W", "ignore", ROOT / "tests" / "mutants.py", "plant"], 1800, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_twelve_planted_faults_are_noticed(planted):
    found = [one for one in planted if one["what"] == "planted"]
    assert len(found) == len(mutants.PLANTED) == 12 and {row[0] for row in mutants.PLANTED} == set(mutants.TESTS)
    assert not [one["mutant"] for one in found if one["verdict"] != "killed"]
    assert all("test_" in one["noticed"] for one in found), "a test has noticed, not an import"


def test_emptied_tests_notice_nothing_and_no_fault_is_no_fault(planted):
    assert {one["what"]: one["verdict"] for one in planted if one["what"] != "planted"} == {"no fault": "survived", "emptied tests": "survived"}


def test_the_same_seed_draws_the_same_mutants_whatever_is_edited_elsewhere():
    pytest.importorskip("mutmut", reason="mutmut makes the mutants: uv sync")
    found = mutants.mutants("losses")
    drawn = mutants.sample(found, 40, 7)
    assert len(drawn) == 40 == len({one.name for one in drawn})
    assert drawn == mutants.sample(found[::-1], 40, 7) and drawn != mutants.sample(found, 40, 8)
    gone = drawn[0]
    left = mutants.sample([one for one in found if one != gone], 40, 7)
    assert len(set(left) - set(drawn)) == 1
    for one in drawn[:5]:
        source = (ROOT / one.path).read_text(encoding="utf8")
        assert one.text() != source and one.text().splitlines()[: one.line - 1] == source.splitlines()[: one.line - 1]


def test_wording_is_drawn_apart():
    pytest.importorskip("mutmut", reason="mutmut makes the mutants: uv sync")
    found = mutants.mutants("losses")
    wording = [one for one in found if one.wording]
    assert 0 < len(wording) < len(found) / 10
    assert not [one for one in found if not one.wording and " " in one.before and one.before.startswith(("'", '"'))]
