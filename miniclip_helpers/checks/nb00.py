"""Exercises of notebook 00: two short ones, to learn how exercises work."""

import numpy as np

from .core import Exercise, Wrong, array, call, compare


def cosine(a, b):
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def grade_cosine(answer, random):
    """Positive, negative and long vectors; the expected value is added up number by number."""
    size = int(random.integers(3, 9))
    a, b = random.normal(size=size), random.normal(size=size) * random.uniform(3, 9)
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    long_a, long_b = sum(x * x for x in a) ** 0.5, sum(y * y for y in b) ** 0.5
    expected = dot / (long_a * long_b)
    compare(call(answer, a, b), expected, [
        (dot, "This is the dot product. A long vector gets a large one whatever its direction: divide by both lengths."),
        (dot / long_a, "You divided by one length only. Both vectors have one."),
        (dot / long_b, "You divided by one length only. Both vectors have one."),
        (dot / (long_a * long_b) ** 2, "You divided by the squared lengths. The length is the square root of the sum of squares."),
        (dot / (long_a + long_b), "The two lengths are multiplied, not added."),
        (1 - expected, "This is the cosine distance, 1 - cosine. The similarity is asked for: 1 for the same direction."),
        (abs(expected), "The sign is lost. Vectors that point apart have a negative cosine."),
        (np.arccos(expected), "This is the angle. Its cosine is asked for."),
        (np.abs(a - b).sum(), "This is a distance between the points. The cosine compares directions only."),
        (((a - b) ** 2).sum() ** 0.5, "This is the distance between the points. The cosine compares directions only."),
        (a * b / (long_a * long_b), "These are the products, one per place. Add them up to one number."),
    ], what="the cosine", rtol=1e-5, atol=1e-7)


def best_five(scores):
    return np.argsort(scores)[::-1][:5]


def grade_best_five(answer, random):
    """Distinct scores, some negative, in a random order; five of them or many."""
    count = int(random.integers(6, 40))
    scores = random.permutation(count) / count - random.uniform(0, 1)
    ranked = sorted(range(count), key=lambda place: -scores[place])
    found = array(call(answer, scores), "the positions")
    if found.shape == (5,) and not np.allclose(found, ranked[:5]) and sorted(found) == sorted(ranked[:5]):
        raise Wrong("These are the right five in the wrong order: the best must come first. argsort sorts upwards, so its last five are worst first."
                    if list(found) == ranked[:5][::-1] else "The right five are there, but out of order: the best must come first.")
    values = [scores[place] for place in ranked]
    compare(found, ranked[:5], [
        (ranked[-5:], "These are the five worst, best of them first."),
        (ranked[::-1][:5], "These are the five worst. argsort sorts upwards: the best stand at its end."),
        (values[:5], "These are the scores. Their positions are asked for, so that the pictures can be found: argsort, not sort."),
        (values[:5][::-1], "These are the scores, worst first. Their positions are asked for, best first."),
        (ranked[:1], "This is the best one. Five are asked for."),
        (ranked[0], "This is the best one. Five are asked for."),
        (ranked, "These are all positions. Five are asked for."),
        (ranked[1:6], "The best one is missing: slices begin at 0."),
    ], what="the positions of the best five")


EXERCISES = (
    Exercise(
        "00.cosine", "the cosine of two vectors", points=1, minutes=3, level="warm-up", needs="sum, square root",
        hints=("The dot product is np.dot(a, b): multiply place by place, add up.",
               "The length of a vector is np.linalg.norm(a), the root of its dot product with itself.",
               "cosine = dot(a, b) / (length of a * length of b)"),
        grade=grade_cosine, reference=cosine,
        explanation="The dot product grows with the lengths of the vectors. Dividing by both lengths leaves the direction alone, and the result "
                    "lies between -1 and 1. CLIP compares a picture with a text in this way and in no other.",
        passed="That is the one comparison CLIP makes: direction, never length."),
    Exercise(
        "00.best_five", "the best five of a list of scores", points=1, minutes=3, level="warm-up", needs="np.argsort, slices",
        hints=("np.argsort(scores) gives positions, from the lowest score to the highest.",
               "Turn the order round with [::-1], or sort the negated scores.",
               "After turning, take the first five: [:5]."),
        grade=grade_best_five, reference=best_five,
        explanation="argsort sorts upwards. The last five of it are the right pictures, but the worst of them comes first: a slip that stands in many "
                    "published notebooks. np.argsort(-scores)[:5] says the same as the line above.",
        passed="Best first. A search is these two exercises, 950 times."),
)
