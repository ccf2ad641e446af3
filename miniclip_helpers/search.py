"""A query, words or a photo, encoded and looked up in an index: what the widgets, the service and the command line share."""

import dataclasses
import pathlib

from . import datasets, embedding, images, plots
from .datasets import load_dataset
from .errors import ModelError, UsageError
from .index import build_index
from .pretrained import load_model


@dataclasses.dataclass(frozen=True)
class Hit:
    """One answer: the name of a picture and the cosine of its embedding with the query's."""

    name: str
    score: float


def index_dataset(dataset, model, kind="auto"):
    """An `Index` of a dataset's pictures (a dataset, its name or its path) under `model` (a model or its name)."""
    dataset = load_dataset(dataset)
    name = getattr(model, "name", str(model))
    if isinstance(model, (str, pathlib.Path)):
        name = str(pathlib.Path(model).resolve()) if pathlib.Path(model).is_dir() else name
        model = load_model(model)
    about = {"model": name, "image_tower": model.image_tower.fingerprint, "text_tower": model.text_tower.fingerprint,
             "heads": heads_fingerprint(model), "dataset": dataset.name, "root": str(pathlib.Path(dataset.root).resolve()) if dataset.root else None}
    return build_index(embedding.image_embeddings(model, dataset), dataset.names, kind, about)


def heads_fingerprint(model):
    """A name for what stands behind the towers: two models with one fingerprint give one embedding."""
    from .encoders import weights_fingerprint

    return weights_fingerprint(model.image_head) + weights_fingerprint(model.text_head)


def check_model(index, model):
    """Raise `ModelError` unless `model` is the one that made the index: embeddings of two models cannot be compared."""
    made = index.about
    if made.get("heads") and made["heads"] != heads_fingerprint(model) or made.get("text_tower") not in (None, model.text_tower.fingerprint):
        raise ModelError(f"the index was made by another version of the model {made.get('model')!r}; build it again with: miniclip index")


def search_text(index, model, query, k=5):
    """The k pictures nearest to a sentence, best first: list of `Hit`. An empty query is a `UsageError`."""
    if not query.strip():
        raise UsageError("the query is empty; say what to look for, like 'a red fruit'")
    return _hits(index, embedding.text_embeddings(model, [query.strip()]), k)


def search_image(index, model, picture, k=5):
    """The k pictures nearest to a picture (PIL, path or bytes), best first: list of `Hit`."""
    return _hits(index, embedding.image_embeddings(model, [images.open_image(picture)]), k)


def _hits(index, query, k):
    scores, names = index.search(query, k)
    return [Hit(name, float(score)) for name, score in zip(names[0], scores[0])]


def draw(index, hits, title=""):
    """The pictures of the hits as a `Figure`, best first, score and name over each."""
    titles = [f"{hit.score:.2f} {pathlib.Path(hit.name).stem}" for hit in hits]
    return plots.image_grid([picture_of(index, hit.name) for hit in hits], titles, title=str(title))


def picture_of(index, name):
    """The picture called `name` of the index, as PIL RGB: out of its named dataset, or from the folder it was made of."""
    return datasets.picture_of(name, index.about.get("dataset"), index.about.get("root"))
