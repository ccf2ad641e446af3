"""The efSearch slider: what a graph index finds and what it takes, and which of the exact answers it misses for one question."""

import numpy as np

from .. import plots
from ..errors import UsageError
from ..index import measure
from ..index.measuring import TIE
from ..plots.style import short
from .panel import DPI, Panel, stem, wide

VALUES = (10, 12, 16, 24, 32, 48, 64, 96, 128, 256)
SHOWN = 30  # questions in the list
COLUMNS, LINE = 5, 1.2  # answers beside each other; the height of a line, where an answer is 1


def trade_off_rows(index, exact, queries, k=10, values=VALUES):
    """What an hnsw index finds at each value of ef_search: list of {"ef_search", "recall", "p50_ms", "p95_ms", "found": Q lists of names, "missed": Q lists of bool}.

    exact: the flat index of the same vectors. queries: (Q, D) unit rows. The index keeps the ef_search that it had.
    """
    before, rows, right = index.ef_search, [], exact.search(queries, k)[1]
    try:
        for value in values:
            index.ef_search = int(value)
            found = measure(index, exact, queries, k)
            names = index.search(queries, k)[1]
            rows.append({"ef_search": int(value), "recall": found[f"recall@{k}"], "p50_ms": found["p50_ms"], "p95_ms": found["p95_ms"], "found": names,
                         "missed": [missed(*asked, exact, query) for *asked, query in zip(names, right, queries)]})
    finally:
        index.ef_search = before
    return rows


def missed(found, right, exact=None, query=None):
    """For each exact answer (k names) whether it is missing from what was found: list of bool.

    exact, query (D,): the flat index and the question; with them a thing as near as the last answer stands for it, as in `index.recall`.
    """
    there = set(found)
    gone = [name not in there for name in right]
    others = [name for name in there.difference(right) if name in exact] if exact is not None else []
    if others and any(gone):
        cosines = exact.vectors(right) @ query
        spare = int((exact.vectors(others) @ query >= cosines.min() - TIE).sum())
        tied = [spot for spot in np.flatnonzero(gone) if cosines[spot] <= cosines.min() + TIE]
        for spot in tied[::-1][:spare]:
            gone[spot] = False
    return gone


def trade_off_picture(rows, place, exact, question, right, pictures=None):
    """The curve of recall against p50 with the point that is chosen, beside the exact answers of one question, missed ones framed in red: PNG bytes.

    rows: of `trade_off_rows`. place: which of them is chosen. exact: {"p50_ms"} of exact search. question: (number, text). right: its exact
    answers, best first. pictures: one each; without them the names are written.
    """
    figure, (left, panel) = plots.new_figure(1, 2, height=3.3, width_ratios=(1.1, 1.5))
    chosen, (number, text) = rows[place], question
    left.plot([row["p50_ms"] for row in rows], [row["recall"] for row in rows], color=plots.PALETTE["blue"], marker="o", markersize=3, label="HNSW")
    left.scatter([exact["p50_ms"]], [1.0], marker="s", color=plots.PALETTE["black"], zorder=3, label="exact search")
    left.scatter([chosen["p50_ms"]], [chosen["recall"]], s=110, facecolor="none", edgecolor=plots.PALETTE["red"], linewidth=2.2, zorder=4, label=f"efSearch {chosen['ef_search']}")
    left.set(xlabel="p50 of a query, milliseconds", ylabel="share of the exact answers found")
    left.set_title("all questions", fontsize=10)
    left.legend(fontsize=8, loc="lower right")
    lost = chosen["missed"][number]
    panel.set_title(short(f"“{text}”", 44), fontsize=10)
    panel.set_axis_off()
    panel.set(xlim=(0, COLUMNS), ylim=(-(-len(right) // COLUMNS) * LINE, 0), aspect="equal")
    for spot, (name, gone) in enumerate(zip(right, lost)):
        line, column = divmod(spot, COLUMNS)
        _draw_answer(panel, column, line * LINE, name, gone, pictures[spot] if pictures else None)
    return plots.quick_png(figure, DPI)


def _draw_answer(panel, left, top, name, gone, picture):
    """One exact answer in a square of 1: its picture or its name, framed green where it was found and red where it was missed. Axes of its own would take five times as long."""
    side, middle = 0.92, (left + 0.5, top + 0.5)
    if picture is not None:
        pixels = np.asarray(picture)
        tall, broad = (side / 2 * size / max(pixels.shape[:2]) for size in pixels.shape[:2])
        panel.imshow(pixels, extent=(middle[0] - broad, middle[0] + broad, middle[1] + tall, middle[1] - tall), alpha=0.45 if gone else 1.0)
    else:
        panel.text(*middle, short(stem(name), 12), ha="center", va="center", fontsize=7)
    colour = plots.PALETTE["red" if gone else "green"]
    low, high = 0.5 - side / 2, 0.5 + side / 2
    panel.plot([left + x for x in (low, high, high, low, low)], [top + y for y in (low, low, high, high, low)], color=colour, linewidth=2.2, solid_joinstyle="miter")
    panel.text(middle[0], top + 1, "missed" if gone else "found", ha="center", va="top", fontsize=7.5)


def trade_off(index, exact, queries, questions, k=10, values=VALUES, picture_of=None):
    """A slider for efSearch: recall, p50 and p95 of all questions, measured here, and the exact answers that one question misses.

    index: an hnsw `Index`; exact: the flat one of the same vectors. queries (Q, D) unit rows, questions: Q strings, what they are called.
    picture_of: function of a name that gives its picture. Listed are the questions that miss most at the least value.
    """
    import ipywidgets

    if len(questions) != len(queries):
        raise UsageError(f"expected one question per query, found {len(questions)} questions and {len(queries)} queries")
    values = sorted({max(int(value), 1) for value in values})
    rows, right = trade_off_rows(index, exact, queries, k, values), exact.search(queries, k)[1]
    base = measure(exact, exact, queries, k)
    hardest = np.argsort([-sum(gone) for gone in rows[0]["missed"]], kind="stable")[:SHOWN].tolist()
    controls = {
        "ef_search": wide(ipywidgets.SelectionSlider, options=[(str(value), place) for place, value in enumerate(values)], value=0, description="efSearch",
                          continuous_update=False),
        "question": wide(ipywidgets.Dropdown, options=[(short(str(questions[number]), 60), number) for number in hardest], description="Question"),
    }

    def draw():
        row, number = rows[controls["ef_search"].value], controls["question"].value
        pictures = [picture_of(name) for name in right[number]] if picture_of else None
        png = trade_off_picture(rows, controls["ef_search"].value, base, (number, str(questions[number])), right[number], pictures)
        lost = [stem(name) for name, gone in zip(right[number], row["missed"][number]) if gone]
        said = (f"efSearch {row['ef_search']}: {row['recall']:.1%} of the exact answers, p50 {row['p50_ms']:.3f} ms, p95 {row['p95_ms']:.3f} ms "
                f"(exact search: {base['p50_ms']:.3f} and {base['p95_ms']:.3f} ms). ")
        return png, said + (f"Missed for this question: {', '.join(lost)}." if lost else "For this question nothing is missed.")

    return Panel("efSearch slider", f"Recall against p50 for {len(values)} values of efSearch, and the {k} exact answers of one question, missed ones in red.", controls, draw)
