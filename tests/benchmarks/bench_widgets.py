"""From a key on a control to the picture in the browser: six widgets in Voila, one change at a time; beside it what Python takes of that.

    uv run pytest tests/benchmarks/bench_widgets.py -s          prints the table; skipped without a browser
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from browser import test_widgets_in_a_browser as pages
from browser.conftest import browser, open_page, open_widget, private_jupyter, running, voila, widget_pages  # noqa: F401 fixtures

CHANGES = 30
# Each: (source, selector of what takes the keys, the keys in turn, control's name, its values in turn).
WIDGETS = {
    "similarity matrix": (pages.MATRIX.replace("widgets.sim", "panel = widgets.sim") + 'panel.controls["softmax"].value = "rows"\npanel\n', ".noUi-handle", ["ArrowRight"] * CHANGES, "temperature", [0.06 + 0.01 * step for step in range(CHANGES)]),
    "zero-shot playground": (pages.PLAYGROUND, ".noUi-handle", ["ArrowRight"] * CHANGES, "temperature", [0.06 + 0.01 * step for step in range(CHANGES)]),
    "training replay": (pages.REPLAY, ".noUi-handle", ["ArrowRight"] * CHANGES, "frame", range(1, CHANGES + 1)),
    "retrieval explorer": (pages.EXPLORER.replace("photos)\n", "photos, which='all')\n"), ".noUi-handle", ["ArrowRight", "ArrowLeft"] * (CHANGES // 2), "step", [2, 1] * (CHANGES // 2)),
    "efSearch slider": (pages.TRADE_OFF, ".noUi-handle", (["ArrowRight"] * 9 + ["ArrowLeft"] * 9) * 2, "ef_search", [*range(1, 10), *range(8, -1, -1)] * 2),
    "photo search, new words": (pages.PHOTOS, "input[type=text]", [f"a cat with {step} ears" for step in range(CHANGES)], "query", [f"a cat with {step} ears" for step in range(CHANGES)]),
}
# The clock starts with a key and stops when the browser has the new picture, or all of the answers' thumbnails, ready to show.
WATCH = """() => {
    window.answers = []
    let start = 0, waiting = false
    document.addEventListener('keydown', event => { if (event.key.startsWith('Arrow') || event.key === 'Enter') start = performance.now() }, true)
    const shown = async () => {
        if (!start || waiting) return
        waiting = true
        const pictures = [...document.querySelectorAll('img.widget-image, .mc-grid img')]
        await Promise.all(pictures.map(one => one.decode().catch(() => 0)))
        await new Promise(requestAnimationFrame)
        window.answers.push(performance.now() - start)
        start = 0; waiting = false
    }
    const watcher = new MutationObserver(shown)
    for (const one of document.querySelectorAll('img.widget-image')) watcher.observe(one, {attributeFilter: ['src']})
    for (const one of document.querySelectorAll('.mc-grid')) watcher.observe(one, {subtree: true, childList: true})
}"""


def in_the_browser(widget, selector, keys):
    """Milliseconds from each key to its picture."""
    widget.page.evaluate(WATCH)
    hand = widget.page.locator(selector).first
    hand.focus()
    for count, key in enumerate(keys, 1):
        if len(key) > 12:
            hand.fill(key)
            key = "Enter"
        hand.press(key)
        widget.until(lambda count=count: widget.page.evaluate("answers.length") >= count, "an answer")
    return widget.page.evaluate("answers")


def in_python(source, name, values):
    """Milliseconds of each change in this process, where nothing waits: `Panel.refresh` draws at once."""
    lines, names, spent = source.strip().splitlines(), {}, []
    exec("\n".join(lines[:-1]), names)  # noqa: S102 our own source
    panel = eval(lines[-1], names)  # noqa: S307
    for value in values:
        start = time.perf_counter()
        panel.controls[name].value = value
        spent.append(1000 * (time.perf_counter() - start))
    return spent


@pytest.mark.parametrize("label", WIDGETS)
def test_from_a_key_to_the_picture(open_widget, label):  # noqa: F811
    source, selector, keys, control, values = WIDGETS[label]
    seen = in_the_browser(open_widget(f"bench_{label.split()[-1]}", source), selector, keys)[1:]  # the first shows what was hidden
    with ThreadPoolExecutor(1) as apart:  # playwright's loop runs in this thread: there the panel would wait
        python = apart.submit(in_python, source, control, values).result()[1:]
    told = "   ".join(f"{who} median {statistics.median(times):4.0f} ms, p95 {np.percentile(times, 95):4.0f} ms" for who, times in (("browser", seen), ("of it Python", python)))
    print(f"\n{label:26} {told}   ({len(seen)} changes)", end="")
