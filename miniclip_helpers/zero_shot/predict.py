"""From class vectors to probabilities: softmax and temperature, the best labels, yes or no."""

import numpy as np
import torch
from torch.nn import functional as F

from .. import embedding
from ..errors import UsageError
from ..metrics.blocks import finite_real, whole
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
    """(N, D) pictures and (C, D) classes to (N, C) probabilities: rows sum to 1. logit_scale: exponentiated, 1 / temperature, finite.

    Tensors or arrays; of two dtypes the wider counts. No picture gives (0, C); a picture of zeros gives each class the same. Raises a `UsageError` where
    shapes do not fit or a number is NaN or infinite.
    """
    check_several(class_embeddings)
    image_embeddings, class_embeddings = torch.as_tensor(image_embeddings), torch.as_tensor(class_embeddings)
    if image_embeddings.ndim != 2 or class_embeddings.ndim != 2 or image_embeddings.shape[1] != class_embeddings.shape[1] or not len(class_embeddings):
        raise UsageError(f"expected pictures (N, D) and two or more classes (C, D), found {tuple(image_embeddings.shape)} and {tuple(class_embeddings.shape)}")
    if image_embeddings.dtype != class_embeddings.dtype:
        wider = torch.promote_types(image_embeddings.dtype, class_embeddings.dtype)
        image_embeddings, class_embeddings = image_embeddings.to(wider), class_embeddings.to(wider)
    for what, values in (("pictures", image_embeddings), ("classes", class_embeddings), ("logit scale", torch.as_tensor(logit_scale))):
        if not torch.isfinite(values).all():
            raise UsageError(f"expected finite numbers, found NaN or infinity in the {what}: look for a broken picture, or a temperature of 0")
    return (torch.as_tensor(logit_scale) * image_embeddings @ class_embeddings.T).softmax(-1)


def scale_of(model, temperature=None):
    """The logit scale: 1 / temperature, or the model's own when none is given. A `UsageError` unless both are above 0 and finite in float32."""
    if temperature is None:
        return torch.as_tensor(model.logit_scale).detach()
    if isinstance(temperature, (str, bool)) or not 0 < temperature < float("inf") or 1 / temperature > torch.finfo(torch.float32).max:
        raise UsageError(f"expected a temperature above 0, whose inverse is a number, like 0.01, found {temperature}")
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
    """Per picture the k best (label, probability), best first. probabilities: (N, C), finite; a k above the number of labels counts as all of them.

    Equal ones stand in no promised order. A `UsageError` for a k below 1, NaN, or another number of labels than columns.
    """
    labels, probabilities, k = list(labels), torch.as_tensor(probabilities), whole(k, "k")
    if probabilities.ndim != 2 or probabilities.shape[1] != len(labels) or not torch.isfinite(probabilities).all():
        raise UsageError(f"expected finite probabilities (N, {len(labels)}), a column per label, found {tuple(probabilities.shape)}")
    values, columns = probabilities.topk(min(k, len(labels)), dim=-1)
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
    is right, or all cosines are the same, no finite scale is the best, and the upper end comes back. Source: Guo et al. 2017, temperature scaling.
    """
    from scipy.optimize import brentq

    cosines, targets = finite_real(cosines, "cosines"), np.asarray(targets)
    if cosines.ndim != 2 or cosines.shape[1] < 2 or targets.shape != cosines.shape[:1] or not len(targets):
        raise UsageError(f"expected cosines (N, C) of two or more labels, and targets (N,), found {cosines.shape} and {targets.shape}")
    if not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= cosines.shape[1]:
        raise UsageError(f"expected targets as whole numbers from 0 to {cosines.shape[1] - 1}, found {targets.dtype}, like {targets[:5]}")
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
