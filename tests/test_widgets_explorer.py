"""The retrieval explorer, driven from Python: each control changes the picture, the sentence says the rank that `metrics` says."""

import io

import numpy as np
import pytest
from PIL import Image

from miniclip_helpers import datasets, metrics, retrieval, widgets
from miniclip_helpers.errors import UsageError

COLOURS = ["red", "green", "blue", "black", "white", "orange"]


@pytest.fixture(scope="module")
def dataset():
    sources = []
    for colour in COLOURS:
        file = io.BytesIO()
        Image.new("RGB", (20, 20), colour).save(file, "PNG")
        sources.append(file.getvalue())
    return datasets.ImageTextDataset("colours", [f"things/{name}.png" for name in COLOURS], [[f"{name} one", f"{name} two"] for name in COLOURS], sources)


@pytest.fixture(scope="module")
def matrix(dataset):
    random = np.random.default_rng(0)
    scores = random.normal(size=(len(dataset), len(dataset.owner)))
    scores[dataset.owner, np.arange(len(dataset.owner))] += 1
    return scores


def size(png):
    return Image.open(io.BytesIO(png)).size


def test_it_opens_at_the_worst_query_with_a_still_picture(dataset, matrix):
    explorer = widgets.retrieval_explorer(matrix, dataset)
    rank = metrics.ranks(matrix, dataset.owner)["text_to_image"]
    worst = int(rank.argmax())
    assert dataset.all_captions[worst] in explorer.status.value and f"right answer at {rank[worst]} of 6" in explorer.status.value
    assert explorer.picture.png == explorer.image.value and size(explorer.picture.png)[0] > 400 and explorer.image.layout.display == "none"
    assert explorer.picture.alt and all(control.description for control in explorer.controls.values())


def test_every_control_redraws_and_the_ranks_are_those_of_metrics(dataset, matrix):
    explorer = widgets.retrieval_explorer(matrix, dataset, which="all")
    rank = metrics.ranks(matrix, dataset.owner)
    seen = {explorer.image.value}
    for step in (2, 7, 12):
        explorer.controls["step"].value = step
        assert f"{step} of 12: {dataset.all_captions[step - 1]}: right answer at {rank['text_to_image'][step - 1]} of 6" in explorer.status.value
        assert explorer.image.value not in seen
        seen.add(explorer.image.value)
    explorer.controls["direction"].value = "image_to_text"
    assert explorer.controls["step"].value == 1 and explorer.controls["step"].max == 6
    assert f"1 of 6: red: right answer at {rank['image_to_text'][0]} of 12" in explorer.status.value and explorer.image.value not in seen
    explorer.controls["which"].value = "right at 1"
    right = np.flatnonzero(rank["image_to_text"] == 1)
    assert explorer.controls["step"].max == len(right) and dataset.names[right[0]].split("/")[1].split(".")[0] in explorer.status.value


def test_an_empty_kind_is_said_and_leaves_the_picture(dataset, matrix):
    explorer = widgets.retrieval_explorer(matrix, dataset)
    before = explorer.image.value
    explorer.controls["which"].value = "rank > 10"  # of six pictures none can be
    assert "no query here" in explorer.status.value and "role='alert'" in explorer.status.value and explorer.image.value == before
    explorer.controls["which"].value = "all"
    assert "1 of 12: red one" in explorer.status.value


def test_a_model_will_do_instead_of_a_matrix(dataset, matrix, monkeypatch):
    class Model:
        def encode_text(self, texts):
            raise AssertionError("the cached similarity is used")

    monkeypatch.setattr(widgets.explorer.retrieval, "cosines", lambda model, data: matrix)
    assert widgets.retrieval_explorer(Model(), dataset).picture.png == widgets.retrieval_explorer(matrix, dataset).picture.png


def test_the_right_answer_is_marked(dataset, matrix):
    """The same list with the mark elsewhere is another picture, in both directions."""
    for direction in metrics.DIRECTIONS:
        found = retrieval.answers(matrix, dataset.owner, direction, 3)
        moved = [retrieval.Answer(a.candidate, a.score, not a.right) for a in found]
        assert widgets.answers_picture(dataset, direction, 3, found, 1, 9) != widgets.answers_picture(dataset, direction, 3, moved, 1, 9)


def test_captions_with_signs_that_mean_something_to_matplotlib(dataset, matrix):
    priced = dataset.subset(range(len(dataset)))
    priced.captions = [["costs $5 and $x^", "a_b $\\frac$"] for _ in COLOURS]
    for direction in metrics.DIRECTIONS:
        assert size(widgets.retrieval_explorer(matrix, priced, direction).image.value)[0] > 400


def test_a_matrix_of_another_dataset_is_refused(dataset, matrix):
    with pytest.raises(UsageError, match="6 pictures and 12 captions"):
        widgets.retrieval_explorer(matrix.T, dataset)
