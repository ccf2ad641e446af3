"""The photo search and the caption writer, driven from Python: values are set, buttons clicked, files looked at."""

import datetime
import io
import json

import numpy as np
import pytest
from PIL import Image
from test_widgets import COLOURS, model  # noqa: F401

from miniclip_helpers import datasets, plots, search, widgets
from miniclip_helpers.errors import DataError, MiniclipError, UsageError

SHADES = {"2024/red.png": (220, 30, 30), "2024/pink.png": (240, 120, 140), "2025/green.png": (30, 180, 40), "2025/blue.png": (30, 40, 220)}


@pytest.fixture
def folder(tmp_path):
    for name, colour in SHADES.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), colour).save(tmp_path / "mine" / name)
    return tmp_path / "mine"


@pytest.fixture
def index(model, folder):  # noqa: F811
    return search.index_dataset(datasets.load_photos(folder), model)


def names(hits):
    return [hit.name.split("/")[-1].split(".")[0] for hit in hits]


def uploaded(colour):
    file = io.BytesIO()
    Image.new("RGB", (30, 30), colour).save(file, "PNG")
    return file.getvalue()


def upload(panel, content, name="mine.png"):
    panel.controls["upload"].value = [{"name": name, "type": "image/png", "size": 1, "content": content, "last_modified": datetime.datetime.now()}]


def test_find_photos_by_words_by_picture_and_by_an_answer(index, model):  # noqa: F811
    assert names(widgets.find_photos(index, model, "red", k=2)) == ["red", "pink"]
    assert names(widgets.find_photos(index, model, uploaded(COLOURS["green"]), k=1)) == ["green"]
    assert names(widgets.find_photos(index, model, Image.new("RGB", (5, 5), (30, 40, 220)), k=1)) == ["blue"]
    like = widgets.find_photos(index, model, ("like", "2024/red.png"), k=4)
    assert names(like)[0] == "pink" and "red" not in names(like) and len(like) == 3


def test_find_photos_against_all_cosines(index, model, folder):  # noqa: F811
    """Every answer and filter against the cosines themselves."""
    photos = datasets.load_photos(folder)
    cosines = dict(zip(photos.names, (model.encode_image(list(photos.images())) @ model.encode_text(["blue"]).T)[:, 0].tolist()))
    ranked = sorted(cosines, key=cosines.get, reverse=True)
    hits = widgets.find_photos(index, model, "blue", k=10)
    assert [hit.name for hit in hits] == ranked and [hit.score for hit in hits] == pytest.approx([cosines[name] for name in ranked], abs=1e-5)
    inside = widgets.find_photos(index, model, "blue", k=1, within="2024")
    assert [hit.name for hit in inside] == [name for name in ranked if "2024" in name][:1]
    assert widgets.find_photos(index, model, "blue", k=1, within="ReD")[0].name == "2024/red.png"
    least = (cosines[ranked[1]] + cosines[ranked[2]]) / 2
    assert [hit.name for hit in widgets.find_photos(index, model, "blue", k=4, least=least)] == ranked[:2]


@pytest.mark.parametrize("options, words", [({"within": "2023"}, "no photo's name holds '2023'"), ({"least": 0.99999}, "lower the limit"), ({"asked": "  "}, "query is empty")])
def test_find_photos_says_what_is_in_the_way(index, model, options, words):  # noqa: F811
    with pytest.raises(UsageError, match=words):
        widgets.find_photos(index, model, **({"asked": "red and green"} | options))


def test_the_search_answers_words_upload_and_more_like(index, model):  # noqa: F811
    panel = widgets.photo_search(index, model, query="red", k=2)
    assert panel.status.value.startswith("&#x27;red&#x27;: red (") and panel.image.layout.display == "none" and panel.image.value == panel.picture.png
    seen = [panel.image.value]
    for name, value, said in [("query", "blue", "blue ("), ("k", 3, "blue ("), ("within", "2024", "pink ("), ("within", "", "blue ("), ("least", 0.5, "blue (")]:
        before = panel.image.value
        panel.controls[name].value = value
        assert panel.status.value.split(": ", 1)[1].startswith(said), name
        assert (panel.image.value != before) and panel.image.layout.display is None, name
        seen.append(panel.image.value)
    panel.controls["least"].value = -1.0
    upload(panel, uploaded(COLOURS["green"]))
    assert panel.status.value.startswith("mine.png: green (")
    panel.controls["query"].value = "red"
    panel.controls["like"].value = 1
    assert panel.status.value.startswith("more like 2024/red.png: pink (") and panel.controls["like"].value == 0
    panel.controls["like"].value = 1  # of the new answers: pink
    assert panel.status.value.startswith("more like 2024/pink.png: red (")
    panel.controls["k"].value = 1
    assert panel.status.value.startswith("more like 2024/pink.png: red (") and panel.status.value.count("(") == 1


def test_the_search_says_what_does_not_work(index, model, folder):  # noqa: F811
    panel = widgets.photo_search(index, model, query="red", k=2)
    before = panel.image.value
    for change, words in [(lambda: upload(panel, b"no picture"), "cannot be read as a picture"), (lambda: setattr(panel.controls["query"], "value", " "), "query is empty"),
                          (lambda: setattr(panel.controls["within"], "value", "1999"), "query is empty")]:
        change()
        assert words in panel.status.value and plots.PALETTE["red"] in panel.status.value and panel.image.value == before
    panel.controls["query"].value = "green"
    assert "1999" in panel.status.value
    panel.controls["within"].value = ""
    assert "green (" in panel.status.value
    (folder / "2024/red.png").unlink()
    panel.controls["query"].value = "red"
    assert "is gone since the index was made" in panel.status.value


def test_the_search_takes_pictures_from_a_dataset(index, model, folder):  # noqa: F811
    photos = datasets.load_photos(folder)
    assert widgets.photo_search(index, model, photos, query="red", k=2).image.value == widgets.photo_search(index, model, query="red", k=2).image.value


def saved(folder):
    return json.loads((folder / "captions.json").read_text(encoding="utf8"))


def test_captions_are_written_photo_by_photo_and_gone_on_with(folder):
    panel = widgets.caption_writer(folder)
    assert "pink.png: 0 caption(s); 0 of 4" in panel.status.value and not (folder / "captions.json").exists(), "looking writes nothing"
    panel.controls["text"].value = " a pink  wall \n\nmy wall\nmy wall"
    assert saved(folder) == [{"file_name": "2024/pink.png", "caption": "a pink wall"}, {"file_name": "2024/pink.png", "caption": "my wall"}]
    panel.controls["next"].click()
    assert panel.controls["number"].value == 2 and panel.controls["text"].value == "" and "red.png: 0" in panel.status.value
    panel.controls["back"].click()
    assert panel.controls["text"].value == "a pink wall\nmy wall" and len(saved(folder)) == 2, "coming back changes nothing"
    panel.controls["back"].click()
    assert panel.controls["number"].value == 4, "round the corner"
    panel.controls["text"].value = "grün, grün, grün"
    again = widgets.caption_writer(folder)
    assert again.controls["number"].value == 2 and "2 of 4" in again.status.value, "goes on with the first that has none"
    again.controls["text"].value = "red"
    again.controls["bare"].click()
    assert again.controls["number"].value == 3
    again.controls["text"].value = "blue"
    assert [row["caption"] for row in saved(folder)] == ["a pink wall", "my wall", "red", "blue", "grün, grün, grün"]
    loaded = datasets.load_dataset(folder)
    assert len(loaded) == 4 and loaded.captions[loaded.row("2024/pink.png")] == ["a pink wall", "my wall"]
    again.controls["bare"].click()
    assert again.controls["number"].value == 3, "none is bare any more"
    again.controls["text"].value = ""
    assert len(saved(folder)) == 4 and "3 of 4" in again.status.value, "an emptied field takes the captions away"


def test_a_caption_that_cannot_be_saved_is_said_and_the_old_file_stays(folder, monkeypatch):
    panel = widgets.caption_writer(folder)
    panel.controls["text"].value = "first"
    before = (folder / "captions.json").read_bytes()

    def full(*args, **options):
        raise MiniclipError("the disk is full")

    monkeypatch.setattr(datasets, "write_captions", full)
    panel.controls["next"].click()
    panel.controls["text"].value = "second"
    assert "disk is full" in panel.status.value and (folder / "captions.json").read_bytes() == before
    monkeypatch.undo()
    panel.controls["text"].value = "second, again"
    assert len(saved(folder)) == 2


def test_suggestions_come_from_the_labels_and_can_be_taken(folder, model):  # noqa: F811
    panel = widgets.caption_writer(folder, model=model, labels=["red thing", "green thing", "blue thing"])
    panel.controls["number"].value = 3
    assert "suggested: blue thing" in panel.status.value and not panel.controls["take"].disabled
    panel.controls["text"].value = "my bicycle"
    panel.controls["take"].click()
    assert panel.controls["text"].value == "my bicycle\nblue thing" and saved(folder)[1]["caption"] == "blue thing"
    assert widgets.caption_writer(folder).controls["take"].disabled
    best = widgets.suggest_captions(model, Image.new("RGB", (9, 9), COLOURS["green"]), ["red thing", "green thing"], shown=1)
    assert best[0][0] == "green thing" and 0.5 < best[0][1] <= 1


def test_a_dataset_without_a_folder_needs_a_file(tmp_path):
    photos = datasets.load_dataset("photos8")
    with pytest.raises(UsageError, match="file="):
        widgets.caption_writer(photos)
    panel = widgets.caption_writer(photos, tmp_path / "mine.json")
    panel.controls["text"].value = "somebody"
    assert json.loads((tmp_path / "mine.json").read_text())[0]["caption"] == "somebody"


def test_a_damaged_file_of_captions_is_never_written_over(folder):
    (folder / "captions.json").write_text('[{"file_name": "2024/red.png", "caption": "red"}, {"file_name": "x.png"}]')
    before = (folder / "captions.json").read_bytes()
    with pytest.raises(DataError, match="entry 2"):
        widgets.caption_writer(folder)
    (folder / "captions.json").write_text('[{"file_name": "2024/red.png", "caption": "red", "year": 2024}]')
    with pytest.raises(DataError, match="year"):
        widgets.caption_writer(folder)
    assert (folder / "captions.json").read_bytes() != before


def test_caption_picture_is_a_picture_of_the_photo():
    png = Image.open(io.BytesIO(widgets.caption_picture(Image.new("RGB", (50, 50), (30, 40, 220)), "IMG_1.jpg"))).convert("RGB")
    assert (np.abs(np.asarray(png).astype(int) - (30, 40, 220)).sum(-1) < 30).mean() > 0.3
