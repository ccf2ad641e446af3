"""Archives, links, pipes, devices and names that lead elsewhere; what unpacks to more than it says: refused in our words, at once, with memory flat."""

import functools
import gzip
import io
import json
import os
import tarfile

import numpy as np
import pytest
from conftest import picture
from hostile import memory_below

from miniclip_helpers import cli, datasets, downloads, embedding, images, index, pretrained, search, zero_shot
from miniclip_helpers.datasets import shards
from miniclip_helpers.embedding import parts
from miniclip_helpers.errors import DataError, ImageError, MiniclipError

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="links, pipes and devices of POSIX"), pytest.mark.usefixtures("never_hang")]


@pytest.fixture
def photo(tmp_path):
    picture(1).save(tmp_path / "a.png")
    return (tmp_path / "a.png").read_bytes()


# --- tar ------------------------------------------------------------------------------------------------------------------------------


def pack(file, members, mode="w"):
    """members: (name, bytes, more fields of the TarInfo)."""
    with tarfile.open(file, mode, format=tarfile.PAX_FORMAT) as tar:
        for name, data, more in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in more.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(data))
    return file


SLIPS = {"above": ("../evil", b"x", {}), "absolute": ("/evil", b"x", {}), "deep": ("a/../../evil", b"x", {}), "a link": ("evil", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
         "a hard link": ("evil", b"", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}), "a device": ("evil", b"", {"type": tarfile.CHRTYPE}), "a pipe": ("evil", b"", {"type": tarfile.FIFOTYPE}),
         "a sparse file": ("evil", b"x" * 512, {"pax_headers": {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "evil", "GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,1"}})}


@pytest.mark.parametrize("name", SLIPS)
def test_what_leads_out_of_an_archive_is_not_unpacked(name, tmp_path):
    room = tmp_path / "in" / "room"
    room.mkdir(parents=True)
    with tarfile.open(pack(tmp_path / "x.tar", [SLIPS[name]])) as tar:
        with pytest.raises(DataError):
            downloads.unpack_member(tar, tar.next(), room)
    assert not list(room.iterdir()) and sorted(file.name for file in tmp_path.rglob("*")) == ["in", "room", "x.tar"]


def test_a_link_and_then_a_file_through_it(tmp_path):
    (tmp_path / "room").mkdir()
    with tarfile.open(pack(tmp_path / "x.tar", [("out", b"", {"type": tarfile.SYMTYPE, "linkname": str(tmp_path)}), ("out/evil", b"x", {})])) as tar:
        for member in tar:
            try:
                downloads.unpack_member(tar, member, tmp_path / "room")
            except DataError:
                continue
    assert not (tmp_path / "evil").exists()


def header(name, size):
    """A tar header with any size, below zero, too."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = (b"\xff" if size < 0 else b"\x80") + (size & (1 << 88) - 1).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HEADERS = {"-1": header("a.png", -1), "-512": header("a.png", -512), "back for ever": header("a.txt", 0) + header("b.txt", -512), "a terabyte of text": header("a.json", 2**40),
           "a terabyte of picture": header("a.png", 2**40), "an exabyte": header("a.json", 2**62)}


@pytest.mark.parametrize("name", HEADERS)
def test_sizes_that_lie_are_told_without_memory_or_waiting(name, tmp_path):
    (tmp_path / "0.tar").write_bytes(HEADERS[name] + bytes(2048))
    with memory_below(100):
        for way in (lambda: datasets.load_dataset(tmp_path), lambda: list(shards.read_shards(tmp_path, buffer=0))):
            with pytest.raises(DataError):
                way()


def test_bombs_in_a_tar(tmp_path, photo):
    sparse = ("a.json", *SLIPS["a sparse file"][1:])
    sparse[2]["pax_headers"]["GNU.sparse.name"] = "a.json"
    pack(tmp_path / "sparse.tar", [sparse])
    with gzip.open(tmp_path / "zeros.tar", "wb", compresslevel=1) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("a.json")
        member.size = 2**28
        with open("/dev/zero", "rb") as zeros:
            tar.addfile(member, zeros)
    with memory_below(100):
        for file in ("sparse.tar", "zeros.tar"):
            for way in (datasets.load_dataset, lambda path: list(shards.read_shards(path, buffer=0))):
                with pytest.raises(DataError):
                    way(tmp_path / file)


def test_names_in_a_tar_are_names_and_no_paths(tmp_path, photo):
    """They are never written to or opened; what would write them refuses those that lead elsewhere."""
    pack(tmp_path / "x.tar", [("../../evil.png", photo, {}), ("../../evil.json", json.dumps({"name": "../../evil.png", "captions": ["a"]}).encode(), {})])
    found = datasets.load_dataset(tmp_path / "x.tar")
    assert found.image(0).size == (40, 30)
    for kind in ("json", "csv", "token"):
        with pytest.raises(MiniclipError, match="file's name"):
            datasets.write_dataset(found, tmp_path / kind, kind)
    assert not list(tmp_path.parent.glob("evil*"))


# --- folders, lists, pipes ---------------------------------------------------------------------------------------------------------------


NAMES = ["../out.png", "/etc/hostname", "images/../../out.png", "~/out.png", "$HOME/out.png", "a\nb.png", "a\0.png", "link.png", "folder/out.png", "\x1b]0;evil\x07.png", "x" * 5000, "..", ""]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["captions.json", "captions.jsonl", "captions.csv", "captions.tsv", "captions.txt", "Flickr8k.token.txt", "captions.parquet", "styles.csv"])
def test_no_list_of_captions_names_a_picture_outside(name, kind, tmp_path, photo):
    import csv

    import pyarrow
    import pyarrow.parquet

    home = tmp_path / "home"
    (home / "images").mkdir(parents=True)
    (tmp_path / "out.png").write_bytes(photo)
    os.symlink(tmp_path / "out.png", home / "images" / "link.png")
    os.symlink(tmp_path, home / "images" / "folder")
    if kind.endswith(".json"):
        (home / kind).write_text(json.dumps([{"file_name": name, "caption": "a"}]))
    elif kind.endswith(".jsonl"):
        (home / kind).write_text(json.dumps({"file_name": name, "caption": "a"}) + "\n")
    elif kind.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"file_name": [name], "captions": ["a"]}), home / kind)
    elif "token" in kind:
        (home / kind).write_text(f"{name}#0\ta\n")
    else:
        with open(home / kind, "w", newline="") as file:
            table = csv.writer(file, delimiter="\t" if kind.endswith("tsv") else ",")
            table.writerow(["id", "productDisplayName"] if kind == "styles.csv" else ["image", "caption"])
            table.writerow([name, "a"])
    for skip in (False, True):
        with pytest.raises(DataError) as told:
            datasets.load_dataset(home, skip_problems=skip)
        assert not set(str(told.value)) & set("\0\x1b\x07"), "the message would steer a terminal"


def test_links_out_of_a_folder_of_photos(tmp_path, photo):
    (tmp_path / "photos" / "in").mkdir(parents=True)
    os.symlink(tmp_path / "a.png", tmp_path / "photos" / "link.png")
    os.symlink("/dev/zero", tmp_path / "photos" / "zero.png")
    os.symlink("loop.png", tmp_path / "photos" / "loop.png")
    os.symlink("..", tmp_path / "photos" / "in" / "again")
    os.mkfifo(tmp_path / "photos" / "pipe.png")
    (tmp_path / "photos" / "real.png").write_bytes(photo)
    with pytest.raises(DataError) as told:
        datasets.load_dataset(tmp_path / "photos")
    assert len(told.value.problems) == 4, told.value.problems
    assert datasets.load_dataset(tmp_path / "photos", skip_problems=True).names == ["real.png"]


PIPES = ["captions.json", "captions.csv", "x.csv", "x.jsonl", "x.parquet", "x.tar", "x.png", "split.json", "labels.txt", "index.json", "config.json", "run.json", "w.pt", "w.safetensors"]


@pytest.mark.parametrize("name", PIPES)
@pytest.mark.parametrize("device", [None, "/dev/zero"])
def test_a_pipe_or_a_device_is_not_waited_for(name, device, tmp_path):
    place = tmp_path / name
    os.symlink(device, place) if device else os.mkfifo(place)
    ways = [datasets.load_dataset, datasets.read_captions, datasets.read_names, datasets.read_split, datasets.read_addresses, zero_shot.read_labels, images.open_image, images.check_header,
            lambda path: index.load_index(path.parent), lambda path: pretrained.load_model(path.parent), lambda path: pretrained.load_model(f"clip:{path}"), search.read_queries,
            lambda path: search.index_captions(path, "mini")]
    with memory_below(300):
        for number, way in enumerate(ways):
            with pytest.raises(MiniclipError):  # noqa: PT012
                way(place)
                pytest.fail(f"way {number}")


def test_a_served_picture_lies_in_the_folder_of_its_index(tmp_path, photo):
    """An index is a file that anybody may write: its names lead nowhere but into the folder that it names."""
    (tmp_path / "photos" / "images").mkdir(parents=True)
    (tmp_path / "photos" / "images" / "in.png").write_bytes(photo)
    (tmp_path / "photos" / "beside.png").write_bytes(photo)
    os.symlink(tmp_path / "a.png", tmp_path / "photos" / "link.png")
    out = [str(tmp_path / "a.png"), "../a.png", "images/../../a.png", "link.png", "images/../../photos/../a.png"]
    made = index.build_index(np.eye(8, dtype=np.float32)[: len(out) + 2], [*out, "images/in.png", "beside.png"], "flat", {"root": str(tmp_path / "photos"), "dataset": "photos"})
    for name in out:
        with pytest.raises(ImageError, match="leads out of the folder"):
            search.picture_of(made, name)
    assert search.picture_of(made, "images/in.png").size == search.picture_of(made, "beside.png").size == (40, 30)
    made.about["root"] = str(tmp_path / "photos" / "images")
    assert search.picture_of(made, "../beside.png").size == (40, 30)  # the pictures of one dataset may lie beside its images/


# --- bombs ------------------------------------------------------------------------------------------------------------------------------


@functools.cache
def bombs():
    """{name: bytes}: pictures of few bytes and very many pixels, in each format that is read."""
    import struct
    import zlib

    from PIL import Image

    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    side = 60_000
    made = {"png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")}
    made["png with a text of 20 MB"] = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)) + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2 * 10**7), 9)) + chunk(b"IEND", b"")
    made["gif"] = b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x08\x01\x00\x00;"
    made["bmp"] = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    made["ppm"] = f"P6 {side} {side} 255\n".encode()
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "JPEG")
    data = bytearray(small.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", side, side)
    made["jpg"] = bytes(data)
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "TIFF")
    data = bytearray(small.getvalue())
    first = struct.unpack("<I", data[4:8])[0] + 2
    for entry in range(first, first + 24, 12):  # the first two entries of its list are the width and the height
        assert struct.unpack("<H", data[entry : entry + 2])[0] in (256, 257)
        data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, side)
    made["tif"] = bytes(data)
    return made


@pytest.mark.parametrize("name", ["png", "png with a text of 20 MB", "gif", "bmp", "ppm", "jpg", "tif"])
def test_a_bomb_is_refused_at_every_door(name, tmp_path):
    from miniclip_helpers.service.engine import read_picture

    data = bombs()[name]
    assert len(data) < 10**6
    file = tmp_path / f"bomb.{name[:3]}"
    file.write_bytes(data)
    pack(tmp_path / "x.tar", [(f"a.{name[:3]}", data, {}), ("a.txt", b"a", {})])
    ways = [images.open_image, lambda path: images.open_image(data), lambda path: read_picture(data), lambda path: datasets.load_dataset(tmp_path, skip_problems=True),
            lambda path: datasets.load_dataset(tmp_path / "x.tar").image(0)]
    with memory_below(150):
        for way in ways:
            with pytest.raises(MiniclipError):
                way(file)


def test_a_table_that_unpacks_to_far_more_than_it_weighs(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = np.zeros(12_000_000, np.int32)
    columns = {name: pyarrow.DictionaryArray.from_arrays(pyarrow.array(rows), pyarrow.array([value])) for name, value in (("image", b"x"), ("captions", "y" * 100))}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "bomb.parquet", compression="zstd")
    del columns, rows
    assert (tmp_path / "bomb.parquet").stat().st_size < 500_000
    with memory_below(100), pytest.raises(DataError, match="would unpack"):
        datasets.load_dataset(tmp_path / "bomb.parquet")


@pytest.mark.parametrize("kind", ["text", "texts", "picture", "vectors"])
def test_one_long_value_in_every_row(kind, tmp_path):
    """Few rows, and a value that is written once: 100 GB out of a few thousand bytes. A small table that repeats itself is a table like any other."""
    import pyarrow
    import pyarrow.parquet

    def column(value, rows):
        return pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(rows, np.int32)), pyarrow.array([value]))

    def write(file, length, rows):
        long, long_bytes = column("y" * length, rows), column(b"z" * length, rows)
        columns = {"text": {"image": column(b"x", rows), "captions": long},
                   "texts": {"image": column(b"x", rows), "captions": pyarrow.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), long)},
                   "picture": {"image": pyarrow.StructArray.from_arrays([long_bytes], ["bytes"]), "captions": column("a", rows)},
                   "vectors": {"name": long, "embedding": pyarrow.array([[0.5, 0.5]] * rows)}}[kind]
        pyarrow.parquet.write_table(pyarrow.table(columns), file, compression="zstd")
        return embedding.read_vectors if kind == "vectors" else datasets.load_dataset

    read = write(tmp_path / "bomb.parquet", 1_000_000, 100_000)
    assert (tmp_path / "bomb.parquet").stat().st_size < 20_000
    with memory_below(100), pytest.raises(DataError, match="would unpack to 100,0"):
        read(tmp_path / "bomb.parquet")
    if kind != "vectors":  # `encode` reads some rows at a time
        with memory_below(500), pytest.raises(DataError, match="would unpack to"):
            parts.open_part(parts.plan(tmp_path / "bomb.parquet", 1000)[2][-1])
    write(tmp_path / "good.parquet", 1000, 100)
    if kind == "vectors":
        with pytest.raises(DataError, match="no shard of vectors"):
            read(tmp_path / "good.parquet")
    else:
        assert len(read(tmp_path / "good.parquet")) == 100
        _, _, planned, _ = parts.plan(tmp_path / "good.parquet", 30)
        assert [len(parts.open_part(part)) for part in planned] == [30, 30, 30, 10]


def test_the_command_line_says_it_in_one_line(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.png")
    assert cli.main(["zero-shot", "--labels", "a,b", str(tmp_path / "pipe.png")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
