"""The photo search and the caption writer, driven from Python: values are set, buttons clicked, files looked at."""

import base64
import datetime
import html
import io
import itertools
import json
import os
import re
import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from test_widgets import COLOURS, model  # noqa: F401

from miniclip_helpers import datasets, images, search, widgets
from miniclip_helpers.errors import DataError, MiniclipError, UsageError
from miniclip_helpers.index import build_index
from miniclip_helpers.model.lengths import LongTextWarning
from miniclip_helpers.widgets.finding import folders_of

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


@pytest.mark.parametrize("options, words", [({"within": "2023"}, "no photo holds '2023'"), ({"least": 0.99999}, "lower the limit"), ({"asked": "  "}, "query is empty")])
def test_find_photos_says_what_is_in_the_way(index, model, options, words):  # noqa: F811
    with pytest.raises(UsageError, match=words):
        widgets.find_photos(index, model, **({"asked": "red and green"} | options))


def shown(search):
    """The names of the answers that stand there, in order, each checked against its card."""
    assert len(search.grid.children) == len(search.hits)
    for place, (hit, one) in enumerate(zip(search.hits, search.cards), 1):
        assert f">{place}<" in one.view.value and f">{hit.score:z.2f}<" in one.view.value and html.escape(hit.name) in one.view.value and hit.name in one.like.tooltip
    return names(search.hits) if search.grid.layout.display is None else []


def thumbnails(search):
    found = [re.search(r'src="data:image/jpeg;base64,([^"]+)"', one.view.value) for one in search.cards[: len(search.hits)]]
    return [Image.open(io.BytesIO(base64.b64decode(one[1]))) if one else None for one in found]


def said(search):
    """The sentence without its tags."""
    return html.unescape(re.sub("<[^>]+>", "", search.status.value))


def test_the_search_answers_words_upload_and_more_like(index, model):  # noqa: F811
    photos = widgets.photo_search(index, model, query="red", k=2)
    assert "2 of 4 photos for “red”" in said(photos) and photos.picture.png.startswith(b"\x89PNG")
    assert shown(photos) == [] and names(photos.hits) == ["red", "pink"], "the still picture shows them; the grid appears with the first change"
    photos.controls["query"].value = "blue"
    assert shown(photos)[0] == "blue" and "for “blue”" in said(photos)
    upload(photos, uploaded(COLOURS["green"]))
    assert shown(photos)[0] == "green" and "your picture mine.png" in said(photos) and photos.controls["query"].value == ""
    assert photos.controls["upload"].value == (), "the same file can be chosen again"
    photos.controls["query"].value = "red"
    photos.cards[0].like.click()
    assert shown(photos)[0] == "pink" and "photos like  red" in said(photos) and "red" not in shown(photos)
    photos.cards[0].like.click()  # of the new answers: pink
    assert shown(photos)[0] == "red" and "photos like  pink" in said(photos)
    photos.controls["k"].value = 12
    assert len(shown(photos)) == 3 and "photos like  pink" in said(photos), "a filter asks the same question"


def test_a_click_on_its_way_while_the_answers_change_asks_for_what_was_clicked(index, model):  # noqa: F811
    photos = widgets.photo_search(index, model, query="red", k=2)
    red, other = photos.cards[0].like, photos.cards[1].like
    photos.controls["query"].value = "blue"
    assert shown(photos)[0] == "blue"
    red.click()
    assert "photos like  red" in said(photos) and "red" not in shown(photos)
    again = photos.cards[0].like
    photos.controls["search"].click()
    photos.controls["k"].value = 12
    assert photos.cards[0].like is again, "the same answer keeps its button, and the keyboard its place"
    photos.controls["query"].value = "green"
    assert other.comm is None and again.comm is not None, "buttons of answers long gone are not kept"


def test_the_way_back_leads_through_all_questions(index, model):  # noqa: F811
    photos = widgets.photo_search(index, model, query=None, k=3)
    back = photos.controls["back"]
    assert back.layout.display == "none" and "4 photos" in said(photos) and photos.picture is None and not photos.hits
    photos.controls["query"].value = "red"
    first = shown(photos)
    assert back.layout.display == "none", "there is nothing before the first question"
    photos.controls["search"].click()
    assert back.layout.display == "none", "the same question again is no new one"
    photos.cards[1].like.click()
    upload(photos, uploaded(COLOURS["blue"]))
    assert shown(photos)[0] == "blue" and back.layout.display is None
    back.click()
    assert "photos like  pink" in said(photos) and "pink" not in shown(photos)
    back.click()
    assert shown(photos) == first and photos.controls["query"].value == "red" and back.layout.display == "none"
    back.click()
    assert shown(photos) == first


def test_filters_against_the_names_and_scores(index, model):  # noqa: F811
    photos = widgets.photo_search(index, model, query="blue", k=12)
    everything = photos.hits
    photos.controls["folder"].value = "2024"
    assert photos.hits == [hit for hit in everything if hit.name.startswith("2024/")]
    photos.controls["within"].value = "ReD"
    assert shown(photos) == ["red"]
    photos.controls["folder"].value = ""
    photos.controls["within"].value = ""
    photos.controls["least"].value = 0.5
    assert photos.hits == [hit for hit in everything if hit.score >= 0.5] and 0 < len(photos.hits) < 4
    assert [label for label, _ in photos.controls["folder"].options] == ["all", "2024 (2)", "2025 (2)"]


def test_folders_hold_what_lies_below_and_none_holds_everything():
    assert folders_of(["a/b/1.png", "a/b/2.png", "a/c/3.png", "a/4.png"]) == {"a/b": 2, "a/c": 1}
    assert folders_of(["1.png", "2/3.png", "2.png"]) == {"2": 1} and folders_of(["x.png"]) == {}


def test_a_filter_finds_what_stands_far_down(model):  # noqa: F811
    """The wanted ones are the very last of 700: the search has to go on."""
    random = np.random.default_rng(0).normal(size=(700, 3))
    vectors = torch.nn.functional.normalize(torch.tensor(random, dtype=torch.float32))
    order = (vectors @ model.encode_text(["red"])[0]).argsort(descending=True).tolist()
    name = {row: f"{'rare' if place >= 697 else 'usual'}/{place}.png" for place, row in enumerate(order)}
    index = build_index(vectors, [name[row] for row in range(700)], "flat")
    assert [hit.name for hit in widgets.find_photos(index, model, "red", k=2, folder="rare")] == ["rare/697.png", "rare/698.png"]
    assert [hit.name for hit in widgets.find_photos(index, model, "red", k=9, within="RARE/")] == [f"rare/{place}.png" for place in (697, 698, 699)]


def test_words_are_found_in_captions_and_shown(index, model, folder):  # noqa: F811
    datasets.write_captions(folder / "captions.json", {"2025/blue.png": ["my <i>bicycle</i>"], "2024/red.png": ["a wall"]})
    photos = widgets.photo_search(index, model, query="red", k=4)
    assert "a wall" in photos.cards[0].view.value
    photos.controls["within"].value = "bicycle"
    assert shown(photos) == ["blue"] and "my &lt;i&gt;bicycle&lt;/i&gt;" in photos.cards[0].view.value and "<i>" not in photos.cards[0].view.value
    (folder / "captions.json").write_text("no JSON")
    broken = widgets.photo_search(index, model, query=None)
    assert "captions.json" in said(broken)
    broken.controls["query"].value = "red"
    assert shown(broken)[0] == "red"


def test_more_answers_come_below_those_that_stand_there(index, model):  # noqa: F811
    photos = widgets.photo_search(index, model, query=None, k=2)
    more = photos.controls["more"]
    photos.controls["query"].value = "red"
    two, kept = shown(photos), photos.grid.children
    assert len(two) == 2 and more.layout.display is None
    more.click()
    assert len(shown(photos)) == 4 and shown(photos)[:2] == two and photos.grid.children[:2] == kept and more.layout.display == "none"
    photos.controls["query"].value = "blue"
    assert len(shown(photos)) == 2, "a new question begins anew"


def test_the_search_says_what_does_not_work(index, model, folder):  # noqa: F811
    photos = widgets.photo_search(index, model, query="red", k=2)
    photos.controls["search"].click()
    before = [one.view.value for one in photos.cards]
    for change, words in [(lambda: upload(photos, b"no picture"), "cannot be read as a picture"), (lambda: upload(photos, b""), "0 bytes"),
                          (lambda: setattr(photos.controls["query"], "value", " "), "query is empty")]:
        change()
        assert words in said(photos) and "role='alert'" in photos.status.value
        assert [one.view.value for one in photos.cards] == before
    photos.controls["query"].value = "green"
    photos.controls["within"].value = "1999"
    assert "1999" in said(photos) and "alert" not in photos.status.value and shown(photos) == [], "no answer is no mistake"
    photos.controls["within"].value = ""
    assert shown(photos)[0] == "green"


def test_a_photo_that_is_gone_is_shown_as_such_and_can_be_asked_with(index, model, folder):  # noqa: F811
    (folder / "2024/red.png").unlink()
    photos = widgets.photo_search(index, model, query=None, k=2)
    photos.controls["query"].value = "red"
    assert shown(photos)[0] == "red" and "gone or damaged since" in photos.cards[0].view.value and thumbnails(photos)[0] is None
    assert thumbnails(photos)[1] is not None and "folder of these photos" not in said(photos)
    photos.cards[0].like.click()
    assert shown(photos)[0] == "pink", "its vector is in the index"
    folder.rename(folder.with_name("elsewhere"))
    photos.controls["search"].click()
    photos.controls["query"].value = "blue"
    assert shown(photos)[0] == "blue" and thumbnails(photos) == [None, None] and "not there any more" in said(photos)


def test_pictures_are_upright_small_and_carry_nothing_of_their_files(model, folder):  # noqa: F811
    camera = Image.new("RGB", (800, 400), (220, 30, 30))
    camera.paste((30, 40, 220), (0, 0, 400, 400))
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Secretname"  # turned by a quarter; the owner
    camera.save(folder / "2025/camera.jpg", exif=exif, comment=b"Secretname")
    photos = widgets.photo_search(search.index_dataset(datasets.load_photos(folder), model), model, query=None, k=5)
    photos.controls["query"].value = "red and blue"
    picture = thumbnails(photos)[shown(photos).index("camera")]
    assert picture.size == (160, 320) and not picture.getexif() and "comment" not in picture.info
    assert picture.getpixel((80, 40))[2] > 150 > picture.getpixel((80, 280))[2], "what lay at the left is at the top"
    assert b"Secret" not in base64.b64decode(re.search("base64,([^\"]+)", photos.cards[shown(photos).index("camera")].view.value)[1])


def test_html_in_names_stays_text(model, folder):  # noqa: F811
    evil = "2025/<img src=x onerror=alert(1)>.png"
    (folder / "2025/blue.png").rename(folder / evil)
    photos = widgets.photo_search(search.index_dataset(datasets.load_photos(folder), model), model, query=None, k=2)
    photos.controls["query"].value = "blue"
    photos.controls["within"].value = "onerror"
    assert photos.hits[0].name == evil and "<img src=x" not in photos.cards[0].view.value and "&lt;img src=x" in photos.cards[0].view.value
    photos.controls["within"].value = "<b>"
    assert "<b>" not in photos.status.value and "&lt;b&gt;" in photos.status.value
    photos.controls["within"].value = ""
    photos.cards[0].like.click()
    assert "<img src=x" not in photos.status.value and "onerror" in photos.status.value


def test_a_photo_in_captions_out(model, folder, tmp_path):  # noqa: F811
    datasets.write_captions(folder / "captions.json", {name: [f"all {name[5:-4]}"] for name in SHADES})
    index = search.index_captions(datasets.load_dataset(folder), model)
    photos = widgets.photo_search(index, model, query="red", k=3)
    assert photos.picture.png.startswith(b"\x89PNG") and "captions" in said(photos)
    upload(photos, uploaded(COLOURS["blue"]))
    assert photos.hits[0].name == "2025/blue.png#0" and "all blue" in photos.cards[0].view.value and thumbnails(photos)[0] is not None
    photos.controls["within"].value = "all red"
    assert [hit.name for hit in photos.hits] == ["2024/red.png#0"], "the words of the caption"
    photos.controls["within"].value = ""
    photos.controls["folder"].value = "2024"
    assert {hit.name for hit in photos.hits} == {"2024/red.png#0", "2024/pink.png#0"}
    sentences = tmp_path / "said.txt"
    sentences.write_text("something red\nsomething blue\n")
    plain = widgets.photo_search(search.index_captions(sentences, model), model, query=None, k=3)
    plain.controls["query"].value = "blue"
    assert "something blue" in plain.cards[0].view.value and "gone" not in plain.cards[0].view.value and plain.controls["folder"].layout.display == "none"


def test_an_index_of_another_model_is_refused(index, model):  # noqa: F811
    index.about["image_tower"] = "another"
    with pytest.raises(MiniclipError, match="image tower differ"):
        widgets.photo_search(index, model, query=None)


def test_the_search_takes_pictures_from_a_dataset(index, model, folder):  # noqa: F811
    photos = datasets.load_photos(folder)
    mine, theirs = widgets.photo_search(index, model, photos, query="red", k=2), widgets.photo_search(index, model, query="red", k=2)
    assert mine.picture.png == theirs.picture.png and [one.view.value for one in mine.cards] == [one.view.value for one in theirs.cards]


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


def test_a_thumbnail_is_made_once_and_again_when_the_photo_changes(index, model, folder, monkeypatch):  # noqa: F811
    opened, picture_of = [], search.picture_of
    monkeypatch.setattr(search, "picture_of", lambda index, name: opened.append(name) or picture_of(index, name))
    photos = widgets.photo_search(index, model, query=None, k=12)
    for words in ("red", "blue", "green"):
        photos.controls["query"].value = words
    assert sorted(opened) == sorted(SHADES)
    Image.new("RGB", (30, 10), (240, 240, 40)).save(folder / "2024/red.png")
    photos.controls["search"].click()
    assert opened[4:] == ["2024/red.png"] and thumbnails(photos)[shown(photos).index("red")].size == (30, 10)


def test_pictures_that_are_opened_at_once_leave_no_filter_of_warnings_behind(index, model, monkeypatch):  # noqa: F811
    """The second of those in threads begins within the first and ends after it: what it found, and puts back, is the first one's."""
    decode, bare, within, left, opened = images._decode, images.bare_jpeg, threading.Event(), threading.Event(), itertools.count(1)

    def slowly(*args):
        place = next(opened)
        if place == 2:  # the first stands alone
            left.clear()
            assert within.wait(30)
        if place == 3:
            within.set()
            assert left.wait(30)
        return decode(*args)

    monkeypatch.setattr(images, "_decode", slowly)
    monkeypatch.setattr(images, "bare_jpeg", lambda *args: bare(*args) if left.set() is None else None)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    photos, before = widgets.photo_search(index, model, query=None, k=3), list(warnings.filters)
    photos.controls["query"].value = "red"
    assert len(shown(photos)) == 3 and all(thumbnails(photos)) and warnings.filters == before


def test_a_question_that_is_too_long_is_answered_with_a_note(index, model, monkeypatch):  # noqa: F811
    monkeypatch.setattr(search, "query_vectors", lambda *asked: warnings.warn("the text was <cut>", LongTextWarning, stacklevel=1) or model.encode_text(["red"]).numpy())
    photos = widgets.photo_search(index, model, query=None, k=2)
    photos.controls["query"].value = "red, and on and on"
    assert shown(photos)[0] == "red" and "the text was &lt;cut&gt;" in photos.status.value
    photos.cards[0].like.click()
    assert "cut" not in photos.status.value
