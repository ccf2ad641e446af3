"""From pictures to answers: zero-shot, search and evaluation over a model whose right answers are known."""

import io
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from miniclip_helpers import retrieval, search, zero_shot
from miniclip_helpers.datasets import ImageTextDataset
from miniclip_helpers.encoders import Tower
from miniclip_helpers.errors import DataError, ImageError, ModelError, UsageError
from miniclip_helpers.index import build_index, load_index
from miniclip_helpers.model import LinearHead, TwoTowers

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


class MeanColour(Tower):
    """A picture's mean colour."""

    name, width = "mean-colour", 3

    def prepare(self, inputs):
        return torch.stack([torch.tensor(np.asarray(picture, dtype=np.float32).mean((0, 1)) / 255) for picture in inputs])

    def forward(self, batch):
        return batch


class NamedColour(Tower):
    """The colours that a text names."""

    name, width = "named-colour", 3

    def prepare(self, inputs):
        return torch.tensor([[1.0 if name in text else 0.05 for name in COLOURS] for text in inputs])

    def forward(self, batch):
        return batch


@pytest.fixture
def model(private_cache):
    return TwoTowers(MeanColour(), NamedColour(), name="colours", logit_scale=10).eval()


@pytest.fixture
def folder(tmp_path):
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{name}.png")
    return tmp_path


def colours_dataset():
    pictures = []
    for number, colour in enumerate(COLOURS.values()):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 20 + number), colour).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    return ImageTextDataset("colours", list(COLOURS), [[f"something {n}", f"all {n} here"] for n in COLOURS], pictures)


def test_search_by_text_and_by_picture(model, folder, tmp_path):
    index = search.index_dataset(folder, model)
    index.save(tmp_path / "index")
    index = load_index(tmp_path / "index")
    search.check_model(index, model)
    hits = search.search_text(index, model, "the blue one", k=2)
    assert [hit.name for hit in hits][0] == "blue.png" and hits[0].score > hits[1].score
    assert search.search_image(index, model, Image.new("RGB", (9, 9), (200, 20, 20)), k=1)[0].name == "red.png"
    assert search.picture_of(index, "green.png").getpixel((0, 0)) == COLOURS["green"]
    (folder / "green.png").unlink()
    with pytest.raises(ImageError, match="gone since"):
        search.picture_of(index, "green.png")


def test_an_empty_query_and_another_model_are_told(model, folder):
    index = search.index_dataset(folder, model)
    with pytest.raises(UsageError, match="query is empty"):
        search.search_text(index, model, "  ")
    other = TwoTowers(MeanColour(), NamedColour(), LinearHead(3, 3), LinearHead(3, 3))
    with pytest.raises(ModelError, match=r"by the model 'colours', not by .*: heads differ"):
        search.check_model(index, other)


class Darkness(MeanColour):
    """Another image tower."""

    name = "darkness"


class Shouting(NamedColour):
    """Another text tower."""

    name = "shouting"


@pytest.mark.parametrize("image, text, words", [
    (Darkness, NamedColour, "another version of the model 'colours': image tower differ"), (MeanColour, Shouting, "text tower differ"),
    (Darkness, Shouting, "image tower and text tower differ")])
def test_the_part_of_the_model_that_differs_is_named(image, text, words, model, folder):
    index = search.index_dataset(folder, model)
    with pytest.raises(ModelError, match=words):
        search.check_model(index, TwoTowers(image(), text(), name="colours"))
    index.about = {}
    search.check_model(index, model)  # an index of vectors of one's own says nothing of a model


def test_captions_answer_words_and_pictures(model, tmp_path):
    index = search.index_captions(colours_dataset(), model)
    index.save(tmp_path / "i")
    index = load_index(tmp_path / "i")
    assert index.about["holds"] == "captions" and index.names == [f"{name}#{number}" for name in COLOURS for number in (0, 1)]
    hits = search.search_image(index, model, Image.new("RGB", (9, 9), (200, 20, 20)), k=2)
    assert {hit.name for hit in hits} == {"red#0", "red#1"} and search.text_of(index, "red#1") == "all red here"
    by_words = search.search_text(index, model, "blue", k=2)
    assert {hit.name for hit in by_words} == {"blue#0", "blue#1"} and by_words[0].score == pytest.approx(1, abs=1e-5)
    index.add(np.float32([[1, 0, 0]]), ["of my own"])
    assert search.text_of(index, "of my own") is None and search.text_of(index, "red#0") == "something red"


def test_many_queries_equal_single_ones(model, folder):
    index, photo = search.index_dataset(folder, model), Image.new("RGB", (9, 9), (200, 20, 20))
    asked = ["the blue one", photo, "green", folder / "red.png", "red"]
    found = search.search_many(index, model, asked, k=2)
    single = [search.search_text(index, model, query, 2) if isinstance(query, str) else search.search_image(index, model, query, 2) for query in asked]
    for row, other in zip(found, single):
        assert [hit.name for hit in row] == [hit.name for hit in other]
        np.testing.assert_allclose([hit.score for hit in row], [hit.score for hit in other], atol=1e-6)
    assert [row[0].name for row in found] == ["blue.png", "red.png", "green.png", "red.png", "red.png"]
    with pytest.raises(UsageError, match="query 2 of 2 is empty"):
        search.search_many(index, model, ["red", " "])
    with pytest.raises(UsageError, match="at least one query"):
        search.search_many(index, model, [])


def test_many_queries_are_encoded_once_and_together(model, folder, monkeypatch):
    index, batches = search.index_dataset(folder, model), []
    prepare = NamedColour.prepare
    monkeypatch.setattr(NamedColour, "prepare", lambda self, texts: batches.append(len(texts)) or prepare(self, texts))
    search.search_many(index, model, [f"red number {number}" for number in range(50)])
    assert batches == [50]


def test_a_deleted_photo_is_found_and_drawn_as_gone(model, folder):
    index = search.index_dataset(folder, model)
    (folder / "green.png").unlink()
    (folder / "red.png").write_bytes(b"no picture any more")
    hits = search.search_text(index, model, "green", k=3)
    assert hits[0].name == "green.png" and sorted(search.gone(index, hits)) == ["green.png", "red.png"]
    figure = search.draw(index, hits, "green")
    titles = [axis.get_title() for axis in figure.axes]
    assert [("gone" in title, title.split()[-1]) for title in titles] == [(hit.name != "blue.png", hit.name[:-4]) for hit in hits]
    drawn = {hit.name: np.asarray(axis.images[0].get_array())[5, 5].tolist() for hit, axis in zip(hits, figure.axes)}
    assert drawn["blue.png"] == list(COLOURS["blue"]) and len(set(drawn["green.png"])) == 1
    sheet = search.draw_many(index, ["green", "blue"], [hits, hits[:1]])
    assert [axis.get_ylabel() for axis in sheet.axes if axis.get_ylabel()] == ["green", "blue"] and sum(len(axis.images) for axis in sheet.axes) == 4


def test_captions_are_drawn_as_text(model):
    index, photo = search.index_captions(colours_dataset(), model), Image.new("RGB", (9, 9), (200, 20, 20))
    hits = search.search_image(index, model, photo, k=2)
    beside = search.draw(index, hits, asked=photo)
    assert len(beside.axes) == 2 and len(beside.axes[0].images) == 1 and "all red here" in beside.axes[1].texts[0].get_text()
    index.about["captions"]["red#0"] = "costs $5_{ and $6"  # no formula
    alone = search.draw(index, [search.Hit("red#0", 0.5)], "a $title$ with \\signs")
    assert alone.axes[0].texts[0].get_text() == "0.50  costs $5_{ and $6"
    from miniclip_helpers import plots

    assert plots.to_png(alone)[:4] == b"\x89PNG"
    with pytest.raises(UsageError, match="this index holds captions"):
        search.draw_many(index, ["red"], [hits])
    with pytest.raises(UsageError, match="at most 20 queries, found 21"):
        search.draw_many(search.index_dataset(colours_dataset(), model), ["red"] * 21, [hits] * 21)


def test_the_picture_of_a_caption(model, folder):
    index = search.index_captions(ImageTextDataset("colours", ["red.png"], [["red", "all red"]], [folder / "red.png"], root=folder), model)
    assert search.picture_of(index, "red.png#1").getpixel((0, 0)) == COLOURS["red"]


def test_an_index_that_knows_no_pictures_says_so():
    index = build_index(np.eye(3, dtype=np.float32), ["a", "b", "c"])
    with pytest.raises(UsageError, match="does not say where its pictures are"):
        search.picture_of(index, "a")


def test_another_width_is_told(model, folder):
    index = build_index(np.eye(4, dtype=np.float32), list("abcd"))
    with pytest.raises(UsageError, match=r"4 numbers.*found 3.*same model"):
        search.search_text(index, model, "red")


def test_one_caption_a_line(model, tmp_path):
    file = tmp_path / "sentences.txt"
    file.write_text("\ufeffsomething red\n\n  something blue  \n", encoding="utf8")
    assert search.holds_sentences(file)
    index = search.index_captions(file, model)
    assert index.names == ["sentences.txt#1", "sentences.txt#3"] and search.text_of(index, "sentences.txt#1") == "something red" and search.text_of(index, "sentences.txt#3") == "something blue"
    assert search.search_image(index, model, Image.new("RGB", (9, 9), (9, 9, 200)), k=1)[0].name == "sentences.txt#3"
    for text in ("image,caption\na.jpg,red\n", "a.jpg#0\tred\n", "a.jpg, red\n"):
        file.write_text(text)
        assert not search.holds_sentences(file)
    file.write_text("\n \n")
    with pytest.raises(DataError, match="holds no caption"):
        search.index_captions(file, model)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as text"):
        search.index_captions(file, model)


def test_limits(model, folder):
    assert search.index_dataset(folder, model, limit=2).names == ["blue.png", "green.png"]
    assert search.index_captions(colours_dataset(), model, limit=3).names == ["red#0", "red#1", "green#0"]
    assert len(search.index_captions(colours_dataset(), model, limit=99)) == 6
    with pytest.raises(UsageError, match=r"limit.*found 0"):
        search.index_dataset(folder, model, limit=0)
    with pytest.raises(DataError, match="has no captions"):
        search.index_captions(folder, model)


def test_a_large_index_is_tuned_by_the_captions_there_are(model, monkeypatch):
    """Words are harder to answer than pictures, so that a graph that has to answer words is tuned by words."""
    from miniclip_helpers.index import choosing
    from miniclip_helpers.search import indexing

    asked = []
    monkeypatch.setattr(choosing, "HNSW_FROM", {0.99: 2})
    monkeypatch.setattr(indexing, "TRIED", 2)
    monkeypatch.setattr(indexing, "build_index", lambda *args, queries=None: asked.append(queries) or build_index(*args))
    for kind in ("auto", "flat"):
        search.index_dataset(colours_dataset(), model, kind)
    expected = model.encode_text(["something red", "all blue here"])
    assert asked[1] is None
    torch.testing.assert_close(torch.as_tensor(asked[0]), expected)


def test_ten_thousand_photos_are_never_in_memory_at_once(model, tmp_path, monkeypatch):
    """A folder of 10,000 small photos: as many are decoded as there are, few at a time, and an index is there."""
    from miniclip_helpers import images

    buffer = io.BytesIO()
    for number in range(10_000):
        buffer.seek(0)
        Image.new("RGB", (4, 4), (number % 256, number // 256, 77)).save(buffer, "BMP")
        (tmp_path / f"{number:05d}.bmp").write_bytes(buffer.getvalue())
    alive, most, opened, open_image = {}, [0], [0], images.open_image

    def watched(source):
        picture = open_image(source)
        opened[0] += 1
        number = opened[0]
        alive[number] = weakref.ref(picture, lambda _: alive.pop(number, None))
        most[0] = max(most[0], len(alive))
        return picture

    monkeypatch.setattr(images, "open_image", watched)
    index = search.index_dataset(tmp_path, model, kind="flat")
    assert len(index) == opened[0] == 10_000 and most[0] <= 200
    assert search.search_image(index, model, tmp_path / "04321.bmp", k=1)[0].score == pytest.approx(1, abs=1e-5)


def test_zero_shot_names_the_colours(model):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in COLOURS.values()]
    for templates in ((zero_shot.TEMPLATE,), zero_shot.TEMPLATES):
        probabilities = zero_shot.classify(model, pictures, list(COLOURS), templates)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
        best = zero_shot.top_labels(probabilities, list(COLOURS), k=9)
        assert [row[0][0] for row in best] == list(COLOURS) and len(best[0]) == 3 and best[0][0][1] > best[0][1][1]


def test_class_embeddings_are_the_mean_of_unit_vectors_by_hand(model):
    by_hand = torch.nn.functional.normalize(torch.stack([model.encode_text([t.replace("{}", "red")])[0] for t in ("{}", "a red {}", "blue {}")]).mean(0), dim=-1)
    torch.testing.assert_close(zero_shot.class_embeddings(model, ["red"], ("{}", "a red {}", "blue {}"))[0], by_hand)


def test_probabilities_by_hand():
    found = zero_shot.class_probabilities(torch.tensor([[1.0, 0.0]]), torch.eye(2), 2.0)
    assert found[0, 0].item() == pytest.approx(1 / (1 + np.exp(-2)))


@pytest.mark.parametrize("labels, templates, words", [
    ([], ("{}",), "at least one label"), (["a", "b", "a"], ("{}",), "stand twice.*a"), (["a"], ("a photo",), "one {}"), (["a"], (), "one {}"), (["a", " "], ("{}",), "no empty")])
def test_labels_and_templates_that_cannot_work(labels, templates, words):
    with pytest.raises(UsageError, match=words):
        zero_shot.class_texts(labels, templates)


def test_evaluate_reports_every_promised_key(model):
    report = retrieval.evaluate(model, colours_dataset())
    assert (report["n_images"], report["n_captions"]) == (3, 6)
    for direction in ("image_to_text", "text_to_image"):
        assert set(report[direction]) == {"R@1", "R@5", "R@10", "MRR", "MedR"} and report[direction]["R@1"] == 1
        assert report["interval95"][direction]["R@1"] == [1, 1] and report["chance"][direction]["R@1"] == pytest.approx(1 / 3)
    assert "100.0 [100, 100]" in retrieval.as_table(report).to_string()


def test_shuffled_captions_fall_to_chance(model):
    """The same pictures and texts, their pairing destroyed: nothing but chance may be left."""
    similarity, random = retrieval.similarity(model, colours_dataset())[:, ::2], np.random.default_rng(0)
    scores = [retrieval.report(similarity[:, random.permutation(3)], np.arange(3), ks=(1,))["text_to_image"]["R@1"] for _ in range(200)]
    assert np.mean(scores) == pytest.approx(1 / 3, abs=0.1)


def test_pictures_without_captions_cannot_be_evaluated(model, folder):
    from miniclip_helpers.datasets import load_dataset

    with pytest.raises(DataError, match=r"3 of 3 pictures.*no caption"):
        retrieval.evaluate(model, load_dataset(folder))
