"""The site in Chromium, from a server on the loopback and from the disk: the first page, a notebook, the search, the reference, in the dark and in a narrow window."""

import re
import urllib.parse

import pytest

from .driving import ANSWER, SCREENSHOTS, SECONDS

NOTEBOOK = "notebooks/06_fine_tune_pretrained.html"
# A busy browser, which asks late for a search: whoever does not wait for its results reads those of the search before.
LATE = "addEventListener('submit', event => { event.preventDefault(); setTimeout(() => event.target.submit(), 500) })"


@pytest.fixture(scope="module")
def address(site, static):
    return static(site)


@pytest.fixture
def visit(browser, address, site):
    """Function of a page's name: that page in a window of its own. In the end none may have had an error, or asked for anything outside."""
    contexts, errors, foreign = [], [], []

    def admit(route):
        url = route.request.url
        if url.startswith((address, f"file://{site}/", "data:")):
            return route.continue_()
        foreign.append(url)
        return route.abort()

    def go(name, width=1280, scheme="light", disk=False):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        page.set_default_timeout(ANSWER * 1000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("response", lambda answer: errors.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
        page.route("**/*", admit)
        page.goto((f"file://{site}/" if disk else address) + name, timeout=SECONDS * 1000)
        return page

    yield go
    for context in contexts:
        context.close()
    assert not errors, errors
    assert not foreign, foreign


def shot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"site_{name}.png")


def too_wide(page):
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def load_pictures(page):
    """[(address, pixels across, width on the page)] of every picture, those below the fold too."""
    return page.evaluate("""async () => {
        const all = [...document.querySelectorAll('article img')]
        for (const one of all) { one.loading = 'eager'; await one.decode() }
        return all.map(one => [one.getAttribute('src'), one.naturalWidth, one.getBoundingClientRect().width])
    }""")


def contrast(page, selector):
    """The contrast (WCAG 2) of the letters of the first such element with what is painted behind them."""
    letters, paper = page.locator(selector).first.evaluate("""one => {
        const style = getComputedStyle(one)
        let behind = one
        while (behind && /rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement
        return [style.color, getComputedStyle(behind || document.body).backgroundColor]
    }""")

    def light(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        return sum(weight * (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4) for weight, part in zip((0.2126, 0.7152, 0.0722), parts))

    high, low = sorted((light(letters), light(paper)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def search(page, words):
    page.locator(".sidebar-search").fill(words)
    page.locator(".sidebar-search").press("Enter")
    page.wait_for_url(re.compile(rf"/search\.html\?q={urllib.parse.quote_plus(words)}(?:&|$)"))
    page.locator("#search-results .search-summary", has_text=re.compile("found|did not match")).wait_for()
    return [one.inner_text() for one in page.locator("#search-results li > a").all()]


def test_the_first_page_shows_the_series(visit):
    page = visit("index.html")
    assert page.locator("h1").inner_text().startswith("MiniCLIP")
    assert page.locator(".card").count() == 12
    assert all(pixels > 100 and width > 100 for _, pixels, width in load_pictures(page)) and too_wide(page) <= 0
    shot(page, "home")
    page.locator(".card").first.scroll_into_view_if_needed()
    shot(page, "home_cards")
    page.get_by_role("link", name="06 · Fine-tune a pretrained model").last.click()
    page.wait_for_url(f"**/{NOTEBOOK}")


def test_a_notebook_reads_well(visit):
    page = visit(NOTEBOOK)
    shot(page, "notebook")
    saved = [(pixels, width) for source, pixels, width in load_pictures(page) if "/figures/" in source]
    assert len(saved) == 4 and all(pixels >= 1.9 * width for pixels, width in saved)  # sharp on screens of twice the resolution
    line = page.locator("article section > p").nth(3).evaluate("one => one.getBoundingClientRect().width / parseFloat(getComputedStyle(one).fontSize)")
    assert 30 < line < 55  # about 60 to 100 letters
    assert page.locator(".cell_input pre").evaluate_all("all => all.every(one => one.scrollWidth <= one.clientWidth + 1)")  # no code to scroll to
    page.locator(".next-page").click()
    page.wait_for_url("**/07_evaluate_retrieval.html")


def test_an_answer_opens_and_its_formula_is_drawn(visit):
    page = visit(NOTEBOOK)
    answer = page.locator("article details", has=page.locator("math")).first
    assert answer.locator("math").first.bounding_box() is None or not answer.locator("p").first.is_visible()
    answer.locator("summary").click()
    assert answer.locator("p").first.is_visible() and answer.locator("math").first.is_visible()
    answer.scroll_into_view_if_needed()
    shot(page, "answer")
    page = visit("notebooks/01_from_words_to_clip.html")
    fraction = page.locator("math mfrac").first
    above, below = fraction.locator("> *").nth(0).bounding_box(), fraction.locator("> *").nth(1).bounding_box()
    assert above["y"] + above["height"] <= below["y"] + 2  # one over the other: the browser knows MathML
    fraction.scroll_into_view_if_needed()
    shot(page, "formulas")


@pytest.mark.parametrize("disk", [False, True], ids=["served", "from the disk"])
def test_the_search_finds(visit, disk):
    page = visit("index.html", disk=disk)
    page.add_init_script(LATE)
    found = search(page, "temperature")
    assert len(found) > 5 and any("01 · From words to CLIP" in title for title in found)
    if not disk:  # with the sentence around the word
        page.locator("#search-results p.context").first.wait_for()
        assert "temperature" in " ".join(page.locator("#search-results p.context").all_inner_texts()).lower()
        shot(page, "search")
    assert "clip_loss" in search(page, "clip_loss")[0]
    page.locator("#search-results li > a").first.click()
    page.wait_for_url("**/losses.html**")
    assert search(page, "zyzzyva") == []


def test_the_reference_leads_to_a_function_and_its_source(visit):
    page = visit("package.html")
    shot(page, "reference")
    page.locator("table.autosummary").get_by_role("link", name="clip_loss", exact=True).first.click()
    page.wait_for_url("**/api/losses.html#miniclip_helpers.losses.clip_loss")
    entry = page.locator("dl.function", has=page.locator("[id='miniclip_helpers.losses.clip_loss']"))
    assert "Symmetric cross-entropy" in entry.inner_text() and entry.locator("li").count() >= 2
    shot(page, "function")
    entry.locator(".viewcode-link").click()
    assert "def clip_loss" in page.locator("pre").first.inner_text()


def test_every_figure_is_on_its_page(visit):
    page = visit("figures.html")
    pictures = load_pictures(page)
    assert len(pictures) > 40 and all(pixels >= 1.9 * width > 0 for _, pixels, width in pictures)
    shot(page, "figures")
    page.get_by_role("link", name="00_start_here, cell 00-32").click()
    page.wait_for_url("**/notebooks/00_start_here.html#cell-00-32")
    page.wait_for_function("() => { const top = document.querySelector('#cell-00-32').getBoundingClientRect().top; return top > -5 && top < innerHeight }")
    shot(page, "figure_in_its_notebook")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out(visit, scheme):
    page = visit(NOTEBOOK, scheme=scheme)
    for selector in ("article p", ".sidebar-tree a", "article p a", "article blockquote p", ".cell_input pre", ".cell_output pre", ".saved p", "table.dataframe td", "article details summary"):
        assert contrast(page, selector) >= 4.5, selector
    page.locator("table.dataframe").first.scroll_into_view_if_needed()
    shot(page, f"notebook_{scheme}")
    page.locator(".theme-toggle-header, .theme-toggle-content").locator("visible=true").first.click()  # auto, light, dark
    assert page.locator("body").get_attribute("data-theme") in ("light", "dark")


@pytest.mark.parametrize("name", ["index.html", NOTEBOOK, "notebooks/07_evaluate_retrieval.html", "notebooks/README.html", "api/metrics.html", "package.html", "figures.html", "commands.html"])
def test_a_narrow_window_needs_no_scrolling_sideways(visit, name):
    page = visit(name, width=390)
    load_pictures(page)
    assert too_wide(page) <= 0
    shot(page, "narrow_" + re.sub(r"\W+", "_", name.removesuffix(".html")))
    page.locator(".nav-overlay-icon").first.click()
    page.locator(".sidebar-tree").get_by_role("link", name="00 · Start here").wait_for(state="visible")
