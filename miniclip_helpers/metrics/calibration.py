"""Confidence against accuracy."""

import numpy as np

from ..errors import UsageError
from .blocks import finite_real, whole


def calibration_table(probabilities, targets, bins=10):
    """Confidence and accuracy per bin of confidence: {"confidence", "accuracy", "count"}, each (bins,); empty bins hold NaN.

    probabilities: (N, C), one row at least; rows sum to 1, to a hundredth where they come in half precision, else to a thousandth. targets: (N,) columns.
    Confidence is the best column's probability, the first of equal ones is the answer. Source: Guo et al. 2017.
    """
    rough = str(getattr(probabilities, "dtype", "")).rpartition(".")[2] in ("float16", "bfloat16")
    probabilities, targets, bins = finite_real(probabilities, "probabilities"), np.asarray(targets), whole(bins, "bins")
    if probabilities.ndim != 2 or not probabilities.size or not np.allclose(probabilities.sum(1), 1, atol=1e-2 if rough else 1e-3) or probabilities.min() < 0:
        raise UsageError("expected probabilities (N, C) whose rows sum to 1; take a softmax over the labels first")
    if targets.shape != probabilities.shape[:1] or not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= probabilities.shape[1]:
        raise UsageError(f"expected one target per row, columns 0 to {probabilities.shape[1] - 1}, found {targets.dtype} {targets.shape}, like {targets.ravel()[:5]}")
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
