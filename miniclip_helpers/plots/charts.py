"""Lines, bars, points: numbers with their intervals and their chance level."""

import numpy as np

from .style import PALETTE, new_figure


def curves(series, x_label, y_label, title="", chance=None, log_x=False, log_y=False, bands=None, height=3.2):
    """Lines with a legend. series: {label: (x, y)}. bands: {label: (low, high)} 95 % intervals. chance: {label: y}, dashed lines."""
    figure, axes = new_figure(height=height)
    for (label, (x, y)), colour in zip(series.items(), PALETTE.values()):
        axes.plot(x, y, color=colour, label=label, marker="o" if len(np.atleast_1d(x)) <= 12 else None, markersize=4, linewidth=1.8)
        if bands and label in bands:
            axes.fill_between(x, *bands[label], color=colour, alpha=0.18, linewidth=0)
    for label, level in (chance or {}).items():
        axes.axhline(level, color=PALETTE["grey"], linestyle="--", linewidth=1.2, label=label)
    axes.set(xlabel=x_label, ylabel=y_label, title=title, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    if len(series) + len(chance or {}) > 1:
        axes.legend()
    return figure


def bars(values, y_label, title="", intervals=None, chance=None, form="{:.0%}", height=3.2):
    """Bars with whiskers. values: {label: {group: y}} or {label: y}. intervals: the same shape, (low, high) each. chance: a level, dashed."""
    nested = {label: value if isinstance(value, dict) else {"": value} for label, value in values.items()}
    groups = list(next(iter(nested.values())))
    figure, axes = new_figure(height=height)
    width = 0.8 / len(nested)
    for number, ((label, row), colour) in enumerate(zip(nested.items(), PALETTE.values())):
        x = np.arange(len(groups)) + (number - (len(nested) - 1) / 2) * width
        y = np.array([row[group] for group in groups], dtype=float)
        axes.bar(x, y, width * 0.92, color=colour, label=label)
        top = y.copy()
        if intervals and label in intervals:
            span = intervals[label] if isinstance(values[label], dict) else {"": intervals[label]}
            low, high = np.array([span[group] for group in groups], dtype=float).T
            axes.errorbar(x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="none", ecolor="black", capsize=3, linewidth=1)
            top = high
        for place, value, height_ in zip(x, y, top):
            axes.annotate(form.format(value), (place, height_), ha="center", va="bottom", fontsize=8, xytext=(0, 2), textcoords="offset points")
    if chance is not None:
        axes.axhline(chance, color=PALETTE["grey"], linestyle="--", linewidth=1.2, label="chance")
    axes.set_xticks(range(len(groups)), groups)
    axes.set(ylabel=y_label, title=title)
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=min(4, len(nested) + (chance is not None)), loc="upper left", bbox_to_anchor=(0, -0.12 - 0.07 * max(str(group).count("\n") for group in groups)))
    return figure


def points(groups, x_label, y_label, title="", intervals=None, labels=None, lines=False, log_x=False, chance=None, height=3.6):
    """Points in a plane, one colour and one marker per group. groups: {label: (x, y)}, each (n,).

    intervals: {label: (low, high)}, each (n,), of y. labels: {label: n strings} written beside the points. lines: join the points of a
    group in their order. chance: {label: y}, dashed lines.
    """
    figure, axes = new_figure(height=height)
    for (label, (x, y)), colour, marker in zip(groups.items(), PALETTE.values(), "osD^vPX*"):
        x, y = np.atleast_1d(x), np.atleast_1d(y)
        if intervals and label in intervals:
            low, high = np.asarray(intervals[label], dtype=float)
            axes.errorbar(x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="none", ecolor=colour, alpha=0.5, capsize=2, linewidth=1)
        axes.plot(x, y, color=colour, marker=marker, markersize=6, linewidth=1.4, linestyle="-" if lines else "none", label=label)
        for place, value, text in zip(x, y, (labels or {}).get(label, [])):
            axes.annotate(text, (place, value), xytext=(5, 4), textcoords="offset points", fontsize=8)
    for label, level in (chance or {}).items():
        axes.axhline(level, color=PALETTE["grey"], linestyle="--", linewidth=1.2, label=label)
    axes.set(xlabel=x_label, ylabel=y_label, title=title, xscale="log" if log_x else "linear")
    if len(groups) + len(chance or {}) > 1:
        axes.legend(fontsize=9)
    return figure


def histogram(values, x_label, title="", bins=40, density=False, y_label=None, height=3.2):
    """Histograms over common bins, see-through. values: {label: (n,)}. density: shares of each group's bins instead of counts."""
    figure, axes = new_figure(height=height)
    edges = np.histogram_bin_edges(np.concatenate([np.ravel(found) for found in values.values()]), bins=bins)
    for (label, found), colour in zip(values.items(), PALETTE.values()):
        weights = np.full(np.size(found), 1 / np.size(found)) if density else None
        axes.hist(np.ravel(found), edges, weights=weights, color=colour, alpha=0.55, label=label)
    axes.set(xlabel=x_label, ylabel=y_label or ("share" if density else "count"), title=title)
    if len(values) > 1:
        axes.legend()
    return figure


def reliability(tables, title="", height=3.8):
    """Confidence against accuracy, with the diagonal of perfect calibration. tables: {label: {"confidence", "accuracy", "count"}}, each (bins,).

    The area of a point grows with the pictures in its bin; empty bins are left out.
    """
    figure, axes = new_figure(height=height)
    axes.plot([0, 1], [0, 1], color=PALETTE["grey"], linestyle="--", linewidth=1.2, label="perfectly calibrated")
    for (label, table), colour in zip(tables.items(), PALETTE.values()):
        count = np.asarray(table["count"], dtype=float)
        x, y = (np.asarray(table[key], dtype=float)[count > 0] for key in ("confidence", "accuracy"))
        axes.plot(x, y, color=colour, linewidth=1.4, label=label)
        axes.scatter(x, y, s=12 + 120 * count[count > 0] / count.max(), color=colour, alpha=0.8)
    axes.set(xlabel="confidence: the probability of the best label", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02), title=title)
    axes.legend(loc="upper left")
    return figure
