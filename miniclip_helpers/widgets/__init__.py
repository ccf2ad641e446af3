"""Things to play with in a notebook: a search box, the similarity matrix, zero-shot labels, a player. Each is a pure function and its wiring.

Every widget is a `Panel`: a still picture, which GitHub and paper can show, and under it the controls. The widget's own picture
appears with the first change. Pictures are PNG in `ipywidgets.Image`; errors are said in the panel and raise nothing.
"""

from .explorer import answers_picture, retrieval_explorer
from .finding import NothingFoundError, find_photos
from .matrix import cell_texts, choices, hover_grid, matrix_picture, matrix_values, owners_of, similarity_explorer
from .panel import Panel
from .photos import PhotoSearch, photo_search
from .player import replay, replay_picture, replay_sheet
from .playground import label_picture, zero_shot_playground
from .search_box import search_box, search_picture
from .trade_off import missed, trade_off, trade_off_picture, trade_off_rows
from .writer import caption_picture, caption_writer, suggest_captions

__all__ = [
    "NothingFoundError", "Panel", "PhotoSearch", "answers_picture", "caption_picture", "caption_writer", "cell_texts", "choices", "find_photos", "hover_grid",
    "label_picture", "matrix_picture", "matrix_values", "missed", "owners_of", "photo_search", "replay", "replay_picture", "replay_sheet", "retrieval_explorer", "search_box",
    "search_picture", "similarity_explorer", "suggest_captions", "trade_off", "trade_off_picture", "trade_off_rows", "zero_shot_playground",
]
