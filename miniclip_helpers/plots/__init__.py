"""Figures of one family: one palette, one size, one font. Arrays and pictures in, a matplotlib `Figure` out; saving is explicit."""

from .charts import bars, curves, histogram, points, reliability
from .inspecting import look_at_png, look_at_svg
from .matrices import similarity_matrices, similarity_matrix
from .pictures import image_grid
from .pipeline import pipeline_drawing
from .saving import drawing_cell, forget_figures, numbers_in, read_index, save_figure, take_figures, write_index
from .style import PALETTE, STYLE, WIDTH, Picture, extent, few_colours, new_figure, quick_png, show, to_png
from .svg import to_svg

__all__ = [
    "PALETTE", "Picture", "STYLE", "WIDTH", "bars", "curves", "drawing_cell", "extent", "few_colours", "forget_figures", "histogram", "image_grid", "look_at_png", "look_at_svg",
    "new_figure", "numbers_in", "pipeline_drawing", "points", "quick_png", "read_index", "reliability", "save_figure", "show", "similarity_matrices", "similarity_matrix",
    "take_figures", "to_png", "to_svg", "write_index",
]
