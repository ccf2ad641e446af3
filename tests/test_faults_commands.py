"""Commands that are killed, stopped by Ctrl-C or told to end, that meet a full disk, or that run side by side: what is there afterwards is whole, and the same command works."""

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
from faults import Fault

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks and signals are those of Linux and macOS")
SEED = int(os.environ.get("MINICLIP_FAULT_SEED", 0))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos/, a second one more/, and a small model/."""
    from miniclip_helpers.model import save_model

    folder = tmp_path_factory.mktemp("commands")
    faults.training_data(folder / "photos"), faults.training_data(folder / "more", count=30)
    (folder / "model").mkdir()
    save_model(faults.small_model(), folder / "model")
    return folder


@pytest.fixture
def command(place, tmp_path):
    """Run a command with at most one fault under the test's own folder."""
    def call(*argv, **options):
        return faults.run(faults.miniclip, *argv, log=tmp_path.parent / "said.txt", root=tmp_path, environment={"MINICLIP_CACHE": tmp_path / "cache"}, **options)

    return call


def operations(command, tmp_path, *argv, what, **options):
    """The numbers of the operations of a command that name `what`."""
    code, said = command(*argv, counted=tmp_path.parent / "counted.txt", **options)
    assert code == 0, said
    lines = (tmp_path.parent / "counted.txt").read_text(encoding="utf8").splitlines()
    (tmp_path.parent / "counted.txt").unlink()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    return [number for number, line in enumerate(lines) if what in line]


@pytest.mark.parametrize("what, code", [("kill", -signal.SIGKILL), ("INT", 130), ("TERM", 143)])
def test_encode_goes_on(what, code, place, command, tmp_path):
    argv = ["encode", "--data", place / "photos", "--model", place / "model", "--rows-per-shard", 6, "--out", tmp_path / "shards"]
    numbers = operations(command, tmp_path, *argv, what="00002.parquet")
    whole = faults.files(tmp_path / "shards")[0]
    shutil.rmtree(tmp_path / "shards")
    ended, said = command(*argv, fault=Fault(what, numbers[len(numbers) // 2]))
    held, hidden = faults.files(tmp_path / "shards")
    assert ended == code and {name: whole[name] for name in held} == held and 2 <= len(held) < 4, (ended, said, held, hidden)
    assert what == "kill" or ("finished shards are kept" in said and "the same command goes on" in said and "Traceback" not in said and not hidden)
    ended, said = command(*argv)
    assert ended == 0 and f"({len(held)} of them from before)" in said, said
    assert faults.files(tmp_path / "shards") == (whole, [])


@pytest.mark.parametrize("what, code", [("kill", -signal.SIGKILL), ("INT", 130)])
def test_an_index_is_the_old_one_or_the_new_one(what, code, place, command, tmp_path):
    argv = ["index", place / "photos", "--model", place / "model", "--out", tmp_path / "photos.index"]
    numbers = operations(command, tmp_path, *argv, what="photos.index")
    new = faults.files(tmp_path / "photos.index")[0]
    assert command(*argv, "--limit", 5)[0] == 0
    old = faults.files(tmp_path / "photos.index")[0]
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # features that were encoded in another batch differ in their last bits
    number = random.Random(SEED).choice(numbers[:-1])
    ended, said = command(*argv, fault=Fault(what, number))
    held = faults.files(tmp_path / "photos.index")[0]
    assert held in (old, new) and ended in (code, 0), (SEED, number, ended, said, held)
    assert what == "kill" or ended == 0 or ("is as it was" in said and "Traceback" not in said and said.strip().count("\n") == 0), said
    assert command(*argv)[0] == 0 and faults.files(tmp_path / "photos.index") == (new, [])
    assert {path.name for path in tmp_path.iterdir()} <= {"photos.index", "cache"}


@pytest.mark.parametrize("name", ["train", "fine-tune"])
def test_learning_that_is_stopped_says_how_to_go_on(name, place, command, tmp_path):
    """Ctrl-C before the first epoch has ended, SIGTERM later, SIGKILL last; each time the same command and --resume."""
    argv = {"train": ["train", *faults.TRAINED["small-cnn and bag-of-words"], *faults.STEPS],
            "fine-tune": ["fine-tune", "--model", place / "model", "--method", "full", "--epochs", 3, "--batch-size", 6, "--val-size", 0.25]}[name]
    argv += ["--data", place / "photos", "--out", tmp_path / "run"]
    steps = operations(command, tmp_path, *argv, what="step", steps=True)
    whole = faults.outcome(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    for what, number, code, words in (("INT", steps[1], 130, "holds no whole epoch yet; begin it again with the same command and --resume"),
                                      ("TERM", steps[5], 143, "up to its last whole epoch; go on with the same command and --resume"), ("kill", steps[1], -signal.SIGKILL, "")):
        ended, said = command(*argv, "--resume", fault=Fault(what, number), steps=True)
        assert ended == code and words in said and "Traceback" not in said, (what, ended, said)
        if what != "kill":
            assert command(*argv)[0] == 2
    ended, said = command(*argv, "--resume")
    assert ended == 0 and faults.outcome(tmp_path / "run") == whole, said
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "cache"}


@pytest.mark.parametrize("name", [name for name, kind in faults.KINDS.items() if not kind.serves])
def test_a_disk_that_is_really_full(name, tmp_path):
    """A tmpfs with no page, one, three or nine left: what was there stays, whole; the error says so; with room again the same call works."""
    if sys.platform != "linux":
        pytest.skip("the small disk is Linux's tmpfs")
    code, said = faults.run(faults.on_a_full_disk, name, tmp_path, log=tmp_path.parent / "said.txt")
    if code == 77:
        pytest.skip("no small disk can be mounted here: neither root nor a name space of one's own")
    assert code == 0, said


def test_commands_side_by_side_in_one_cache(place, command, tmp_path):
    """Three processes make one index at once, one encodes other pictures, two encode into one folder: no error, and what one alone gives."""
    calls = {"index": ["index", place / "photos", "--model", place / "model", "--out"], "more": ["index", place / "more", "--model", place / "model", "--out"],
             "shards": ["encode", "--data", place / "photos", "--model", place / "model", "--rows-per-shard", 6, "--out"]}
    alone = {}
    for name, argv in calls.items():
        code, said = command(*argv, tmp_path / "alone" / name)
        assert code == 0, said
        alone[name] = faults.files(tmp_path / "alone" / name)[0]
    running = [(name, tmp_path / f"said{number}.txt") for number, name in enumerate(["index", "index", "index", "more", "shards", "shards"])]
    begun = [faults.start(faults.miniclip, *calls[name], tmp_path / "both" / name, log=log, environment={"MINICLIP_CACHE": tmp_path / "one cache"}) for name, log in running]
    ended = [faults.finish(process, log) for process, (_, log) in zip(begun, running)]
    assert all(code == 0 and "Traceback" not in said for code, said in ended), ended
    assert {name: faults.files(tmp_path / "both" / name)[0] for name in calls} == alone
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == sorted(calls)


BOOK = """import time, pathlib
pathlib.Path({mark!r}).write_text("begun")
time.sleep({seconds})"""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_series_that_is_stopped_begins_no_further_notebook(number, code, tmp_path):
    """A real process, and a kernel; Ctrl-C reaches all of a terminal's processes, SIGTERM the command alone."""
    from nbformat import v4, write

    (tmp_path / "notebooks").mkdir()
    shutil.copyfile(ROOT / "notebooks" / "profiles.yaml", tmp_path / "notebooks" / "profiles.yaml")
    for name in ("01_one", "02_two"):
        cell = v4.new_code_cell(BOOK.format(mark=str(tmp_path / name), seconds=600))
        write(v4.new_notebook(cells=[cell], metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}), tmp_path / "notebooks" / f"{name}.ipynb")
    places = {"MINICLIP_NOTEBOOKS": str(tmp_path / "notebooks"), "MINICLIP_BUILD": str(tmp_path / "build"), "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "said.txt", "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "miniclip_helpers.cli", "run"], env=os.environ | places, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 180
        while not (tmp_path / "01_one").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        assert process.wait(120) == code, (tmp_path / "said.txt").read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    said = (tmp_path / "said.txt").read_text(encoding="utf8")
    assert "miniclip: stopped; notebooks that had ended are whole" in said and "run the same command again" in said, said
    assert (tmp_path / "01_one").exists() and not (tmp_path / "02_two").exists() and not list((tmp_path / "build").rglob("0*.ipynb"))
    if number == signal.SIGINT:
        assert "Traceback" not in said, said
