"""Tables of captions with faults of every kind: each row is a caption or a named problem, and memory does not grow with what is not kept."""

import csv
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile

import hypothesis
import pyarrow
import pyarrow.parquet
import pytest
from fuzzing_pictures import DAMAGES
from fuzzing_texts import dataset_of, odd_text
from hypothesis import strategies as st

from miniclip_helpers import embedding
from miniclip_helpers.datasets import formats, load_dataset, read_addresses, readers, shards, write_dataset
from miniclip_helpers.errors import DataError, MiniclipError

SETTINGS = hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck))
SEED = 2026


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with p0.png to p3.png in images/, and no captions."""
    folder = write_dataset(dataset_of(["x"] * 4), tmp_path_factory.mktemp("tables") / "set")
    (folder / "captions.json").unlink()
    return folder


def loaded(folder, name, data):
    """(captions, problems) of a file of this content beside the pictures, with skip_problems, or (None, the error's problems)."""
    file = folder / name
    file.write_bytes(data)
    try:
        dataset = load_dataset(file, skip_problems=True)
        return dataset.all_captions, dataset.problems
    except DataError as error:
        return None, error.problems or [str(error)]
    finally:
        file.unlink()


# rows that are wrong in one way each, and how many captions are right in them
ROWS = st.sampled_from([
    ({"file_name": "p0.png", "caption": "good"}, 1), ({"file_name": "p1.png", "captions": ["good", "good"]}, 2), ({"image": "p2", "text": "good"}, 1), ({"file_name": "ghost.png", "caption": "bad"}, 0),
    ({"file_name": "p0.png"}, 0), ({"caption": "bad"}, 0), ({"file_name": None, "caption": "bad"}, 0), ({"file_name": "p0.png", "caption": None}, 0), ({"file_name": "p0.png", "caption": 5}, 0),
    ({"file_name": "p0.png", "caption": {"en": "bad"}}, 0), ({"file_name": ["p0.png"], "caption": "bad"}, 0), ({"file_name": True, "caption": "bad"}, 0), ({"file_name": 1.5, "caption": "bad"}, 0),
    ({"file_name": "p0.png", "captions": ["bad", None]}, 0), ({"file_name": "p0.png", "captions": []}, 0), ({"file_name": "p0.png", "caption": "  "}, 0), ({"file_name": "../p0.png", "caption": "bad"}, 0),
    ({"file_name": "/etc/passwd", "caption": "bad"}, 0), ({"file_name": "p\0.png", "caption": "bad"}, 0), ({"file_name": "x" * 5000, "caption": "bad"}, 0), ([1, 2], 0), ("text", 0), (5, 0), (None, 0),
    ({"file_name": "p3.png", "caption": "good", "deep": {"a": [1, {"b": None}]}}, 1), ({"file_name": "p0.png", "caption": "\ud83d"}, 0), ({"": "", "file_name": "p0.png", "caption": "good"}, 1)])


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_each_json_row_is_a_caption_or_a_problem(kind, pictures):
    @SETTINGS
    @hypothesis.given(st.lists(ROWS, min_size=1, max_size=8))
    def check(rows):
        lines = [json.dumps(row) for row, _ in rows]
        good = sum(count for _, count in rows)
        bad = [number for number, (row, count) in enumerate(rows, 1) if not count]
        captions, problems = loaded(pictures, f"t.{kind}", ("[" + ",".join(lines) + "]" if kind == "json" else "\r\n".join(lines)).encode())
        assert (captions or []) == ["good"] * good
        named = " ".join(problems)
        ghosts = {row["file_name"] for row, count in rows if not count and isinstance(row, dict) and isinstance(row.get("file_name"), str)}
        for number in bad:
            row = rows[number - 1][0]
            name = row.get("file_name") if isinstance(row, dict) else None
            assert f"{'entry' if kind == 'json' else 'line'} {number}:" in named or name in ghosts and repr(name) in named, (number, problems)

    check()


CELLS = st.sampled_from(["p0.png", "p1.png", "ghost.png", "", "a caption", 'a "quoted" one', "with, comma", "line\nbreak", "cr\rhere", "tab\there", "semi;colon", "bar|here", "=1+1", " blank ", "é", '"'])


@SETTINGS
@hypothesis.given(st.lists(st.lists(CELLS, min_size=0, max_size=4), max_size=8), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), st.sampled_from(["\n", "\r\n"]))
def test_each_csv_row_is_a_caption_or_a_problem(pictures, rows, quoting, ends):
    """Rows too short and too long; the table is written by Python's own writer, as spreadsheets do, with all quotes that are needed."""
    out = io.StringIO()
    table = csv.writer(out, quoting=quoting, lineterminator=ends)
    if quoting == csv.QUOTE_MINIMAL:
        rows = [[cell.replace("\r", " ").strip() for cell in row] for row in rows]  # which it does not quote before Python 3.13
    table.writerow(["image", "caption"])
    table.writerows(rows)
    captions, problems = loaded(pictures, "t.csv", out.getvalue().encode())
    rows = [row for row in rows if any(row)]
    good = [row for row in rows if len(row) == 2 and row[0] in ("p0.png", "p1.png") and row[1].strip()]
    long = [row for row in rows if len(row) > 2]  # may be read as one caption with commas that nobody quoted
    assert all(row[1].strip() in (captions or []) for row in good)
    assert len(good) <= len(captions or []) <= len(good) + len(long)
    ghosts = len({row[0] for row in rows if len(row) >= 2 and row[0] not in ("p0.png", "p1.png", "")})
    assert bool(problems) or len(captions) >= len(rows), (rows, problems)
    assert len(captions or []) + len(problems) + sum(row[0] == name for name in ("ghost.png",) for row in rows) + ghosts >= len(rows)


@pytest.mark.parametrize("name, data, words", [
    ("t.csv", b"", "expected a header"), ("t.csv", b"image,caption\n", "no usable picture"), ("t.csv", b"image,caption,caption\np0.png,x,y\n", "'caption' stands twice"),
    ("t.csv", b"image,image,caption\np0.png,p1.png,y\n", "'image' stands twice"), ("t.csv", b"image caption\np0.png x\n", "expected a header"), ("t.csv", "image,caption\np0.png,x".encode("utf-16"), "line 1: not UTF-8"),
    ("t.csv", b"image,caption\np0.png,caf\xc3\xa9\np1.png,caf\xe9\n", "line 3: not UTF-8"), ("t.csv", b"\0" * 1000, "expected a header"), ("t.csv", b'"image,caption\np0.png,x\n', "not valid CSV|expected a header"),
    ("t.jsonl", b"", "no usable picture"), ("t.jsonl", b"\n\n \n", "no usable picture"), ("t.json", b"", "not valid JSON"), ("t.json", b"{}", "no usable picture"), ("t.json", b"[]", "no usable picture"),
    ("t.json", b"1e999", "must be a list"), ("t.json", b"9" * 5000, "not valid JSON"), ("t.txt", b"p0.png#0\tx\np1.png\n", "line 2: expected 'name.jpg#0"), ("t.parquet", b"PAR1", "not a readable parquet"),
    ("t.parquet", b"PAR1" + b"\0" * 100 + b"PAR1", "not a readable parquet"), ("t.csv", b"image;caption\np0.png,x\n", "line 2: expected 2 columns"),
    ("styles.csv", b"id,productDisplayName\np0,x\np0.png\n", "line 3: expected 2 columns")])
def test_broken_tables_are_told_with_their_line(name, data, words, pictures):
    captions, problems = loaded(pictures, name, data)
    assert any(re.search(words, line) for line in problems), (captions, problems)


def test_bytes_changed_at_random_give_an_error_of_ours_or_a_dataset(pictures):
    """Every format, whole and then damaged in 240 ways; nothing else than our errors comes out, and what a row says is a caption or named."""
    table = dataset_of([odd_text(SEED, case).replace("\r", " ").replace("\n", " ") for case in range(40)])
    whole = {}
    for kind in ("json", "jsonl", "csv", "tsv", "captions.txt", "token"):
        path = write_dataset(table, pictures.parent / f"whole {kind}", kind)
        whole[kind] = next(file for file in path.iterdir() if file.is_file())
    told = kept = 0
    for case in range(240):
        rng = random.Random(f"{SEED}/table/{case}")
        kind = list(whole)[case % len(whole)]
        data = rng.choice(DAMAGES[:11])(rng, kind, whole[kind].read_bytes())
        try:
            captions, problems = loaded(pictures, whole[kind].name, data)
        except MiniclipError:
            told += 1
            continue
        except Exception as error:
            raise AssertionError(f"seed {SEED}, case {case}, {kind}: {type(error).__name__}: {error}") from error
        told, kept = told + bool(problems), kept + bool(captions)
    assert told > 60 and kept > 30


# parquet

def parquet(folder, columns, name="t.parquet"):
    table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns)
    pyarrow.parquet.write_table(table, folder / name)
    return folder / name


PNG = dataset_of(["x"]).file_bytes(0)
BAD_UTF8 = pyarrow.StringArray.from_buffers(2, pyarrow.py_buffer(b"\0\0\0\0\x01\0\0\0\x02\0\0\0"), pyarrow.py_buffer(b"\xffx"))
TABLES = {
    "a column twice": (pyarrow.Table.from_arrays([[PNG], ["x"], ["y"]], ["image", "caption", "caption"]), "'caption' stands twice"),
    "ids twice": ({"id": ["a", "b", "a"], "image": [PNG] * 3, "caption": ["x", "y", "z"]}, "row 3: the name 'a' stands in row 1, too"),
    "no id twice": ({"id": [None, "b", None], "image": [PNG] * 3, "caption": ["x", "y", "z"]}, "row 3: the name 'None'"),
    "no rows": ({"image": pyarrow.array([], pyarrow.binary()), "caption": pyarrow.array([], pyarrow.string())}, "no usable picture"),
    "pictures that are none": ({"image": [b"x", PNG, None], "caption": ["x", "y", "z"]}, "row 3: expected a picture as bytes"),
    "numbers as captions": ({"image": [PNG, PNG], "caption": [1, 2]}, "row 1: expected captions as text"),
    "texts that are none": (pyarrow.table({"image": [PNG, PNG], "caption": BAD_UTF8}), "'caption' cannot be read"),
    "nested captions": ({"image": [PNG], "captions": [[["x"]]]}, "row 1: expected captions"),
    "lists as pictures": ({"image": [[1, 2]], "caption": ["x"]}, "found list"),
    "a path in the place of bytes": ({"image": [{"bytes": None, "path": "/etc/passwd"}], "caption": ["x"]}, "found NoneType"),
    "times that Python has no word for": (pyarrow.table({"image": [PNG], "caption": ["x"], "when": pyarrow.array([2**58], pyarrow.timestamp("ms"))}), "'when' cannot be read"),
    "no picture column": ({"caption": ["x"]}, "expected the columns image and captions"),
}


@pytest.mark.parametrize("name", TABLES)
def test_parquet_tables_of_strangers(name, tmp_path):
    columns, words = TABLES[name]
    file = parquet(tmp_path, columns)
    with pytest.raises(DataError, match=words):
        load_dataset(file)
    try:
        rest = load_dataset(file, skip_problems=True)
        assert len(rest) + len(rest.problems) == len(next(iter(columns.values()))) and len(rest) > 0
    except DataError as error:
        assert name not in ("ids twice", "no id twice", "pictures that are none"), error  # noqa: PT017


def test_a_path_in_the_place_of_bytes_opens_no_file(tmp_path, private_cache):
    from test_search import MeanColour, NamedColour

    from miniclip_helpers.model import TwoTowers

    (tmp_path / "secret.png").write_bytes(PNG)
    file = parquet(tmp_path, {"image": [{"bytes": str(tmp_path / "secret.png"), "path": "x"}, {"bytes": str(tmp_path / "secret.png"), "path": "x"}], "caption": ["x", "y"]})
    done = embedding.encode_corpus(file, tmp_path / "out", TwoTowers(MeanColour(), NamedColour(), name="colours", logit_scale=10), skip_problems=True)
    assert done["rows"] == 0 and len(done["left_out"]) == 2


def test_damaged_parquet_and_tar_files_lose_no_row(tmp_path, private_cache):
    """Files of 12 pictures, damaged at 60 random places each: what is not encoded is named, or the whole file is told."""
    from test_search import MeanColour, NamedColour

    from miniclip_helpers.model import TwoTowers

    model = TwoTowers(MeanColour(), NamedColour(), name="colours", logit_scale=10).eval()
    pyarrow.parquet.write_table(pyarrow.table({"id": [f"n{row}" for row in range(12)], "image": [PNG] * 12, "caption": ["x"] * 12}), tmp_path / "w.parquet", compression="none", row_group_size=4)
    shards.write_shards(dataset_of([f"text {row}" for row in range(12)], pictures=12), tmp_path / "tars")
    (tmp_path / "tars" / "00000.tar").rename(tmp_path / "w.tar")
    told = whole = 0
    for case in range(120):
        rng = random.Random(f"{SEED}/files/{case}")
        kind = ("parquet", "tar")[case % 2]
        act = rng.choice(DAMAGES[:9])
        (file := tmp_path / f"d.{kind}").write_bytes(act(rng, kind, (tmp_path / f"w.{kind}").read_bytes()))
        try:
            done = embedding.encode_corpus(file, tmp_path / f"out{case}", model, rows=5, skip_problems=True)
        except MiniclipError:
            told += 1
            continue
        except Exception as error:
            raise AssertionError(f"seed {SEED}, case {case}, {kind}, {act.__name__}: {type(error).__name__}: {error}") from error
        assert done["rows"] == 12 or done["left_out"], f"seed {SEED}, case {case}, {kind}, {act.__name__}: {done}"
        whole += 1
    assert told > 20 and whole > 20


def test_a_tar_whose_header_leads_back_is_no_endless_loop(tmp_path):
    """A size below zero, in base 256, as Python's tarfile takes it."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.png", "b.png"):
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            tar.addfile(info, io.BytesIO(PNG))
    data = bytearray((tmp_path / "x.tar").read_bytes())
    at = data.index(b"b.png")
    data[at + 124 : at + 136] = (b"\xff" * 11) + b"\x00"
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    (tmp_path / "x.tar").write_bytes(data)
    code = f"from miniclip_helpers.datasets import load_dataset; load_dataset({str(tmp_path / 'x.tar')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))})
    assert "DataError" in done.stderr


# memory

def test_rows_come_one_by_one_and_none_is_kept(tmp_path, monkeypatch):
    """Of 3,000 rows never more than a few are there at once, in each format that is read line by line."""
    import weakref

    class Watched(readers.Entry):
        __slots__ = ("__weakref__",)

    alive, most = weakref.WeakSet(), 0

    class Counting(Watched):
        def __init__(self, *args, **options):
            nonlocal most
            super().__init__(*args, **options)
            alive.add(self)
            most = max(most, len(alive))

        __hash__ = object.__hash__

    monkeypatch.setattr(readers, "Entry", Counting)
    path = write_dataset(dataset_of(["x"] * 3000), tmp_path / "json")
    for kind in ("jsonl", "csv", "tsv", "captions.txt", "token"):
        write_dataset(dataset_of(["x"] * 3000), tmp_path / kind, kind)
    for kind in ("json", "jsonl", "csv", "tsv", "captions.txt", "token"):
        most = 0
        path = tmp_path / kind
        assert len(load_dataset(path).all_captions) == 3000 and 0 < most < 5, (kind, most)


def test_columns_of_a_stream_are_those_of_a_table():
    entries = [readers.Entry("a", ["x"], "1", {"c": 1, "d": 1, "e": None}), readers.Entry("a", ["y"], "2", {"c": 1, "d": 2, "e": None}), readers.Entry("b", ["z"], "3", {"c": 3, "f": 1})]
    first, captions, columns = formats.gathered(iter(entries))
    assert first == {"a": "1", "b": "3"} and captions == {"a": ["x", "y"], "b": ["z"]} and columns == {"c": {"a": 1, "b": 3}, "e": {"a": None}, "f": {"b": 1}}


def test_addresses_stop_where_the_limit_is(tmp_path):
    (tmp_path / "a.tsv").write_text("x\thttp://a/1.jpg\n" * 1000 + "broken\n")
    assert len(read_addresses(tmp_path / "a.tsv", limit=1000)) == 1000
    with pytest.raises(DataError, match="line 1001"):
        read_addresses(tmp_path / "a.tsv")
