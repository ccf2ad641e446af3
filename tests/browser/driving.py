"""A page of a browser as a hand finds it: by labels, keys and the picture; and what it must not do."""

import hashlib
import os
import pathlib
import re
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCREENSHOTS = ROOT / "build" / "browser"
SECONDS = 300  # for a kernel to start, import torch and draw, on a busy machine; what fails is seen at once
ANSWER = 60  # for an answer of a widget
SETTLED = 200  # milliseconds without a new picture, after which it is the last
OUTSIDE = re.compile(r"^(?!data:|blob:|about:|(https?|wss?)://127\.0\.0\.1[:/])")
LIVE = "img.widget-image, img.jupyter-widget-image"
# Where a cell failed, a widget could not be made, or the kernel is gone.
BROKEN = "[data-mime-type='application/vnd.jupyter.error'], .jp-OutputArea-output:has-text('Traceback (most recent call last)'), .jupyter-widgets.jupyter-widgets-error, .voila-error"
# The pixels, not the bytes: this also proves that the browser can show them.
PIXELS = """async image => {
    if (image.offsetParent === null || !image.src) return ''
    try { await image.decode() } catch { return '' }
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), pen = canvas.getContext('2d')
    pen.drawImage(image, 0, 0)
    const seen = pen.getImageData(0, 0, canvas.width, canvas.height).data
    return canvas.width + 'x' + canvas.height + ':' + Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', seen))).join()
}"""


class Driven:
    """A page, and what went wrong on it. name: begins the names of its screenshots. server: what it is served by, see `conftest.running`."""

    def __init__(self, page, name, server=None):
        self.page, self.name, self.server, self.errors, self.foreign = page, name, server, [], []
        self.part = None  # a selector of what the picture is, where it is no <img>
        page.set_default_timeout(ANSWER * 1000)
        page.on("pageerror", lambda error: self.errors.append(f"page: {error}"))
        page.on("console", lambda told: self.errors.append(f"console: {told.text} ({told.location.get('url')})") if told.type == "error" else None)
        page.on("crash", lambda page: self.errors.append("the page crashed"))
        for event in ("request", "websocket"):
            page.on(event, lambda asked: self.foreign.append(asked.url) if OUTSIDE.match(asked.url) else None)
        page.route(OUTSIDE, lambda route: route.abort())

    def go(self, address):
        self.page.goto(address, timeout=SECONDS * 1000)
        return self

    def until(self, true, what, seconds=ANSWER):
        """Wait until `true()`; a failed cell, a page error or the server's end stop the waiting at once."""
        deadline = time.monotonic() + seconds
        while not (found := true()):
            problem = self.problem() or (f"not within {seconds} s" if time.monotonic() > deadline else "")
            if problem:
                self.shot("problem")
                pytest.fail(f"{self.name}: waiting for {what}: {problem}\nthe widget says: {self.said()!r}{self.server.told() if self.server else ''}")
            self.page.wait_for_timeout(50)
        return found

    def problem(self):
        """What is wrong with the page, in words; empty where nothing is."""
        broken = self.page.locator(BROKEN)
        if broken.count():
            return broken.first.inner_text()[-1500:]
        if self.server and not self.server.runs():
            return "the server has ended"
        return "; ".join(self.errors)

    def opened(self, seconds=SECONDS):
        """Wait until a widget is there."""
        self.until(lambda: self.page.locator(".miniclip-status").count(), "a widget", seconds)
        return self

    # --- the picture ---

    @property
    def live(self):
        return self.page.locator(LIVE).last

    def picture(self):
        """The live picture, a digest of its pixels, once it stands still; empty while it is not shown."""
        before, same = None, 0
        while same < SETTLED:
            now = self._pixels()
            same = same + 50 if now == before else 0
            before = now
            self.page.wait_for_timeout(50)
        return before

    def _pixels(self):
        if self.part is None:
            return self.live.evaluate(PIXELS)
        part = self.page.locator(self.part)
        return hashlib.sha256(part.screenshot(animations="disabled", caret="hide")).hexdigest() if part.is_visible() else ""

    def changes(self, act, seconds=ANSWER):
        """Do `act`, wait until the picture is another one than before, and return it."""
        before = self.picture()
        act()
        self.until(lambda: self._pixels() not in ("", before), "another picture", seconds)
        return self.picture()

    def stays(self, act, words):
        """Do `act`, wait until the widget says `words`; the picture must be the one before."""
        before = self.picture()
        act()
        self.says(words)
        assert self.picture() == before, self.said()

    # --- what it says ---

    def said(self):
        """The sentence of the widget: its answer, or what is wrong."""
        sentence = self.page.locator(".miniclip-status")
        return sentence.last.inner_text() if sentence.count() else ""

    def says(self, words, seconds=ANSWER):
        """Wait until the widget says `words`."""
        self.until(lambda: words in self.said(), f"the words {words!r}", seconds)

    # --- hands ---

    def field(self, label):
        """The text field, list, menu or box with this label."""
        return self.page.get_by_label(label, exact=True)

    def write(self, label, text):
        """Type into a field as one would, and leave it by the keyboard."""
        field = self.field(label)
        field.fill(text)
        field.press("Tab")

    def slider(self, label):
        """The handle of the slider beside this label."""
        return self.page.locator(".widget-inline-hbox", has=self.page.get_by_text(label, exact=True)).locator(".noUi-handle").last

    def slide(self, label, key="ArrowRight", times=1):
        handle = self.slider(label)
        handle.focus()
        for _ in range(times):
            handle.press(key)

    def pick(self, label, option):
        """One of a menu."""
        self.field(label).select_option(label=option)

    def tabbed(self, most=60):
        """Tab through the page from its top: what the keyboard reaches, as 'role "name"', in order. Where it is must be seen."""
        self.page.evaluate("document.activeElement.blur(); getSelection().removeAllRanges(); document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
        reached = []
        for _ in range(most):
            self.page.keyboard.press("Tab")
            if not self.page.evaluate("!!document.activeElement.closest('.jupyter-widgets')"):
                break
            seen = self.page.evaluate("getComputedStyle(document.activeElement).outlineStyle + ' ' + parseFloat(getComputedStyle(document.activeElement).outlineWidth)").split()
            reached.append(re.match(r'- (\w+(?: "[^"]*")?)', self.page.locator(":focus").aria_snapshot())[1])
            assert seen[0] != "none" and float(seen[1]) >= 2, f"{reached[-1]} does not show that the keyboard is there: {seen}"
        return reached

    def push(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def upload(self, name, path):
        """Bring a file by the button that begins with `name`."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("button.widget-upload", has_text=name).click()
        chooser.value.set_files(path)

    def shot(self, what):
        """A screenshot of the whole page: build/browser/NAME_WHAT.png."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self.name}_{what}.png", full_page=True)

    def narrow(self, what, width=600):
        """A screenshot of the page as a narrow window shows it; nothing may stick out at the side."""
        size = self.page.viewport_size
        self.page.set_viewport_size({"width": width, "height": size["height"]})
        self.shot(f"{what}_{width}")
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        self.page.set_viewport_size(size)
        assert wide <= width, f"{self.name}: the page is {wide} px wide in a window of {width}"


def executable():
    """The browser: (path, None), or (None, why there is none)."""
    import shutil

    if named := os.environ.get("MINICLIP_BROWSER"):
        if not pathlib.Path(named).exists():
            return None, f"MINICLIP_BROWSER names {named}, which is not there"
        return (named, None) if (problem := cannot_start(named)) is None else (None, f"MINICLIP_BROWSER names {named}, which does not start: {problem}")
    known, problems = ("chromium", "chromium-browser", "google-chrome"), []
    for path in filter(None, map(shutil.which, known)):
        if (problem := cannot_start(path)) is None:
            return path, None
        problems.append(f"{path} does not start: {problem}")
    found = "; ".join(problems) or f"no browser on this machine (looked for {', '.join(known)})"
    return None, f"{found}; MINICLIP_BROWSER=/path/to/one names another"


def cannot_start(path, seconds=60):
    """Why a browser does not start, in words, or None: it may be a word about another that is not installed, as Ubuntu's is without its snap."""
    try:
        said = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if said.returncode == 0 else " ".join(said.stdout.split())[:200] or f"it ends with {said.returncode}"
