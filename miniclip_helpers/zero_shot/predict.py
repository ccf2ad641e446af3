"""From class vectors to probabilities: softmax and temperature, the best labels, yes or no."""

import numpy as np
import torch
from torch.nn import functional as F

from .. import embedding
from ..errors import UsageError
from .prompts import TEMPLATE, class_embeddings

# What a picture is when it is not what was asked. CLIP hardly reads "not": sentences that name nothing work better than a negation.
OPPOSITES = ("a photo of an object.", "a photo of something else.", "a photo of another thing.")
SCALES = (1e-2, 1e4)  # where a temperature is looked for, as logit scales


def check_several(labels):
    """A `UsageError` for a single label, or a single row of class vectors: a softmax over one is always 1."""
    if len(labels) == 1 and not isinstance(labels, str):
        raise UsageError("one label always gets 100 %, whatever the picture shows; give two or more, or ask yes or no: zero_shot.binary, "
                         "or --yes-no on the command line")


def class_probabilities(image_embeddings, class_embeddings, logit_scale):
    """(N, D) pictures and (C, D) classes to (N, C) probabilities: rows sum to 1. logit_scale: exponentiated, 1 / temperature."""
    check_several(class_embeddings)
    return (torch.as_tensor(logit_scale) * image_embeddings @ class_embeddings.T).softmax(-1)


def scale_of(model, temperature=None):
    """The logit scale: 1 / temperature, or the model's own when none is given."""
    if temperature is None:
        return torch.as_tensor(model.logit_scale).detach()
    if not 0 < temperature < float("inf"):
        raise UsageError(f"expected a temperature above 0, found {temperature}")
    return torch.tensor(1 / float(temperature))


def classify(model, source, labels, templates=(TEMPLATE,), temperature=None):
    """Probabilities (N, C) of each label for each picture of a dataset or a list of pictures.

    temperature: in place of the model's own; 1 leaves the cosines almost flat, 0.01 is CLIP's. The order of the labels never depends on it.
    """
    check_several(labels)
    scale = scale_of(model, temperature)
    classes = class_embeddings(model, labels, templates)
    return class_probabilities(embedding.image_embeddings(model, source), classes, scale)


def top_labels(probabilities, labels, k=5):
    """Per picture the k best (label, probability), best first. A k above the number of labels counts as all of them."""
    labels = list(labels)
    values, columns = torch.as_tensor(probabilities).topk(min(k, len(labels)), dim=-1)
    return [[(labels[column], float(value)) for value, column in zip(*row)] for row in zip(values.tolist(), columns.tolist())]


def binary(model, source, statement, opposite=OPPOSITES, temperature=None):
    """How likely `statement` is rather than its opposite, (N,) in [0, 1], for each picture: yes is above 0.5.

    statement: a whole sentence, "a photo of a dog.", or several that say the same, whose mean vector stands for yes. opposite: the same
    for no. A softmax over two: the answer depends on both. Write an opposite that says what else there may be ("a photo of a cat."); a
    negation ("not a dog") has almost the vector of the thing itself.
    """
    return yes_no(model, source, [statement], opposite, temperature)[:, 0]


def yes_no(model, source, statements, opposite=OPPOSITES, temperature=None):
    """`binary` of several statements, (N, S) in [0, 1]: each is asked by itself, so that none, one or all may be true of a picture."""
    as_list = lambda text: [text] if isinstance(text, str) else list(text)  # noqa: E731
    statements, opposites = [as_list(statement) for statement in statements], as_list(opposite)
    if not statements or not all(row and all(text.strip() for text in row) for row in [*statements, opposites]):
        raise UsageError("expected a statement and at least one opposite, neither of them empty, like 'a photo of a dog.' and 'a photo of a cat.'")
    for row in statements:
        if {text.strip().casefold() for text in row} == {text.strip().casefold() for text in opposites}:
            raise UsageError(f"the statement {row[0]!r} is its own opposite: the answer would be 50 % for every picture")
    scale = scale_of(model, temperature)
    texts = embedding.text_embeddings(model, [text for row in [opposites, *statements] for text in row])
    sides = [F.normalize(part.mean(0), dim=-1) for part in texts.split([len(row) for row in [opposites, *statements]])]
    cosines = embedding.image_embeddings(model, source) @ torch.stack(sides).T  # (N, 1 + S)
    return (scale * (cosines[:, 1:] - cosines[:, :1])).sigmoid()


def fit_temperature(cosines, targets):
    """The logit scale, 1 / temperature, that makes the right labels most likely: the minimum of the cross-entropy, which has only one.

    cosines: (N, C). targets: (N,) columns. Choose it on other pictures than those you report. Between 0.01 and 10,000: where every picture
    is right, no finite scale is the best, and the upper end comes back. Source: Guo et al. 2017, temperature scaling.
    """
    from scipy.optimize import brentq

    cosines, targets = np.asarray(cosines, dtype=np.float64), np.asarray(targets)
    if cosines.ndim != 2 or cosines.shape[1] < 2 or targets.shape != cosines.shape[:1] or not len(targets):
        raise UsageError(f"expected cosines (N, C) of two or more labels, and targets (N,), found {cosines.shape} and {targets.shape}")
    if not np.isfinite(cosines).all() or targets.min() < 0 or targets.max() >= cosines.shape[1]:
        raise UsageError(f"expected finite cosines and targets from 0 to {cosines.shape[1] - 1}")
    right = cosines[np.arange(len(targets)), targets].mean()

    def slope(log_scale):
        """d loss / d scale: the mean cosine that the model expects, less that of the right labels. Grows with the scale."""
        scaled = np.exp(log_scale) * cosines
        weight = np.exp(scaled - scaled.max(1, keepdims=True))
        return ((weight / weight.sum(1, keepdims=True)) * cosines).sum(1).mean() - right

    low, high = np.log(SCALES)
    if slope(high) <= 0 or slope(low) >= 0:
        return SCALES[1] if slope(high) <= 0 else SCALES[0]
    return float(np.exp(brentq(slope, low, high, xtol=1e-6)))
