"""Nearest neighbours with FAISS: build, choose, search, change, save, load, measure. Names are file names, scores are cosines."""

from .building import build_index, choose, load_index
from .choosing import choose_kind
from .measuring import measure, recall, spectrum_like
from .saving import check_target
from .searchers import EF_CONSTRUCTION, EF_SEARCH, KINDS, M, check_kind
from .store import Index

__all__ = ["EF_CONSTRUCTION", "EF_SEARCH", "KINDS", "M", "Index", "build_index", "check_kind", "check_target", "choose", "choose_kind", "load_index", "measure",
           "recall", "spectrum_like"]
