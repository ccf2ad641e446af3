"""How often the right label is first, over a whole dataset, with intervals and chance."""

import numpy as np

from .. import embedding, metrics
from ..errors import UsageError
from .predict import check_several
from .prompts import TEMPLATE, class_embeddings

KS = (1, 5)


def cosines(model, source, labels, templates=(TEMPLATE,)):
    """Cosines (N, C) of the pictures of a dataset or list with the labels' class vectors. Times the logit scale they are the logits."""
    classes = class_embeddings(model, labels, templates)
    return embedding.image_embeddings(model, source) @ classes.T


def evaluate_labels(model, dataset, labels, targets, templates=(TEMPLATE,)):
    """The report of `score_report` for a model on a dataset. targets: (N,) the place in `labels` of each picture's label."""
    check_several(labels)
    if len(targets) != len(dataset):
        raise UsageError(f"expected one target per picture, found {len(targets)} targets and {len(dataset)} pictures")
    return score_report(cosines(model, dataset, labels, templates).numpy(), labels, targets)


def score_report(scores, labels, targets, ks=KS):
    """{"n", "n_labels", "top-1", "top-5", "interval95", "chance", "most_common", "per_class"}: fractions between 0 and 1.

    scores: (N, C), higher is nearer. targets: (N,) columns. interval95: {"top-1": [low, high], ...}, Wilson's. chance: of a random
    order. ks: whole numbers from 1. most_common: top-1 of always naming the most frequent label. per_class: {label: {"n", "top-1"}} of the labels that occur.
    """
    labels, targets = list(labels), np.asarray(targets)
    if len(set(labels)) < len(labels):
        raise UsageError(f"a label stands twice, and would have one line in the report: {next(label for label in labels if labels.count(label) > 1)!r}")
    scores = metrics.as_scores(scores)
    if len(scores.shape) != 2 or scores.shape[1] != len(labels):
        raise UsageError(f"expected scores (N, {len(labels)}), a column per label, found {scores.shape}")
    rank, count = metrics.target_ranks(scores, targets), np.bincount(targets, minlength=len(labels))
    hits = np.bincount(targets, rank == 1, minlength=len(labels))
    return {
        "n": len(targets), "n_labels": len(labels),
        **{f"top-{k}": float((rank <= k).mean()) for k in ks},
        "interval95": {f"top-{k}": list(metrics.proportion_interval(int((rank <= k).sum()), len(rank))) for k in ks},
        "chance": {f"top-{k}": min(k, len(labels)) / len(labels) for k in ks},
        "most_common": float(count.max() / len(targets)),
        "per_class": {labels[number]: {"n": int(count[number]), "top-1": float(hits[number] / count[number])} for number in np.flatnonzero(count)},
    }
