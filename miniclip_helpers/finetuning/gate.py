"""The first gate of any fine-tuning, and the scorer that would not have passed it."""

import numpy as np
import torch

from .. import retrieval
from ..errors import ModelError, UsageError
from ..metrics import DIRECTIONS
from .hub import own_copy
from .inputs import Inputs, Learner, check_data
from .methods import add_lora, check_method, check_sides

ROUNDING = 1e-4  # between cosines of the same weights in other batches


def gate(model, data, expected=None, method="heads", sides="both", scorer=None, tolerance=1e-3):
    """Untouched weights must reproduce the zero-shot score through the path that training takes. Raises `ModelError` when they do not.

    data: a dataset; or `training.locked.Features`, and then `expected` is needed. expected: the zero-shot report, by default that of
    `retrieval.evaluate(model, data)`, which knows nothing of this package's training. scorer: function of (similarity (N, M), owner (M,)) that
    returns a dict with figures of the report's names, by default the report's own. tolerance: how far figures may be apart where rounding makes the
    cosines differ in their last bits (a tower in other batches); where the cosines are equal, figures must be equal.

    Returns {"expected", "found": {"image_to_text R@1": ...}, "largest_difference": of two cosines, "bitwise": whether they are all equal}.
    """
    check_method(method)
    check_data(data, "gate")
    reference = None
    if expected is None:
        if not hasattr(data, "captions"):
            raise UsageError("features alone hold no zero-shot score; pass expected, or the dataset")
        reference = torch.from_numpy(retrieval.similarity(model, data))
        expected = retrieval.report(reference.numpy(), data.owner)
    learning = () if method == "heads" else check_sides(sides)
    ours = own_copy(model, learning)
    if method == "lora":
        add_lora(ours, learning)
    inputs = Inputs(ours, data, learning)
    cosines = inputs.similarity(Learner(ours, learning))
    found = (scorer or retrieval.report)(cosines.numpy(), inputs.owner.numpy())
    apart = float((cosines - reference).abs().max()) if reference is not None else float("nan")
    figures = {name: (value, _flat(found).get(name)) for name, value in _flat(expected).items() if name in _flat(found)}
    report = {"expected": {name: pair[0] for name, pair in figures.items()}, "found": {name: pair[1] for name, pair in figures.items()},
              "largest_difference": apart, "bitwise": apart == 0.0}
    _judge(report, figures, 0.0 if apart == 0.0 else tolerance)
    return report


def _judge(report, figures, tolerance):
    """Raise a `ModelError` that says which figure is wrong, and where to look."""
    if not figures:
        raise UsageError("the scorer returned no figure that the zero-shot report has; expected names like R@1, by direction or flat")
    if report["largest_difference"] > ROUNDING:
        raise ModelError(f"the gate is closed: the training path gives other cosines than zero-shot (up to {report['largest_difference']:.3g} apart) with the "
                         "same weights; look at preprocessing, tokenizing and normalising before any training")
    wrong = [f"{name} is {found:.4f}, zero-shot says {expected:.4f}" for name, (expected, found) in figures.items() if not abs(found - expected) <= tolerance]
    if wrong:
        raise ModelError(f"the gate is closed: untouched weights score otherwise in the training path ({'; '.join(wrong[:3])}). Nothing has been trained "
                         "yet, so the scorer or the path is wrong, not the learning rate")


def _flat(report):
    """{"image_to_text R@1": ...} of a report by direction; a flat dict of figures counts for text to image, as project 002 measures."""
    if not any(direction in report for direction in DIRECTIONS):
        return {f"text_to_image {key}": float(value) for key, value in report.items()}
    return {f"{direction} {key}": float(value) for direction in DIRECTIONS for key, value in report.get(direction, {}).items()}


def broken_scorer(similarity, owner, ks=(1, 5, 10)):
    """Text-to-image recall with the fault of project 002; a lesson, never a measure. Returns {"R@1", "R@5", "R@10"}.

    similarity: (N, M), rows are images. owner: (M,) the image of each caption. The matrix is laid out with one image column *per caption* (M x M: an
    image with five captions stands there five times), but the right column is looked up by the image's number among the *unique* images. So
    caption 7 of image 1 is expected in column 1, which shows image 0. Only the captions of image 0 are ever counted right: with 1,215 images of five
    captions a perfect model scores 5 / 6,075 = 0.08 %. Equal scores go to the column that comes first.
    """
    similarity, owner = np.asarray(similarity), np.asarray(owner)
    if similarity.ndim != 2 or similarity.shape[1] != len(owner):
        raise UsageError(f"expected similarities (images, captions) and one owner per caption, found {similarity.shape} and {len(owner)} owners")
    per_caption = similarity[owner].T  # (M, M): row m is the query, column j the image of caption j
    column = owner  # the fault: a number among N images, used among M columns
    looked_up = per_caption[np.arange(len(owner)), column][:, None]
    earlier = np.arange(len(owner))[None, :] < column[:, None]
    rank = 1 + (per_caption > looked_up).sum(1) + ((per_caption == looked_up) & earlier).sum(1)
    return {f"R@{k}": float((rank <= k).mean()) for k in ks}
