"""The shape of the shared space: the modality gap, hubs, and what repairs them. Rows are queries here, columns are candidates."""

import numpy as np

from ..errors import UsageError
from .blocks import as_scores, blocks_of, finite


def modality_gap(image_embeddings, text_embeddings):
    """The distance between the mean image vector and the mean text vector. (N, D), (M, D) unit rows; from 0 to 2. Source: Liang et al. 2022."""
    return float(np.linalg.norm(np.asarray(image_embeddings).mean(0) - np.asarray(text_embeddings).mean(0)))


def k_occurrence(similarity, k=10):
    """How many queries have each candidate among their K best: (C,) integers that add up to K times Q.

    similarity: (Q, C) or `Cosines`, rows are queries. For text to image hand in the transposed matrix of `retrieval.similarity`.
    """
    shape = np.shape(similarity)
    if len(shape) != 2 or not 1 <= k <= shape[1]:
        raise UsageError(f"expected similarity (Q, C) and 1 <= k <= C, found {shape} and k {k}")
    times = np.zeros(shape[1], dtype=np.int64)
    for _, rows in blocks_of(finite(as_scores(similarity))):
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
    return {"skewness": lopsided, "anti_hubs": float((times == 0).mean()), "largest": float(times.max() / np.shape(similarity)[0]), "fair": k / len(times)}


def inverted_softmax(similarity, bank, scale):
    """Scores (Q, C) that charge each candidate for how much it pleases everybody: scale * s - log sum over the bank of exp(scale * s).

    similarity: (Q, C) cosines, rows are queries. bank: (B, C) cosines of *other* queries, of the training captions say, with the same
    candidates; never of the test's own queries, of which a user has one. scale: the logit scale. Source: Smith et al. 2017.
    """
    from scipy.special import logsumexp

    similarity, bank = np.asarray(similarity, dtype=float), np.asarray(bank, dtype=float)
    if similarity.ndim != 2 or bank.ndim != 2 or bank.shape[1] != similarity.shape[1] or not len(bank):
        raise UsageError(f"expected similarity (Q, C) and a bank (B, C) over the same candidates, found {similarity.shape} and {bank.shape}")
    return scale * similarity - logsumexp(scale * bank, axis=0)


def querybank_normalised(similarity, bank, scale):
    """`inverted_softmax` where it is called for, `scale * similarity` elsewhere: only queries whose best candidate is the best of some query of the bank.

    Arguments and result as in `inverted_softmax`; scores compare within a row only. Source: Bogolin et al. 2022, QB-Norm, its
    dynamic inverted softmax.
    """
    repaired, similarity = inverted_softmax(similarity, bank, scale), np.asarray(similarity, dtype=float)
    wanted = np.isin(similarity.argmax(1), np.unique(np.asarray(bank).argmax(1)))
    return np.where(wanted[:, None], repaired, scale * similarity)
