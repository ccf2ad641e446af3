"""The figures of the probes: the board of all, a picture of each, languages, maps over pictures."""

import textwrap

import numpy as np

from ..plots import PALETTE, new_figure


def scoreboard_figure(board):
    """`scoreboard`'s rows with 95 % intervals: the probes, their controls, the level of chance of each."""
    figure, axes = new_figure(height=4.4)
    names = list(board)[::-1]
    for kind, colour, marker, shift in (("control", "green", "s", 0.16), ("probe", "blue", "o", -0.16)):
        places = [place for place, name in enumerate(names) if board[name][kind]]
        rows = [board[names[place]][kind] for place in places]
        _whiskers(axes, np.array(places) + shift, np.array([[row["accuracy"], *row["interval95"]] for row in rows]), PALETTE[colour], kind, marker)
    axes.scatter([board[name]["probe"]["chance"] for name in names], range(len(names)), marker="|", s=420, color=PALETTE["red"], linewidth=2, label="chance")
    axes.set_yticks(range(len(names)), [f"{name}  (n {board[name]['probe']['n']})" for name in names])
    axes.set(xlabel="share that is right", xlim=(-0.02, 1.03))
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _whiskers(axes, y, rows, colour, label, marker="o"):
    """Points (N, 3), middle, low, high, with whiskers at the heights y."""
    middle, low, high = rows.T
    axes.errorbar(middle, y, xerr=[np.maximum(middle - low, 0), np.maximum(high - middle, 0)], fmt=marker, color=colour, capsize=3, label=label)


def examples_figure(probes, board, columns=5):
    """One picture of each probe with the right caption and the chosen one: a mistake where there are many, else a right answer."""
    rows = -(-len(probes) // columns)
    figure, axes = new_figure(rows, columns, height=2.6 * rows, squeeze=False)
    for axis, probe in zip(axes.flat, probes):
        found = board[probe.name]["probe"]
        wrong = np.flatnonzero(found["credit"] < 0.5) if found["accuracy"] < 0.9 else np.flatnonzero(found["credit"] == 1)
        place = int(wrong[len(wrong) // 2])
        right, chosen = probe.choices[place][probe.right[place]], probe.choices[place][found["chosen"][place]]
        axis.imshow(np.asarray(probe.pictures[place]))
        axis.set_title(probe.name, fontsize=9)
        axis.text(0.5, -0.06, textwrap.fill(f"right: {right}", 24) + "\n" + textwrap.fill(f"said: {chosen}", 24), fontsize=7, ha="center", va="top",
                  transform=axis.transAxes, color=PALETTE["green" if right == chosen else "red"])
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def languages_figure(table, chance):
    """`compare_languages`'s table: accuracy of each language with its interval; beside it, against how many names find their English twin."""
    figure, (axes, other) = new_figure(1, 2, height=4.6, width_ratios=[1.5, 1])
    order = table[::-1]
    heights = np.arange(len(order))
    for name, colour in zip(dict.fromkeys(table["script"]), PALETTE.values()):
        mine = (order["script"] == name).to_numpy()
        rows = order[mine][["accuracy", "low", "high"]].to_numpy(float)
        _whiskers(axes, heights[mine], rows, colour, name)
        other.scatter(order["twin"][mine].astype(float), rows[:, 0], color=colour, s=26)
    axes.axvline(chance, color=PALETTE["grey"], linestyle="--", linewidth=1.2)
    other.axhline(chance, color=PALETTE["grey"], linestyle="--", linewidth=1.2)
    axes.set_yticks(heights, order["language"], fontsize=7.5)
    axes.set(xlabel="share that is right (dashed: chance)", xlim=(0, None))
    other.set(xlabel="names nearest to their\nEnglish twin, of all names", ylabel="share that is right", ylim=(0, None))
    axes.legend(loc="lower right", fontsize=8)
    return figure


def maps_figure(rows, columns=6):
    """Maps over pictures, a row per method. rows: {name: [(picture, map (H, W) or (h, w), title, box)]}."""
    figure, axes = new_figure(len(rows), columns, height=1.4 * len(rows), squeeze=False)
    for line, (name, cases) in zip(axes, rows.items(), strict=True):
        for axis, (picture, values, title, (left, top, right, bottom)) in zip(line, cases):
            axis.imshow(np.asarray(picture))
            levels = np.round(8 * values / max(values.max(), 1e-12))  # few shades: clearer, and a third of the bytes
            axis.imshow(levels, cmap="inferno", alpha=0.6, extent=(0, picture.width, picture.height, 0), interpolation="nearest")
            axis.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="white", linewidth=1)
            axis.set_title(title, fontsize=7)
        line[0].set_ylabel(name, fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    return figure
