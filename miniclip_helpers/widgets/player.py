"""A player through the matrices of a training run."""

import numpy as np

from .. import plots
from ..errors import UsageError
from .panel import COLOURS, DPI, Panel, wide

TICKS = 500  # milliseconds per picture


def replay_picture(matrix, title="", limits=None):
    """One matrix of a training run as a picture without numbers: PNG bytes."""
    figure, axes = plots.new_figure(height=3.4, width=4.8)
    _draw_matrix(figure, axes, matrix, title, limits or (np.min(matrix), np.max(matrix)))
    return plots.quick_png(figure, DPI)


def replay_sheet(matrices, titles, limits, shown=4):
    """At most `shown` of the matrices side by side, from the first to the last: the still picture of the player."""
    picks = np.unique(np.linspace(0, len(matrices) - 1, min(shown, len(matrices))).round().astype(int))
    figure, axes = plots.new_figure(1, len(picks), height=2.4, squeeze=False)
    for axis, pick in zip(axes[0], picks, strict=True):
        image = axis.imshow(matrices[pick], cmap="viridis", vmin=limits[0], vmax=limits[1])
        axis.set_title(titles[pick], fontsize=9)
        axis.set_axis_off()
    figure.colorbar(image, ax=axes, shrink=0.8)
    return plots.few_colours(plots.quick_png(figure, DPI), COLOURS)


def _draw_matrix(figure, axes, matrix, title, limits):
    image = axes.imshow(np.asarray(matrix), cmap="viridis", vmin=limits[0], vmax=limits[1])
    axes.set(xlabel="captions", ylabel="pictures", title=title, xticks=[], yticks=[])
    axes.grid(False)
    figure.colorbar(image, ax=axes, shrink=0.9)


def replay(matrices, titles=None):
    """A player through the matrices of a training run: a button, and a slider that is one frame a step.

    matrices: list of (R, C) arrays. titles: one each, "step 0" and so on by default. The colours mean the same in every frame.
    """
    import ipywidgets

    matrices = [np.asarray(matrix) for matrix in matrices]
    if not matrices:
        raise UsageError("expected at least one matrix to play, found none")
    titles = [str(title) for title in titles] if titles is not None else [f"step {number}" for number in range(len(matrices))]
    if len(titles) != len(matrices):
        raise UsageError(f"expected one title per matrix, found {len(titles)} titles and {len(matrices)} matrices")
    limits = (min(float(matrix.min()) for matrix in matrices), max(float(matrix.max()) for matrix in matrices))
    controls = {
        "go": ipywidgets.ToggleButton(description="Play", tooltip="from here to the end", layout={"width": "110px"}),
        "play": ipywidgets.Play(min=0, max=len(matrices) - 1, interval=TICKS, description="Play", layout={"display": "none"}),  # its own buttons have no names
        "frame": wide(ipywidgets.IntSlider, min=0, max=len(matrices) - 1, description="Frame"),
    }
    frames = {}

    def begin(change):
        controls["go"].description = "Pause" if change["new"] else "Play"

    def draw():
        number = controls["frame"].value
        if number not in frames:
            frames[number] = replay_picture(matrices[number], titles[number], limits)
        return frames[number], f"{titles[number]} ({number + 1} of {len(matrices)})"

    panel = Panel("player", f"The matrix at some of {len(matrices)} moments, from {titles[0]} to {titles[-1]}.", controls, draw, hidden=False, before={"go": begin})
    ipywidgets.jslink((controls["go"], "value"), (controls["play"], "playing"))
    ipywidgets.link((controls["play"], "value"), (controls["frame"], "value"))
    panel.picture = plots.Picture(replay_sheet(matrices, titles, limits), panel.picture.alt)
    return panel
