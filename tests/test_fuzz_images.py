"""1,000 pictures damaged on purpose, through every door: an error that names the file, or what Pillow alone reads. The 10,000 are in `long/test_fuzz_long.py`."""

import io
import os

import numpy as np
import pytest
from conftest import picture
from fuzzing import COLUMNS, GROUP, SEED, Counts, forget_memory, run_cases
from fuzzing_pictures import damaged, pillow_alone, whole_pictures
from PIL import Image

from miniclip_helpers import images
from miniclip_helpers.datasets import ImageTextDataset, load_dataset, shards, write_dataset
from miniclip_helpers.errors import ImageError

FINDINGS = COLUMNS[3:]


def test_a_thousand_damaged_pictures(tmp_path):
    counts = run_cases("pictures", 1000, within=tmp_path)
    print(counts)
    assert not counts.findings, "\n".join(counts.findings[:20])
    pictures = {kind: row for kind, row in counts.items() if kind not in ("folders, indexes, shards",)}
    assert sum(row["cases"] for row in pictures.values()) == 1000 == sum(row["errors of ours"] + row["right results"] for row in pictures.values())
    assert all(row["errors of ours"] and row["right results"] for row in pictures.values()), "each format in both ways"
    assert counts["folders, indexes, shards"]["right results"] == -(-1000 // GROUP)


@pytest.mark.parametrize("name", whole_pictures())
def test_whole_pictures_are_what_pillow_reads(name):
    data = whole_pictures()[name][1]
    theirs = pillow_alone(data)
    assert np.abs(np.asarray(images.open_image(data), np.float32) - theirs).max() <= 2


def test_a_case_is_the_same_each_time_and_most_differ():
    assert all(damaged(SEED, case) == damaged(SEED, case) for case in range(100))
    assert len({damaged(SEED, case)[2] for case in range(300)}) > 270


HARM = """
import os, pathlib, sys
if "MINICLIP_HARM" in os.environ:
    from miniclip_helpers import images
    plain, done = images.open_image, pathlib.Path(os.environ["MINICLIP_HARM"])
    def broken(source):
        if sys._getframe(1).f_code.co_name != "alone":
            return plain(source)
        number = int(done.read_text() or 0)
        done.write_text(str(number + 1))
        if number == 0:
            from PIL import Image
            return Image.new("RGB", (5, 5))
        if number == 1:
            raise KeyError("x")
        if number == 2:
            held = bytearray(2200 * 2**20)
            held[:: 2**12] = b"x" * (len(held) // 2**12)
            return plain(source)
        if number == 3:
            raise images.ImageError("no name")
        if number == 4:
            os.kill(os.getpid(), 11)
        sys.modules["fuzzing"].limit_time(0)
        while True:
            pass
    images.open_image = broken
"""


@pytest.mark.skipif(not forget_memory(), reason="the most memory of a process is counted by Linux's /proc alone")
def test_what_goes_wrong_is_counted(tmp_path, monkeypatch):
    """A package that is broken on purpose, six cases in six ways: a wrong picture, an error that is not ours, memory, an error without the file's name, a crash, a hang."""
    (tmp_path / "sitecustomize.py").write_text(HARM)
    (tmp_path / "done").write_text("")
    monkeypatch.setenv("MINICLIP_HARM", str(tmp_path / "done"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}")
    first = [name.startswith("gif") for name in whole_pictures()].index(True)
    counts = run_cases("pictures", 6, first=first, within=tmp_path)
    assert (counts.total("crashes"), counts.total("hangs"), counts.total("over memory")) == (2, 1, 1) and counts.total("other findings") >= 2, str(counts)
    assert any(f"case {first}:" in line for line in counts.findings) and any(f"--first {first + 4}: ended with -11" in line for line in counts.findings)


def test_the_table_of_counts():
    counts = Counts()
    counts.add("png", "cases", 1200)
    counts.find("png", "drops", "x")
    assert "| png | 1,200 | 0 | 0 | 0 | 0 | 1 | 0 | 0 |" in str(counts) and str(counts).endswith("drops: x")


# what was found so

def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_a_damaged_exif_costs_no_picture():
    whole = encoded(picture(1), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x09\0\xff\xff\xff\xff" * 3)
    with Image.open(io.BytesIO(whole)) as image:
        image.load()
    assert images.open_image(whole).size == (40, 30)


def test_a_file_that_shrinks_while_it_is_read_ends_no_process(tmp_path):
    """Pillow maps bare pixels when it gets a path; what is cut off then is a bus error when it is read."""
    file = tmp_path / "bare.bmp"
    picture(1, (400, 300)).save(file)
    opened = images.open_image(file)
    file.write_bytes(b"")
    assert np.asarray(opened).any()


@pytest.mark.parametrize("kind", ["json", "parquet", "tar"])
def test_a_dataset_with_a_damaged_picture_is_not_written_and_says_which(kind, tmp_path):
    dataset = ImageTextDataset("one", ["good", "bad"], [["x"], ["y"]], [encoded(picture(1), "PNG"), b"no picture"])
    with pytest.raises(ImageError, match="'bad'"):
        shards.write_shards(dataset, tmp_path / "out") if kind == "tar" else write_dataset(dataset, tmp_path / "out", kind)
    assert list(tmp_path.iterdir()) == []


def test_photos_with_other_suffixes_are_told_and_not_passed_over(tmp_path):
    from miniclip_helpers.datasets.formats import UnreadableWarning

    picture(1).save(tmp_path / "a.png")
    (tmp_path / "b.jfif").write_bytes(encoded(picture(2), "JPEG"))
    (tmp_path / "c.ppm").write_bytes(encoded(picture(2), "PPM"))
    with pytest.warns(UnreadableWarning, match=r"1 file .*\.ppm"):
        assert load_dataset(tmp_path).names == ["a.png", "b.jfif"]
