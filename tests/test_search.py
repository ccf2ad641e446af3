"""From pictures to answers: zero-shot, search and evaluation over a model whose right answers are known."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from miniclip_helpers import retrieval, search, zero_shot
from miniclip_helpers.datasets import ImageTextDataset
from miniclip_helpers.encoders import Tower
from miniclip_helpers.errors import DataError, ImageError, ModelError, UsageError
from miniclip_helpers.index import load_index
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
    with pytest.raises(ModelError, match="another version of the model"):
        search.check_model(index, other)


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

    with pytest.raises(DataError, match="3 of 3 pictures.*no caption"):
        retrieval.evaluate(model, load_dataset(folder))
