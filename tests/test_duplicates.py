"""Near-duplicates with crops and mirror images, groups, captions.json and the example folder, each against something counted by hand."""

import json

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageOps
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from miniclip_helpers import datasets, images
from miniclip_helpers.datasets import duplicates
from miniclip_helpers.datasets.captions import caption_rows
from miniclip_helpers.datasets.example import write_example
from miniclip_helpers.datasets.splits import split_rows
from miniclip_helpers.errors import DataError, UsageError
from miniclip_helpers.training import mini_data


@pytest.fixture(scope="module")
def stamps():
    return datasets.load_dataset("stamps")


def photo(stamps, name):
    return stamps.image(next(row for row, found in enumerate(stamps.names) if found.endswith(f"/{name}.png")))


def test_similar_pairs_against_a_loop(monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", 3)
    rows = np.random.default_rng(0).normal(size=(10, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    naive = sorted(((i, j, rows[i] @ rows[j]) for j in range(10) for i in range(j) if rows[i] @ rows[j] >= 0.3), key=lambda pair: -pair[2])
    found = datasets.similar_pairs(rows, 0.3)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in naive] and len(found) > 3
    assert [pair[2] for pair in found] == pytest.approx([pair[2] for pair in naive], abs=1e-6)
    with pytest.raises(UsageError, match=r"\(N, D\)"):
        datasets.similar_pairs(rows[0])


def best_by_hand(big, small):
    """The highest correlation with any place, with loops and numpy's own corrcoef."""
    places = [(y, x) for y in range(big.shape[0] - small.shape[0] + 1) for x in range(big.shape[1] - small.shape[1] + 1)]
    return max(np.corrcoef(big[y : y + small.shape[0], x : x + small.shape[1]].ravel(), small.ravel())[0, 1] for y, x in places)


def test_the_best_place_against_corrcoef():
    random = np.random.default_rng(1)
    big, small = (random.integers(0, 256, size=(side, side, 3)).astype(np.float32) for side in (9, 6))
    assert duplicates._best_place(big, small) == pytest.approx(best_by_hand(big, small), abs=1e-5)
    assert duplicates._best_place(big, big[1:7, 2:8]) == pytest.approx(1, abs=1e-5)
    assert duplicates._best_place(big, 200 - 0.5 * big[1:7, 2:8]) == pytest.approx(best_by_hand(big, 200 - 0.5 * big[1:7, 2:8]), abs=1e-5)


def test_resemblance_of_copies_and_of_others(stamps):
    for name in ("lion", "teapot", "mandarine"):
        whole = photo(stamps, name)
        made = datasets.copies(whole)
        assert set(made) == {"smaller", "saved again", "brighter", "cropped", "mirrored"}
        for kind, copy in made.items():
            assert duplicates.resemblance(whole, copy) > 0.9 and copy.mode == "RGB", (name, kind)
            assert duplicates.resemblance(copy, whole) == pytest.approx(duplicates.resemblance(whole, copy), abs=1e-5)
        assert made["smaller"].size == (80, 80) and made["cropped"].size == (136, 136) and np.array_equal(made["mirrored"], ImageOps.mirror(whole))
        assert np.asarray(made["brighter"]).mean() > np.asarray(whole).mean()
    for one, other in [("lion", "teapot"), ("mandarine", "orange"), ("deer", "wapiti"), ("apple_red", "apple_green")]:
        assert duplicates.resemblance(photo(stamps, one), photo(stamps, other)) < 0.93, (one, other)


def test_resemblance_of_plain_pictures():
    red, blue = (Image.new("RGB", (20, 20), colour) for colour in ("red", "blue"))
    assert duplicates.resemblance(red, red) == 1 and duplicates.resemblance(red, blue) < 0.5
    assert duplicates.resemblance(red, picture(3)) < 0.5


def test_find_copies_finds_what_was_planted_and_nothing_else(stamps, tmp_path):
    names = ["lion", "teapot", "mandarine", "orange", "deer", "wapiti", "banana", "camel"]
    files = [(name, photo(stamps, name)) for name in names]
    files += [(f"lion {kind}", copy) for kind, copy in datasets.copies(files[0][1]).items()] + [("teapot cropped", datasets.copies(files[1][1])["cropped"])]
    for number, (_, image) in enumerate(files):
        image.save(tmp_path / f"{number:02d}.png")
    dataset = datasets.load_photos(tmp_path)
    everything = np.ones((len(files), 1))  # every pair is a candidate: the pixels alone decide
    lions = {0, 8, 9, 10, 11, 12}
    pairs = datasets.find_copies(dataset, everything, alike=0.94)
    assert {pair[:2] for pair in pairs} == {(i, j) for i in lions for j in lions if i < j} | {(1, 13)}
    assert [pair[2] for pair in pairs] == sorted((pair[2] for pair in pairs), reverse=True)
    apart = np.eye(len(files))  # no pair is one: what the hashes find is left, which knows no crops and no mirror
    hashed = {pair[:2] for pair in datasets.find_copies(dataset, apart, alike=0.94)}
    assert hashed == {pair[:2] for pair in datasets.near_duplicates(dataset)} and (0, 8) in hashed and (0, 12) not in hashed
    with pytest.raises(UsageError, match="one embedding per picture"):
        datasets.find_copies(dataset, everything[:3])


def test_groups_against_scipy():
    random = np.random.default_rng(2)
    for _ in range(20):
        pairs = [tuple(sorted(random.choice(15, 2, replace=False).tolist())) + (0.5,) for _ in range(8)]
        labels = datasets.group_copies(15, pairs)
        graph = coo_matrix((np.ones(8), tuple(np.array(pairs)[:, :2].T.astype(int))), shape=(15, 15))
        _, expected = connected_components(graph, directed=False)
        assert all((labels[i] == labels[j]) == (expected[i] == expected[j]) for i in range(15) for j in range(15))
        assert all(labels[row] == min(other for other in range(15) if labels[other] == labels[row]) for row in range(15))
        parts = split_rows(15, {"train": 0.6, "test": 0.4}, 0, labels)
        home = {row: part for part, rows in parts.items() for row in rows}
        assert all(home[i] == home[j] for i, j, _ in pairs) and len(home) == 15


# captions.json


def test_captions_go_out_and_come_back(tmp_path):
    file = tmp_path / "captions.json"
    assert datasets.read_captions(file) == {}
    said = {"b/2.jpg": ["ein Boot", "  zwei   Boote "], "a.jpg": ["“quoted”, 雨"], "c.jpg": ["", "  "]}
    datasets.write_captions(file, said)
    assert json.loads(file.read_text(encoding="utf8")) == caption_rows(said) == [
        {"file_name": "a.jpg", "caption": "“quoted”, 雨"}, {"file_name": "b/2.jpg", "caption": "ein Boot"}, {"file_name": "b/2.jpg", "caption": "zwei Boote"}]
    assert datasets.read_captions(file) == {"a.jpg": ["“quoted”, 雨"], "b/2.jpg": ["ein Boot", "zwei Boote"]}
    before = file.read_bytes()
    for name in ("/photos/ada/a.jpg", "../a.jpg"):
        with pytest.raises(UsageError, match="relative"):
            datasets.write_captions(file, {name: ["x"]})
    with pytest.raises(AttributeError):
        datasets.write_captions(file, {"a.jpg": [None]})
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file], "whole or not at all"


def test_photos_are_loaded_whether_or_not_they_have_captions(tmp_path):
    for name in ("a.png", "sub/b.png", ".hidden/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert datasets.load_photos(tmp_path).names == ["a.png", "sub/b.png"]
    datasets.write_captions(tmp_path / "captions.json", {"a.png": ["x"]})
    assert datasets.load_photos(tmp_path).names == ["a.png", "sub/b.png"] and datasets.load_photos(tmp_path).captions == [[], []]
    with pytest.raises(DataError, match="is no folder"):
        datasets.load_photos(tmp_path / "a.png")


def test_photos_in_images_keep_the_names_of_their_captions(photo_folder):
    datasets.write_captions(photo_folder / "captions.json", {"b.png": ["x"]})
    photos = datasets.load_photos(photo_folder)
    assert photos.names == ["a.png", "b.png", "c.png"] and photos.name == "photos" and photos.image(0).size == (40, 30)


# The example


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example") / "photos"
    return folder, write_example(folder, others=30)


def test_the_example_holds_what_it_says(example, stamps):
    folder, truth = example
    with pytest.raises(DataError, match=r"IMG_0901\.jpg: is empty"):
        datasets.load_photos(folder)
    photos = datasets.load_photos(folder, skip_problems=True)
    assert set(photos.names) == set(truth.captions) == set(truth.albums) and sorted(line.split(":")[0] for line in photos.problems) == truth.broken
    nouns = set(mini_data.held_out()["nouns"])
    assert {name for name, caption in truth.captions.items() if mini_data.mentions([caption], nouns)} == truth.unseen
    originals = set(truth.captions) - set(truth.copies)
    every = {stamps.captions[row][0] for row in range(len(stamps)) if stamps.columns["style"][row] == "photo" and mini_data.mentions(stamps.captions[row], nouns)}
    assert {truth.captions[name] for name in truth.unseen} == every and len(originals - truth.unseen) == 30
    assert len(truth.copies) == 20 and {kind for _, kind in truth.copies.values()} == set(datasets.copies(picture()))
    for copy, (name, kind) in truth.copies.items():
        assert truth.captions[copy] == truth.captions[name] and name in originals
        assert duplicates.resemblance(photos.image(photos.row(copy)), photos.image(photos.row(name))) > 0.85, kind


def test_the_example_has_a_sideways_a_grey_and_a_transparent_photo_and_places(example, stamps):
    folder, truth = example
    modes, places, turned = {}, [], []
    for name in truth.captions:
        with Image.open(folder / name) as file:
            modes[name] = file.mode
            exif = file.getexif()
            places += [name] if exif.get_ifd(0x8825) else []
            turned += [name] if exif.get(0x0112) == 6 else []
    assert sorted(set(modes.values())) == ["L", "RGB", "RGBA"] and len(places) == 6 and len(turned) == 1
    upright = images.open_image(folder / turned[0])
    original = next(stamps.image(row) for row, said in enumerate(stamps.captions) if said[0] == truth.captions[turned[0]])
    assert duplicates._best_place(*(np.asarray(image.resize((24, 24)), dtype=np.float32) for image in (upright, original))) > 0.98


def test_the_example_comes_again_and_leaves_names_unique(example, tmp_path):
    folder, truth = example
    again = write_example(tmp_path / "again", others=30)
    assert again == truth
    assert all((tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes() for name in truth.captions)
    assert write_example(tmp_path / "other", others=30, seed=1).captions != truth.captions


# Places


def with_exif(path, north, south, east, west):
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: north, 2: south, 3: east, 4: west})
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    return path


def test_places_are_read_from_exif(tmp_path, example):
    from miniclip_helpers.datasets.exif import place_of

    assert place_of(with_exif(tmp_path / "a.jpg", "N", (51.0, 28.0, 38.0), "W", (0.0, 0.0, 5.0))) == pytest.approx((51.47722, -0.00139), abs=1e-4)
    assert place_of(with_exif(tmp_path / "b.jpg", "S", (33.0, 51.0, 0.0), "E", (151.0, 12.0, 0.0))) == pytest.approx((-33.85, 151.2))
    assert place_of(with_exif(tmp_path / "c.jpg", "N", (151.0, 0.0, 0.0), "E", (1.0, 0.0, 0.0))) is None, "no such latitude"
    picture().save(tmp_path / "d.jpg")
    (tmp_path / "e.jpg").write_bytes(b"no picture")
    assert place_of(tmp_path / "d.jpg") is place_of(tmp_path / "e.jpg") is place_of(tmp_path / "none.jpg") is None
    folder, truth = example
    assert sum(place_of(folder / name) is not None for name in truth.captions) == 6
