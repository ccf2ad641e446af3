"""Whole-or-not-at-all writes, digests, seeds, folders."""

import hashlib

import pytest
import torch

from miniclip_helpers import runtime
from miniclip_helpers.errors import DataError, unknown


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
