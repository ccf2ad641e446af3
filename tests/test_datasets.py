"""Datasets in every format, splits by image, and what is said of faulty ones."""

import json
import os

import numpy as np
import pandas
import pytest
from conftest import picture, shared

from miniclip_helpers.datasets import load_dataset, read_split, write_split
from miniclip_helpers.datasets.splits import split_rows
from miniclip_helpers.errors import DataError, ImageError, UsageError

ROWS = [("a.png", "a first"), ("a.png", "a, second"), ("b.png", "b"), ("c.png", "c 'quoted' \"twice\"")]
EXPECTED = {"a.png": ["a first", "a, second"], "b.png": ["b"], "c.png": ["c 'quoted' \"twice\""]}


def write_format(folder, kind):
    """Write ROWS in one of the formats."""
    if kind == "captions.json":
        (folder / kind).write_text(json.dumps([{"file_name": n, "caption": c} for n, c in ROWS]))
    elif kind == "object.json":
        (folder / kind).write_text(json.dumps(EXPECTED))
    elif kind == "captions.jsonl":
        (folder / kind).write_text("".join(json.dumps({"image": n, "captions": c}) + "\n" for n, c in EXPECTED.items()))
    elif kind == "captions.txt":  # Kaggle's Flickr8k: quoted only where needed
        pandas.DataFrame(ROWS, columns=["image", "caption"]).to_csv(folder / kind, index=False)
    elif kind == "results.csv":  # Flickr30k: bars
        (folder / kind).write_text("image_name| comment_number| comment\n" + "".join(f"{n}| {i}| {c.replace(chr(34), chr(39))}\n" for i, (n, c) in enumerate(ROWS)))
    elif kind == "Flickr8k.token.txt":
        (folder / kind).write_text("".join(f"{n}#{i}\t{c}\n" for i, (n, c) in enumerate(ROWS)))
    elif kind == "captions.csv":
        (folder / kind).write_bytes("\ufefffilename;title\r\n".encode() + "".join(f'{n};"{c.replace(chr(34), chr(34) * 2)}"\r\n' for n, c in ROWS).encode())
    elif kind == "table.parquet":
        pandas.DataFrame({"id": list(EXPECTED), "image": [(folder / "images" / n).read_bytes() for n in EXPECTED], "captions": list(EXPECTED.values())}).to_parquet(folder / kind)
    elif kind == "paths.parquet":
        pandas.DataFrame(ROWS, columns=["file_name", "caption"]).iloc[[0, 2, 3]].to_parquet(folder / kind)


@pytest.mark.parametrize("kind", ["captions.json", "object.json", "captions.jsonl", "captions.txt", "results.csv", "Flickr8k.token.txt", "captions.csv", "table.parquet", "paths.parquet"])
def test_every_format_gives_the_same_table(photo_folder, kind):
    write_format(photo_folder, kind)
    expected = dict(EXPECTED)
    if kind == "results.csv":
        expected["c.png"] = ["c 'quoted' 'twice'"]
    if kind == "paths.parquet":
        expected["a.png"] = ["a first"]
    target = photo_folder / kind if kind in ("object.json", "paths.parquet", "table.parquet") else photo_folder
    dataset = load_dataset(target)
    assert dict(zip(dataset.names, dataset.captions)) == expected and dataset.problems == []
    assert np.array_equal(np.asarray(dataset.image(1)), np.asarray(picture(1)))
    assert dataset.owner.tolist() == [i for i, row in enumerate(dataset.captions) for _ in row]


def test_a_folder_of_photos_has_no_captions(photo_folder):
    dataset = load_dataset(photo_folder)
    assert dataset.names == ["images/a.png", "images/b.png", "images/c.png"] and dataset.all_captions == []


@pytest.mark.parametrize("name, images, captions", [("stamps", 950, 950), ("emoji", 4858, None), ("photos8", 8, 8)])
def test_embedded(name, images, captions):
    dataset = load_dataset(name)
    assert len(dataset) == images and (captions is None or len(dataset.owner) == captions)
    assert dataset.image(images - 1).mode == "RGB"


def test_emoji_have_three_vendors_and_25_languages():
    dataset = load_dataset("emoji")
    assert len(set(dataset.columns["hexcode"])) == 1636
    assert len(dataset.where("source", "fluent")) == 1586
    assert max(len(row) for row in dataset.columns["translations"]) == 25


def test_split_is_by_image_seeded_and_whole():
    dataset = load_dataset("stamps")
    parts, again, other = dataset.split(seed=1), dataset.split(seed=1), dataset.split(seed=2)
    assert [len(part) for part in parts.values()] == [665, 142, 143]
    assert parts["test"].names == again["test"].names != other["test"].names
    assert sorted(sum((part.names for part in parts.values()), [])) == sorted(dataset.names)


def test_equal_pictures_stay_together():
    for seed in range(50):
        parts = split_rows(20, seed=seed, groups=[row // 4 for row in range(20)])
        homes = [next(part for part, rows in parts.items() if row in rows) for row in range(20)]
        assert all(len(set(homes[start : start + 4])) == 1 for start in range(0, 20, 4))
        assert sorted(sum(parts.values(), [])) == list(range(20))


def test_split_file_comes_back_and_a_leak_is_told(tmp_path):
    write_split(tmp_path / "s.json", {"train": ["a"], "test": ["b"]})
    assert read_split(tmp_path / "s.json") == {"train": ["a"], "test": ["b"]}
    write_split(tmp_path / "s.json", {"train": ["a"], "test": ["b", "a"]})
    with pytest.raises(DataError, match="two parts"):
        read_split(tmp_path / "s.json")
    with pytest.raises(UsageError, match="add up to 1"):
        split_rows(4, {"train": 0.7, "test": 0.7})


def faulty(folder, what):
    """Make one thing wrong with the folder; returns what the message must say."""
    write_format(folder, "captions.json")
    records = json.loads((folder / "captions.json").read_text())
    if what == "caption without picture":
        records.append({"file_name": "ghost.png", "caption": "x"})
    elif what == "picture without caption":
        picture(9).save(folder / "images" / "lonely.png")
    elif what == "path leaves":
        picture(9).save(folder.parent / "x.png")
        records.append({"file_name": "../../x.png", "caption": "x"})
    elif what == "absolute path":
        records.append({"file_name": str(folder / "images" / "a.png"), "caption": "x"})
    elif what == "link leaves":
        picture(9).save(folder.parent / "x.png")
        os.symlink(folder.parent / "x.png", folder / "images" / "d.png")
        records.append({"file_name": "d.png", "caption": "x"})
    elif what == "empty picture":
        (folder / "images" / "b.png").write_bytes(b"")
    elif what == "no caption text":
        records.append({"file_name": "a.png", "caption": "  "})
    elif what == "no name":
        records.append({"caption": "x"})
    elif what == "not an object":
        records.append("a.png")
    (folder / "captions.json").write_text(json.dumps(records))
    return {"caption without picture": "entry 5.*ghost.png.*does not exist", "picture without caption": "lonely.png.*without a caption", "path leaves": "leads out",
            "absolute path": "leads out", "link leaves": "leads out", "empty picture": "b.png.*empty", "no caption text": "entry 5.*no caption", "no name": "entry 5.*no image name",
            "not an object": "entry 5.*found str"}[what]


@pytest.mark.parametrize("what", ["caption without picture", "picture without caption", "path leaves", "absolute path", "link leaves", "empty picture", "no caption text", "no name", "not an object"])
def test_faults_are_listed_and_can_be_left_out(photo_folder, what):
    words = faulty(photo_folder, what)
    with pytest.raises(DataError, match=f"(?s){words}"):
        load_dataset(photo_folder)
    rest = load_dataset(photo_folder, skip_problems=True)
    assert len(rest.problems) == 1 and set(rest.names) <= set(EXPECTED)


@pytest.mark.parametrize("name, text, words", [
    ("captions.json", '[{"file_name": "a.png",\n "caption": }]', "line 2: not valid JSON"),
    ("captions.json", '"a.png"', "must be a list"),
    ("captions.jsonl", '{"image": "a.png", "caption": "x"}\n{"image"\n', "line 2: not valid JSON"),
    ("captions.csv", "image,caption\na.png,x\nb.png\n", "line 3: expected 2 columns, found 1"),
    ("captions.csv", 'image,caption\na.png,"x\n', "line .*not valid CSV"),
    ("captions.csv", "picture,said\na.png,x\n", "line 1: expected a header"),
    ("captions.csv", "", "line 1: expected a header"),
    ("Flickr8k.token.txt", "a.png#0\tx\nb.png\ty\n", "line 2: expected 'name.jpg#0"),
    ("captions.parquet", "no parquet", "not a readable parquet"),
])
def test_malformed_files_name_the_line(photo_folder, name, text, words):
    (photo_folder / name).write_text(text)
    with pytest.raises(DataError, match=words):
        load_dataset(photo_folder)


def test_not_utf8_names_the_line(photo_folder):
    (photo_folder / "captions.csv").write_bytes(b"image,caption\na.png,x\nb.png,caf\xe9\n")
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        load_dataset(photo_folder)


@pytest.mark.parametrize("name, words", [("emojy", "did you mean emoji"), ("no/such/folder", "does not exist")])
def test_unknown_names(name, words):
    with pytest.raises((DataError, UsageError), match=words):
        load_dataset(name)


def test_an_empty_folder_and_two_tables_are_told(tmp_path):
    with pytest.raises(DataError, match="no usable picture"):
        load_dataset(tmp_path)
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("image,caption\n")
    with pytest.raises(DataError, match="several tables"):
        load_dataset(tmp_path)


def test_a_broken_picture_is_left_out_when_asked(photo_folder):
    file = photo_folder / "images" / "b.png"
    file.write_bytes(file.read_bytes()[:-60])
    dataset = load_dataset(photo_folder)  # the header is whole
    with pytest.raises(ImageError, match=r"b\.png"):
        dataset.image(1)
    assert load_dataset(photo_folder, skip_problems=True).names == ["images/a.png", "images/c.png"]


def test_real_folders():
    everyday, flickr = load_dataset(shared("everyday_photos")), load_dataset(shared("flickr8k"))
    assert (len(everyday), len(everyday.owner), len(flickr), len(flickr.owner)) == (210, 420, 700, 3500)
    token = load_dataset(shared("flickr8k") / "Flickr8k.token.txt")
    assert token.names == flickr.names and token.captions == flickr.captions
    parts = read_split(shared("everyday_photos") / "split_seed42.json")
    assert [len(everyday.select(names)) for names in parts.values()] == [147, 31, 32]
