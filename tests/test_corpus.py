"""A corpus to shards of vectors: equal to encoding directly, from every format, by several processes, stopped and resumed, damaged, refused, on a full disk."""

import collections
import contextlib
import json
import os
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from conftest import ROOT, picture

from miniclip_helpers import embedding, images, search
from miniclip_helpers.cli import main
from miniclip_helpers.datasets import ImageTextDataset, load_dataset, shards, write_dataset
from miniclip_helpers.embedding import workers
from miniclip_helpers.encoders import BagOfWords, SmallCNN
from miniclip_helpers.errors import DataError, MiniclipError, UsageError
from miniclip_helpers.model import TwoTowers
from miniclip_helpers.model.saving import save_model

NAMES = [f"{row}.png" for row in range(11)]


def save_small(folder, seed=0):
    """A model of two small towers in a folder, as `train` leaves it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TwoTowers(SmallCNN(channels=4, size=16), BagOfWords(width=256, vocabulary=["red", "blue", "dog"]), name="small")
    folder.mkdir()
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def photos(tmp_path):
    """Eleven pictures with two captions each, in a folder."""
    sources = []
    for row in range(11):
        picture(row).save(tmp_path / f"{row}.png")
        sources.append((tmp_path / f"{row}.png").read_bytes())
    small = ImageTextDataset("photos", NAMES, [[f"a red dog {row}", "blue"] for row in range(11)], sources)
    for name in NAMES:
        (tmp_path / name).unlink()
    return write_dataset(small, tmp_path / "photos")


@pytest.fixture
def direct(photos, model, private_cache):
    from miniclip_helpers.pretrained import load_model

    return embedding.image_embeddings(load_model(model), load_dataset(photos)).numpy()


def encode(data, out, model, **options):
    return embedding.encode_corpus(data, out, model, **{"rows": 4} | options)


def files(out):
    return sorted(file.name for file in out.iterdir())


@pytest.fixture
def opened(monkeypatch):
    """The pictures that were opened, counted."""
    count, plain = [], images.open_image
    monkeypatch.setattr(images, "open_image", lambda source: count.append(1) or plain(source))
    return count


def test_it_equals_encoding_directly(photos, model, direct, tmp_path):
    done = encode(photos, tmp_path / "out", model)
    assert done == {"rows": 11, "shards": 3, "kept": 0, "left_out": []} and files(tmp_path / "out") == ["00000.parquet", "00001.parquet", "00002.parquet"]
    names, vectors, about = embedding.read_all(tmp_path / "out")
    assert names == NAMES and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, direct, atol=1e-6)
    assert about["dim"] == vectors.shape[1] and about["holds"] == "pictures" and about["version"] and about["model"] == str(model)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "out" / "00001.parquet")  # any reader of parquet sees what it needs
    assert table.column_names == ["name", "embedding"] and str(table["embedding"].type) == f"fixed_size_list<element: float>[{vectors.shape[1]}]"


@pytest.mark.parametrize("kind", ["parquet", "row groups", "tars", "one tar", "csv"])
@pytest.mark.parametrize("of", ["pictures", "captions"])
def test_every_format_gives_the_same(kind, of, photos, model, tmp_path):
    dataset, data = load_dataset(photos), tmp_path / "data"
    if kind in ("parquet", "row groups"):
        data = write_dataset(dataset, tmp_path / "data.parquet")
        if kind == "row groups":
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.parquet.read_table(data), data, row_group_size=3)
    elif kind == "csv":
        write_dataset(dataset, data, kind="csv")
    else:
        shards.write_shards(dataset, data, size=5 if kind == "tars" else 100)
        data = data if kind == "tars" else data / "00000.tar"
    encode(photos, tmp_path / "a", model, of=of), encode(data, tmp_path / "b", model, of=of)
    (names, vectors, one), (others, same, other) = embedding.read_all(tmp_path / "a"), embedding.read_all(tmp_path / "b")
    assert names == others and len(names) == (11 if of == "pictures" else 22) and one.get("captions") == other.get("captions")
    np.testing.assert_allclose(vectors, same, atol=1e-6)


@pytest.mark.parametrize("of", ["pictures", "captions"])
def test_the_index_equals_the_one_made_directly(of, photos, model, tmp_path, private_cache):
    encode(photos, tmp_path / "out", model, of=of)
    straight = (search.index_dataset if of == "pictures" else search.index_captions)(photos, model)
    through = search.index_shards(tmp_path / "out")
    assert through.names == straight.names and through.about == straight.about and through.kind == straight.kind
    np.testing.assert_allclose(through.vectors(through.names), straight.vectors(straight.names), atol=1e-6)
    assert search.index_shards(tmp_path / "out", limit=5).names == straight.names[:5]


def test_two_processes_from_a_script_without_a_guard(photos, model, direct, tmp_path):
    (tmp_path / "script.py").write_text("import sys\nfrom miniclip_helpers import embedding\n"
                                        "print(embedding.encode_corpus(sys.argv[1], sys.argv[2], sys.argv[3], processes=2, rows=4)['rows'])\n")
    done = subprocess.run([sys.executable, tmp_path / "script.py", photos, tmp_path / "out", model], env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=True)
    names, vectors, _ = embedding.read_all(tmp_path / "out")
    assert done.stdout == "11\n" and done.stderr == "" and names == NAMES
    np.testing.assert_allclose(vectors, direct, atol=1e-6)


def test_a_worker_that_is_killed_is_told_and_the_rest_goes_on_later(photos, model, direct, tmp_path, monkeypatch, opened):
    started, plain = [], workers._start
    monkeypatch.setattr(workers, "_start", lambda *args: started.append(plain(*args)) or started[-1])
    feed = workers._feed

    def killing(worker, job, waiting, done):
        class Killed:
            def put(self, result):
                done.put(result)
                if result[2] is not None:
                    (tmp_path / "out" / ".00001.parquet.abc.parquet").write_bytes(b"half")  # what such an end may leave
                    worker.kill()
        feed(worker, job, waiting, Killed())

    monkeypatch.setattr(workers, "_feed", killing)
    monkeypatch.setattr(workers, "share", lambda job, todo, processes, model, share=workers.share: share(job, todo, 1))
    with pytest.raises(MiniclipError, match=r"a worker ended \(-?\d+\) at shard 00001; finished shards are kept"):
        encode(photos, tmp_path / "out", model, processes=2)
    assert files(tmp_path / "out") == ["00000.parquet"] and all(worker.poll() is not None for worker in started)
    opened.clear()
    assert encode(photos, tmp_path / "out", model)["kept"] == 1 and len(opened) == 7
    np.testing.assert_allclose(embedding.read_all(tmp_path / "out")[1], direct, atol=1e-6)


def test_what_a_worker_reports_is_raised_here(photos, model, tmp_path):
    job = {"model": str(tmp_path / "absent/model"), "out": str(tmp_path)}
    with pytest.raises(MiniclipError, match="absent/model' does not exist"):
        list(workers.share(job, [{"shard": 0}], 1))


def test_only_what_is_missing_or_has_changed_is_encoded_again(photos, model, direct, tmp_path, opened):
    encode(photos, tmp_path / "out", model)
    opened.clear()
    assert encode(photos, tmp_path / "out", model)["kept"] == 3 and not opened
    (tmp_path / "out" / "00001.parquet").unlink()
    assert encode(photos, tmp_path / "out", model)["kept"] == 2 and len(opened) == 4
    for spoil in (lambda data: data[:-100], lambda data: data[:60] + bytes([data[60] ^ 255]) + data[61:], lambda data: b""):
        file = tmp_path / "out" / "00002.parquet"
        file.write_bytes(spoil(file.read_bytes()))
        opened.clear()
        assert encode(photos, tmp_path / "out", model)["kept"] == 2 and len(opened) == 3
        np.testing.assert_allclose(embedding.read_all(tmp_path / "out")[1], direct, atol=1e-6)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "out" / "00002.parquet")
    other = pyarrow.array([f"x{name}" for name in table["name"].to_pylist()])
    pyarrow.parquet.write_table(table.set_column(0, "name", other), tmp_path / "out" / "00002.parquet")  # readable, and with the same metadata
    assert encode(photos, tmp_path / "out", model)["kept"] == 2 and embedding.read_all(tmp_path / "out")[0] == NAMES
    opened.clear()
    picture(99, (50, 60)).save(photos / "images" / "0.png")
    opened.clear()
    assert encode(photos, tmp_path / "out", model)["kept"] == 2 and len(opened) == 4
    assert encode(photos, tmp_path / "out", model, rows=6)["kept"] == 0 and len(embedding.shard_files(tmp_path / "out")) == 2


def test_what_lies_elsewhere_is_left_alone(photos, model, tmp_path):
    encode(photos, tmp_path / "out", model)
    other = save_small(tmp_path / "other", seed=1)
    before = files(tmp_path / "out")
    for options, words in (({"model": other}, "by the model"), ({"model": model, "of": "captions"}, "holds vectors of pictures")):
        with pytest.raises(UsageError, match=words):
            encode(photos, tmp_path / "out", **options)
    (tmp_path / "mine").mkdir()
    for name in ("notes.txt", "table.parquet"):
        (tmp_path / "mine" / name).write_bytes(b"mine")
        with pytest.raises(UsageError, match=f"holds something else \\({name}"):
            encode(photos, tmp_path / "mine", model)
        (tmp_path / "mine" / name).unlink()
    assert files(tmp_path / "out") == before


def test_vectors_of_the_same_model_before_it_learnt_more_are_told_apart(photos, tmp_path):
    own = save_small(tmp_path / "own", seed=0)
    encode(photos, tmp_path / "out", own)
    shutil.rmtree(own)
    save_small(own, seed=1)
    with pytest.raises(UsageError, match=r"holds vectors of pictures by the model '.*own', not of pictures by another version of it; name a new folder"):
        encode(photos, tmp_path / "out", own)


def test_mixed_missing_and_doubled_shards_make_no_index(photos, model, tmp_path):
    out, other = tmp_path / "out", tmp_path / "theirs"
    encode(photos, out, model), encode(photos, other, save_small(tmp_path / "other", seed=1))
    mine = (out / "00001.parquet").read_bytes()
    (out / "00001.parquet").write_bytes((other / "00001.parquet").read_bytes())
    with pytest.raises(UsageError, match=r"00001\.parquet and 00000\.parquet differ in model, image_tower"):
        search.index_shards(out)
    (out / "00001.parquet").unlink()
    with pytest.raises(DataError, match=r"(?s)2 of 3 shards.*shard 00001 is missing"):
        search.index_shards(out)
    (out / "00001.parquet").write_bytes(mine), (out / "00003.parquet").write_bytes(mine)
    with pytest.raises(UsageError, match="names must be unique"):
        search.index_shards(out)
    with pytest.raises(DataError, match="miniclip encode"):
        search.index_shards(photos)


def test_all_unreadable_pictures_are_listed_and_the_other_shards_written(photos, model, tmp_path):
    for row in (1, 10):
        file = photos / "images" / f"{row}.png"
        file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"(?s)2 pictures cannot be read.*1\.png.*10\.png"):
        encode(photos, tmp_path / "out", model)
    assert files(tmp_path / "out") == ["00001.parquet"]
    tars = tmp_path / "tars"
    shards.write_shards(load_dataset(photos), tars, size=4)
    with pytest.raises(DataError, match=r"(?s)2 pictures.*1\.png.*10\.png"):
        encode(tars, tmp_path / "b", model)
    done = encode(tars, tmp_path / "b", model, skip_problems=True)
    assert done["rows"] == 9 and len(done["left_out"]) == 2 and done["kept"] == 1
    assert embedding.read_all(tmp_path / "b")[0] == [name for name in NAMES if name not in ("1.png", "10.png")]


def test_ranks_take_their_shares(photos, model, direct, tmp_path, monkeypatch):
    for rank, shares in ((1, ["00001.parquet"]), (0, ["00000.parquet", "00001.parquet", "00002.parquet"])):
        monkeypatch.setenv("RANK", str(rank)), monkeypatch.setenv("WORLD_SIZE", "2"), monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        encode(photos, tmp_path / "out", model)
        assert files(tmp_path / "out") == shares
    np.testing.assert_allclose(embedding.read_all(tmp_path / "out")[1], direct, atol=1e-6)


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_memory_does_not_grow_with_the_corpus(kind, model, tmp_path, monkeypatch):
    """Pictures that are open at once, at two sizes."""
    alive, held, plain = collections.Counter(), [], images.open_image

    def opening(source):
        image = plain(source)
        alive["now"] += 1
        weakref.finalize(image, alive.subtract, ["now"])
        held.append(alive["now"])
        return image

    monkeypatch.setattr(images, "open_image", opening)
    most = []
    for count in (40, 160):
        folder = tmp_path / f"{count}"
        (folder / "photos").mkdir(parents=True)
        for row in range(count):
            picture(row, (8, 8)).save(folder / "photos" / f"{row:03d}.png")
        data = folder / "photos" if kind == "folder" else shards.write_shards(load_dataset(folder / "photos"), folder / "tars", size=20)
        held.clear()
        assert encode(data, folder / "out", model, rows=20)["rows"] == count
        most.append(max(held))
    assert most[1] <= 4 * (2 * torch.get_num_threads() + 2) and most[1] <= 2 * most[0]


@contextlib.contextmanager
def full_disk(at):
    """No file may grow beyond `at` bytes: what the system says then is what it says of a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_no_part_of_a_shard_or_of_an_index(photos, model, direct, tmp_path):
    with full_disk(1000), pytest.raises(MiniclipError, match=r"00000\.parquet' cannot be written .*finished shards are kept: free some space"):
        encode(photos, tmp_path / "out", model)
    assert files(tmp_path / "out") == []
    encode(photos, tmp_path / "out", model)
    index = search.index_shards(tmp_path / "out")
    index.save(tmp_path / "index")
    before = {file.name: file.read_bytes() for file in (tmp_path / "index").iterdir()}
    for target in ("index", "new"):
        with full_disk(1000), pytest.raises(MiniclipError, match=f"{target}' cannot be written .*free some space"):
            index.save(tmp_path / target)
    assert {file.name: file.read_bytes() for file in (tmp_path / "index").iterdir()} == before
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("options, words", [({"of": "words"}, "pictures, captions"), ({"processes": 0}, "from 1"), ({"rows": 0}, "from 1"), ({"rows": True}, "from 1")])
def test_wrong_use_is_told(options, words, photos, model, tmp_path):
    with pytest.raises(UsageError, match=words):
        encode(photos, tmp_path / "out", model, **options)
    assert not (tmp_path / "out").exists()


def test_several_processes_need_a_name(photos, model, tmp_path):
    from miniclip_helpers.pretrained import load_model

    with pytest.raises(UsageError, match="give its name"):
        encode(photos, tmp_path / "out", load_model(model), processes=2)
    assert encode(photos, tmp_path / "out", load_model(model))["rows"] == 11
    loaded = load_dataset(write_dataset(load_dataset(photos), tmp_path / "data.parquet"))
    with pytest.raises(UsageError, match="give the name or the path of the data"):
        encode(loaded, tmp_path / "a", model, processes=2)
    assert encode(loaded, tmp_path / "a", model)["rows"] == 11 and embedding.read_all(tmp_path / "a")[0] == NAMES


def test_as_it_is_typed(photos, model, tmp_path, capsys):
    def call(*argv):
        return main([str(word) for word in argv])

    (photos / "images" / "3.png").write_bytes(b"no picture at all")
    assert call("encode", "--data", photos, "--out", tmp_path / "o", "--model", model) == 1 and "3.png" in capsys.readouterr().err
    assert call("encode", "--data", photos, "--out", tmp_path / "o", "--model", model, "--rows-per-shard", 4, "--skip-problems", "--json", tmp_path / "o.json") == 0
    said = capsys.readouterr()
    assert "10 vectors in 3 shards (0 of them from before)" in said.out and "left out: " in said.err and "3.png" in said.err
    assert json.loads((tmp_path / "o.json").read_text())["rows"] == 10
    assert call("index", tmp_path / "o", "--out", tmp_path / "i") == 0 and "flat index of 10 vectors" in capsys.readouterr().out
    assert call("index", tmp_path / "o", "--of", "captions", "--out", tmp_path / "j") == 2 and "vectors of pictures" in capsys.readouterr().err
    assert call("search", tmp_path / "i", "a red dog", "-k", 2) == 0 and capsys.readouterr().out.count(".png") == 2
    assert call("encode", "--data", photos, "--of", "captions", "--out", tmp_path / "c", "--model", model, "--skip-problems") == 0
    assert call("index", tmp_path / "c", "--out", tmp_path / "ci") == 0 and call("search", tmp_path / "ci", "a red dog 5", "-k", 1) == 0
    assert "a red dog" in capsys.readouterr().out
    assert call("encode", "--data", photos, "--out", tmp_path / "o", "--model", model, "--processes", 0) == 2
