"""`miniclip index` and `miniclip search` as they are typed: pictures and captions, words and photos, one question and many, and what cannot work."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from test_cli import call, stamps_folder  # noqa: F401

from miniclip_helpers.index import load_index


@pytest.fixture(scope="module")
def made(stamps_folder, tmp_path_factory):  # noqa: F811
    """An index of the twenty pictures, one of their captions, the folder, and what captions.json says."""
    folder = tmp_path_factory.mktemp("made")
    assert call("index", stamps_folder, "--out", folder / "pictures") == 0
    assert call("index", stamps_folder, "--of", "captions", "--out", folder / "captions") == 0
    return folder, stamps_folder, json.loads((stamps_folder / "captions.json").read_text())


def test_words_find_pictures(made, tmp_path, capsys):
    folder, _, captions = made
    query = captions[7]
    assert call("search", folder / "pictures", query["caption"], "-k", 3, "--json", tmp_path / "hits.json", "--figure", tmp_path / "hits.png") == 0
    hits = json.loads((tmp_path / "hits.json").read_text())
    assert hits["query"] == query["caption"] and len(hits["hits"]) == 3 and query["file_name"] in [hit["name"] for hit in hits["hits"]]
    assert set(hits["hits"][0]) == {"name", "score"} and hits["hits"][0]["score"] > hits["hits"][2]["score"]
    assert Image.open(tmp_path / "hits.png").width > 500
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in printed[:3]] == [hit["name"] for hit in hits["hits"]]


def test_a_picture_finds_itself_and_captions(made, tmp_path, capsys):
    folder, photos, captions = made
    asked = captions[4]
    assert call("search", folder / "pictures", "--image", photos / asked["file_name"], "-k", 1) == 0
    assert asked["file_name"] in capsys.readouterr().out
    assert call("search", folder / "captions", "--image", photos / asked["file_name"], "-k", 3, "--json", tmp_path / "c.json", "--figure", tmp_path / "c.png") == 0
    hits = json.loads((tmp_path / "c.json").read_text())["hits"]
    of = {f"{row['file_name']}#0": row["caption"] for row in captions}
    assert all(of[hit["name"]] == hit["caption"] for hit in hits) and f"{asked['file_name']}#0" in [hit["name"] for hit in hits]
    assert f"{hits[0]['name']}  {hits[0]['caption']}" in capsys.readouterr().out and Image.open(tmp_path / "c.png").width > 500


def test_words_find_captions(made, capsys):
    folder, _, captions = made
    assert call("search", folder / "captions", captions[3]["caption"], "-k", 1) == 0
    assert f"1. 1.000  {captions[3]['file_name']}#0  {captions[3]['caption']}" in capsys.readouterr().out


def test_limit_bounds_what_is_indexed_and_what_is_searched(made, tmp_path, capsys):
    folder, photos, captions = made
    assert call("index", photos, "--of", "captions", "--limit", 5, "--out", tmp_path / "five") == 0
    first = [f"{row['file_name']}#0" for row in captions[:5]]
    assert load_index(tmp_path / "five").names == first
    for index, limit in ((tmp_path / "five", ()), (folder / "captions", ("--limit", 5))):
        assert call("search", index, captions[12]["caption"], "-k", 99, "--json", tmp_path / "all.json", *limit) == 0
        assert sorted(hit["name"] for hit in json.loads((tmp_path / "all.json").read_text())["hits"]) == sorted(first)
    assert call("index", photos, "--limit", 3, "--out", tmp_path / "three") == 0 and len(load_index(tmp_path / "three")) == 3


def test_a_file_of_queries_is_answered_at_once(made, tmp_path, capsys):
    folder, _, captions = made
    asked = [row["caption"] for row in captions[:6]]
    (tmp_path / "q.txt").write_text("\ufeff" + "\n\n".join(asked) + "\n", encoding="utf8")
    assert call("search", folder / "pictures", "--queries", tmp_path / "q.txt", "-k", 4, "--json", tmp_path / "a.json", "--figure", tmp_path / "a.png") == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert [row["query"] for row in found] == asked and [len(row["hits"]) for row in found] == [4] * 6
    picture = Image.open(tmp_path / "a.png")
    assert picture.width > 500 and picture.height > picture.width
    printed = capsys.readouterr().out
    assert printed.count(".jpg") == 24 and all(query in printed for query in asked)
    for row in found:
        assert call("search", folder / "pictures", row["query"], "-k", 4, "--json", tmp_path / "one.json") == 0
        one = json.loads((tmp_path / "one.json").read_text())
        assert [hit["name"] for hit in one["hits"]] == [hit["name"] for hit in row["hits"]]


def test_the_prompt_answers_until_an_empty_line_or_the_end(made, monkeypatch, capsys):
    folder, *_ = made
    for last in ("", EOFError):
        lines = iter(["a dog", last])

        def ask(prompt):
            line = next(lines)  # noqa: B023
            if line is EOFError:
                raise EOFError
            return line

        monkeypatch.setattr("builtins.input", ask)
        assert call("search", folder / "captions") == 0
        printed = capsys.readouterr().out
        assert printed.count(".jpg#0") == 5 and "20 captions. Type" in printed


def test_sentences_without_pictures(made, tmp_path, capsys):
    (tmp_path / "sentences.txt").write_text("a red apple\na fire engine\na snake\n")
    assert call("index", tmp_path / "sentences.txt", "--out", tmp_path / "s") == 0
    assert "3 vectors" in (said := capsys.readouterr().out) and "captions" in said
    assert call("search", tmp_path / "s", "an apple", "-k", 1) == 0 and "sentences.txt#1  a red apple" in capsys.readouterr().out
    assert call("search", tmp_path / "s", "--image", made[1] / "0.jpg", "--figure", tmp_path / "f.png") == 0 and (tmp_path / "f.png").exists()
    assert call("index", tmp_path / "sentences.txt", "--of", "pictures", "--out", tmp_path / "t") == 2 and "--of captions" in capsys.readouterr().err


def test_an_index_of_ones_own_model_is_searched_from_anywhere(stamps_folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    assert call("train", "--data", stamps_folder, "--out", tmp_path / "mine") == 0
    monkeypatch.chdir(tmp_path)
    assert call("index", stamps_folder, "--model", "mine", "--out", "i") == 0
    monkeypatch.chdir("/")
    assert call("search", tmp_path / "i", "a frog", "-k", 2) == 0
    assert capsys.readouterr().out.count(".jpg") == 2
    assert call("search", tmp_path / "i", "a frog", "--model", "mini") == 1
    said = capsys.readouterr().err
    assert "not by 'mini'" in said and "heads differ" in said
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert call("search", tmp_path / "i", "a frog", "--model", tmp_path / "moved") == 0


def test_a_photo_deleted_after_indexing(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name, colour in (("red", (250, 9, 9)), ("blue", (9, 9, 250))):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "photos" / f"{name}.png")
    assert call("index", tmp_path / "photos", "--out", tmp_path / "i") == 0
    (tmp_path / "photos" / "red.png").unlink()
    assert call("search", tmp_path / "i", "red", "--figure", tmp_path / "f.png") == 0
    printed = capsys.readouterr()
    assert "red.png" in printed.out and "red.png is gone since the index was made" in printed.err and "blue" not in printed.err
    assert Image.open(tmp_path / "f.png").width > 500


@pytest.mark.parametrize("argv, code, words", [
    (["search", "PICTURES", "a dog", "-k", "0"], 2, "-k must be at least 1"),
    (["search", "PICTURES", "a dog", "--limit", "0"], 2, "--limit must be at least 1"),
    (["search", "PICTURES", " "], 2, "query is empty"),
    (["search", "PICTURES", "a dog", "--image", "x.jpg"], 2, "not allowed with"),
    (["search", "PICTURES", "--image", "no.jpg"], 1, "no.jpg"),
    (["search", "PICTURES", "--queries", "no.txt"], 1, "no.txt' cannot be read"),
    (["search", "PICTURES", "--queries", "EMPTY"], 1, "holds no query"),
    (["search", "PICTURES", "--queries", "MANY", "--figure", "f.png"], 2, "at most 20 queries, found 21"),
    (["search", "CAPTIONS", "--queries", "MANY", "--figure", "f.png"], 2, "this index holds captions"),
    (["search", "PICTURES", "a dog", "--figure", "EMPTY/f.png"], 1, "cannot be written"),
    (["search", "PICTURES", "a dog", "--json", "EMPTY/f.json"], 1, "cannot be written"),
    (["search", "PICTURES", "a dog", "--model", "minni"], 2, "did you mean mini"),
    (["search", "STAMPS", "a dog"], 1, "holds no index"),
    (["index", "STAMPS", "--of", "words", "--out", "i"], 2, "invalid choice"),
    (["index", "STAMPS", "--limit", "0", "--out", "i"], 2, "--limit must be at least 1"),
    (["index", "STAMPS", "--kind", "ivfpq", "--limit", "9", "--out", "i"], 2, "at least 16 vectors"),
    (["index", "STAMPS", "--out", "EMPTY/i"], 1, "cannot be written"),
    (["index", "NOTHING", "--out", "i"], 1, "no usable picture"),
    (["index", "PHOTOS", "--of", "captions", "--out", "i"], 1, "PHOTOS has no captions"),
])
def test_what_cannot_work_is_one_clear_message(argv, code, words, made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("NOTHING", "PHOTOS"):
        pathlib.Path(folder).mkdir()
    Image.new("RGB", (64, 64), (9, 250, 9)).save("PHOTOS/green.png")
    pathlib.Path("EMPTY").write_text("\n \n")
    pathlib.Path("MANY").write_text("a dog\n" * 21)
    before = sorted(pathlib.Path().rglob("*"))
    places = {"PICTURES": made[0] / "pictures", "CAPTIONS": made[0] / "captions", "STAMPS": made[1]}
    assert call(*[places.get(word, word) for word in argv]) == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and sorted(pathlib.Path().rglob("*")) == before


@pytest.mark.parametrize("spoil, words", [
    (lambda folder: (folder / "index.faiss").write_bytes((folder / "index.faiss").read_bytes()[:-5]), "truncated, altered, or of another index"),
    (lambda folder: (folder / "index.json").write_text((folder / "index.json").read_text().replace("jpg", "png")), "index.json' was altered"),
    (lambda folder: (folder / "index.faiss").unlink(), "index.faiss' is missing")])
def test_a_damaged_index_is_one_clear_message(spoil, words, stamps_folder, tmp_path, capsys):  # noqa: F811
    assert call("index", stamps_folder, "--limit", 3, "--out", tmp_path / "i") == 0
    spoil(tmp_path / "i")
    assert call("search", tmp_path / "i", "a dog") == 1 and words in capsys.readouterr().err


def test_saving_over_an_index_and_over_something_else(stamps_folder, tmp_path, capsys):  # noqa: F811
    for count in (3, 4):
        assert call("index", stamps_folder, "--limit", count, "--out", tmp_path / "i") == 0
    assert len(load_index(tmp_path / "i")) == 4
    (tmp_path / "i" / "notes.txt").write_text("mine")
    assert call("index", stamps_folder, "--limit", 3, "--out", tmp_path / "i") == 2 and "holds something else (notes.txt)" in capsys.readouterr().err
    assert np.isfinite(load_index(tmp_path / "i").search(np.ones((1, load_index(tmp_path / "i").width), np.float32), 2)[0]).all()
