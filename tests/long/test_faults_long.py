"""The long form of "nothing lost": 20 moments of SIGKILL in training, 200 faults at writes and more; kills in commands that take long."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import faults
import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks, signals and limits are those of Linux and macOS")
SEED = int(os.environ.get("MINICLIP_FAULT_SEED", 2026))


def test_twenty_kills_of_training_resume_to_the_same_bits(tmp_path):
    faults.kill_and_resume(tmp_path, moments=20, seed=SEED)


def test_two_hundred_faults_at_writes_break_no_file(tmp_path):
    assert sum(faults.strike_all(tmp_path, per_kind=11, seed=SEED).values()) >= 200


def real(*argv, kill_after=None, cache, seconds=600, by=signal.SIGKILL):
    """A command as a process of its own, started afresh; killed, or stopped by another signal, after so many seconds."""
    process = subprocess.Popen([sys.executable, "-m", "miniclip_helpers.cli", *map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                               env=os.environ | faults.ENVIRONMENT | {"MINICLIP_CACHE": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    try:
        said, _ = process.communicate(timeout=kill_after or seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, by)
        said, _ = process.communicate(timeout=seconds)
        assert kill_after, f"no end after {seconds} s: {said}"
    return process.returncode, said


def test_real_processes_killed_again_and_again_end_at_the_same_bits(tmp_path):
    """One run of a real `miniclip train`, killed after ever longer times until it has ended: as long as it needs, at moments that nobody chose."""
    data, dice = faults.training_data(tmp_path / "photos"), random.Random(SEED)
    argv = ["train", "--data", data, *faults.TRAINED["preset 001 and a transformer"], *faults.STEPS, "--resume", "--out"]
    begin = time.monotonic()
    code, said = real(*argv, tmp_path / "whole", cache=tmp_path / "cache")
    assert code == 0, said
    whole, patience, kills = faults.outcome(tmp_path / "whole"), (time.monotonic() - begin) / 4, 0
    while (code := real(*argv, tmp_path / "cut", cache=tmp_path / "cache", kill_after=patience * dice.uniform(0.5, 1.5))[0]) != 0:
        assert code == -signal.SIGKILL
        kills, patience = kills + 1, patience * 1.25
    print(f"{kills} kills of one run; seed {SEED}")
    assert kills >= 2 and faults.outcome(tmp_path / "cut") == whole
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "whole", "cut", "cache"}


@pytest.mark.parametrize("number", range(3))
def test_an_export_that_is_killed_leaves_the_old_one_or_the_new_one(number, tmp_path):
    from standin import save_hub_clip

    dice = random.Random(SEED + number)
    for seed in (0, 1):
        save_hub_clip(tmp_path / f"clip{seed}", seed=seed)
    states, times = [], []
    for seed in (1, 0):
        begin = time.monotonic()
        code, said = real("export", tmp_path / f"clip{seed}", "--to", tmp_path / "hub", cache=tmp_path / "cache")
        assert code == 0, said
        states.append(faults.files(tmp_path / "hub")[0]), times.append(time.monotonic() - begin)
    new, old = states
    real("export", tmp_path / "clip1", "--to", tmp_path / "hub", cache=tmp_path / "cache", kill_after=times[1] * dice.uniform(0.6, 1.05))
    assert faults.files(tmp_path / "hub")[0] in (old, new)
    code, said = real("export", tmp_path / "clip1", "--to", tmp_path / "hub", cache=tmp_path / "cache")
    assert code == 0 and faults.files(tmp_path / "hub")[0] == new, said
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_course_that_is_stopped_while_it_is_built_or_graded_is_ended_by_the_same_command(by, tmp_path):
    """`coursework build`, then `coursework grade`, each stopped at times that nobody chose, until it has ended: the scores are those of an uninterrupted grading."""
    pytest.importorskip("nbgrader", reason="courses need nbgrader, which is not installed")
    dice = random.Random(SEED)

    def until_done(*argv, patience):
        kills = []
        while (done := real(*argv, cache=tmp_path / "cache", kill_after=patience * dice.uniform(0.5, 1.5), by=by))[0] != 0:
            assert done[0] == -by or by == signal.SIGINT and done[0] == 130, done
            kills, patience = [*kills, done], patience * 1.3
        told = [said for code, said in kills if code == 130]
        assert all("is kept" in said or "is whole" in said for said in told) and not any("/miniclip_helpers/" in said for said in told), told  # Python's own helpers, as of its semaphores, say what they like
        assert told or by == signal.SIGKILL, kills  # the others were still reading their imports
        return len(kills)

    begin = time.monotonic()
    code, said = real("coursework", "build", "--out", tmp_path / "whole", "--notebooks", "00", cache=tmp_path / "cache")
    assert code == 0, said
    built = until_done("coursework", "build", "--out", tmp_path / "course", "--notebooks", "00", patience=(time.monotonic() - begin) / 3)
    for version in ("source", "release"):
        assert faults.files(tmp_path / "course" / version) == faults.files(tmp_path / "whole" / version)
    (stem,) = [path.name for path in (tmp_path / "whole" / "release").iterdir()]
    for student in ("ada", "bob"):
        shutil.copytree(tmp_path / "whole" / "release" / stem, tmp_path / "handed in" / student / stem)
    begin = time.monotonic()
    code, said = real("coursework", "grade", tmp_path / "handed in", "--out", tmp_path / "whole", "--jobs", 1, cache=tmp_path / "cache")
    assert code == 0, said
    graded = until_done("coursework", "grade", tmp_path / "handed in", "--out", tmp_path / "graded", "--course", tmp_path / "course", "--jobs", 1,
                        patience=(time.monotonic() - begin) / 3)
    print(f"{built} kills of building, {graded} of grading; seed {SEED}")
    assert built and graded
    for name in ("scores.csv", "exercises.csv"):
        assert (tmp_path / "graded" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not [path for path in (tmp_path / "graded").rglob("*") if ".miniclip-" in path.name]
