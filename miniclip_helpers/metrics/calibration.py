"""Confidence against accuracy."""

import numpy as np

from ..errors import UsageError


def calibration_table(probabilities, targets, bins=10):
    """Confidence and accuracy per bin of confidence: {"confidence", "accuracy", "count"}, each (bins,); empty bins hold NaN.

    probabilities: (N, C), rows sum to 1. targets: (N,). Confidence is the best column's probability. Source: Guo et al. 2017.
    """
    probabilities, targets = np.asarray(probabilities, dtype=float), np.asarray(targets)
    if probabilities.ndim != 2 or not np.allclose(probabilities.sum(1), 1, atol=1e-3) or probabilities.min() < 0:
        raise UsageError("expected probabilities (N, C) whose rows sum to 1; take a softmax over the labels first")
    right, confidence = probabilities.argmax(1) == targets, probabilities.max(1)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = {name: np.bincount(place, values, minlength=bins) / count for name, values in (("confidence", confidence), ("accuracy", right))}
    return mean | {"count": count}


def expected_calibration_error(probabilities, targets, bins=10):
    """The mean distance of confidence and accuracy over the bins, weighted by their pictures; in [0, 1]. Source: Guo et al. 2017."""
    table = calibration_table(probabilities, targets, bins)
    full = table["count"] > 0
    gap = np.abs(table["confidence"] - table["accuracy"])[full]
    return float((gap * table["count"][full]).sum() / table["count"].sum())
