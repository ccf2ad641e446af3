"""Things to play with in a notebook: a search box, the similarity matrix, zero-shot labels, a player. Each is a pure function and its wiring.

Every widget is a `Panel`: a still picture, which GitHub and paper can show, and under it the controls. The widget's own picture
appears with the first change. Pictures are PNG in `ipywidgets.Image`; errors are said in the panel and raise nothing.
"""

from .matrix import matrix_picture, matrix_values, similarity_explorer
from .panel import Panel
from .player import replay, replay_picture, replay_sheet
from .playground import label_picture, zero_shot_playground
from .search_box import search_box, search_picture

__all__ = [
    "Panel", "label_picture", "matrix_picture", "matrix_values", "replay", "replay_picture", "replay_sheet", "search_box", "search_picture",
    "similarity_explorer", "zero_shot_playground",
]
