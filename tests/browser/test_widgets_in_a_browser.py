"""Each widget, driven as a hand drives it: the picture changes, what is wrong is said, every control is reached and named, the page has no error and asks nobody outside."""

import io

import pytest
from PIL import Image

MODEL = """
from miniclip_helpers import datasets, pretrained, widgets
photos, model = datasets.load_dataset("photos8"), pretrained.load_model("mini")
"""
MATRIX = MODEL + """
widgets.similarity_explorer(model, [photos.image(row) for row in range(4)], [photos.captions[row][0] for row in range(4)], photos.names[:4])
"""
PLAYGROUND = MODEL + """
widgets.zero_shot_playground(model, [photos.image(row) for row in range(4)], ["a cat", "a coffee cup", "a rocket", "an astronaut"], names=photos.names[:4])
"""
PHOTOS = MODEL + """
from miniclip_helpers import search
widgets.photo_search(search.index_dataset(photos, model), model, photos, query="a cat", k=3)
"""
REPLAY = """
import numpy as np
from miniclip_helpers import widgets
widgets.replay([np.eye(6) * step for step in range(40)], [f"after epoch {step}" for step in range(40)])
"""
# With seconds of rest in place of hundredths: between two presses a slow machine may need tenths.
PATIENT = REPLAY.replace("widgets.replay(", "one = widgets.replay(") + """
from miniclip_helpers.widgets import panel
one._rest, panel.LONGEST = 3, 60
one
"""
EXPLORER = """
import numpy as np
from miniclip_helpers import datasets, widgets
photos = datasets.load_dataset("photos8")
scores = np.random.default_rng(0).normal(size=(len(photos), len(photos.owner))) + 1.5 * np.eye(len(photos))
widgets.retrieval_explorer(scores, photos)
"""
TRADE_OFF = """
import numpy as np
from miniclip_helpers import widgets
from miniclip_helpers.index import build_index
random = np.random.default_rng(5)
rows, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (random.normal(size=(n, 48)).astype("float32") for n in (1500, 40)))
names = [f"thing {number}" for number in range(len(rows))]
widgets.trade_off(build_index(rows, names, "hnsw", m=8, ef_construction=20), build_index(rows, names, "flat"), queries, [f"question {n}" for n in range(40)])
"""
BROKEN = """
import ipywidgets
from miniclip_helpers import plots, widgets
slider, png = ipywidgets.IntSlider(description="Number"), widgets.replay_picture([[0]])

def draw():
    return (png, f"{7 / (slider.value - 2):.1f}") if slider.value < 4 else ([][slider.value], "")

widgets.Panel("a panel", "", {"number": slider}, draw)
"""
EVIL = "<img src=x onerror=\"document.title='ran'\">"
HOSTILE = MODEL + f"""
import io, ipywidgets, numpy as np
evil = {EVIL!r}

def bytes_of(picture):
    picture.save(file := io.BytesIO(), "PNG")
    return file.getvalue()

photos = datasets.ImageTextDataset("evil", [evil + f" {{row}}.png" for row in range(2)], [[evil + "'><script>document.title='ran'</script>"]] * 2,
                                   [bytes_of(photos.image(row)) for row in range(2)])
pictures, captions = list(photos.images()), photos.all_captions
from miniclip_helpers import search
panels = [widgets.similarity_explorer(model, pictures, captions, photos.names), widgets.retrieval_explorer(np.eye(2), photos, which="all"),
          widgets.photo_search(search.index_dataset(photos, model), model, photos, query=evil), widgets.replay([np.eye(2)] * 2, [evil] * 2),
          widgets.zero_shot_playground(model, pictures, [evil, "b"], names=photos.names)]
ipywidgets.VBox([panel.widget for panel in panels])
"""


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    return file.getvalue()


def test_the_similarity_matrix(open_widget):
    matrix = open_widget("matrix", MATRIX)
    matrix.shot("opened")
    # The slider has no name of its own (ipywidgets); the field after it has, and does the same.
    assert matrix.tabbed() == ['listbox "Pictures"', 'textbox "Captions"', "slider", 'spinbutton "Temperature"', 'combobox "Softmax over"', 'checkbox "Mark mistakes"']
    seen = {matrix.changes(lambda: matrix.pick("Softmax over", "rows")), matrix.changes(lambda: matrix.slide("Temperature", times=5)),
            matrix.changes(lambda: matrix.page.keyboard.press("PageUp")), matrix.changes(lambda: matrix.write("Temperature", "0.3"))}
    seen.add(matrix.changes(lambda: matrix.field("Softmax over").press("ArrowDown")))
    assert matrix.field("Softmax over").input_value() == "columns"
    seen.add(matrix.changes(lambda: matrix.write("Captions", "a cup of coffee\na cat\na rocket\nthe moon\na dog")))
    seen.add(matrix.changes(lambda: matrix.field("Pictures").select_option(index=[0, 2])))
    assert len(seen) == 7
    matrix.stays(lambda: matrix.write("Captions", " "), "at least one caption")
    matrix.shot("mistake")
    assert matrix.page.get_by_role("alert").count() == 1
    matrix.changes(lambda: matrix.write("Captions", "a rocket"))
    assert "at least" not in matrix.said()


def test_the_pointer_on_the_matrix_says_the_values(open_widget):
    """The text under the pointer is that of the cell which is drawn there."""
    matrix = open_widget("matrix_hover", MATRIX)
    matrix.changes(lambda: matrix.field("Mark mistakes").check())
    matrix.says("of 4 pictures choose a wrong caption")
    box = matrix.live.bounding_box()
    cells = matrix.page.locator("[aria-hidden] span[title*='cosine']")
    assert cells.count() == 16
    for row, column in ((0, 0), (1, 3), (3, 2)):
        cell = cells.nth(4 * row + column).bounding_box()
        assert box["x"] < cell["x"] and cell["x"] + cell["width"] < box["x"] + box["width"]
        x, y = cell["x"] + cell["width"] / 2, cell["y"] + cell["height"] / 2
        title = matrix.page.evaluate("([x, y]) => document.elementFromPoint(x, y).title", [x, y])
        assert title == cells.nth(4 * row + column).get_attribute("title")
    matrix.shot("marked")
    matrix.narrow("marked")


def test_the_zero_shot_playground(open_widget, tmp_path):
    playground = open_widget("playground", PLAYGROUND)
    assert playground.tabbed() == ['combobox "Picture"', 'button "Upload a picture (0)"', 'textbox "Labels"', 'textbox "Template"', "slider", 'spinbutton "Temperature"']
    seen = {playground.changes(lambda: playground.pick("Picture", "chelsea")), playground.changes(lambda: playground.slide("Temperature", times=10)),
            playground.changes(lambda: playground.write("Labels", "a cat\na rocket\nblue")), playground.changes(lambda: playground.write("Template", "a drawing of a {}."))}
    (tmp_path / "blue.png").write_bytes(png("blue"))
    seen.add(playground.changes(lambda: playground.upload("Upload a picture", tmp_path / "blue.png")))
    playground.says("blue: ")  # its name; what it is called follows
    assert len(seen) == 5
    playground.shot("uploaded")
    playground.narrow("uploaded")
    (tmp_path / "text.jpg").write_text("no picture")
    playground.stays(lambda: playground.upload("Upload a picture", tmp_path / "text.jpg"), "cannot be read as a picture")
    playground.stays(lambda: playground.write("Template", "no gap"), "cannot be read as a picture")  # the picture comes first
    playground.pick("Picture", "astronaut")
    playground.says("one {} for the label")
    playground.shot("mistake")


def test_the_training_replay(open_widget):
    replay = open_widget("replay", REPLAY)
    assert replay.tabbed() == ['button "Play"', "slider", 'spinbutton "Frame"']
    seen = replay.picture()
    assert replay.changes(lambda: replay.slide("Frame", times=20)) != seen
    replay.says("after epoch 20 (21 of 40)")  # the last of a burst counts
    assert replay.field("Frame").input_value() == "20"
    replay.changes(lambda: replay.write("Frame", "36"))
    replay.says("after epoch 36")
    replay.changes(lambda: replay.push("Play"))
    replay.says("after epoch 39")
    replay.until(lambda: replay.page.get_by_role("button", name="Play").count(), "the button to say Play again")
    replay.shot("played")
    replay.narrow("played")


def test_a_burst_of_keys_is_drawn_once(open_widget):
    replay = open_widget("burst", PATIENT)
    replay.page.evaluate("() => {window.drawn = 0; new MutationObserver(all => drawn += all.length).observe(document.querySelector('img.widget-image'), {attributeFilter: ['src']})}")
    replay.slide("Frame", times=20)
    replay.says("after epoch 20 (21 of 40)")
    replay.picture()
    assert replay.page.evaluate("drawn") == 1


def test_the_retrieval_explorer(open_widget):
    explorer = open_widget("explorer", EXPLORER)
    assert explorer.tabbed() == ['combobox "Direction"', 'combobox "Show"', "slider", 'spinbutton "Query"']
    explorer.changes(lambda: explorer.slide("Query"))
    explorer.shot("text")
    explorer.narrow("text")
    seen = {explorer.picture(), explorer.changes(lambda: explorer.pick("Direction", "picture finds text")), explorer.changes(lambda: explorer.pick("Show", "right at 1"))}
    seen.add(explorer.changes(lambda: explorer.pick("Show", "wrong at 1")))
    explorer.shot("wrong")
    explorer.narrow("wrong")
    assert len(seen) == 4
    explorer.stays(lambda: explorer.pick("Show", "rank > 10"), "no query here is 'rank > 10'")
    explorer.shot("mistake")


def test_the_ef_search_slider(open_widget):
    slider = open_widget("trade_off", TRADE_OFF)
    assert slider.tabbed() == ["slider", 'combobox "efSearch"', 'combobox "Question"']
    seen = {slider.changes(lambda: slider.slide("efSearch", times=3)), slider.changes(lambda: slider.field("Question").select_option(index=5))}
    slider.says("efSearch 24")
    seen.add(slider.changes(lambda: slider.slide("efSearch", "End")))
    slider.says("efSearch 256")
    seen.add(slider.changes(lambda: slider.pick("efSearch", "64")))
    slider.says("efSearch 64")
    assert len(seen) == 4
    slider.shot("slid")
    slider.narrow("slid")


def test_the_photo_search(open_widget, tmp_path):
    photos = open_widget("photos", PHOTOS)
    photos.part = ".mc-grid"
    assert photos.tabbed()[:3] == ['textbox "Search for"', 'button "Search"', 'button "Search by picture (0)"']
    seen = {photos.changes(lambda: photos.write("Search for", "a rocket")), photos.changes(lambda: photos.field("At a time").select_option(index=1))}
    photos.says("a rocket")
    seen.add(photos.changes(lambda: photos.page.get_by_role("button", name="More like this").nth(1).click()))
    photos.says("photos like")
    (tmp_path / "red.png").write_bytes(png("red"))
    seen.add(photos.changes(lambda: photos.upload("Search by picture", tmp_path / "red.png")))
    photos.says("red.png")
    assert len(seen) == 4
    photos.shot("uploaded")
    photos.narrow("uploaded")
    (tmp_path / "text.jpg").write_text("no picture")
    found = photos.page.locator(".mc-grid").inner_text()
    photos.upload("Search by picture", tmp_path / "text.jpg")
    photos.says("cannot be read as a picture")
    assert photos.page.locator(".mc-grid").inner_text() == found
    photos.shot("mistake")
    photos.write("Name or caption has", "no such name")
    photos.says("'no such name'")


def test_what_fails_in_a_callback_is_said_and_what_follows_works(open_widget):
    panel = open_widget("broken", BROKEN)
    panel.slide("Number", times=2)
    panel.says("this did not work (ZeroDivisionError)")
    panel.slide("Number")
    panel.says("7.0")
    panel.slide("Number")
    panel.says("this did not work (IndexError)")
    panel.shot("said")


def test_text_from_strangers_is_never_run(open_widget, tmp_path):
    """Captions, names, labels and the file's name of an upload hold HTML that would change the page's title."""
    page = open_widget("hostile", HOSTILE)
    panels = page.page.locator(".miniclip-panel")
    page.until(lambda: panels.count() == 4, "the widgets")
    page.pick("Softmax over", "columns")  # the matrix, hence its texts under the pointer
    cell = page.page.locator("[aria-hidden] span[title*='cosine']").first
    page.until(lambda: cell.is_visible(), "the texts under the pointer")
    cell.hover()
    assert "onerror" in cell.get_attribute("title")
    page.slide("Query")
    page.slide("Frame")
    page.write("Captions", f"{EVIL}\nanother")
    page.write("Search for", f"{EVIL} again")
    file = tmp_path / EVIL.replace("/", "")
    file.write_bytes(png("blue"))
    page.upload("Upload a picture", file)
    page.until(lambda: EVIL in panels.last.inner_text(), "the name of the file")
    page.write("Labels", f"{EVIL}\n{EVIL}")
    page.until(lambda: "stand twice" in panels.last.inner_text(), "a mistake with the label in it")
    page.shot("shown")
    assert page.page.title() != "ran" and not page.page.locator("img[src='x'], script:text(\"'ran'\")").count()


@pytest.mark.parametrize("address", ["http://192.0.2.1/x.png", "https://example.org/x.png", "ws://192.0.2.1/"])
def test_a_request_to_the_outside_is_stopped_and_seen(open_page, static, tmp_path, address):
    """The fence itself: by the page's route, and by the browser's own settings without it."""
    (tmp_path / "page.html").write_text("<!doctype html><link rel=icon href=data:,><p>here</p>")
    ask = """address => new Promise(done => {
        const asked = address.startsWith('ws') ? new WebSocket(address) : new Image()
        asked.onload = asked.onopen = () => done('through'); asked.onerror = () => done('stopped'); if (!address.startsWith('ws')) asked.src = address
    })"""
    for routed in (True, False):
        page = open_page("fence", static(tmp_path) + "page.html")
        if not routed:
            page.page.unroute_all()
        assert page.page.evaluate(ask, address) == "stopped"
        assert page.foreign == [address] and page.errors  # the console says so, too
        page.foreign.clear()
        page.errors.clear()
