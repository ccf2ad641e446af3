"""`miniclip app` over 950 stamps: from the command to a page that can be used, and from a key or a button to the last of 24 answers in the browser.

    uv run pytest tests/benchmarks/bench_app.py -s          prints the table; skipped without a browser
"""

import statistics
import sys
import time

import pytest
from browser.conftest import browser, free_port, open_page, private_jupyter, running  # noqa: F401 fixtures
from browser.test_app_in_a_browser import opened, serve  # noqa: F401 fixtures
from PIL import Image

from miniclip_helpers import cli

TIMES = 15
# The clock starts with a hand and stops when the words are there and each thumbnail is decoded.
WATCH = """() => {
    for (const what of ['keydown', 'click', 'change']) document.addEventListener(what, () => { window.begun = performance.now() }, true)
    window.ended = async () => {
        await Promise.all([...document.querySelectorAll('.mc-grid img')].map(one => one.decode().catch(() => 0)))
        await new Promise(requestAnimationFrame)
        return performance.now() - window.begun
    }
}"""


def answered(page, act, words):
    """Milliseconds from the hand to the answers, about which the page then says `words`."""
    act()
    page.page.wait_for_function("words => document.querySelector('.miniclip-status').innerText.includes(words)", arg=words, polling=5)
    return page.page.evaluate("ended()")


def ask(page, words):
    page.field("Search for").fill(words)
    page.field("Search for").press("Enter")


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "stamps.index"
    assert cli.main(["index", "stamps", "--out", str(folder)]) == 0
    return folder


def test_app(stamps, serve, opened, tmp_path):  # noqa: F811
    start = time.perf_counter()
    served = serve(stamps)
    page = opened(served, "bench_app")
    rows = [("command to first page", [1000 * (time.perf_counter() - start)])]
    page.page.evaluate(WATCH)
    page.page.wait_for_timeout(30_000)  # until the next page's Python is ready
    start = time.perf_counter()
    page.page.reload()
    page.opened()
    rows.append(("a further page", [1000 * (time.perf_counter() - start)]))
    page.page.wait_for_timeout(30_000)
    page.page.evaluate(WATCH)
    page.shot("opened")
    rows.append(("new words", [answered(page, lambda turn=turn: ask(page, f"a red fruit in row {turn}"), f"in row {turn}”") for turn in range(TIMES)]))
    rows.append(("back", [answered(page, lambda: page.push("Back"), f"in row {turn}”") for turn in range(TIMES - 2, 0, -1)]))
    like = page.page.get_by_role("button", name="More like this")
    rows.append(("more like this", [answered(page, lambda turn=turn: (ask(page, f"thing {turn}"), page.says(f"thing {turn}”"), like.nth(turn).click()), "photos like") for turn in range(TIMES)]))
    for turn in range(TIMES):
        Image.new("RGB", (1200, 900), (10 * turn, 80, 200 - 10 * turn)).save(tmp_path / f"{turn}.jpg")
    rows.append(("a picture of 1 megapixel", [answered(page, lambda turn=turn: page.upload("Search by picture", tmp_path / f"{turn}.jpg"), f"picture {turn}.jpg") for turn in range(TIMES)]))
    print("\n| what | median ms | slowest ms |\n|---|---|---|", file=sys.stderr)
    for name, spent in rows:
        print(f"| {name} | {statistics.median(spent):,.0f} | {max(spent):,.0f} |", file=sys.stderr)
