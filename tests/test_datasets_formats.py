"""CIFAR-100, Fashion Products, addresses of pictures, parts in files of their own; writing every format; near-duplicates."""

import io
import json
import os
import pickle
import tarfile

import numpy as np
import pandas
import pytest
from conftest import picture, shared
from loopback import Server, serving
from PIL import Image

from miniclip_helpers import downloads, images
from miniclip_helpers.cli import build_parser
from miniclip_helpers.datasets import ImageTextDataset, download_pictures, duplicates, fashion, load_dataset, near_duplicates, picture_of, read_addresses, write_dataset
from miniclip_helpers.errors import DataError, ImageError, OfflineError, UsageError

FINE, COARSE = ["apple", "aquarium_fish", "maple_tree"], ["fish", "fruit_and_vegetables", "trees"]


@pytest.fixture
def online(monkeypatch):
    for name in ("MINICLIP_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# CIFAR-100

def cifar_folder(root, parts=("test", "train"), byte_keys=False):
    """A folder in CIFAR-100's own format, made of embedded pictures: 6 for testing, 9 for training."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    stamps = load_dataset("stamps")
    key = (lambda text: text.encode()) if byte_keys else str
    (folder / "meta").write_bytes(pickle.dumps({key("fine_label_names"): FINE, key("coarse_label_names"): COARSE}, protocol=2))
    for part in parts:
        rows = range(6) if part == "test" else range(10, 19)
        pixels = np.stack([np.asarray(stamps.image(row).resize((32, 32))) for row in rows])
        fine = [row % 3 for row in rows]
        batch = {"data": pixels.transpose(0, 3, 1, 2).reshape(len(rows), 3072), "fine_labels": fine, "coarse_labels": [(1, 0, 2)[label] for label in fine],
                 "filenames": [f"{row}.png" for row in rows], "batch_label": "one of one"}
        (folder / part).write_bytes(pickle.dumps({key(name): value for name, value in batch.items()}, protocol=2))
    return root


def same_as_torchvision(dataset, root, train, monkeypatch):
    """Compare with torchvision's own reader of the folder, told the checksums of these files."""
    from torchvision.datasets import CIFAR100

    def md5(name):
        import hashlib

        return hashlib.md5((root / "cifar-100-python" / name).read_bytes()).hexdigest()

    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5("train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5("test")]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5("meta")})
    theirs = CIFAR100(root, train=train, download=False)
    assert len(theirs) == len(dataset)
    for row, (image, label) in enumerate(theirs):
        assert np.array_equal(np.asarray(image), np.asarray(dataset.image(row)))
        assert dataset.columns["label"][row] == theirs.classes[label].replace("_", " ") and dataset.captions[row] == [dataset.columns["label"][row]]


@pytest.mark.parametrize("part", ["test", "train"])
def test_cifar_equals_torchvisions_reader(tmp_path, monkeypatch, part):
    root = cifar_folder(tmp_path / "here")
    dataset = load_dataset(f"{root}:train" if part == "train" else root)
    same_as_torchvision(dataset, root, part == "train", monkeypatch)
    assert dataset.columns["label"][1:3] == ["maple tree", "apple"] if part == "train" else ["aquarium fish", "maple tree"]
    assert set(zip(dataset.columns["label"], dataset.columns["coarse"])) == {("apple", "fruit and vegetables"), ("aquarium fish", "fish"), ("maple tree", "trees")}
    assert dataset.columns["filename"][0] == ("10.png" if part == "train" else "0.png") and len(set(dataset.names)) == len(dataset)


def test_cifar_by_name_is_fetched_once(tmp_path, private_cache, online, monkeypatch):
    import hashlib

    cifar_folder(tmp_path / "made")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-100-python", "cifar-100-python")
    data = buffer.getvalue()
    with serving(Server(data)) as server:
        url = server.url.replace("file.bin", "cifar-100-python.tar.gz")
        monkeypatch.setitem(downloads.SOURCES, "cifar100", downloads.Source("cifar100", (url,), md5=hashlib.md5(data).hexdigest(), size=len(data), unpack=True))
        test, train = load_dataset("cifar100"), load_dataset("cifar100:train")
        assert (test.name, len(test), train.name, len(train), len(server.starts)) == ("cifar100", 6, "cifar100:train", 9, 1)
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    assert load_dataset("cifar100").captions == test.captions
    same_as_torchvision(test, private_cache / "downloads" / "cifar100", False, monkeypatch)


def test_cifar_offline_says_what_to_do(private_cache, monkeypatch):
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"place it at '.*cifar-100-python\.tar\.gz'"):
        load_dataset("cifar100")


def test_cifar_with_byte_keys_and_without_a_part(tmp_path):
    root = cifar_folder(tmp_path, parts=["test"], byte_keys=True)
    assert len(load_dataset(root)) == 6 and len(load_dataset(root / "cifar-100-python")) == 6
    with pytest.raises(DataError, match="does not hold the part train"):
        load_dataset(f"{root}:train")


@pytest.mark.parametrize("name, words", [("cifar100:val", "part of CIFAR-100 'val'.*test, train"), ("cifar10", "did you mean cifar100"), ("fashionn", "did you mean fashion")])
def test_wrong_names_are_told(name, words):
    with pytest.raises(UsageError, match=words):
        load_dataset(name)


class Evil:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("content, words", [
    (pickle.dumps(Evil()), "asks for posix.system|asks for nt.system"), (b"", "cannot be read"), (b"no pickle", "cannot be read"), (pickle.dumps([1]), "expected a dictionary"),
    (pickle.dumps({"data": 1}), "is not CIFAR-100"), (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0, 9], "coarse_labels": [0, 0]}, 2), "is not CIFAR-100"),
    (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0], "coarse_labels": [0, 0]}, 2), "2 pictures of uint8, 1 labels"),
], ids=["hostile", "empty", "no pickle", "a list", "half", "label 9 of 3", "labels missing"])
def test_a_broken_or_hostile_cifar_file_is_refused(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    root = cifar_folder(tmp_path / "here")
    (root / "cifar-100-python" / "test").write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_dataset(root)
    assert not (tmp_path / "harmed").exists()


def test_a_picture_is_found_again_by_name_and_root(tmp_path, photo_folder, fashion_folder):
    root = cifar_folder(tmp_path / "here")
    for found in (load_dataset(root), load_dataset(f"{root}:train"), load_dataset("photos8"), load_dataset("stamps"), load_dataset(photo_folder), load_dataset(fashion_folder)):
        assert np.array_equal(np.asarray(picture_of(found.names[2], found.name, found.root)), np.asarray(found.image(2))), found
    with pytest.raises(ImageError, match="is gone"):
        picture_of("none.png", "photos", photo_folder)


# Fashion Products

STYLES = """id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName
15970,Men,Apparel,Topwear,Shirts,Navy Blue,Fall,2011,Casual,Turtle Check Men Navy Blue Shirt
39386,Men,Apparel,Bottomwear,Jeans,Blue,Summer,2012,Casual,Peter England Men Party, Slim Fit,Blue Jeans
59263,Women,Accessories,Watches,Watches,Silver,Winter,2016,,Titan "Raga" Women, Silver Watch
21379,Men,Apparel,Bottomwear,Track Pants,Black,Fall,2011,Casual,"Manchester United, Men ""Solid"" Black Track Pants"
"""
NAMES = ["Turtle Check Men Navy Blue Shirt", "Peter England Men Party, Slim Fit,Blue Jeans", 'Titan "Raga" Women, Silver Watch', 'Manchester United, Men "Solid" Black Track Pants']
IDS = ["15970", "39386", "59263", "21379"]


@pytest.fixture
def fashion_folder(tmp_path):
    """A folder as Kaggle gives it: styles.csv, images/ID.jpg, and images.csv, which only repeats addresses."""
    folder = tmp_path / "fashion"
    (folder / "images").mkdir(parents=True)
    for seed, name in enumerate(IDS):
        picture(seed, (60, 80)).save(folder / "images" / f"{name}.jpg")
    (folder / "styles.csv").write_text(STYLES)
    (folder / "images.csv").write_text("filename,link\n15970.jpg,http://example.invalid/15970.jpg\n")
    return folder


def test_fashion_folder_keeps_unquoted_commas_and_all_columns(fashion_folder):
    dataset = load_dataset(fashion_folder)
    assert dataset.names == IDS and dataset.captions == [[name] for name in NAMES] and dataset.problems == []
    assert dataset.columns["baseColour"] == ["Navy Blue", "Blue", "Silver", "Black"] and dataset.columns["usage"] == ["Casual", "Casual", None, "Casual"]
    assert list(dataset.columns) == STYLES.split("\n")[0].split(",")[1:-1]
    assert dataset.image(2).size == (60, 80) and dataset.path(2).name == "59263.jpg"


def test_fashion_products_without_a_picture_or_name_are_listed(fashion_folder):
    (fashion_folder / "images" / "39386.jpg").unlink()
    with open(fashion_folder / "styles.csv", "a") as file:
        file.write("39403,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual,Shirt without picture\n15971,Men,Apparel,Topwear,Shirts,Red,Fall,2011,Casual,\n15972,Men,Apparel\n")
    with pytest.raises(DataError) as error:
        load_dataset(fashion_folder)
    said = str(error.value)
    assert "4 problem(s)" in said and "line 3: '39386' does not exist" in said and "line 6: '39403' does not exist" in said
    assert "line 7: no caption for '15971'" in said and "line 8: expected 10 columns, found 3" in said
    rest = load_dataset(fashion_folder, skip_problems=True)
    assert rest.names == ["15970", "59263", "21379"] and len(rest.problems) == 4 and rest.columns["articleType"] == ["Shirts", "Watches", "Track Pants"]


def test_a_quote_that_swallows_lines_says_which(fashion_folder):
    (fashion_folder / "styles.csv").write_text(STYLES.replace("Turtle", '"Turtle'))
    with pytest.raises(DataError, match="lines 2 to 4: not valid CSV"):
        load_dataset(fashion_folder)


def hub_folder(folder, names=NAMES):
    """The same products as the hub has them: parquet with an image struct."""
    import datasets as hub

    files = [io.BytesIO() for _ in names]
    for seed, file in enumerate(files):
        picture(seed, (60, 80)).save(file, "PNG")
    columns = {"id": [int(name) for name in IDS], "gender": ["Men", "Men", "Women", "Men"], "year": [2011.0, 2012.0, 2016.0, 2011.0], "productDisplayName": names,
               "image": [{"bytes": file.getvalue(), "path": None} for file in files]}
    (folder / "data").mkdir(parents=True)
    features = hub.Features({"id": hub.Value("int64"), "gender": hub.Value("string"), "year": hub.Value("float64"), "productDisplayName": hub.Value("string"), "image": hub.Image()})
    hub.Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


def test_fashion_in_the_hubs_format(tmp_path, monkeypatch, online):
    import datasets as hub

    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(fashion, "HUB_NAME", str(hub_folder(tmp_path / "hub", [*NAMES[:3], ""])))
    for switch in ("0", "1"):
        monkeypatch.setenv("MINICLIP_OFFLINE", switch)
        dataset = load_dataset("fashion")
        assert dataset.names == IDS[:3] and dataset.captions == [[name] for name in NAMES[:3]] and dataset.problems == ["product 21379: no name"]
        assert np.array_equal(np.asarray(dataset.image(1)), np.asarray(picture(1, (60, 80)))) and dataset.columns == {"gender": ["Men", "Men", "Women"], "year": [2011.0, 2012.0, 2016.0]}


def test_fashion_offline_says_what_to_do(tmp_path, monkeypatch):
    import datasets as hub

    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"switched off.*while connected.*styles\.csv"):
        load_dataset("fashion")
    seen = []
    monkeypatch.setattr(hub, "load_dataset", lambda *_, **__: seen.append(hub.config.HF_HUB_OFFLINE) or (_ for _ in ()).throw(ConnectionError("away")))
    before = hub.config.HF_HUB_OFFLINE
    with pytest.raises(OfflineError):
        load_dataset("fashion")
    assert seen == [True] and hub.config.HF_HUB_OFFLINE == before, "the library is told not to try, and only for this call"


# Addresses without pictures

def png(seed):
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("text", [
    "a dog\thttp://x.invalid/1.jpg\na \"cat\", two\thttps://x.invalid/2\n", "caption\turl\na dog\thttp://x.invalid/1.jpg\na \"cat\", two\thttps://x.invalid/2\n",
    "http://x.invalid/1.jpg\ta dog\nhttps://x.invalid/2\ta \"cat\", two\n"])
def test_addresses_are_read_and_never_fetched(tmp_path, text, monkeypatch):
    monkeypatch.setattr(downloads, "read_url", lambda *_, **__: pytest.fail("nothing may be fetched"))
    file = tmp_path / "Train_GCC-training.tsv"
    file.write_text(text)
    table = read_addresses(file)
    assert table.to_dict("list") == {"caption": ["a dog", 'a "cat", two'], "url": ["http://x.invalid/1.jpg", "https://x.invalid/2"]}
    assert len(read_addresses(file, limit=1)) == 1
    for path in (file, tmp_path):
        with pytest.raises(DataError, match=r"addresses of pictures, not pictures.*download_pictures"):
            load_dataset(path)


def test_lines_without_an_address_are_listed(tmp_path):
    file = tmp_path / "cc.tsv"
    file.write_text("a dog\thttp://x.invalid/1\nonly a caption\na cat\tno address\n\t http://x.invalid/2\n")
    with pytest.raises(DataError, match=r"(?s)3 line.*line 2.*line 3.*line 4"):
        read_addresses(file)
    table = read_addresses(file, skip_problems=True)
    assert len(table) == 1 and len(table.attrs["problems"]) == 3
    with pytest.raises(DataError, match="cannot be read"):
        read_addresses(tmp_path / "none.tsv")


def test_a_table_of_pictures_is_not_taken_for_addresses(photo_folder):
    (photo_folder / "captions.tsv").write_text("image\tcaption\na.png\tsee http://x.invalid\nb.png\tb\nc.png\tc\n")
    assert load_dataset(photo_folder).captions == [["see http://x.invalid"], ["b"], ["c"]]


def test_asked_for_pictures_are_downloaded_and_failures_listed(tmp_path, online):
    with serving(Server(png(0))) as one, serving(Server(png(1))) as two, serving(Server(status=404)) as gone, serving(Server(b"<html>")) as page:
        table = pandas.DataFrame([("a", one.url), ("b", gone.url), ("c", page.url), ("a, again", one.url), ("d", two.url), ("never", two.url + "?2")], columns=["caption", "url"])
        dataset = download_pictures(table, tmp_path / "pictures", limit=5)
        assert dataset.captions == [["a", "a, again"], ["d"]] and len(one.starts) == len(two.starts) == 1
        assert [np.asarray(dataset.image(i)).tolist() for i in range(2)] == [np.asarray(picture(i)).tolist() for i in range(2)]
        assert len(dataset.problems) == 2 and "row 2" in dataset.problems[0] and "404" in dataset.problems[0] and "row 3" in dataset.problems[1]
        again = download_pictures(table, tmp_path / "pictures", limit=5)
        assert again.captions == dataset.captions and len(one.starts) == len(two.starts) == 1, "what is there is not fetched twice"
        assert load_dataset(tmp_path / "pictures").names == dataset.names
        assert sorted(file.suffix for file in (tmp_path / "pictures" / "images").iterdir()) == [".png", ".png"]
        with pytest.raises(DataError, match="none of 1 addresses"):
            download_pictures(table[1:2], tmp_path / "none")


def test_downloads_are_bounded_offline_and_into_their_own_place(tmp_path, monkeypatch):
    table = pandas.DataFrame([("a", "http://x.invalid/1")], columns=["caption", "url"])
    for limit in (0, None, -1, 1.5):
        with pytest.raises(UsageError, match="whole number from 1"):
            download_pictures(table, tmp_path / "p", limit=limit)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    monkeypatch.setenv("MINICLIP_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(UsageError, match="holds something else"):
        download_pictures(table, tmp_path / "mine")
    with pytest.raises(UsageError, match="found caption"):
        download_pictures(table[["caption"]], tmp_path / "p")
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    with pytest.raises(OfflineError, match="switched off"):
        download_pictures(table, tmp_path / "p")


# Parts in files of their own, first captions, layouts of the documents

def write_parts(folder, parts):
    for part, rows in parts.items():
        (folder / f"{part}.jsonl").write_text("".join(json.dumps({"image_id": name, "caption_id": f"{name}_{k}", "caption": f"{name} {k}"}) + "\n" for name in rows for k in range(2)))


def test_train_val_test_files_become_one_dataset(photo_folder):
    write_parts(photo_folder, {"train": ["b"], "val": ["a"], "test": ["c"]})  # names without a suffix, as ids
    dataset = load_dataset(photo_folder)
    assert dataset.names == ["b", "a", "c"] and dataset.columns == {"split": ["train", "val", "test"]} and dataset.captions[0] == ["b 0", "b 1"]
    assert dataset.where("split", "test").names == ["c"] and np.array_equal(np.asarray(dataset.image(0)), np.asarray(picture(1)))
    assert load_dataset(photo_folder / "val.jsonl").names == ["a"]


def test_a_picture_in_two_parts_is_a_leak(photo_folder):
    write_parts(photo_folder, {"train": ["a", "b"], "val": ["c", "b"]})
    with pytest.raises(DataError, match=r"val\.jsonl, line 3: 'b' is in the part train, too"):
        load_dataset(photo_folder)
    rest = load_dataset(photo_folder, skip_problems=True)
    assert rest.names == ["a", "b", "c"] and rest.columns["split"] == ["train", "train", "val"] and rest.captions[1] == ["b 0", "b 1"]


def test_the_split_of_document_002_reads_without_its_pictures():
    folder = shared("flickr8k_clip_b32")
    with pytest.raises(DataError, match="problem") as error:
        load_dataset(folder / "val_captions.jsonl")
    assert len(error.value.problems) == 1213, "one for each picture that is not there, none for its 6,065 captions"


def test_first_captions(photo_folder):
    (photo_folder / "captions.json").write_text(json.dumps({"a.png": ["a 0", "a 1"], "b.png": ["b 0"], "c.png": ["c 0", "c 1"]}))
    every, first = load_dataset(photo_folder), load_dataset(photo_folder, captions="first")
    assert first.captions == [["a 0"], ["b 0"], ["c 0"]] and first.owner.tolist() == [0, 1, 2] and len(every.all_captions) == 5
    assert every.first_captions().captions == first.captions == load_dataset(every, captions="first").captions and len(every.all_captions) == 5
    assert build_parser().parse_args(["evaluate", "--data", "cifar100", "--captions", "first"]).captions == "first"
    with pytest.raises(UsageError, match="did you mean first"):
        load_dataset(photo_folder, captions="frist")


def test_the_layout_of_document_000(tmp_path):
    (tmp_path / "flickr8k_images").mkdir()
    picture(3).save(tmp_path / "flickr8k_images" / "a.jpg")
    (tmp_path / "captions.txt").write_text("a.jpg#0\tone\na.jpg#1\ttwo\n")  # the original's lines under Kaggle's name
    assert load_dataset(tmp_path).captions == [["one", "two"]]


def test_columns_of_an_image_are_kept_and_those_of_a_caption_are_not(photo_folder):
    rows = [("a.png", "x", "red", 0), ("a.png", "y", "red", 1), ("b.png", "z", "blue", 0), ("c.png", "z", "", 0)]
    pandas.DataFrame(rows, columns=["image", "caption", "colour", "number"]).to_csv(photo_folder / "captions.csv", index=False)
    assert load_dataset(photo_folder).columns == {"colour": ["red", "blue", None]}


# Writing

@pytest.fixture
def odd(tmp_path):
    """A dataset with what breaks formats: commas, quotes, tabs, hashes, other scripts, folders in names, names without a suffix, several picture formats."""
    sources = []
    for seed, format_ in enumerate(["PNG", "JPEG", "WEBP", "PPM"]):
        buffer = io.BytesIO()
        picture(seed).save(buffer, format_)
        sources.append(buffer.getvalue())
    picture(7).save(tmp_path / "own.jpg")
    captions = [["a, \"quoted\" one", "ends with a \\"], ["tab\there", "#hash", "; | ,"], ["ein Bär – 熊", "e\u0301"], ["None"], ["1.0", "two  spaces"]]
    columns = {"colour": ["red", None, "a, b", "x\ty", "z"], "tags": [["a"], [], ["b", "c"], [], []], "words": [{"de": "Bär"}, {}, {"fr": "ours"}, {}, {}], "year": [2011, 2012, None, 4, 5]}
    return ImageTextDataset("odd", ["a.png", "sub/b", "c#1.jpg", "Zahl 5", "own.jpg"], captions, [*sources, tmp_path / "own.jpg"], columns)


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv", "captions.txt", "token", "parquet", "out.parquet", None])
def test_every_format_comes_back(odd, tmp_path, kind):
    path = tmp_path / ("out.parquet" if kind == "out.parquet" else "out")
    assert write_dataset(odd, path, None if kind == "out.parquet" else kind) == path
    back = load_dataset(path)
    assert back.names == odd.names and back.captions == odd.captions and back.problems == []
    for i in range(5):
        assert np.array_equal(np.asarray(back.image(i)), np.asarray(odd.image(i)))
    assert back.file_bytes(1) == odd.file_bytes(1), "a JPEG is copied, not compressed anew"
    assert {file.suffix for file in tmp_path.glob("out/images/**/*") if file.is_file()} <= images.SUFFIXES
    if kind in ("json", "jsonl", "parquet", "out.parquet", None):
        assert back.columns == odd.columns
    elif kind in ("csv", "tsv"):
        assert back.columns == {"colour": odd.columns["colour"], "year": ["2011", "2012", None, "4", "5"]}
    else:
        assert back.columns == {}


@pytest.mark.parametrize("kind, separator", [("csv", ","), ("captions.txt", ","), ("tsv", "\t")])
def test_tables_are_what_pandas_reads(odd, tmp_path, kind, separator):
    file = next(write_dataset(odd, tmp_path / "out", kind).glob("captions.*"))
    table = pandas.read_csv(file, sep=separator, keep_default_na=False)
    assert table["caption"].tolist() == odd.all_captions and table.iloc[:, 0].tolist() == [odd.names[i] for i in odd.owner]


@pytest.mark.parametrize("kind", ["json", "token", "parquet"])
def test_real_pictures_come_back(tmp_path, kind):
    dataset = load_dataset(shared("flickr8k")).subset(range(20))
    back = load_dataset(write_dataset(dataset, tmp_path / "out", kind))
    assert back.names == dataset.names and back.captions == dataset.captions and [back.fingerprint(i) for i in range(20)] == [dataset.fingerprint(i) for i in range(20)]


def test_cifar_can_be_written_in_another_format(tmp_path):
    dataset = load_dataset(cifar_folder(tmp_path / "here"))
    back = load_dataset(write_dataset(dataset, tmp_path / "out", "csv"))
    assert back.columns == dataset.columns and all(np.array_equal(np.asarray(back.image(i)), np.asarray(dataset.image(i))) for i in range(6))


def bare(names=("a",), captions=(("x",),), columns=None):
    return ImageTextDataset("bare", list(names), [list(row) for row in captions], [png(i) for i in range(len(names))], columns)


@pytest.mark.parametrize("dataset, kind, words", [
    (bare(captions=[()]), "json", "1 of 1 pictures have no caption"), (bare(captions=[("a\nb",)]), "token", "line break"), (bare(["../a"]), "json", "cannot be a file's name"),
    (bare(["/a"]), "csv", "cannot be a file's name"), (bare(columns={"caption": ["x"]}), "csv", "name of a column"), (bare(columns={"image": ["x"]}), "parquet", "name of a column"),
    (bare(["a", "a.jpg"], ["x", "y"]), "json", "would be one file"), (bare(columns={"x": [b"bytes"]}), "json", "holds bytes"), (bare(), "jsno", "did you mean json"),
])
def test_what_a_format_cannot_say_is_told_before_anything_is_written(tmp_path, dataset, kind, words):
    with pytest.raises(UsageError, match=words):
        write_dataset(dataset, tmp_path / "out", kind)
    assert list(tmp_path.iterdir()) == []


def test_pictures_without_captions_go_into_parquet(tmp_path):
    assert load_dataset(write_dataset(bare(captions=[()]), tmp_path / "x.parquet")).captions == [[]]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "x.parquet").write_text("x")
    for path in (tmp_path / "full", tmp_path / "x.parquet"):
        with pytest.raises(UsageError, match="left as it is"):
            write_dataset(bare(), path)
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "x.parquet").read_text() == "x"


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    dataset = bare(["a", "b"], [["x"], ["y"]])
    dataset._sources[1] = b"broken"
    with pytest.raises(ImageError, match="'b': the picture cannot be read"):
        write_dataset(dataset, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Near-duplicates

def hash_by_hand(image):
    """The definition, with loops: grey, 9 x 8 means, greater than the right neighbour, first bit highest."""
    grey = image.convert("L")
    width, height = grey.size
    pixels, value = np.asarray(grey, dtype=float), 0
    means = [[round(pixels[height * r // 8 : height * (r + 1) // 8, width * c // 9 : width * (c + 1) // 9].mean()) for c in range(9)] for r in range(8)]
    for row in means:
        for left, right in zip(row, row[1:]):
            value = value * 2 + (left > right)
    return value


def test_difference_hash_by_hand():
    for seed in range(5):
        image = picture(seed, (90, 80))  # divides evenly
        assert (images.difference_hash(image) ^ hash_by_hand(image)).bit_count() <= 2, "rounding may turn a pair of nearly equal means"
    falling = Image.fromarray(np.tile(np.linspace(255, 0, 90).astype(np.uint8), (80, 1)))
    assert images.difference_hash(falling) == 2**64 - 1 and images.difference_hash(falling.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0
    assert images.difference_hash(falling, side=4) == 2**16 - 1 and images.difference_hash(Image.new("RGB", (5, 5), "red")) == 0


def copies(image):
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=50)
    return [image.resize((image.width // 2, image.height // 2)), Image.open(jpeg).convert("RGB"), image.point(lambda value: min(255, int(value * 1.1)))]


def test_near_duplicates_are_found_and_nothing_else():
    stamps = load_dataset("stamps")
    rows = list(range(0, 950, 40))  # 24 different things
    pictures = [stamps.image(row) for row in rows]
    pictures += copies(pictures[3]) + [pictures[5].transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    files = []
    for image in pictures:
        files.append(io.BytesIO())
        image.save(files[-1], "PNG")
    dataset = ImageTextDataset("copies", [str(i) for i in range(len(files))], [[]] * len(files), [file.getvalue() for file in files])
    found = near_duplicates(dataset)
    assert {(i, j) for i, j, _ in found} == {(a, b) for a in (3, 24, 25, 26) for b in (3, 24, 25, 26) if a < b}
    assert [bits for *_, bits in found] == sorted(bits for *_, bits in found)
    hashes = [images.difference_hash(image) for image in pictures]  # the hash alone, against a loop over all pairs
    naive = {(i, j, (hashes[i] ^ hashes[j]).bit_count()) for j in range(len(hashes)) for i in range(j) if (hashes[i] ^ hashes[j]).bit_count() <= 12}
    assert set(near_duplicates(dataset, distance=12, alike=-1)) == naive and len(naive) > len(found)


def test_near_duplicates_across_blocks_and_of_plain_pictures(monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", 3)
    files = [png(seed) for seed in (0, 1, 2, 3, 0, 4, 5, 1)]
    for colour in ("red", "red", "blue"):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 20), colour).save(buffer, "PNG")
        files.append(buffer.getvalue())
    dataset = ImageTextDataset("blocks", [str(i) for i in range(11)], [[]] * 11, files)
    assert near_duplicates(dataset) == [(0, 4, 0), (1, 7, 0), (8, 9, 0)]
    assert near_duplicates(dataset.subset([])) == []


def test_embedded_stamps_hold_a_dozen_near_duplicates():
    stamps = load_dataset("stamps")
    found = {frozenset((stamps.names[i].rpartition("/")[2], stamps.names[j].rpartition("/")[2])) for i, j, _ in near_duplicates(stamps)}
    assert 8 <= len(found) <= 20
