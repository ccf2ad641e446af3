"""`miniclip app` in a browser: an index of photos and one of captions, asked as one would ask them, with what goes wrong on the way."""

import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from miniclip_helpers import datasets, pretrained, search

from .driving import SECONDS

EVIL = "<img src=x onerror=\"document.title='ran'\">"
CAPTIONS = {"animals/chelsea.png": "our cat " + EVIL, "space/rocket.png": "the launch"}
ALBUMS = {"animals": ("chelsea", "horse"), "space": ("astronaut", "rocket"), "": ("camera", "coffee", "motorcycle_left", "page")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of scikit-image's eight photos in albums, one of them with a name that is HTML, and two captions."""
    folder, known = tmp_path_factory.mktemp("mine") / "photos", datasets.load_dataset("photos8")
    pictures = {name.rpartition(".")[0]: known.image(row) for row, name in enumerate(known.names)}
    for album, names in ALBUMS.items():
        (folder / album).mkdir(parents=True, exist_ok=True)
        for name in names:
            pictures[name].save(folder / album / f"{name}.png")
    pictures["coffee"].rotate(90, expand=True).save(folder / f"{EVIL.replace('/', '')}.png")
    return folder


@pytest.fixture(scope="module")
def model():
    return pretrained.load_model("mini")


@pytest.fixture(scope="module")
def index(photos, model):
    """The index of the photos; the captions are written beside them afterwards, as one would."""
    index = search.index_dataset(datasets.load_photos(photos), model)
    index.save(photos.parent / "photos.index")
    datasets.write_captions(photos / "captions.json", {name: [said] for name, said in CAPTIONS.items()})
    return index


@pytest.fixture(scope="module")
def serve(browser, running, private_jupyter, free_port):
    """Function of an index's folder: (server, the address with its token) of `miniclip app`."""

    def start(folder):
        port = free_port()
        command = [sys.executable, "-m", "miniclip_helpers.cli", "app", folder, "--port", port, "--no-browser"]
        server = running(command, f"http://127.0.0.1:{port}/voila/static/voila.js", private_jupyter())
        return server, lambda: re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", server.told())

    return start


@pytest.fixture(scope="module")
def served(serve, index, photos):
    return serve(photos.parent / "photos.index")


@pytest.fixture
def opened(open_page):
    """Function of a served index and a name: its page, once it can be used."""

    def open_it(served, name, **options):
        server, address = served
        page = open_page(name, server=server, **options)
        page.until(address, "the address", SECONDS)
        page.go(address()[0]).opened()
        return page

    return open_it


def answers(page):
    """[(place, score, name)] of the cards that are seen."""
    cards = page.page.locator(".mc-card:visible")
    return cards.evaluate_all("all => all.map(one => [one.querySelector('.mc-place').innerText, one.querySelector('.mc-score').innerText, one.querySelector('.mc-name').title])")


def shows(page, hits):
    """Wait until exactly these hits are shown, each with its place and score."""
    wanted = [[f"{place}", f"{hit.score:z.2f}", hit.name] for place, hit in enumerate(hits, 1)]
    page.until(lambda: answers(page) == wanted, f"{[hit.name for hit in hits]}, found {answers(page)}")
    seen = page.page.locator(".mc-card:visible img").evaluate_all("all => all.map(one => one.complete && one.naturalWidth > 1 && one.alt.length > 0)")
    assert all(seen), seen


def ask(page, words):
    page.field("Search for").fill(words)
    page.field("Search for").press("Enter")


def test_words_an_answer_and_the_way_back(opened, served, index, model):
    page = opened(served, "app")
    page.says("9 photos. Type what to look for")
    assert page.page.title() == "Photo search" and page.page.get_by_role("heading", name="Photo search").is_visible()
    page.shot("opened")
    ask(page, "a cat")
    everything = search.search_text(index, model, "a cat", 9)
    shows(page, everything)
    page.says("9 of 9 photos for “a cat”")
    assert not page.page.get_by_role("button", name="Back").is_visible() and not page.page.get_by_role("button", name="Show more").is_visible()
    page.shot("words")
    page.narrow("words", 400)
    page.page.get_by_role("button", name="More like this").nth(2).focus()
    page.page.keyboard.press("Enter")
    like = everything[2].name
    page.says("8 of 9 photos like")
    shows(page, [hit for hit in search.search_image(index, model, search.picture_of(index, like), 9) if hit.name != like])
    page.until(lambda: page.page.locator(":focus").inner_text() == "Back", "the keyboard to be where the answers begin")
    page.shot("like")
    page.narrow("like", 400)
    page.page.keyboard.press("Enter")
    shows(page, everything)
    assert page.field("Search for").input_value() == "a cat"
    page.write("Search for", "a rocket")
    page.push("Search")
    page.says("for “a rocket”")
    shows(page, search.search_text(index, model, "a rocket", 9))


def test_a_picture_a_mistake_and_no_words(opened, served, index, model, tmp_path):
    page = opened(served, "app_picture")
    turned = Image.Exif()
    turned[0x0112] = 6
    search.picture_of(index, "space/rocket.png").rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=turned, quality=95)
    page.upload("Search by picture", tmp_path / "turned.jpg")
    page.says("your picture turned.jpg")
    assert answers(page)[0][2] == "space/rocket.png"
    shows(page, search.search_image(index, model, tmp_path / "turned.jpg", 9))
    page.shot("uploaded")
    (tmp_path / "text.jpg").write_text("no picture")
    before = answers(page)
    page.upload("Search by picture", tmp_path / "text.jpg")
    page.says("cannot be read as a picture")
    assert answers(page) == before
    page.shot("mistake")
    page.narrow("mistake", 400)
    ask(page, "a horse")
    page.says("for “a horse”")
    page.field("Search for").fill("  ")
    page.push("Search")
    page.says("the query is empty")
    page.until(lambda: page.page.get_by_role("alert").is_visible(), "an alert")
    page.upload("Search by picture", tmp_path / "turned.jpg")
    page.says("your picture turned.jpg")


def test_a_picture_as_large_as_a_cameras(opened, served, tmp_path):
    page = opened(served, "app_large")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2400, 2400, 3), dtype=np.uint8)).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 12 * 2**20, "more than tornado takes by itself"
    page.upload("Search by picture", tmp_path / "large.png")
    page.says("your picture large.png")


def test_filters(opened, served, index, model):
    page = opened(served, "app_filters")
    ask(page, "something that flies")
    everything = search.search_text(index, model, "something that flies", 9)
    page.field("Folder").select_option(label="space (2)")
    shows(page, [hit for hit in everything if hit.name.startswith("space/")])
    page.write("Name or caption has", "LAUNCH")
    shows(page, [hit for hit in everything if hit.name == "space/rocket.png"])
    page.shot("filtered")
    page.write("Name or caption has", "no such name")
    page.says("no photo in space holds 'no such name'")
    assert not answers(page) and not page.page.get_by_role("alert").count()
    page.shot("none")
    page.narrow("none", 400)
    page.field("Folder").select_option(index=0)
    page.write("Name or caption has", "")
    page.field("Lowest score").select_option(label="0.10")
    shows(page, [hit for hit in everything if hit.score >= 0.1])
    page.field("Lowest score").select_option(label="0.95")
    page.says("no photo reaches 0.95")
    page.field("Lowest score").select_option(label="any")
    shows(page, everything)


def test_html_in_names_and_captions_stays_text(opened, served):
    page = opened(served, "app_html")
    ask(page, EVIL)
    page.says("onerror")
    page.page.get_by_role("button", name="More like this").first.click()
    page.says("photos like")
    page.write("Name or caption has", "onerror")
    page.until(lambda: len(answers(page)) >= 1 and all("our cat" in told or "onerror" in told for told in page.page.locator(".mc-card:visible").all_inner_texts()), "the two that hold it")
    page.page.wait_for_timeout(500)
    assert page.page.title() == "Photo search" and not page.page.locator("img[src=x]").count()
    page.shot("html")


def test_the_keyboard_reaches_everything(opened, served):
    page = opened(served, "app_keys")
    ask(page, "a cat")
    page.says("9 of 9 photos")
    reached = page.tabbed()  # the (0) is ipywidgets' number of files
    assert [one.split(" ", 1)[1] for one in reached[:7]] == ['"Search for"', '"Search"', '"Search by picture (0)"', '"Folder"', '"Name or caption has"', '"Lowest score"', '"At a time"'], reached
    assert reached[7:] == ['button "More like this"'] * 9


def test_a_photo_that_is_gone(opened, served, photos):
    page = opened(served, "app_gone")
    (photos / "animals/horse.png").rename(photos.parent / "horse.png")
    try:
        ask(page, "a horse")
        page.says("for “a horse”")
        page.page.get_by_text("gone or damaged since the index was made").wait_for()
        page.shot("gone")
        photos.rename(photos.with_name("moved"))
        page.push("Search")
        page.says("is not there any more")
        assert page.page.locator(".mc-gone:visible").count() == 9
    finally:
        if not photos.exists():
            photos.with_name("moved").rename(photos)
        (photos.parent / "horse.png").rename(photos / "animals/horse.png")


def test_without_the_token_nobody_is_answered(open_page, served, opened):
    opened(served, "app_token")
    stranger = open_page("app_stranger", served[1]()[0].split("?")[0], server=served[0])
    assert "login" in stranger.page.url and not stranger.page.locator(".miniclip-status").count()


def test_captions_and_an_index_that_is_deleted_meanwhile(opened, serve, photos, model, index):
    folder = photos.parent / "captions.index"
    captions = search.index_captions(datasets.load_dataset("photos8"), model)
    captions.save(folder)
    served = serve(folder)
    page = opened(served, "app_captions")
    page.says("8 captions")
    page.upload("Search by picture", photos / "animals/chelsea.png")
    page.says("your picture chelsea.png")
    page.says("8 of 8 captions like")
    hits = search.search_image(captions, model, photos / "animals/chelsea.png", 8)
    shows(page, hits)
    assert page.page.locator(".mc-said:visible").first.inner_text() == captions.about["captions"][hits[0].name]
    page.shot("answers")
    page.narrow("answers", 400)
    shutil.rmtree(folder)
    ask(page, "a cup")
    page.says("for “a cup”")
    shows(page, search.search_text(captions, model, "a cup", 8))
    alert = page.page.get_by_role("alert")
    for _ in range(2):  # the first may have been made ready before
        if not alert.count():
            page.page.reload(timeout=SECONDS * 1000)
            page.page.locator(".miniclip-status, [role=alert]").first.wait_for(timeout=SECONDS * 1000)
    assert "holds no index" in alert.inner_text()
    page.shot("deleted")
    assert served[0].runs()
