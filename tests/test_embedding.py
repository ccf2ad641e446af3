"""Encoding and its cache: the same vectors as without it, nothing encoded twice, faults listed, a damaged cache replaced."""

import concurrent.futures
import contextlib
import os
import sqlite3
import threading
import time
import types

import numpy as np
import pytest
import torch
from conftest import picture

from miniclip_helpers import embedding, images
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.embedding import cache as cache_module
from miniclip_helpers.embedding import running
from miniclip_helpers.encoders import SmallCNN
from miniclip_helpers.encoders.base import to_device
from miniclip_helpers.errors import DataError, MiniclipError, UsageError


class Counting(SmallCNN):
    """A small tower that counts what it encodes."""

    def __init__(self, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__(channels=4, size=16)
        self.count, self.lock = 0, threading.Lock()

    def encode(self, inputs):
        with self.lock:  # several threads encode
            self.count += len(inputs)
        return super().encode(inputs)


@pytest.fixture
def tower(private_cache):
    return Counting()


def test_a_second_run_encodes_nothing(tower, photo_folder):
    dataset = load_dataset(photo_folder)
    first = embedding.image_features(tower, dataset)
    assert tower.count == 3
    assert torch.equal(embedding.image_features(tower, dataset), first) and tower.count == 3
    direct = tower.encode([dataset.image(i) for i in range(3)])
    torch.testing.assert_close(first, direct, rtol=1e-4, atol=1e-5)


def test_the_key_is_content_not_name(tower, photo_folder):
    embedding.image_features(tower, load_dataset(photo_folder))
    (photo_folder / "images" / "b.png").rename(photo_folder / "images" / "z.png")
    embedding.image_features(tower, load_dataset(photo_folder))
    assert tower.count == 3
    picture(77).save(photo_folder / "images" / "a.png")
    embedding.image_features(tower, load_dataset(photo_folder))
    assert tower.count == 4


def test_other_weights_have_another_cache(tower, photo_folder):
    dataset, other = load_dataset(photo_folder), Counting(seed=1)
    ours, theirs = embedding.image_features(tower, dataset), embedding.image_features(other, dataset)
    assert tower.fingerprint != other.fingerprint and other.count == 3 and not torch.allclose(ours, theirs)


def test_equal_pictures_are_encoded_once_and_order_is_kept(tower):
    pictures = [picture(1), picture(2), picture(1), picture(3)]
    rows = embedding.image_features(tower, pictures)
    assert tower.count == 3 and torch.equal(rows[0], rows[2]) and not torch.allclose(rows[0], rows[1])


def test_all_unreadable_pictures_are_listed_and_the_rest_is_kept(tower, photo_folder):
    for name in "bc":
        file = photo_folder / "images" / f"{name}.png"
        file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"(?s)2 of 3 pictures.*b\.png.*c\.png"):
        embedding.image_features(tower, load_dataset(photo_folder))
    assert tower.count == 1
    embedding.image_features(tower, load_dataset(photo_folder, skip_problems=True))
    assert tower.count == 1


def test_a_damaged_cache_is_set_aside(tower, photo_folder, private_cache):
    dataset = load_dataset(photo_folder)
    first = embedding.image_features(tower, dataset)
    file = next((private_cache / "features").glob("*.sqlite"))
    for extra in (private_cache / "features").glob("*-wal"):
        extra.unlink()
    file.write_bytes(b"this is no database, whatever its name says" * 100)
    torch.testing.assert_close(embedding.image_features(tower, dataset), first)
    assert tower.count == 6


def test_a_partly_damaged_cache_is_set_aside(tower, photo_folder, private_cache):
    dataset = load_dataset(photo_folder)
    cache = embedding.FeatureCache(tower.fingerprint, tower.width)
    cache.put({str(number): np.zeros(tower.width) for number in range(2000)})
    cache.close()
    file = next((private_cache / "features").glob("*.sqlite"))
    data = file.read_bytes()
    file.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    first = embedding.image_features(tower, dataset)
    assert torch.equal(embedding.image_features(tower, dataset), first) and tower.count == 3


@pytest.mark.parametrize("width", [128, 256, 300, 384, 512, 768])
def test_a_cache_takes_little_more_room_than_its_vectors(width, private_cache):
    with contextlib.closing(embedding.FeatureCache("room", width)) as cache:
        for start in range(0, 3000, 300):
            cache.put({f"{row:064x}": np.full(width, row) for row in range(start, start + 300)})
    assert cache.path.stat().st_size < 1.5 * 3000 * 4 * width


def test_a_cache_of_an_older_layout_is_read_and_added_to(private_cache):
    (private_cache / "features").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(private_cache / "features" / "older.sqlite")) as base, base:
        base.execute("CREATE TABLE features (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        base.execute("INSERT INTO features VALUES ('a', ?)", [np.ones(4, np.float32).tobytes()])
        base.execute("PRAGMA user_version = 1")
    with contextlib.closing(embedding.FeatureCache("older", 4)) as cache:
        cache.put({"b": np.full(4, 2.0)})
        assert {key: value.tolist() for key, value in cache.get(["a", "b"]).items()} == {"a": [1.0] * 4, "b": [2.0] * 4}


def test_a_mistake_of_the_caller_sets_no_file_aside(private_cache):
    cache = embedding.FeatureCache("kept", 4)
    cache.put({"a": np.ones(4)})
    cache.close()
    for wrong in (lambda: cache.get(["a"]), lambda: cache.put({"b": np.ones(4)})):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            wrong()
    assert [file.name for file in (private_cache / "features").iterdir()] == ["kept.sqlite"]


def test_a_cache_that_could_not_be_opened_is_used_again_by_the_same_process(private_cache):
    resource = pytest.importorskip("resource")
    with contextlib.closing(embedding.FeatureCache("again", 4)) as cache:
        cache.put({"a": np.ones(4)})
    before, opened = resource.getrlimit(resource.RLIMIT_FSIZE), set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        with pytest.raises(MiniclipError, match=r"feature cache.*disk is full.*kept before is whole") as told:
            embedding.FeatureCache("again", 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.value and (opened is None or set(os.listdir("/proc/self/fd")) == opened)  # `told` holds what stood on the stack
    with contextlib.closing(embedding.FeatureCache("again", 4)) as cache:
        cache.put({"b": np.ones(4)})
        assert set(cache.get(["a", "b"])) == {"a", "b"}


def test_two_processes_may_write_at_once(private_cache):
    def fill(start):
        cache = embedding.FeatureCache("shared", 4)
        for number in range(start, start + 50):
            cache.put({str(number): np.full(4, number)})
        cache.close()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, [0, 25, 50, 75]))
    cache = embedding.FeatureCache("shared", 4)
    found = cache.get([str(number) for number in range(125)])
    assert len(found) == 125 and all((row == int(key)).all() for key, row in found.items())


def test_a_cache_that_cannot_be_written_is_told(tower, private_cache, monkeypatch, photo_folder):
    cache = embedding.FeatureCache("full", 4)
    cache.base.execute("PRAGMA max_page_count = 1")
    with pytest.raises(MiniclipError, match="MINICLIP_CACHE"):
        cache.put({str(number): np.zeros(4) for number in range(10_000)})
    cache.close()


def test_a_file_of_another_user_in_the_cache_is_passed_by_or_told(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.delenv("MINICLIP_CACHE", raising=False)
    embedding.FeatureCache("theirs", 4).close()
    theirs, allowed = tmp_path / "miniclip" / "features" / "theirs.sqlite", os.access
    assert theirs.is_file()
    monkeypatch.setattr(os, "access", lambda path, mode: path != theirs and allowed(path, mode))  # root may write to any
    cache_module._until_the_end.cache_clear()
    with pytest.warns(embedding.CacheWarning, match="cannot be written.*set MINICLIP_CACHE"):
        cache = embedding.FeatureCache("theirs", 4)
    cache.put({"a": np.ones(4)})
    assert cache.path != theirs and list(cache.get(["a"])) == ["a"]
    cache.close()
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "miniclip"))
    with pytest.raises(MiniclipError, match=r"cannot be used .attempt to write a readonly database.; .* remove 'theirs\.sqlite' there, if it is another user's, or set MINICLIP_CACHE"):
        embedding.FeatureCache("theirs", 4)


def test_nothing_to_encode_is_told(tower):
    with pytest.raises(UsageError, match="at least one picture"):
        embedding.image_features(tower, [])
    with pytest.raises(UsageError, match="at least one text"):
        embedding.text_features(tower, [])


def test_threads_give_what_one_gives_in_order_and_leave_torch_as_it_was(tower):
    pictures = [picture(seed) for seed in range(30)]
    before = torch.get_num_threads()
    found = list(running.run_batches(tower, range(30), pictures.__getitem__))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # a thread that begins later asks torch's default
        assert before == 2 and torch.get_num_threads() == 2 and pool.submit(torch.get_num_threads).result() == 2
    assert [row for row, _ in found] == list(range(30))
    torch.testing.assert_close(torch.from_numpy(np.stack([row for _, row in found])), torch.cat([tower.encode([one]) for one in pictures]), rtol=1e-4, atol=1e-5)


def test_reading_stays_a_few_batches_ahead(tower):
    opened, most = [], running.IMAGE_BATCH * (2 * torch.get_num_threads() + 2)

    def open_row(row):
        opened.append(row)
        return picture(row)

    for row, _ in running.run_batches(tower, range(200), open_row):
        end = time.monotonic() + (row == 4)  # whoever takes the features may be slow: what would run ahead does so meanwhile
        while time.monotonic() < end and len(opened) <= row + most:
            time.sleep(0.01)
        assert len(opened) <= row + most
    assert sorted(opened) == list(range(200))


def test_a_gpu_gets_large_batches_prepared_by_threads(tower, monkeypatch):
    """The other branch, on the CPU: whole batches go through `run`, in the same order, and what cannot be read is told."""
    monkeypatch.setattr(running, "_on", lambda tower, device: contextlib.nullcontext(types.SimpleNamespace(type="cuda")))
    sizes, run = [], tower.run
    tower.run = lambda batch, forward=None: sizes.append(len(batch)) or run(batch, forward)
    pictures = [picture(seed) for seed in range(300)]
    found = dict(running.run_batches(tower, range(300), lambda row: images.open_image(b"no picture" if row == 7 else pictures[row])))
    assert sizes == [127, 128, 44] and list(found) == list(range(300)) and "cannot be read" in found.pop(7)
    torch.testing.assert_close(torch.from_numpy(found[299]), tower.encode([pictures[299]])[0], rtol=1e-4, atol=1e-5)


def test_to_device_reaches_into_what_towers_prepare():
    batch = {"a": torch.ones(2), "b": [torch.ones(1), (torch.zeros(1), "text")]}
    moved = to_device(batch, "meta")
    assert moved["a"].is_meta and moved["b"][0].is_meta and moved["b"][1][0].is_meta and moved["b"][1][1] == "text" and isinstance(moved["b"][1], tuple)


def test_compiled_towers_see_one_shape_and_give_the_same(tower, monkeypatch):
    shapes = []
    monkeypatch.setattr(torch, "compile", lambda forward, dynamic: lambda batch: shapes.append(tuple(batch.shape)) or forward(batch))
    pictures = [picture(seed) for seed in range(10)]
    plain = torch.cat([tower.encode([one]) for one in pictures])
    monkeypatch.setenv("MINICLIP_COMPILE", "1")
    torch.testing.assert_close(embedding.image_features(tower, pictures), plain, rtol=1e-4, atol=1e-5)
    assert len(shapes) == 4 and set(shapes) == {(4, 3, 16, 16)}  # the warm-up, and three batches of which the last holds two


def test_without_a_compiler_it_runs_as_it_is_and_says_so(tower, monkeypatch):
    def compile(forward, dynamic):
        def fail(batch):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")
        return fail

    monkeypatch.setattr(torch, "compile", compile)
    pictures = [picture(seed) for seed in range(10)]
    with pytest.warns(embedding.CompileWarning, match="runs uncompiled: .*g\\+\\+"):
        found = embedding.image_features(tower, pictures, compile=True)
    torch.testing.assert_close(found, torch.cat([tower.encode([one]) for one in pictures]), rtol=1e-4, atol=1e-5)


def cache_file(folder):
    return next((folder / "features").glob("*.sqlite"))


@pytest.mark.parametrize("version", [2, 77])
def test_a_cache_of_another_version_is_set_aside_with_one_line(version, tower, photo_folder, private_cache):
    dataset = load_dataset(photo_folder)
    first = embedding.image_features(tower, dataset)
    with contextlib.closing(sqlite3.connect(cache_file(private_cache))) as base:
        base.execute("UPDATE features SET value = zeroblob(length(value))")  # what that version means by it, nobody knows
        base.execute(f"PRAGMA user_version = {version}")
        base.commit()
    with pytest.warns(embedding.CacheWarning, match=f"another version.*layout {version}, not 1") as told:
        torch.testing.assert_close(embedding.image_features(tower, dataset), first)
    assert len(told) == 1 and tower.count == 6 and list((private_cache / "features").glob(f"*.version{version}-*"))
    assert torch.equal(embedding.image_features(tower, dataset), embedding.image_features(tower, dataset)) and tower.count == 6


def test_the_first_layout_had_no_number_and_is_kept(tower, photo_folder, private_cache):
    dataset = load_dataset(photo_folder)
    first = embedding.image_features(tower, dataset)
    with contextlib.closing(sqlite3.connect(cache_file(private_cache))) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (1,)
        base.execute("PRAGMA user_version = 0")
    assert torch.equal(embedding.image_features(tower, dataset), first) and tower.count == 3


def test_a_disk_that_fills_up_is_told_and_what_was_kept_stays(tower, private_cache):
    """The system's own limit on a file's size stands for the full disk: sqlite cannot grow its file."""
    resource = pytest.importorskip("resource")
    pictures = [picture(seed) for seed in range(200)]
    embedding.image_features(tower, pictures[:100])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        with pytest.raises(MiniclipError, match=r"feature cache.*disk is full.*kept before is whole.*MINICLIP_CACHE"):
            embedding.image_features(tower, pictures)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with contextlib.closing(sqlite3.connect(cache_file(private_cache))) as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    tower.count = 0
    embedding.image_features(tower, pictures[:100])
    assert tower.count == 0
    torch.testing.assert_close(embedding.image_features(tower, pictures), torch.cat([tower.encode([one]) for one in pictures]), rtol=1e-4, atol=1e-5)

def test_many_may_begin_one_cache_at_the_same_moment(tmp_path):
    """Turning on the write-ahead log does not wait for a busy file by itself."""
    def begin(number):
        ready.wait()
        cache = embedding.FeatureCache(f"round{turn}", 3, tmp_path)
        cache.put({str(number): np.full(3, number, np.float32)})
        cache.close()

    for turn in range(20):
        ready = threading.Barrier(8)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(begin, range(8)))
        cache = embedding.FeatureCache(f"round{turn}", 3, tmp_path)
        assert sorted(cache.get([str(number) for number in range(8)])) == [str(number) for number in range(8)]
        cache.close()
