"""Encoding and its cache: the same vectors as without it, nothing encoded twice, faults listed, a damaged cache replaced."""

import numpy as np
import pytest
import torch
from conftest import picture

from miniclip_helpers import embedding
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.encoders import SmallCNN
from miniclip_helpers.errors import DataError, MiniclipError, UsageError


class Counting(SmallCNN):
    """A small tower that counts what it encodes."""

    def __init__(self, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__(channels=4, size=16)
        self.count = 0

    def encode(self, inputs):
        self.count += len(inputs)
        return super().encode(inputs)


@pytest.fixture
def tower(private_cache):
    return Counting()


def test_a_second_run_encodes_nothing(tower, photo_folder):
    dataset = load_dataset(photo_folder)
    first = embedding.image_features(tower, dataset)
    assert tower.count == 3
    assert torch.equal(embedding.image_features(tower, dataset), first) and tower.count == 3
    direct = tower.encode([dataset.image(i) for i in range(3)])
    torch.testing.assert_close(first, direct, rtol=1e-4, atol=1e-5)


def test_the_key_is_content_not_name(tower, photo_folder):
    embedding.image_features(tower, load_dataset(photo_folder))
    (photo_folder / "images" / "b.png").rename(photo_folder / "images" / "z.png")
    embedding.image_features(tower, load_dataset(photo_folder))
    assert tower.count == 3
    picture(77).save(photo_folder / "images" / "a.png")
    embedding.image_features(tower, load_dataset(photo_folder))
    assert tower.count == 4


def test_other_weights_have_another_cache(tower, photo_folder):
    dataset, other = load_dataset(photo_folder), Counting(seed=1)
    ours, theirs = embedding.image_features(tower, dataset), embedding.image_features(other, dataset)
    assert tower.fingerprint != other.fingerprint and other.count == 3 and not torch.allclose(ours, theirs)


def test_equal_pictures_are_encoded_once_and_order_is_kept(tower):
    pictures = [picture(1), picture(2), picture(1), picture(3)]
    rows = embedding.image_features(tower, pictures)
    assert tower.count == 3 and torch.equal(rows[0], rows[2]) and not torch.allclose(rows[0], rows[1])


def test_all_unreadable_pictures_are_listed_and_the_rest_is_kept(tower, photo_folder):
    for name in "bc":
        file = photo_folder / "images" / f"{name}.png"
        file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DataError, match="(?s)2 of 3 pictures.*b.png.*c.png"):
        embedding.image_features(tower, load_dataset(photo_folder))
    assert tower.count == 1
    embedding.image_features(tower, load_dataset(photo_folder, skip_problems=True))
    assert tower.count == 1


def test_a_damaged_cache_is_set_aside(tower, photo_folder, private_cache):
    dataset = load_dataset(photo_folder)
    first = embedding.image_features(tower, dataset)
    file = next((private_cache / "features").glob("*.sqlite"))
    for extra in (private_cache / "features").glob("*-wal"):
        extra.unlink()
    file.write_bytes(b"this is no database, whatever its name says" * 100)
    torch.testing.assert_close(embedding.image_features(tower, dataset), first)
    assert tower.count == 6


def test_a_partly_damaged_cache_is_set_aside(tower, photo_folder, private_cache):
    dataset = load_dataset(photo_folder)
    cache = embedding.FeatureCache(tower.fingerprint, tower.width)
    cache.put({str(number): np.zeros(tower.width) for number in range(2000)})
    cache.close()
    file = next((private_cache / "features").glob("*.sqlite"))
    data = file.read_bytes()
    file.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    first = embedding.image_features(tower, dataset)
    assert torch.equal(embedding.image_features(tower, dataset), first) and tower.count == 3


def test_two_processes_may_write_at_once(private_cache):
    import concurrent.futures

    def fill(start):
        cache = embedding.FeatureCache("shared", 4)
        for number in range(start, start + 50):
            cache.put({str(number): np.full(4, number)})
        cache.close()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, [0, 25, 50, 75]))
    cache = embedding.FeatureCache("shared", 4)
    found = cache.get([str(number) for number in range(125)])
    assert len(found) == 125 and all((row == int(key)).all() for key, row in found.items())


def test_a_cache_that_cannot_be_written_is_told(tower, private_cache, monkeypatch, photo_folder):
    cache = embedding.FeatureCache("full", 4)
    cache.base.execute("PRAGMA max_page_count = 1")
    with pytest.raises(MiniclipError, match="MINICLIP_CACHE"):
        cache.put({str(number): np.zeros(4) for number in range(10_000)})
    cache.close()


def test_nothing_to_encode_is_told(tower):
    with pytest.raises(UsageError, match="at least one picture"):
        embedding.image_features(tower, [])
    with pytest.raises(UsageError, match="at least one text"):
        embedding.text_features(tower, [])
