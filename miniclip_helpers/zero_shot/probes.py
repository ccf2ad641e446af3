"""What a few labelled pictures are worth: a linear probe on frozen features, with many examples or with few."""

import dataclasses
import warnings

import numpy as np

from ..errors import UsageError
from ..metrics.blocks import finite_real

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # inverse regularisation, for features of length about 1
DEFAULT_STRENGTH = 10.0  # where there is nothing to choose it on: one example per class


@dataclasses.dataclass(frozen=True)
class Probe:
    """What `linear_probe` found. predicted: (M,) targets. probabilities: (M, K), columns as in `classes` (K,). strength: the chosen C.

    tried: {strength: accuracy on the validation part}; empty when no class had two examples and the strength is the default.
    """

    predicted: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray
    strength: float
    tried: dict


def linear_probe(train_features, train_targets, test_features, strengths=STRENGTHS, share=0.2, seed=0):
    """Logistic regression on frozen features. (N, D), (N,) integers, (M, D) to a `Probe`.

    The inverse regularisation C is chosen on a validation part of the training pictures, `share` of each class with two or more, and
    the final fit uses them all. Test pictures play no part in it. Features are centred and scaled to a length of about 1 first, so that their unit does
    not matter; where all are the same, every test picture gets the same class. No test picture gives an empty `Probe`. A `UsageError` for NaN, one class,
    features too large to square, a strength that is not above 0, and a share outside 0 to 1.
    """
    train_features, train_targets, test_features = _checked(train_features, train_targets, test_features)
    if not 0 < share < 1 or not all(0 < strength < np.inf for strength in strengths):
        raise UsageError(f"expected a share between 0 and 1, and finite strengths above 0, found {share} and {list(strengths)}")
    mean = train_features.mean(0)
    with np.errstate(over="ignore"):
        length = np.sqrt(((train_features - mean) ** 2).sum(1).mean()) or 1.0
    if not np.isfinite(length):
        raise UsageError(f"features of up to {np.abs(train_features).max():g} are too large to square; divide them by that")
    train_features, test_features = (train_features - mean) / length, (test_features - mean) / length
    if len(train_features) < train_features.shape[1]:  # the weights lie in the span of the training rows: the same fit in fewer columns
        axes = np.linalg.svd(train_features, full_matrices=False)[2].T  # (D, N)
        train_features, test_features = train_features @ axes, test_features @ axes
    random = np.random.default_rng(seed)
    held = _drawn(train_targets, lambda count: max(1, round(share * count)) if count > 1 else 0, random)
    tried = {}
    if len(held) and len(strengths) > 1:
        rest = np.setdiff1d(np.arange(len(train_targets)), held)
        for strength in strengths:
            predicted = _fit(train_features[rest], train_targets[rest], strength).predict(train_features[held])
            tried[float(strength)] = float((predicted == train_targets[held]).mean())
    best = max(tried, key=tried.get) if tried else float(strengths[0]) if len(strengths) == 1 else DEFAULT_STRENGTH
    fitted = _fit(train_features, train_targets, best)
    if not len(test_features):
        return Probe(fitted.classes_[:0], np.zeros((0, len(fitted.classes_))), fitted.classes_, best, tried)
    return Probe(fitted.predict(test_features), fitted.predict_proba(test_features), fitted.classes_, best, tried)


def few_shot(features, targets, shots=(1, 2, 4, 8, 16), seeds=(0, 1, 2), test_share=0.5, scores=None, strengths=STRENGTHS):
    """Accuracy of a linear probe after a few examples of each class: a table with a row per number of shots and seed.

    features: (N, D). targets: (N,) integers. For each seed `test_share` of each class is held out; the same test pictures serve every
    number of shots, and the smaller draws are part of the larger. A class with fewer pictures left gives all it has: n_train says what was
    used. scores: (N, C) zero-shot cosines, whose accuracy on the same test pictures becomes the rows with 0 shots. strengths: as for
    `linear_probe`; a single one is several times faster.

    Columns: shots, seed, n_train, n_test, top-1.
    """
    import pandas

    from ..metrics import target_ranks

    features, targets, _ = _checked(features, targets, features)
    classes, count = np.unique(targets, return_counts=True)
    if count.min() < 2:
        raise UsageError(f"expected two or more pictures of each class, one to learn from and one to test on; {int((count < 2).sum())} classes have one, "
                         f"like class {classes[count.argmin()]}: leave them out")
    if not shots or not all(isinstance(shot, (int, np.integer)) and shot >= 1 for shot in shots) or not 0 < test_share < 1 or not len(seeds):
        raise UsageError(f"expected whole shots of 1 or more, a test_share between 0 and 1, and a seed at least, found {list(shots)}, {test_share} and {list(seeds)}")
    rows = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        test = _drawn(targets, lambda count: min(count - 1, max(1, round(test_share * count))), random)
        pool = random.permutation(np.setdiff1d(np.arange(len(targets)), test))
        if scores is not None:
            rows.append((0, seed, 0, len(test), float((target_ranks(np.asarray(scores)[test], targets[test]) == 1).mean())))
        for shot in sorted(shots):
            train = np.concatenate([pool[targets[pool] == one][:shot] for one in classes])
            probe = linear_probe(features[train], targets[train], features[test], strengths, seed=seed)
            rows.append((shot, seed, len(train), len(test), float((probe.predicted == targets[test]).mean())))
    return pandas.DataFrame(rows, columns=["shots", "seed", "n_train", "n_test", "top-1"]).sort_values(["shots", "seed"], ignore_index=True)


def _drawn(targets, how_many, random):
    """Rows drawn at random, `how_many(count)` of each class, in ascending order."""
    drawn = [random.permutation(np.flatnonzero(targets == one)) for one in np.unique(targets)]
    return np.sort(np.concatenate([rows[: how_many(len(rows))] for rows in drawn]))


def _checked(train_features, train_targets, test_features):
    features, targets, test = finite_real(train_features, "features"), np.asarray(train_targets), finite_real(test_features, "test features")
    if features.ndim != 2 or test.ndim != 2 or features.shape[1] != test.shape[1] or targets.shape != features.shape[:1]:
        raise UsageError(f"expected features (N, D), targets (N,) and test features (M, D), found {features.shape}, {targets.shape} and {test.shape}")
    if not np.issubdtype(targets.dtype, np.integer) or len(np.unique(targets)) < 2:
        raise UsageError(f"expected integer targets of two or more classes, found {len(np.unique(targets))} of type {targets.dtype}")
    return features, targets, test


def _fit(features, targets, strength):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # a fit that is not quite at its end predicts the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes")  # one example of each class is what was asked for
        return LogisticRegression(C=strength, max_iter=200, solver="newton-cg").fit(features, targets)
