"""Tar shards as a dataset: the same as what was written, pictures left in the files, and damage told as the stream tells it."""

import io
import json
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from test_shards import DAMAGES, dataset, folder  # noqa: F401

from miniclip_helpers import images
from miniclip_helpers.datasets import load_dataset, picture_of, shards, tars, write_dataset
from miniclip_helpers.errors import DataError, ImageError


def test_a_folder_of_shards_is_a_dataset(folder):  # noqa: F811
    small, back = dataset(), load_dataset(folder)
    assert back.names == small.names and back.captions == small.captions and back.problems == []
    for row in (22, 0, 7):
        assert back.file_bytes(row) == small.file_bytes(row) and back.fingerprint(row) == small.fingerprint(row)
        np.testing.assert_array_equal(np.asarray(back.image(row)), np.asarray(small.image(row)))
    one = load_dataset(folder / "00003.tar")
    assert one.names == small.names[15:20] and one.captions == small.captions[15:20]
    assert [picture.size for picture in back.subset([3, 1]).images()] == [(12, 10)] * 2


def test_the_stream_and_the_dataset_say_the_same(folder):  # noqa: F811
    assert [(sample.name, sample.captions) for sample in shards.read_shards(folder, buffer=0)] == list(zip(load_dataset(folder).names, load_dataset(folder).captions))


def test_no_picture_is_read_before_it_is_asked_for(folder, monkeypatch):  # noqa: F811
    read, plain = [], tars.Member.__bytes__
    monkeypatch.setattr(tars.Member, "__bytes__", lambda member: read.append(member) or plain(member))
    back = load_dataset(folder)
    assert read == []
    back.image(4)
    assert len(read) == 1


def test_the_picture_behind_a_name_is_found_again(folder):  # noqa: F811
    back = load_dataset(folder)
    np.testing.assert_array_equal(np.asarray(picture_of(back.names[9], back.name, back.root)), np.asarray(back.image(9)))


def test_it_can_be_written_as_any_other_dataset(folder, tmp_path):  # noqa: F811
    some = load_dataset(folder).subset([8, 12])
    assert load_dataset(write_dataset(some, tmp_path / "again")).captions == some.captions


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_with_shard_and_member_and_can_be_left_out(folder, name):  # noqa: F811
    hurt, place, left = DAMAGES[name]
    hurt(folder)
    if name != "a damaged picture":  # only opening it shows that
        with pytest.raises(DataError, match=r"problem.*copy the shards again") as told:
            load_dataset(folder)
        assert "00001.tar" in str(told.value)
    back = load_dataset(folder, skip_problems=True)
    assert len(back) == len(set(back.names)) == left and "00001.tar" in back.problems[0]


def test_a_shard_that_shrinks_meanwhile_is_told(folder):  # noqa: F811
    back = load_dataset(folder)
    file = folder / "00004.tar"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(ImageError, match="ends inside a picture"):
        back.image(22)


def test_names_stand_once_and_foreign_members_are_passed_over(tmp_path):
    def add(tar, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            add(tar, "a/000.png", buffer.getvalue()), add(tar, "a/000.json", json.dumps({"caption": "one"}).encode())
            add(tar, f"a/00{number + 1}.PNG", buffer.getvalue()), add(tar, "LICENSE", b"no sample")
            link = tarfile.TarInfo("b/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    with pytest.raises(DataError, match=r"1\.tar, a/000: the name 'a/000' stands twice"):
        load_dataset(tmp_path)
    back = load_dataset(tmp_path, skip_problems=True)
    assert back.names == ["a/000", "a/001", "a/002"] and back.captions == [["one"], [], []]


def test_members_that_nobody_reads_may_have_any_size(tmp_path):
    """A film of 70 MB beside a picture: both samples are found by both readers, the film is never held, and what is there without a picture is still told."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, size in (("000.jpg", None), ("000.mp4", 70 * 2**20), ("000.txt", 5), ("notes", 2**27), ("001.jpg", None), ("001.seg.png", 2**20), ("001.txt", 5)):
            info = tarfile.TarInfo(name)
            info.size = len(buffer.getvalue()) if size is None else size
            with open("/dev/zero", "rb") as zeros:
                tar.addfile(info, io.BytesIO(buffer.getvalue() if size is None else b"words") if size in (None, 5) else zeros)
    assert load_dataset(tmp_path).captions == [["words"], ["words"]]
    tracemalloc.start()
    try:
        found = [(sample.name, sample.captions) for sample in shards.read_shards(tmp_path, buffer=0)]
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert found == [("000", ["words"]), ("001", ["words"])]


@pytest.mark.usefixtures("never_hang")  # as it did
@pytest.mark.parametrize("name, kind, size", [("film.mp4", tarfile.REGTYPE, 2**62), ("film.mp4", tarfile.REGTYPE, 2**70), ("film.mp4", tarfile.REGTYPE, -512), ("film", tarfile.REGTYPE, -512),
                                              ("__meta__", tarfile.REGTYPE, 2**62), ("x", b"Z", 2**62), ("x", b"Z", -512)])
def test_sizes_that_lie_are_told_of_members_that_nobody_reads_too(name, kind, size, tmp_path):
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = (b"\xff" if size < 0 else b"\x80") + (size & (1 << 88) - 1).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "0.tar").write_bytes(bytes(block) + bytes(2048))
    for way in (load_dataset, lambda path: list(shards.read_shards(path, buffer=0))):
        with pytest.raises(DataError):
            way(tmp_path)


def test_captions_beside_tars_and_photos_without_are_what_they_were(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("image,caption\na.png,a square\n")
    (tmp_path / "backup.tar").write_bytes(b"")
    assert load_dataset(tmp_path).captions == [["a square"]]
    (tmp_path / "captions.csv").unlink()
    assert load_dataset(tmp_path).names == ["a.png"]


def test_pictures_of_kinds_that_cannot_be_read_are_told_once(tmp_path):
    from miniclip_helpers.datasets.formats import UNREADABLE, UnreadableWarning

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.nef", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.warns(UnreadableWarning, match=r"3 files of kinds that are not looked for \(.heic, .nef\).*convert") as told:
        assert load_dataset(tmp_path).names == ["a.png"]
    assert len(told) == 1 and not UNREADABLE & images.SUFFIXES


@pytest.mark.filterwarnings("error")
def test_photos_are_found_under_their_rarer_endings(tmp_path):
    photo = Image.new("RGB", (8, 6), "red")
    for name, options in (("a.jfif", {"format": "JPEG"}), ("b.JPE", {"format": "JPEG"}), ("c.mpo", {"format": "MPO", "save_all": True, "append_images": [photo]}),
                          ("d.apng", {"format": "PNG", "save_all": True, "append_images": [photo]})):
        photo.save(tmp_path / name, **options)
    found = load_dataset(tmp_path)
    assert found.names == ["a.jfif", "b.JPE", "c.mpo", "d.apng"] and [picture.size for picture in found.images()] == [(8, 6)] * 4
    found.captions[:] = [["a red square"]] * 4
    assert load_dataset(write_dataset(found, tmp_path / "out")).names == found.names
