"""A query, words or a photo, encoded and looked up in an index: what the widgets, the service and the command line share."""

from .asking import Hit, check_model, model_of, query_vectors, read_queries, search_image, search_many, search_text
from .drawing import check_sheet, draw, draw_many, gone, holds_captions, picture_of, text_of
from .indexing import holds_sentences, index_captions, index_dataset, index_shards

__all__ = ["Hit", "check_model", "check_sheet", "draw", "draw_many", "gone", "holds_captions", "holds_sentences", "index_captions", "index_dataset",
           "index_shards", "model_of", "picture_of", "query_vectors", "read_queries", "search_image", "search_many", "search_text", "text_of"]
