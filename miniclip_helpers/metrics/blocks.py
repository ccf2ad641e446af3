"""A similarity matrix that is never whole: the embeddings that it is made of, and its rows when they are asked for."""

import numpy as np
import torch

from ..errors import UsageError

REAL = "biuf"  # NumPy's kinds of real numbers, truth values among them
NUMBERS = 2**21  # of a block: some megabytes, which the processor's cache nearly holds


def real(values, what="scores"):
    """`values`, an array, nested lists or a tensor of any device, as a NumPy array of real numbers; its own memory where it can be.

    Whole numbers and truth values become float64, in which they can be negated and multiplied without wrapping round; bfloat16, which NumPy does not know,
    becomes float32. Raises a `UsageError` for complex numbers, text, objects and rows of different length.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        values = np.asarray(values)
    except (ValueError, TypeError, RuntimeError):
        raise UsageError(f"expected {what} as one array of real numbers, found {type(values).__name__} that makes none") from None
    if values.dtype.kind not in REAL:
        raise UsageError(f"expected {what} as real numbers, found the type {values.dtype}")
    return values.astype(np.float64) if values.dtype.kind != "f" or values.dtype.itemsize > 8 else values


def finite_real(values, what="scores"):
    """`real` in float64; a `UsageError` where one of them is NaN or infinite."""
    values = real(values, what).astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        raise UsageError(f"expected finite {what}, found NaN or infinity: look for a zero vector or a model that diverged")
    return values


def whole(value, what):
    """`value` as an int of at least 1, or a `UsageError` that names it."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise UsageError(f"expected {what} as a whole number of at least 1, found {value!r}")
    return int(value)


def _aligned(rows):
    """The same tensor, at an address from which torch's products add in one order, in any block: a picture that is there twice must tie with itself.

    NumPy's own BLAS adds in another order at the edge of a block, whence torch.
    """
    return rows.clone() if rows.data_ptr() % 64 else rows


class Cosines:
    """The matrix images @ texts.T, in blocks: every function of `metrics` and `retrieval` that takes a similarity takes this in its place.

    images: (N, D). texts: (M, D), unit rows for cosines; of two dtypes the wider counts, see `real`. 50,000 pictures and as many captions would need
    10 GB whole. Raises a `UsageError` where they do not fit, or hold NaN or what overflows.

    >>> scores = Cosines(np.eye(3)[:2], np.eye(3))
    >>> scores.shape, scores.column(1).tolist()
    ((2, 3), [0.0, 1.0])
    """

    def __init__(self, images, texts):
        images, texts = real(images, "images"), real(texts, "texts")
        if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
            raise UsageError(f"expected images (N, D) and texts (M, D), found {images.shape} and {texts.shape}")
        self.dtype = np.result_type(images, texts)
        with np.errstate(over="ignore", invalid="ignore"):
            most = [np.maximum(rows.max(initial=0), -rows.min(initial=0)) for rows in (images, texts)]
            if not np.isfinite(most[0] * most[1] * images.shape[1]):
                raise UsageError("the embeddings hold NaN or infinity: look for a zero vector or a model that diverged")
        self.images, self.texts = (_aligned(torch.from_numpy(np.require(rows, self.dtype, "CW"))) for rows in (images, texts))

    @property
    def shape(self):
        return len(self.images), len(self.texts)

    def rows(self, start, stop):
        """(stop - start, M): some images with all texts; fewer where they end. Made in products of one size, for the same reason as `_aligned`."""
        first = max(0, min(start, len(self.images) - (stop - start)))
        return (self.images[first : first + stop - start] @ self.texts.T)[start - first :].numpy()

    def row(self, image):
        """(M,): one image with all texts."""
        return (self.texts @ self.images[image]).numpy()

    def column(self, text):
        """(N,): one text with all images."""
        return (self.images @ self.texts[text]).numpy()


class Whole:
    """The same questions, asked of an array that is there."""

    def __init__(self, matrix):
        self.matrix = matrix = real(matrix)
        self.shape, self.dtype = matrix.shape, matrix.dtype

    def rows(self, start, stop):
        return self.matrix[start:stop]

    def row(self, image):
        return self.matrix[image]

    def column(self, text):
        return self.matrix[:, text]


def blocks_of(scores, size=None):
    """Yield (start, rows (b, C)) over a `Cosines` or `Whole` (R, C): `size` rows at a time, by default as many as make `NUMBERS`."""
    size = max(1, NUMBERS // max(1, scores.shape[1])) if size is None else whole(size, "block")
    for start in range(0, scores.shape[0], size):
        yield start, scores.rows(start, start + size)


def as_scores(similarity):
    """A `Cosines` or `Whole` as it is; anything else, an array (R, C), with the same face."""
    return similarity if isinstance(similarity, (Cosines, Whole)) else Whole(similarity)


def finite(scores):
    """The same `Cosines` or `Whole`; a `UsageError` where a number of it cannot be ranked. `Cosines` have seen to that themselves."""
    if isinstance(scores, Whole) and not all(np.isfinite(rows).all() for _, rows in blocks_of(scores)):
        raise UsageError("the scores hold NaN or infinity: look for a zero vector or a model that diverged")
    return scores
