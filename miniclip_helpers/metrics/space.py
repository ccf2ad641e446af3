"""The shape of the shared space: the modality gap, hubs, and what repairs them. Rows are queries here, columns are candidates."""

import numpy as np

from ..errors import UsageError
from .blocks import as_scores, blocks_of, finite, finite_real, real, whole


def modality_gap(image_embeddings, text_embeddings):
    """The distance between the mean image vector and the mean text vector. (N, D), (M, D) unit rows; from 0 to 2. Source: Liang et al. 2022.

    Computed in float32 at least. Raises a `UsageError` for no rows, two widths, NaN or infinity.
    """
    images, texts = real(image_embeddings, "images"), real(text_embeddings, "texts")
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1] or not len(images) or not len(texts):
        raise UsageError(f"expected images (N, D) and texts (M, D), one row at least of each, found {images.shape} and {texts.shape}")
    means = [finite_real(rows, "embeddings") if rows.dtype == np.float64 else rows.astype(np.float32, copy=False) for rows in (images, texts)]
    gap = float(np.linalg.norm(means[0].mean(0) - means[1].mean(0)))
    if not np.isfinite(gap):
        raise UsageError("the embeddings hold NaN or infinity: look for a zero vector or a model that diverged")
    return gap


def k_occurrence(similarity, k=10):
    """How many queries have each candidate among their K best: (C,) integers that add up to K times Q.

    similarity: (Q, C) or `Cosines`, rows are queries, one at least. For text to image hand in the transposed matrix of `retrieval.similarity`. Of equal
    scores at the edge of the K, any may be taken, but always K of them.
    """
    scores, k = as_scores(similarity), whole(k, "k")
    shape = scores.shape
    if len(shape) != 2 or not shape[0] or k > shape[1]:
        raise UsageError(f"expected similarity (Q, C) of one query at least, and k at most C, found {shape} and k {k}")
    times = np.zeros(shape[1], dtype=np.int64)
    for _, rows in blocks_of(finite(scores)):
        times += np.bincount(np.argpartition(-rows, k - 1, axis=1)[:, :k].ravel(), minlength=shape[1])
    return times


def hubness(similarity, k=10):
    """How unequally candidates are found: {"skewness", "anti_hubs", "largest", "fair"}.

    similarity: (Q, C) or `Cosines`, rows are queries. skewness: of the K-occurrences, 0 where all are found alike, above 1 is strong. anti_hubs: the
    share of candidates in nobody's K best. largest: the share of all queries that have the biggest hub among their K best. fair: K / C,
    that share if all were found alike. Source: Radovanović et al. 2010.
    """
    from scipy.stats import skew

    times = k_occurrence(similarity, k)
    lopsided = float(skew(times)) if times.std() > 0 else 0.0
    return {"skewness": lopsided, "anti_hubs": float((times == 0).mean()), "largest": float(times.max() * k / times.sum()), "fair": k / len(times)}


def inverted_softmax(similarity, bank, scale):
    """Scores (Q, C) that charge each candidate for how much it pleases everybody: scale * s - log sum over the bank of exp(scale * s).

    similarity: (Q, C) cosines, rows are queries. bank: (B, C) cosines of *other* queries, of the training captions say, with the same
    candidates; never of the test's own queries, of which a user has one. scale: the logit scale, finite; at 0 all candidates score the same. No query gives
    no scores, (0, C). Raises a `UsageError` for NaN and infinity. Source: Smith et al. 2017.
    """
    from scipy.special import logsumexp

    similarity, bank, scale = finite_real(similarity), finite_real(bank, "scores of the bank"), float(scale)
    if similarity.ndim != 2 or bank.ndim != 2 or bank.shape[1] != similarity.shape[1] or not bank.size:
        raise UsageError(f"expected similarity (Q, C) and a bank (B, C) over the same candidates, one at least, found {similarity.shape} and {bank.shape}")
    if not np.isfinite(scale * max(np.abs(bank).max(), np.abs(similarity).max(initial=0))):
        raise UsageError(f"expected a finite scale, and scores that it leaves finite, found a scale of {scale}")
    return scale * similarity - logsumexp(scale * bank, axis=0)


def querybank_normalised(similarity, bank, scale):
    """`inverted_softmax` where it is called for, `scale * similarity` elsewhere: only queries whose best candidate is the best of some query of the bank.

    Arguments and result as in `inverted_softmax`; scores compare within a row only. Source: Bogolin et al. 2022, QB-Norm, its
    dynamic inverted softmax.
    """
    repaired, similarity, scale = inverted_softmax(similarity, bank, scale), finite_real(similarity), float(scale)
    wanted = np.isin(similarity.argmax(1), np.unique(finite_real(bank).argmax(1)))
    return np.where(wanted[:, None], repaired, scale * similarity)
