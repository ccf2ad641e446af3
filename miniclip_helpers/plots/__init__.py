"""Figures of one family: one palette, one size, one font. Arrays and pictures in, a matplotlib `Figure` out; saving is explicit."""

from .charts import bars, curves, histogram, points, reliability
from .matrices import similarity_matrices, similarity_matrix
from .pictures import image_grid
from .pipeline import pipeline_drawing
from .style import PALETTE, STYLE, WIDTH, Picture, new_figure, save_figure, show, to_png

__all__ = [
    "PALETTE", "Picture", "STYLE", "WIDTH", "bars", "curves", "histogram", "image_grid", "new_figure", "pipeline_drawing", "points", "reliability", "save_figure",
    "show", "similarity_matrices", "similarity_matrix", "to_png",
]
