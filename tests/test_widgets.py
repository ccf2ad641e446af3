"""Widgets are driven from Python: a value is set, the picture must change; what is wrong is said in the panel."""

import asyncio
import datetime
import html
import io
import time

import numpy as np
import pytest
import torch
from PIL import Image

from miniclip_helpers import datasets, search, widgets
from miniclip_helpers.encoders import Tower
from miniclip_helpers.errors import UsageError
from miniclip_helpers.model import TwoTowers

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 220)}


class MeanColour(Tower):
    """A picture as its mean colour, so that right answers are known."""

    name, width = "mean-colour", 3

    def prepare(self, images):
        return torch.tensor(np.stack([np.asarray(image, dtype=np.float32).mean((0, 1)) for image in images]))

    def forward(self, batch):
        return batch


class ColourWords(MeanColour):
    name = "colour-words"

    def prepare(self, texts):
        found = [[COLOURS[word] for word in text.split() if word in COLOURS] for text in texts]
        return torch.tensor(np.array([np.sum([(1e-3,) * 3, *rows], 0) for rows in found]), dtype=torch.float32)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    return TwoTowers(MeanColour(), ColourWords(), logit_scale=20).eval()


@pytest.fixture
def dataset():
    sources = []
    for colour in COLOURS.values():
        file = io.BytesIO()
        Image.new("RGB", (20, 20), colour).save(file, "PNG")
        sources.append(file.getvalue())
    return datasets.ImageTextDataset("colours", [f"things/{name}.png" for name in COLOURS], [[name] for name in COLOURS], sources)


def size(png):
    return Image.open(io.BytesIO(png)).size


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_the_search_box_answers_a_new_query(model, dataset):
    box = widgets.search_box(model, model.encode_image(list(dataset.images())), dataset, query="red", k=2)
    assert "best first: red (1.00)" in box.status.value and box.image.layout.display == "none"
    before = box.image.value
    assert before == box.picture.png and size(before)[0] > 300
    box.controls["query"].value = "blue"
    assert box.image.value != before and "best first: blue (1.00)" in box.status.value and box.image.layout.display is None
    blue = box.image.value
    box.controls["k"].value = 1
    assert box.image.value != blue and box.status.value.count("(") == 1
    box.controls["k"].value, box.controls["query"].value = 2, "red"
    assert np.abs(pixels(box.image.value) - pixels(before)).mean() < 2  # the still picture, but for its fewer colours


def test_the_search_box_takes_an_index_too(model, dataset):
    from miniclip_helpers.index import build_index

    index = build_index(model.encode_image(list(dataset.images())), dataset.names)
    assert "best first: green" in widgets.search_box(model, index, dataset, query="green", k=1).status.value


def test_an_empty_query_is_answered_in_the_panel(model, dataset):
    box = widgets.search_box(model, model.encode_image(list(dataset.images())), dataset, query="red", k=2)
    before = box.image.value
    box.controls["query"].value = "  "
    assert "query is empty" in box.status.value and "role='alert'" in box.status.value and box.image.value == before
    box.controls["query"].value = "green"
    assert "empty" not in box.status.value


def test_what_breaks_is_shown_escaped_and_not_raised(model, dataset, monkeypatch):
    box = widgets.search_box(model, model.encode_image(list(dataset.images())), dataset, query="red", k=2)
    monkeypatch.setattr(search, "search_text", lambda *inputs: 1 / 0 if inputs[2] == "zero" else (_ for _ in ()).throw(ValueError("<img>")))
    box.controls["query"].value = "zero"
    assert "ZeroDivisionError" in box.status.value
    box.controls["query"].value = "other"
    assert "&lt;img&gt;" in box.status.value and "<img>" not in box.status.value


def test_the_explorer_redraws_for_every_control(model, dataset):
    explorer = widgets.similarity_explorer(model, list(dataset.images()), ["a red thing", "a green thing"], names=dataset.names)
    seen = [explorer.image.value]
    for name, value in [("softmax", "rows"), ("temperature", 0.9), ("softmax", "columns"), ("pictures", (0, 2)), ("captions", "red\nblue\n\ngreen")]:
        explorer.controls[name].value = value
        assert explorer.image.value not in seen, name
        seen.append(explorer.image.value)
    assert explorer.status.value.endswith("red: red; blue: blue")


@pytest.mark.parametrize("name, value, words", [("pictures", (), "at least one picture"), ("captions", " \n ", "at least one caption"),
                                                ("captions", "\n".join("abcdefghijklmnopqrstuvwxyz"), "at most 20")])
def test_the_explorer_says_what_is_missing(model, dataset, name, value, words):
    explorer = widgets.similarity_explorer(model, list(dataset.images()), ["red", "green"])
    before = explorer.image.value
    explorer.controls[name].value = value
    assert words in explorer.status.value and explorer.image.value == before


def test_matrix_values_against_a_loop():
    cosines = np.array([[0.5, 0.1, -0.2], [0.0, 0.3, 0.9]])
    assert np.array_equal(widgets.matrix_values(cosines, 0.1), cosines)
    by_row = widgets.matrix_values(cosines, 0.1, "rows")
    by_column = widgets.matrix_values(cosines, 0.1, "columns")
    e = np.exp(cosines / 0.1)
    for row in range(2):
        for column in range(3):
            assert by_row[row, column] == pytest.approx(e[row, column] / sum(e[row]))
            assert by_column[row, column] == pytest.approx(e[row, column] / sum(e[:, column]))


def test_matrix_values_refuse_what_has_no_meaning():
    with pytest.raises(UsageError, match="softmax"):
        widgets.matrix_values(np.eye(2), 1.0, "both")
    with pytest.raises(UsageError, match="temperature"):
        widgets.matrix_values(np.eye(2), 0.0, "rows")


@pytest.fixture
def playground(model, dataset):
    return widgets.zero_shot_playground(model, list(dataset.images()), list(COLOURS), "a {} thing", names=dataset.names)


def test_the_playground_redraws_for_every_control(playground):
    assert playground.status.value.startswith("red: red ") and playground.image.value == playground.picture.png
    assert playground.image.layout.display == "none" and size(playground.picture.png)[0] > 500
    seen = [playground.image.value]
    for name, value, start in [("picture", 2, "blue: blue "), ("temperature", 2.0, "blue: blue "), ("labels", "green\nred\n\n", "blue: "), ("template", "{} and blue", "blue: ")]:
        playground.controls[name].value = value
        assert playground.image.value not in seen and playground.status.value.startswith(start), name
        seen.append(playground.image.value)
    assert "blue " not in playground.status.value.removeprefix("blue: ") and playground.status.value.count("%") == 2  # two labels are left


def test_the_playground_says_the_probabilities_of_classify(playground, model, dataset):
    from miniclip_helpers import zero_shot

    playground.controls["temperature"].value = 0.5
    by_hand = zero_shot.classify(model, [dataset.image(0)], list(COLOURS), "a {} thing", temperature=0.5)[0]
    assert playground.status.value == "red: " + ", ".join(f"{label} {share:.1%}" for share, label in sorted(zip(by_hand.tolist(), COLOURS), reverse=True))


def test_the_playground_takes_a_picture_of_your_own(playground):
    playground.controls["picture"].value = -1
    assert "upload a picture of your own" in playground.status.value
    file = io.BytesIO()
    Image.new("RGB", (30, 30), COLOURS["green"]).save(file, "PNG")
    before = playground.image.value
    playground.controls["upload"].value = [{"name": "grass.png", "type": "image/png", "size": 1, "content": file.getvalue(), "last_modified": datetime.datetime.now()}]
    assert playground.status.value.startswith("grass: green ") and playground.image.value != before
    playground.controls["picture"].value = 0
    assert playground.status.value.startswith("red: red ")
    playground.controls["upload"].value = [{"name": "x.png", "type": "image/png", "size": 1, "content": b"no picture", "last_modified": datetime.datetime.now()}]
    assert "cannot be read as a picture" in playground.status.value and playground.controls["picture"].value == -1


@pytest.mark.parametrize("name, value, words", [("labels", " \n", "at least one label"), ("labels", "red", "always gets 100 %"), ("labels", "red\nblue\nRed", "stand twice"),
                                                ("template", "a thing", "one {}")])
def test_the_playground_says_what_cannot_work(playground, name, value, words):
    before = playground.image.value
    playground.controls[name].value = value
    assert words in playground.status.value and "role='alert'" in playground.status.value and playground.image.value == before


def test_the_playground_says_that_a_label_is_cut(playground, model):
    model.text_tower.context, model.text_tower.token_counts = 4, lambda texts: [len(text.split()) for text in texts]
    playground.controls["labels"].value = "red\nblue of the deep sea"
    assert playground.status.value.startswith("red: red ") and "1 text is longer than the 4 tokens" in playground.status.value


def test_many_labels_show_the_best_few(playground):
    playground.controls["labels"].value = "\n".join(["red", *(f"thing {number}" for number in range(300))])
    assert playground.status.value.startswith("red: red ") and size(playground.image.value)[1] < 500


def test_the_player_shows_each_frame():
    player = widgets.replay([np.eye(5) * step for step in range(4)], titles=["start", "a", "b", "end"])
    frames = [player.image.value]
    for number in (1, 2, 3):
        player.controls["frame"].value = number
        frames.append(player.image.value)
    assert len(set(frames)) == 4 and "end (4 of 4)" in player.status.value
    player.controls["go"].value = True
    assert player.controls["go"].description == "Pause"
    player.controls["go"].value = False
    assert player.controls["go"].description == "Play"
    player.controls["play"].value = 1
    assert player.image.value == frames[1] and player.controls["frame"].value == 1
    assert player.picture.png not in frames


def test_the_player_refuses_what_does_not_fit():
    with pytest.raises(UsageError, match="at least one matrix"):
        widgets.replay([])
    with pytest.raises(UsageError, match="one title per matrix"):
        widgets.replay([np.eye(2)], titles=["a", "b"])


def test_a_panel_shows_a_still_picture_and_no_state_in_text(model, dataset, monkeypatch):
    """GitHub shows the picture; text that tests compare holds no bytes and no model id."""
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda value, raw=False: shown.append(value))
    widgets.replay([np.eye(2)])._ipython_display_()
    still, live = shown
    assert still._repr_mimebundle_()["image/png"].startswith(b"\x89PNG") and still.alt
    assert live["text/plain"] == "[player: run the cell to use it]"
    assert "application/vnd.jupyter.widget-view+json" in live


def test_every_control_has_a_label(model, dataset):
    images = list(dataset.images())
    panels = [widgets.search_box(model, model.encode_image(images), dataset, query="red", k=1), widgets.similarity_explorer(model, images, ["red"])]
    panels += [widgets.replay([np.eye(2)]), widgets.zero_shot_playground(model, images, ["red", "blue"])]
    for panel in panels:
        assert all(control.description for control in panel.controls.values())


def test_an_answer_takes_at_most_a_third_of_a_second(model, dataset):
    """Eight pictures by eight captions, the largest picture the notebooks draw. Processor time, so that a busy machine does not fail it."""
    explorer = widgets.similarity_explorer(model, list(dataset.images()) * 3, ["red", "green", "blue"] * 3)
    spent = []
    for step in range(5):
        start = time.process_time()
        explorer.controls["temperature"].value = 0.1 * (step + 1)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.3, spent


def test_the_live_picture_keeps_its_own_size(model, dataset):
    """A box stretches its children to its width: a small picture would be blown up."""
    box = widgets.search_box(model, model.encode_image(list(dataset.images())), dataset, query="red", k=1)
    assert box.image.layout.align_self == "flex-start" and box.image.layout.max_width == "100%"


def test_a_caption_keeps_its_picture_where_it_stands_and_where_it_is_edited():
    first, owner = ["cat", "cup", "dog"], [0, 1, 2]
    assert widgets.owners_of(first, first, owner) == [0, 1, 2]
    assert widgets.owners_of(["dog", "cat"], first, owner) == [2, 0]  # a line was deleted, the others moved
    assert widgets.owners_of(["cat", "mug", "dog"], first, owner) == [0, 1, 2]  # a line was rewritten
    assert widgets.owners_of([*first, "moon"], first, owner) == [0, 1, 2, None]  # a line more is nobody's
    assert widgets.owners_of(["cat", "dog", "moon"], first, owner) == [0, 2, None]  # deleted, and another one put last
    assert widgets.owners_of(["a", "b", "c"], ["a", "b", "c"], [1, 1, 0]) == [1, 1, 0]


def test_choices_by_hand():
    cosines = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1]])
    assert widgets.choices(cosines, [4, 7], [4, 7, None]) == [(0, 0, True), (1, 0, False)]
    assert widgets.choices(cosines, [4, 7], [4, 7, None], "columns") == [(0, 0, True), (1, 1, True)]  # nobody's caption chooses nobody
    assert widgets.choices(cosines, [4, 7], [4, 9, None]) == [(0, 0, True)]  # picture 7 has no caption here
    assert widgets.choices(cosines, [4, 7], [7, 4, None]) == [(0, 0, False), (1, 0, True)]


def test_mistakes_are_marked_and_counted(model, dataset):
    explorer = widgets.similarity_explorer(model, list(dataset.images()), ["red", "blue", "red green"])
    plain = explorer.image.value
    explorer.controls["mistakes"].value = True
    marked = explorer.image.value
    assert marked != plain and explorer.status.value.startswith("2 of 3 pictures choose a wrong caption. ")  # those of green and blue
    explorer.controls["softmax"].value = "columns"
    assert explorer.status.value.startswith("2 of 3 captions choose a wrong picture. ")
    explorer.controls["softmax"].value = "none"
    assert explorer.image.value == marked
    explorer.controls["captions"].value = "red\ngreen\nblue again"
    assert explorer.status.value.startswith("0 of 3 pictures")
    explorer.controls["mistakes"].value = False
    assert explorer.status.value.startswith("The best caption")


def test_whose_the_captions_are_can_be_said_and_is_asked_for(model, dataset):
    images = list(dataset.images())
    assert widgets.similarity_explorer(model, images, ["red", "blue"]).controls["mistakes"].disabled
    told = widgets.similarity_explorer(model, images, ["red", "blue"], owner=[0, 2])
    told.controls["mistakes"].value = True
    assert told.status.value.startswith("0 of 2 pictures")  # the green one has no caption
    with pytest.raises(UsageError, match="1 owners and 2 captions"):
        widgets.similarity_explorer(model, images, ["red", "blue"], owner=[0])


def test_each_cell_says_its_values_and_nothing_else_is_read_as_html():
    cosines = np.array([[0.5, 0.1], [0.0, 0.3]])
    texts = widgets.cell_texts(cosines, ["cat", "cup"], ["a", "<b> \"quoted\""], 0.1)
    share = np.exp(1) / (np.exp(1) + np.exp(3))
    assert texts[0][1] == f"cat | <b> \"quoted\"\ncosine 0.100\namong the captions {np.exp(1) / (np.exp(1) + np.exp(5)):.1%}\namong the pictures {share:.1%}"
    grid = widgets.hover_grid((0.1, 0.2, 0.5, 0.25), texts)
    assert "left:10.00%;top:20.00%;width:50.00%;height:25.00%" in grid and grid.count("<span") == 4
    assert "<b>" not in grid and "&lt;b&gt; &quot;quoted&quot;" in grid


def test_the_hover_lies_over_the_matrix_and_follows_the_captions(model, dataset):
    explorer = widgets.similarity_explorer(model, list(dataset.images()), ["red", "green"])
    image, hover = explorer.widget.children[-1].children
    assert image is explorer.image and hover.layout.grid_area == image.layout.grid_area and hover.value.count("<span") == 6
    explorer.controls["captions"].value = "something blue"
    assert hover.value.count("<span") == 3 and "something blue" in hover.value
    dark = np.asarray(Image.open(io.BytesIO(explorer.image.value)).convert("RGB")).astype(int)
    sides = dict(part.split(":") for part in hover.value.split("style='")[2].split("'")[0].split(";")[2:6])
    left, top, width, height = (float(sides[side].rstrip("%")) / 100 for side in ("left", "top", "width", "height"))
    inside = dark[int((top + 0.02) * len(dark)): int((top + height - 0.02) * len(dark)), int((left + 0.02) * dark.shape[1]): int((left + width - 0.02) * dark.shape[1])]
    assert (inside.min(2) > 250).mean() < 0.05  # the coloured cells and their numbers, nothing white around them


def counted(panel):
    """The times that the panel draws, one entry each."""
    times, draw = [], panel._draw
    panel._draw = lambda: (times.append(1), draw())[1]
    return times


def test_a_burst_of_changes_is_drawn_a_few_times_and_the_last_one_counts(model, dataset):
    """As in a kernel, where a loop runs: 20 turns of a slider come sooner than a picture is drawn."""
    explorer, last = (widgets.similarity_explorer(model, list(dataset.images()), ["red", "green"]) for _ in range(2))
    last.controls["softmax"].value = explorer.controls["softmax"].value = "rows"
    last.controls["temperature"].value = 2.0
    times = counted(explorer)

    async def burst(pause):
        for step in range(1, 21):
            explorer.controls["temperature"].value = step / 10
            await asyncio.sleep(pause)
        while explorer._timer:
            await asyncio.sleep(0.01)

    asyncio.run(burst(0))
    assert len(times) == 1 and explorer.image.value == last.image.value
    explorer.controls["temperature"].value = 0.1
    asyncio.run(burst(0.03))  # a key held down: it is drawn on the way, too
    assert 2 <= len(times) - 2 <= 12 and explorer.image.value == last.image.value


def test_a_control_that_moves_another_draws_once(dataset):
    matrix = np.eye(3)
    explorer = widgets.retrieval_explorer(matrix, dataset, which="all")
    times = counted(explorer)

    async def turn():
        explorer.controls["step"].value = 3
        explorer.controls["direction"].value = "image_to_text"  # and the slider goes back to 1
        while explorer._timer:
            await asyncio.sleep(0.01)

    asyncio.run(turn())
    assert len(times) == 1 and explorer.status.value.startswith("1 of 3: red")


def test_what_fails_before_the_picture_is_said_too(model, dataset):
    def fail(change):
        raise ValueError("nothing to step through")

    box = widgets.search_box(model, model.encode_image(list(dataset.images())), dataset, query="red", k=2)
    panel = widgets.Panel("a panel", "", box.controls, lambda: (box.image.value, "drawn"), before={"k": fail})
    times = counted(panel)
    panel.controls["k"].value = 1
    assert "ValueError" in panel.status.value and "nothing to step through" in panel.status.value and not times
    panel.controls["query"].value = "blue"
    assert panel.status.value == "drawn" and times


def test_the_field_beside_a_slider_holds_its_value(model, dataset):
    explorer = widgets.similarity_explorer(model, list(dataset.images()), ["red", "green"])
    slider, field = next(row for row in explorer.widget.children if getattr(row, "children", ())[:1] == (explorer.controls["temperature"],)).children
    assert field.description == "Temperature" and field.value == 0.05  # 1 / 20
    slider.value = 0.123456
    assert field.value == 0.123 and slider.value == 0.123456
    field.value = 0.3
    assert slider.value == 0.3
    field.value = -5
    assert slider.value == field.value == 0.001  # the least it has


def test_the_field_follows_a_slider_whose_end_moves(dataset):
    explorer = widgets.retrieval_explorer(np.eye(3)[:, [0, 1, 2]] + np.eye(3)[[1, 2, 0]] * [0, 0, 2], dataset, which="all")
    (slider, field) = next(row.children for row in explorer.widget.children if getattr(row, "children", ())[:1] == (explorer.controls["step"],))
    field.value = 3
    assert slider.value == 3 and explorer.status.value.startswith("3 of 3")
    explorer.controls["which"].value = "wrong at 1"
    assert field.max == slider.max == 1 and field.value == slider.value == 1


@pytest.mark.parametrize("text", ["from $5 to $6", r"$\frac{1$"])
def test_a_dollar_sign_is_no_formula(model, dataset, text):
    """The second would be refused as one."""
    images = list(dataset.images())
    explorer = widgets.similarity_explorer(model, images, ["red", text], names=[text, text, text])
    explorer.controls["softmax"].value = "rows"
    playground = widgets.zero_shot_playground(model, images, ["red", text], names=[text, "b", "c"])
    playground.controls["temperature"].value = 0.5
    found = widgets.retrieval_explorer(np.eye(3), datasets.ImageTextDataset(text, [text + "1", text + "2", text + "3"], [[text]] * 3, dataset._sources), which="all")
    found.controls["direction"].value = "image_to_text"
    for panel in (explorer, playground, found, widgets.replay([np.eye(2)] * 2, [text, text])):
        assert "role='alert'" not in panel.status.value and text in html.unescape(panel.status.value)


def test_what_is_wrong_is_announced(model, dataset):
    explorer = widgets.similarity_explorer(model, list(dataset.images()), ["red", "green"])
    explorer.controls["captions"].value = ""
    assert "role='alert'" in explorer.status.value
