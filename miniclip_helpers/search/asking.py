"""Ask an index: by words or by a picture, one question or many. What it holds, pictures or captions, comes back as names and cosines."""

import dataclasses
import pathlib

import numpy as np

from .. import embedding, images, runtime
from ..errors import ModelError, UsageError


@dataclasses.dataclass(frozen=True)
class Hit:
    """One answer: the name of a picture or caption, and the cosine of its embedding with the query's."""

    name: str
    score: float


def model_of(index, name=None):
    """The model called `name`, by default the one that made the index. `check_model` says whether it is that one. Raises what `load_model` does."""
    from ..pretrained import load_model

    return load_model(name or index.about.get("model", "mini"))


def check_model(index, model):
    """Raise `ModelError` unless `model` is the one that made the index: embeddings of two models cannot be compared. It says which part differs."""
    made = index.about
    parts = {"image tower": ("image_tower", lambda: model.image_tower.fingerprint), "text tower": ("text_tower", lambda: model.text_tower.fingerprint),
             "heads": ("heads", lambda: embedding.heads_fingerprint(model))}
    others = [part for part, (key, now) in parts.items() if made.get(key) not in (None, now())]
    if not others:
        return
    asked, named = getattr(model, "name", str(model)), made.get("model")
    which = f"another version of the model {named!r}" if asked == named else f"the model {named!r}, not by {asked!r}"
    raise ModelError(f"the index was made by {which}: {' and '.join(others)} differ; search with the model that made it, or build it again with: miniclip index")


def search_text(index, model, query, k=5):
    """The k pictures or captions nearest to a sentence, best first: list of `Hit`. An empty query is a `UsageError`.

    In an index of captions the cosines are between two texts: higher than between a text and a picture, and not to be compared with those.
    """
    return search_many(index, model, [query], k)[0]


def search_image(index, model, picture, k=5):
    """The k pictures or captions nearest to a picture (PIL, path or bytes), best first: list of `Hit`."""
    return search_many(index, model, [pathlib.Path(picture) if isinstance(picture, str) else picture], k)[0]


def search_many(index, model, queries, k=5):
    """The hits of each of several queries, encoded and looked up together: [[Hit]]. A str is a sentence; a PIL picture, a `Path` or bytes are a picture."""
    scores, names = index.search(query_vectors(index, model, queries), k)
    return [[Hit(name, float(score)) for name, score in zip(row, found)] for row, found in zip(names, scores)]


def query_vectors(index, model, queries):
    """The embeddings (Q, D), unit rows, of several queries as `search_many` takes them. An empty one is a `UsageError`."""
    queries = [query.strip() if isinstance(query, str) else images.open_image(query) for query in queries]
    if not queries:
        raise UsageError("expected at least one query, found none")
    empty = [number for number, query in enumerate(queries, 1) if query == ""]
    if empty:
        which = "the query is" if len(queries) == 1 else f"query {empty[0]} of {len(queries)} is"
        raise UsageError(f"{which} empty; say what to look for, like 'a red fruit'")
    vectors = np.empty((len(queries), index.width), np.float32)
    for encode, rows in ((embedding.text_embeddings, [row for row, query in enumerate(queries) if isinstance(query, str)]),
                         (embedding.image_embeddings, [row for row, query in enumerate(queries) if not isinstance(query, str)])):
        if rows:
            vectors[rows] = index.fitting(encode(model, [queries[row] for row in rows]), "queries")
    return vectors


def read_queries(file):
    """The queries of a text file, one a line; empty lines are left out."""
    return list(runtime.read_lines(file, "query").values())
