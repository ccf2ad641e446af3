"""The bank of notebook 00."""

import math

import numpy as np
import pytest
from bank import cases, check_verdict


def crash(a, b):
    return a @ nothing  # noqa: F821


BANK = {
    "00.cosine": {
        "right": [
            lambda a, b: sum(a * b) / math.sqrt(sum(a * a) * sum(b * b)),
            lambda a, b: (a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)),
            lambda a, b: [math.fsum(a * b) / math.hypot(*a) / math.hypot(*b)][0],
        ],
        "wrong": [
            ("dot product", lambda a, b: a @ b),
            ("one length only", lambda a, b: a @ b / np.linalg.norm(a)),
            ("one length only", lambda a, b: a @ b / np.linalg.norm(b)),
            ("squared lengths", lambda a, b: a @ b / (sum(a * a) * sum(b * b))),
            ("not added", lambda a, b: a @ b / (np.linalg.norm(a) + np.linalg.norm(b))),
            ("distance, 1 - cosine", lambda a, b: 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))),
            ("These are the products, one per place", lambda a, b: a * b / (np.linalg.norm(a) * np.linalg.norm(b))),
            ("between the points", lambda a, b: np.linalg.norm(a - b)),
            ("This is the angle", lambda a, b: math.acos(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))),
            ("forget `return`", lambda a, b: None),
            ("NameError", crash),
            ("as numbers", lambda a, b: object()),
        ],
    },
    "00.best_five": {
        "right": [
            lambda scores: np.argsort(-scores)[:5],
            lambda scores: sorted(range(len(scores)), key=lambda place: scores[place], reverse=True)[:5],
            lambda scores: np.argsort(scores)[: -6 : -1],
        ],
        "wrong": [
            ("sorts upwards, so its last five", lambda scores: np.argsort(scores)[-5:]),
            ("five worst", lambda scores: np.argsort(scores)[:5]),
            ("These are the scores. Their", lambda scores: np.sort(scores)[::-1][:5]),
            ("These are the scores, worst first", lambda scores: np.sort(scores)[-5:]),
            ("all positions", lambda scores: np.argsort(-scores)),
            ("This is the best one", lambda scores: np.argmax(scores)),
            ("best one is missing", lambda scores: np.argsort(-scores)[1:6]),
            ("out of order", lambda scores: np.argsort(-scores)[[1, 0, 2, 3, 4]]),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)
