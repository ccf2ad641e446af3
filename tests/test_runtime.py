"""Whole-or-not-at-all writes, digests, seeds, folders."""

import errno
import hashlib
import inspect
import os
import pickle
import subprocess
import sys

import pytest
import torch

from miniclip_helpers import errors, runtime
from miniclip_helpers.errors import DataError, unknown
from miniclip_helpers.runtime import unwritten


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "x.txt"
    with runtime.writing(target) as path:
        path.write_text("first")
    with pytest.raises(RuntimeError, match="cut"):  # noqa: PT012
        with runtime.writing(target) as path:
            path.write_text("half of the sec")
            raise RuntimeError("cut")
    assert target.read_text() == "first" and [p.name for p in target.parent.iterdir()] == ["x.txt"]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "run"
    for content in ("first", "second"):
        with runtime.writing_folder(target) as fresh:
            (fresh / "a").write_text(content)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with runtime.writing_folder(target) as fresh:
            (fresh / "a").write_text("third")
            raise KeyboardInterrupt
    assert (target / "a").read_text() == "second" and [p.name for p in tmp_path.iterdir()] == ["run"]


def test_digest_keeps_parts_apart():
    assert runtime.digest("ab", "c") != runtime.digest("a", "bc") and runtime.digest("a", 1) == runtime.digest("a", 1)


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert runtime.sha256(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


def test_generator_is_seeded_and_leaves_the_global_state():
    before = torch.random.get_rng_state()
    assert torch.equal(torch.rand(3, generator=runtime.generator(5)), torch.rand(3, generator=runtime.generator(5)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    for name, call in (("MINICLIP_CACHE", runtime.cache_dir), ("MINICLIP_BUILD", runtime.build_dir), ("MINICLIP_FIGURES", runtime.figures_dir)):
        monkeypatch.setenv(name, str(tmp_path / name))
        assert call() == tmp_path / name


def test_errors_name_the_nearest_and_count_the_rest():
    assert "did you mean clip" in str(unknown("loss", "clib", ["clip", "margin"]))
    message = str(DataError("bad", [f"line {n}" for n in range(30)]))
    assert "line 9" in message and "line 10" not in message and "20 more" in message


def test_lines_of_a_file_keep_their_numbers(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffa.jpg\r\n\r\n  b c.jpg \n".encode())
    assert runtime.read_lines(file, "image name") == {1: "a.jpg", 3: "b c.jpg"}
    file.write_text(" \n\n")
    with pytest.raises(DataError, match="holds no image name; expected one a line"):
        runtime.read_lines(file, "image name")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as text, one image name a line"):
        runtime.read_lines(file, "image name")


def test_every_error_comes_back_from_another_process_with_its_words(tmp_path):
    made = [runtime.Unwritten(tmp_path / "x", OSError(errno.ENOSPC, "No space left on device")), runtime.Unwritten(tmp_path, ValueError(unwritten), "the rest is kept"),
            DataError("bad", [f"line {number}" for number in range(30)])]
    made[1].reason = "cut"
    made += [kind("what it says") for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(made) > 8
    for error in made:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301, our own
        assert type(again) is type(error) and str(again) == str(error) and again.exit_code == error.exit_code and vars(again) == vars(error)


def test_a_pipe_that_the_shell_opened_is_read_and_any_other_is_not(tmp_path):
    code = "import sys; from miniclip_helpers import datasets, runtime, zero_shot\nfrom miniclip_helpers.zero_shot.labels import read_labels\n"
    for call in ("list(runtime.read_lines(path, 'name').values())", "read_labels(path)", "datasets.read_split(path)"):
        said = '{"train": ["a", "b"]}' if "split" in call else "a\nb\n"
        done = subprocess.run([sys.executable, "-c", f"{code}path = '/dev/stdin'\nprint({call})"], input=said, capture_output=True, text=True)
        assert done.stdout.strip() in ("['a', 'b']", "{'train': ['a', 'b']}"), done.stderr
    os.mkfifo(tmp_path / "pipe")
    assert runtime.is_endless(tmp_path / "pipe", pipes=True) and runtime.is_endless("/dev/zero", pipes=True)
    read, write = os.pipe()
    try:
        assert runtime.is_endless(f"/dev/fd/{read}") and not runtime.is_endless(f"/dev/fd/{read}", pipes=True)
    finally:
        os.close(read), os.close(write)
    assert not runtime.is_endless(tmp_path) and not runtime.is_endless(tmp_path / "absent") and not runtime.is_endless("a\0b")


def test_variables_of_a_launcher_that_hold_no_numbers_are_nobodys(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "here")
    for rank, size, expected in (("1", "2", (1, 2)), ("", "2", (0, 2)), ("", "", (0, 1)), ("node-3", "2", (0, 1)), ("5", "2", (0, 1))):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", size)
        assert runtime.launched() == expected


@pytest.mark.parametrize("code, advice", [(errno.EACCES, "; name a place that you may write to"), (errno.ENOSPC, "; free some space, or name another place"),
                                          (errno.EMFILE, ""), (errno.ENAMETOOLONG, ""), (errno.EBUSY, ""), (errno.ENOMEM, "")])
def test_the_advice_fits_what_the_system_said(code, advice, monkeypatch):
    assert str(runtime.Unwritten("x", OSError(code, os.strerror(code)))) == f"'x' cannot be written ({os.strerror(code)}){advice}"
    monkeypatch.setattr(os, "strerror", lambda code: "Unknown error")  # as systems say of codes that they do not have
    assert unwritten.reason_of(ValueError("Unknown error")) is None
