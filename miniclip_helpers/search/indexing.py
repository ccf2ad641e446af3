"""An index of a dataset's pictures, or of its captions, and what made it."""

import pathlib

import numpy as np

from .. import embedding, images, runtime
from ..datasets import load_dataset
from ..errors import DataError, UsageError
from ..index import build_index, choose_kind

TRIED = 100  # captions by which a large index is tuned: words lie farther from pictures than pictures do, and are harder to answer


def index_dataset(dataset, model, kind="auto", limit=None):
    """An `Index` of a dataset's pictures (a dataset, its name or its path) under `model` (a model or its name); of the first `limit` alone, if given."""
    dataset, (model, name) = load_dataset(dataset), embedding.model_and_name(model)
    if limit is not None:
        dataset = dataset.subset(range(min(_checked(limit), len(dataset))))
    about = _about(model, name, "pictures", dataset.name, dataset.root)
    return build_index(embedding.image_embeddings(model, dataset), dataset.names, kind, about, queries=_captions_to_try(dataset, model, kind))


def _captions_to_try(dataset, model, kind):
    """Embeddings of some captions where the chooser will look at them, else None."""
    captions = dataset.all_captions
    if kind != "auto" or choose_kind(len(dataset)) == "flat" or len(captions) < TRIED:
        return None
    return embedding.text_embeddings(model, [captions[row] for row in np.linspace(0, len(captions) - 1, TRIED).astype(int)])


def index_captions(dataset, model, kind="auto", limit=None):
    """An `Index` of captions; of the first `limit` alone, if given. dataset: one with captions, its name or path, or a text file with one caption a line.

    Names are the picture's name, "#" and the caption's number from 0, as in Flickr8k.token.txt; of a text file, its name, "#" and the line's
    number from 1. about["captions"] holds {name: caption}.
    """
    if isinstance(dataset, (str, pathlib.Path)) and holds_sentences(dataset):
        file = pathlib.Path(dataset)
        captions, title, root = read_sentences(file), file.stem, None
    else:
        dataset = load_dataset(dataset)
        captions = {f"{name}#{number}": caption for name, row in zip(dataset.names, dataset.captions) for number, caption in enumerate(row)}
        title, root = dataset.name, dataset.root
        if not captions:
            raise DataError(f"{title} has no captions; index its pictures, or give data with captions")
    if limit is not None:
        captions = dict(list(captions.items())[: _checked(limit)])
    model, name = embedding.model_and_name(model)
    about = _about(model, name, "captions", title, root) | {"captions": captions}
    return build_index(embedding.text_embeddings(model, list(captions.values())), list(captions), kind, about)


def index_shards(folder, kind="auto", limit=None):
    """An `Index` of the vectors that `miniclip encode` (`embedding.encode_corpus`) wrote into a folder; of the first `limit` alone, if given.

    It equals the index made directly of the same data and model.
    """
    names, vectors, made = embedding.read_all(folder)
    about = {key: made[key] for key in ("model", "image_tower", "text_tower", "heads", "holds", "dataset", "root")}
    most = len(names) if limit is None else _checked(limit)
    if "captions" in made:
        about["captions"] = dict(zip(names[:most], made["captions"]))
    return build_index(vectors[:most], names[:most], kind, about)


def holds_sentences(path):
    """Whether a path is a text file with one caption a line, and not a table of pictures and captions."""
    path = pathlib.Path(path)
    if path.suffix != ".txt" or not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(2**16).strip().lower()
    return first != "image,caption" and "\t" not in first and not any(f"{suffix}{end}" in first for suffix in images.SUFFIXES for end in ",#|")


def read_sentences(file):
    """{"name.txt#line": caption} of a text file with one caption a line; empty lines are left out."""
    return {f"{file.name}#{number}": caption for number, caption in runtime.read_lines(file, "caption").items()}


def _checked(limit):
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise UsageError(f"expected limit, the most rows to take, as a whole number from 1, found {limit!r}")
    return limit


def _about(model, name, holds, title, root):
    """What made an index, as plain JSON: the model's parts by their fingerprints, the data by name and folder."""
    return embedding.about_model(model, name) | {"holds": holds, "dataset": title, "root": str(pathlib.Path(root).resolve()) if root else None}
