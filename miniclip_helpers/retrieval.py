"""Evaluate a model on a dataset, in both directions, with intervals and the chance level beside every number."""

import numpy as np

from . import embedding, metrics
from .errors import DataError

KS = (1, 5, 10)


def similarity(model, dataset):
    """Cosines (n_images, n_captions) of every picture with every caption of the dataset."""
    without = [name for name, row in zip(dataset.names, dataset.captions) if not row]
    if without:
        raise DataError(f"{len(without)} of {len(dataset)} pictures of {dataset.name} have no caption; evaluation needs one each", without)
    images = embedding.image_embeddings(model, dataset)
    texts = embedding.text_embeddings(model, dataset.all_captions)
    return (images @ texts.T).numpy()


def report(matrix, owner, ks=KS, seed=0):
    """Metrics, 95 % intervals (bootstrap over images) and chance of a similarity matrix (n_images, n_captions)."""
    keep = [f"R@{k}" for k in ks] + ["MRR", "MedR"]
    found = metrics.retrieval_metrics(matrix, owner, ks)
    return {"n_images": int(matrix.shape[0]), "n_captions": int(matrix.shape[1])} | {
        direction: {key: found[direction][key] for key in keep} for direction in metrics.DIRECTIONS
    } | {"interval95": metrics.retrieval_intervals(matrix, owner, ks, seed=seed), "chance": metrics.chance(len(matrix), owner, ks)}


def evaluate(model, dataset, seed=0):
    """The report of a model on a dataset: what `miniclip evaluate --json` writes, fractions between 0 and 1.

    {"n_images", "n_captions", "image_to_text": {"R@1", "R@5", "R@10", "MRR", "MedR"}, "text_to_image": {...}, "interval95":
    {direction: {"R@1": [low, high], ...}}, "chance": {direction: {"R@1": ..., ...}}}.
    """
    return report(similarity(model, dataset), np.asarray(dataset.owner), seed=seed)


def as_table(found):
    """The report as a pandas table that reads well: a row per direction, R@K in percent with interval and chance."""
    import pandas

    rows = {}
    for direction in metrics.DIRECTIONS:
        row = {}
        for key, value in found[direction].items():
            if key.startswith("R@"):
                low, high = found["interval95"][direction][key]
                row[f"{key} %"] = f"{100 * value:.1f} [{100 * low:.0f}, {100 * high:.0f}]"
            else:
                row[key] = f"{value:.2f}" if key == "MRR" else f"{value:g}"
        row["chance R@1 %"] = f"{100 * found['chance'][direction]['R@1']:.2f}"
        rows[direction.replace("_", " ")] = row
    return pandas.DataFrame(rows).T
