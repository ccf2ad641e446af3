"""Shards: written the same to the byte, read by webdataset and by us, dealt out once, and damaged in every way."""

import io
import json
import tarfile
import weakref

import numpy as np
import pytest
import torch
import webdataset
from conftest import picture

from miniclip_helpers.datasets import ImageTextDataset, load_dataset, shards
from miniclip_helpers.errors import DataError, UsageError

NAMES = ["a.b.c.png", "sub/folder/photo.one.jpg", "ünïcödé 猫.png", "no_suffix", "..hidden", "line\u2028break.png"]
CAPTIONS = [["a cat.", "eine Katze"], ["ネコ 🐈‍⬛"], [], ["quotes \" and \\ and\nline breaks"], ["\u202eright to left"], ["tab\there"]]


def png(seed, size=(12, 10)):
    buffer = io.BytesIO()
    picture(seed, size).save(buffer, "PNG")
    return buffer.getvalue()


def dataset(count=23):
    names = [*NAMES, *(f"{row}.x.png" for row in range(len(NAMES), count))][:count]
    captions = [*CAPTIONS, *([f"picture {row}"] for row in range(len(NAMES), count))][:count]
    return ImageTextDataset("small", names, captions, [png(row) for row in range(count)])


@pytest.fixture
def folder(tmp_path):
    return shards.write_shards(dataset(), tmp_path / "shards", size=5)


def names(stream):
    return [sample.name for sample in stream]


def test_everything_comes_back_as_it_was(folder):
    small = dataset()
    back = list(shards.read_shards(folder, buffer=0))
    assert [sample.name for sample in back] == small.names and [sample.captions for sample in back] == small.captions
    for row, sample in enumerate(back):
        np.testing.assert_array_equal(np.asarray(sample.picture), np.asarray(small.image(row)))
    about = json.loads((folder / "index.json").read_text(encoding="utf8"))
    assert about["pictures"] == 23 and about["captions"] == len(small.owner) and [shard["pictures"] for shard in about["shards"]] == [5, 5, 5, 5, 3]
    assert sorted(file.name for file in folder.iterdir()) == [*(f"{number:05d}.tar" for number in range(5)), "index.json"]


def test_equal_datasets_give_equal_bytes(folder, tmp_path):
    again = shards.write_shards(dataset(), tmp_path / "again", size=5)
    for file in folder.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()
    members = tarfile.open(folder / "00000.tar").getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, 0, "", "")}
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert shards.verify_shards(folder) == 5


def test_webdataset_itself_reads_them(folder):
    """The library's own pipeline, and with it open_clip's, finds the picture and the text under the usual keys."""
    found = list(webdataset.WebDataset([f"file:{file}" for file in sorted(folder.glob("*.tar"))], shardshuffle=False).decode("pil").to_tuple("png", "json"))
    assert [said["name"] for _, said in found] == dataset().names and found[0][0].size == (12, 10)
    first = next(iter(webdataset.WebDataset(f"file:{folder / '00000.tar'}", shardshuffle=False)))
    assert first["txt"] == b"a cat."


def test_nothing_is_overwritten_and_nothing_half_written(folder, tmp_path):
    with pytest.raises(UsageError, match="holds something else"):
        shards.write_shards(dataset(), folder)
    broken = ImageTextDataset("broken", ["a", "b"], [["x"], ["y"]], [png(0), tmp_path / "absent.png"])
    with pytest.raises(FileNotFoundError):
        shards.write_shards(broken, tmp_path / "half")
    assert not (tmp_path / "half").exists() and not list(tmp_path.glob(".half*"))
    with pytest.raises(UsageError, match="at least one"):
        shards.write_shards(dataset(), tmp_path / "zero", size=0)


def test_the_order_is_the_seed_s_and_the_epoch_s(folder):
    stream = shards.read_shards(folder, buffer=8, seed=3)
    first, again = names(stream), names(stream)
    assert first == again == names(shards.read_shards(folder, buffer=8, seed=3)) and sorted(first) == sorted(dataset().names)
    stream.set_epoch(1)
    assert names(stream) != first and names(shards.read_shards(folder, buffer=8, seed=4)) != first
    assert len({names(shards.read_shards(folder, buffer=1, seed=seed))[0] for seed in range(8)}) > 2  # the shards themselves change places
    rows = [dataset().names.index(name) for name in first]
    assert any(abs(after - before) > 5 for before, after in zip(rows, rows[1:]))


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 0), (3, 0), (5, 0), (8, 0), (1, 2), (2, 2)])
def test_every_sample_is_seen_once_among_all_readers(folder, processes, workers):
    """More readers than shards, too; each pass of each process, as its DataLoader gives it."""
    found = []
    for rank in range(processes):
        stream = shards.read_shards(folder, buffer=4, rank=rank, processes=processes)
        loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=workers)
        found.append([sample.name for sample in loader])
    assert sorted(sum(found, [])) == sorted(dataset().names)
    assert processes == 1 or all(len(part) < 23 for part in found)


def test_a_rank_that_is_none_is_told(folder):
    with pytest.raises(UsageError, match="below 2"):
        shards.read_shards(folder, rank=2, processes=2)


def test_memory_is_the_buffer(tmp_path, monkeypatch):
    """Of 2,000 small pictures never more than one is open, and never more encoded ones are held than the buffer."""
    data = png(0)
    many = ImageTextDataset("many", [f"{row}.png" for row in range(2000)], [["x"]] * 2000, [data] * 2000)
    folder = shards.write_shards(many, tmp_path / "many", size=300)
    open_image, alive, most = shards.images.open_image, weakref.WeakValueDictionary(), 0

    def counted(source):
        found = open_image(source)
        alive[id(found)] = found
        return found

    monkeypatch.setattr(shards.images, "open_image", counted)
    read, given = 0, 0
    encoded = shards.ShardStream._encoded

    def watched(self, file):
        nonlocal read
        for sample in encoded(self, file):
            read += 1
            yield sample

    monkeypatch.setattr(shards.ShardStream, "_encoded", watched)
    ahead = 0
    for sample in shards.read_shards(folder, buffer=50):
        given += 1
        del sample
        most, ahead = max(most, len(alive)), max(ahead, read - given)
    assert given == 2000 and most <= 1 and 40 <= ahead <= 52


def damage(folder, name, change):
    file = folder / name
    data = bytearray(file.read_bytes())
    file.write_bytes(bytes(change(data) or data))


def header_of(folder, name, member):
    with tarfile.open(folder / name) as tar:
        return tar.getmember(member)


def cut_in(member, where):
    """A change that cuts the file inside a member's data, or right before its header."""
    def change(folder):
        info = header_of(folder, "00001.tar", member)
        damage(folder, "00001.tar", lambda data: data[: info.offset_data + 5] if where == "data" else data[: info.offset])
    return change


def bad_header(folder):
    info = header_of(folder, "00001.tar", "000000007.json")
    damage(folder, "00001.tar", lambda data: data.__setitem__(slice(info.offset, info.offset + 100), b"\xff" * 100))


def bad_picture(folder):
    info = header_of(folder, "00001.tar", "000000007.png")
    damage(folder, "00001.tar", lambda data: data.__setitem__(slice(info.offset_data, info.offset_data + 60), b"\x00" * 60))


def bad_json(folder):
    info = header_of(folder, "00001.tar", "000000007.json")
    damage(folder, "00001.tar", lambda data: data.__setitem__(slice(info.offset_data, info.offset_data + 1), b"!"))


def not_a_tar(folder):
    (folder / "00001.tar").write_bytes(b"<html>404 not found</html>" * 100)


def empty(folder):
    (folder / "00001.tar").write_bytes(b"")


DAMAGES = {
    "cut in a picture": (cut_in("000000007.png", "data"), "00001.tar, at 000000007.png", 20),
    "cut before a header": (cut_in("000000007.json", "header"), "00001.tar, at 000000006.txt: ends early", 20),
    "cut at the end": (lambda folder: damage(folder, "00001.tar", lambda data: data[: header_of(folder, "00001.tar", "000000009.txt").offset + 1024]), "ends early", 23),
    "a damaged header": (bad_header, "00001.tar, at 000000006.txt", 20),
    "a damaged picture": (bad_picture, "00001.tar, 000000007.png ('7.x.png')", 22),
    "damaged captions": (bad_json, "00001.tar, 000000007: its captions", 22),
    "no tar": (not_a_tar, "00001.tar, at its beginning", 18),
    "empty": (empty, "00001.tar, at its beginning", 18),
}


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_with_shard_and_member_and_can_be_left_out(folder, name, indexed):
    hurt, place, left = DAMAGES[name]
    hurt(folder)
    if not indexed:
        (folder / "index.json").unlink()
    with pytest.raises(DataError, match="damaged") as told:
        list(shards.read_shards(folder, buffer=0))
    assert place in str(told.value)
    stream = shards.read_shards(folder, buffer=0, skip_problems=True)
    found = names(stream)
    assert len(found) == len(set(found)) == left and place in stream.problems[0]
    if indexed:
        with pytest.raises(DataError, match=r"00001\.tar: its sha256"):
            shards.verify_shards(folder)


def test_a_shard_of_the_index_that_is_gone(folder):
    (folder / "00003.tar").unlink()
    with pytest.raises(DataError, match=r"00003.tar does not exist"):
        shards.read_shards(folder)
    assert len(names(shards.read_shards(sorted(folder.glob("*.tar")), buffer=0))) == 18  # asked for by name


def test_patterns_files_and_what_is_none(folder):
    assert len(names(shards.read_shards(folder / "0000[01].tar"))) == 10 and len(names(shards.read_shards(str(folder / "00004.tar")))) == 3
    for nothing in (folder / "absent", folder / "*.zip", []):
        with pytest.raises(DataError, match="expected tar files"):
            shards.read_shards(nothing)
    (folder / "index.json").write_text("{}")
    with pytest.raises(DataError, match="not an index"):
        shards.read_shards(folder)


def test_members_that_lead_elsewhere_are_read_and_never_unpacked(tmp_path):
    """Names that climb out, links and devices: nothing appears on the disk, and only regular files are read."""
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "foreign.tar", "w") as tar:
        for name, data in (("../../escape.png", png(1)), ("../../escape.txt", b"out"), ("/absolute.png", png(2))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = sorted(tmp_path.parent.rglob("*"))
    found = list(shards.read_shards(tmp_path / "in", buffer=0))
    assert [(sample.name, sample.captions) for sample in found] == [("../../escape", ["out"]), ("/absolute", [])]
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_shards_of_others(tmp_path):
    """As img2dataset writes them: jpg, txt and a json with one caption; a member that stands twice; a sample without a picture."""
    def add(tar, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        add(tar, "000.png", png(1)), add(tar, "000.json", json.dumps({"caption": "one"}).encode()), add(tar, "000.txt", b"one")
        add(tar, "001.png", png(2)), add(tar, "001.png", png(3)), add(tar, "001.txt", b"two")
        add(tar, "002.txt", b"no picture")
    stream = shards.read_shards(tmp_path / "0.tar", buffer=0, skip_problems=True)
    assert [(sample.name, sample.captions) for sample in stream] == [("000", ["one"]), ("001", ["two"])]
    assert "001.png: stands twice" in stream.problems[0] and "002: no picture" in stream.problems[1]


def test_workers_say_what_they_leave_out(folder):
    bad_picture(folder)
    loader = torch.utils.data.DataLoader(shards.read_shards(folder, skip_problems=True), batch_size=None, num_workers=1)
    assert len(list(loader)) == 22


def test_embedded_pictures_survive(tmp_path):
    stamps = load_dataset("stamps").subset(range(0, 950, 95))
    back = list(shards.read_shards(shards.write_shards(stamps, tmp_path / "stamps", size=4), buffer=0))
    assert [sample.name for sample in back] == stamps.names and [sample.captions for sample in back] == stamps.captions
