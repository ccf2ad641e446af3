"""Exercises of notebook 07: ranks without a loop, R@K with several captions, the interval over pictures, the test of two models."""

import numpy as np

from .core import Exercise, Wrong, array, call, compare


def ranks(scores, right):
    own = scores[np.arange(len(scores)), right][:, None]
    better, tied = (scores > own).sum(1), (scores == own).sum(1) - 1
    return 1 + better + (tied + 1) // 2


def _ranks_by_hand(scores, right, cost=lambda tied: (tied + 1) // 2):
    """Query after query, candidate after candidate."""
    found = []
    for row, own in zip(scores, right, strict=True):
        better = sum(score > row[own] for score in row)
        tied = sum(score == row[own] for place, score in enumerate(row) if place != own)
        found.append(1 + better + cost(tied))
    return np.array(found)


def grade_ranks(answer, random):
    """Random scores of one decimal, so that ties are frequent; more candidates than queries, and one model that says the same of everything."""
    queries, candidates = int(random.integers(8, 12)), int(random.integers(13, 18))
    for _ in range(200):
        scores = random.normal(size=(queries, candidates)).round(1)
        right = random.integers(0, candidates, queries)
        rows = np.arange(queries)
        scores[rows[:4], (right[:4] + 1) % candidates] = scores[rows[:4], right[:4]]
        scores[rows[1:4], (right[1:4] + 2) % candidates] = scores[rows[1:4], right[1:4]]
        mistakes = _rank_mistakes(scores, right)
        if len({tuple(value) for value, _ in mistakes} | {tuple(_ranks_by_hand(scores, right))}) == len(mistakes) + 1:
            break
    found = array(call(answer, scores, right), "the ranks")
    if found.shape == (queries, candidates):
        raise Wrong("These are numbers for every candidate. One number per query is asked for: the rank of its right candidate.")
    compare(found, _ranks_by_hand(scores, right), mistakes, what="the ranks", rtol=0, atol=1e-6)
    same = np.zeros((3, 5))
    found = array(call(answer, same, np.array([0, 2, 4])), "the ranks")
    compare(found, [3, 3, 3], [([1, 1, 1], "A model that says the same of everything comes first everywhere: ties are counted as wins.")],
            what="the ranks of a model that gives every candidate the same score", rtol=0, atol=1e-6)


def _rank_mistakes(scores, right):
    truth = _ranks_by_hand(scores, right)
    order = np.argsort(-scores, axis=1, kind="stable")
    return [
        (truth - 1, "You count from 0: the best place is rank 1, else the reciprocal rank of the best answer is 1 / 0."),
        (_ranks_by_hand(scores, right, lambda tied: 0), "Ties are counted as wins: a model that says the same of everything would be first everywhere. A tie costs half a "
                                                        "place, rounded up."),
        (_ranks_by_hand(scores, right, lambda tied: tied), "Ties are counted as losses, all of them. A tie costs half a place, rounded up."),
        (_ranks_by_hand(scores, right, lambda tied: tied // 2), "Half of the ties is rounded down: one tie then costs nothing. Round up: (tied + 1) // 2."),
        (_ranks_by_hand(scores, right, lambda tied: tied / 2), "Half a place is not a place: round the cost of the ties up to whole places."),
        (_ranks_by_hand(scores, right, lambda tied: (tied + 2) // 2), "The right candidate ties with itself. Take it out: subtract 1 from the number of equal scores."),
        (_ranks_by_hand(-scores, right), "The worst candidate has your rank 1. High scores are good: count those that are *greater* than the right one's."),
        (order.argsort(1)[np.arange(len(right)), right] + 1, "You sort, and equal scores stay in the order of their columns. So it hangs on the column whether a tie is won. "
                                                             "Count instead: how many are greater, how many are equal."),
        (order[np.arange(len(right)), right], "order[q, j] is *who* stands at place j, not the place of candidate j. Count, or sort the order again."),
        (order[:, 0], "This is who came first. The place of the right candidate is asked for."),
    ]


def recall(similarity, owner, k):
    best = np.argsort(-similarity, axis=1)[:, :k]
    image_to_text = (owner[best] == np.arange(len(similarity))[:, None]).any(1).mean()
    best = np.argsort(-similarity, axis=0)[:k]
    text_to_image = (best == owner).any(0).mean()
    return image_to_text, text_to_image


def _recall_by_hand(similarity, owner, k):
    by_image = by_text = 0
    for image, row in enumerate(similarity):
        best = sorted(range(len(row)), key=lambda caption: -row[caption])[:k]
        by_image += any(owner[caption] == image for caption in best)
    for caption in range(len(owner)):
        best = sorted(range(len(similarity)), key=lambda image: -similarity[image, caption])[:k]
        by_text += owner[caption] in best
    return np.array([by_image / len(similarity), by_text / len(owner)])


def _recall_mistakes(similarity, owner, k):
    truth, images = _recall_by_hand(similarity, owner, k), len(similarity)
    mine = owner == np.arange(images)[:, None]  # (N, M)
    place = (-similarity).argsort(1).argsort(1)  # of each caption for each image
    first = np.unique(owner, return_index=True)[1]
    found = (-similarity).argsort(0).argsort(0)[owner, np.arange(len(owner))] < k  # (M,)
    in_k, first_in_k = (place < k) & mine, (place[np.arange(images), first] < k).mean()
    any_caption = np.mean([found[owner == image].any() for image in range(images)])
    return [
        (truth[::-1], "The two directions are the wrong way round: image to text first. Rows are images, so an image asks along its row."),
        ((truth[0], any_caption), "Text to image: you count an image as found when *one* of its captions finds it. Here every caption is a query of its own."),
        ((first_in_k, truth[1]), "Image to text: only the first caption of an image counts as right. *Any* of its captions in the first K is a hit."),
        ((first_in_k, found[first].mean()), "Only first captions count with you, in both directions. All captions ask, and any own caption is right."),
        (_recall_by_hand(similarity[:, first], owner[first], k), "You kept the first caption of each image and threw the others away, as queries and as candidates."),
        (((in_k.sum(1) / mine.sum(1)).mean(), truth[1]),
         "Image to text: you average the share of an image's captions that are among the first K. By the protocol an image is a hit or not: one of them is enough."),
        ((((place < k) | ~mine).all(1).mean(), truth[1]), "Image to text: you ask for *all* captions of the image among the first K. Any of them is enough."),
        (((np.argsort(-similarity, 1)[:, :k] == np.arange(images)[:, None]).any(1).mean(), truth[1]),
         "Image to text: you compare a caption's number with the image's number: two numberings. Whose caption is it? owner[...] tells."),
        (_recall_by_hand(-similarity, owner, k), "The K *worst* are taken: argsort sorts upwards. Sort -similarity."),
        ((truth[0], found.sum() / images), "Text to image: divide by the number of captions, which are the queries, not by the images."),
        (100 * truth, "In percent. Shares between 0 and 1 are asked for."),
        (_recall_by_hand(similarity, owner, 1), "This is R@1 whatever K is."),
        (_recall_by_hand(similarity, owner, k + 1), "You took one candidate too many: the first K are places 0 to K - 1."),
    ]


def grade_recall(answer, random):
    """Images with one to five captions, in no order, no ties; drawn until every mistake gives other numbers."""
    for _ in range(300):
        images, k = int(random.integers(9, 13)), int(random.integers(2, 4))
        owner = random.permutation(np.repeat(np.arange(images), np.concatenate([[1, 5], random.integers(1, 6, images - 2)])))
        similarity = random.normal(size=(images, len(owner))) + 0.6 * (owner == np.arange(images)[:, None])
        truth, mistakes = _recall_by_hand(similarity, owner, k), _recall_mistakes(similarity, owner, k)
        if len({tuple(np.round(value, 6)) for value, _ in mistakes} | {tuple(np.round(truth, 6))}) == len(mistakes) + 1:
            break
    found = call(answer, similarity, owner, k)
    if not isinstance(found, dict) and np.ndim(array(found, "the two shares")) == 0:
        raise Wrong("One number. Two are asked for: image to text, and text to image.")
    compare(list(found.values()) if isinstance(found, dict) else found, truth, mistakes, what=f"(image to text, text to image) at K = {k}", rtol=1e-6, atol=1e-9)


def interval(hits, owner, drawn):
    won, asked = np.bincount(owner, hits), np.bincount(owner)
    shares = won[drawn].sum(1) / asked[drawn].sum(1)
    return np.quantile(shares, [0.025, 0.975])


def _shares_by_hand(hits, owner, drawn):
    """One experiment after another: the captions of the drawn pictures, a picture drawn twice counts twice."""
    return np.array([np.mean([hit for image in draw for hit in hits[owner == image]]) for draw in drawn])


def grade_interval(answer, random):
    """Pictures with one to six captions that mostly go together; 60 draws of pictures, given, so that there is one right answer."""
    images = int(random.integers(12, 17))
    owner = random.permutation(np.repeat(np.arange(images), np.concatenate([[1, 6], random.integers(1, 7, images - 2)])))
    hits = np.where(random.random(len(owner)) < 0.9, (random.random(images) < 0.5)[owner], random.random(len(owner)) < 0.5).astype(float)
    hits[:2] = 0, 1
    drawn = random.integers(0, images, (60, images))
    shares = _shares_by_hand(hits, owner, drawn)
    ends = lambda values, low=2.5: np.percentile(values, [low, 100 - low])  # noqa: E731
    mean = np.bincount(owner, hits) / np.bincount(owner)
    once = np.array([hits[np.isin(owner, draw)].mean() for draw in drawn])
    found = array(call(answer, hits, owner, drawn), "the interval")
    if found.shape == (len(drawn),):
        raise Wrong("These are the shares of all draws. The interval is what holds the middle 95 % of them: two quantiles.")
    share = hits.mean()
    normal = 1.96 * np.sqrt(share * (1 - share) / len(hits))
    compare(found, ends(shares), [
        (ends(shares)[::-1], "The ends are the wrong way round: the low one first."),
        (ends(hits[drawn].mean(1)), "`drawn` holds numbers of *pictures*; you used them as numbers of captions. Captions of one picture succeed and fail together: draw the "
                                    "picture, take all its captions."),
        (ends(mean[drawn].mean(1)), "You average over pictures first, so that a picture with one caption weighs as much as one with six. Add up hits and captions of the "
                                    "draw, then divide."),
        (ends(once), "A picture that was drawn twice counts once with you (np.isin, a set or a mask does that). It must count twice: that is what drawing with replacement "
                     "means."),
        (ends(shares, 5), "This is the middle 90 %: 5 % lie on either side. For 95 % it is 2.5 % on either side."),
        (ends(shares, 1.25), "The tails are too thin: 2.5 % lie below and 2.5 % above."),
        ([shares.min(), shares.max()], "From the smallest to the largest draw: that is 100 %, and it grows with the number of draws. Take the quantiles 2.5 % and 97.5 %."),
        ([shares.mean() - 1.96 * shares.std(), shares.mean() + 1.96 * shares.std()],
         "Mean plus and minus 1.96 deviations takes the draws for a bell curve. It is close; the percentiles need no such curve, and never leave 0 to 1."),
        ([shares.mean() - 1.96 * shares.std() / np.sqrt(len(drawn)), shares.mean() + 1.96 * shares.std() / np.sqrt(len(drawn))],
         "You divided by the root of the number of draws: that says how well the *mean of the draws* is known, and more draws would make you surer for nothing."),
        ([share - normal, share + normal], "This formula takes every caption for an experiment of its own, and never looks at `drawn`. Captions of one picture are not "
                                           "independent."),
        (100 * ends(shares), "In percent. Shares between 0 and 1 are asked for."),
        (shares.mean(), "One number: the mean of the draws. Two ends are asked for."),
    ], what="(low, high)", rtol=0, atol=1e-6)


def p_value(before, after, owner, signs):
    gained = np.bincount(owner, after - before)
    drawn = np.abs(signs @ gained)
    return (1 + (drawn >= abs(gained.sum()) - 1e-9).sum()) / (1 + len(signs))


def _sums_by_hand(before, after, owner, signs):
    """The found sum of differences, and the sum under each row of signs, caption after caption."""
    return sum(after - before), np.array([sum(row[image] * (a - b) for b, a, image in zip(before, after, owner, strict=True)) for row in signs])


def grade_p_value(answer, random):
    """Two models' hits on captions of pictures; 99 rows of signs, given; drawn until every mistake has another p."""
    for _ in range(300):
        images = int(random.integers(14, 20))
        owner = random.permutation(np.repeat(np.arange(images), np.concatenate([[1, 5], random.integers(1, 6, images - 2)])))
        before = (random.random(len(owner)) < 0.45).astype(float)
        after = np.where(random.random(len(owner)) < 0.6, before, random.random(len(owner)) < 0.75).astype(float)
        signs = random.choice([-1, 1], (99, images))
        total, drawn = _sums_by_hand(before, after, owner, signs)
        expected = (1 + (abs(drawn) >= abs(total) - 1e-9).sum()) / 100
        mistakes = _p_mistakes(before, after, owner, signs, total, drawn)
        if len({round(float(value), 9) for value, _ in mistakes} | {round(float(expected), 9)}) == len(mistakes) + 1 and 0.03 < expected < 0.5:
            break
    found = array(call(answer, before, after, owner, signs), "the p value")
    if found.shape == (99,):
        raise Wrong("One value per row of signs. Count how many are at least as far from 0 as the sum that was found.")
    compare(found, expected, mistakes, what="the p value", rtol=0, atol=1e-6)


def _p_mistakes(before, after, owner, signs, total, drawn):
    far, size = abs(drawn) >= abs(total) - 1e-9, len(signs)
    per_image = np.bincount(owner, after - before) / np.bincount(owner)
    by_caption = np.abs(np.tile(signs, 1 + len(owner) // signs.shape[1])[:, : len(owner)] @ (after - before)) >= abs(total) - 1e-9
    weighed = np.abs(signs @ per_image) >= abs(per_image.sum()) - 1e-9
    return [
        (far.mean(), "Nearly. What was found is one of the possible draws too: add 1 to the count and 1 to the number of rows. Then p is never 0."),
        ((1 + far.sum()) / size, "1 was added to the count but not to the number of rows."),
        ((1 + (drawn >= total - 1e-9).sum()) / (1 + size), "One side only. That one of the models is better is asked, whichever: compare distances from 0, with abs."),
        ((1 + (abs(drawn) > abs(total) + 1e-9).sum()) / (1 + size), "Draws that are exactly as far as what was found belong to the count: >=, not >. With whole numbers "
                                                                    "there are many."),
        (1 - (1 + far.sum()) / (1 + size), "This is 1 - p. p is the share of draws *at least* as far from 0: small when there is something."),
        ((1 + by_caption.sum()) / (1 + size), "You gave signs to captions. They belong to pictures: all captions of a picture change sign together, signs[:, owner]."),
        ((1 + weighed.sum()) / (1 + size), "You averaged within each picture first, so that a picture with one caption weighs as much as one with five. Add up the "
                                           "differences of its captions."),
        (total / len(owner), "This is the gain. p says how often chance alone would give as much."),
        (2.0 * (1 + far.sum()) / (1 + size), "Doubled: abs counts both sides already."),
    ]


EXERCISES = (
    Exercise(
        "07.ranks", "ranks without a loop", points=2, minutes=8, level="core", needs="comparisons of arrays, indexing with two arrays",
        hints=("The rank is 1 + how many candidates score higher + what the ties cost. Nothing needs to be sorted.",
               "Each query's right score is scores[np.arange(len(scores)), right]; make it a column with [:, None], and compare the whole matrix with it.",
               "tied = (scores == own).sum(1) - 1, as the right one equals itself; the rank is 1 + (scores > own).sum(1) + (tied + 1) // 2."),
        grade=grade_ranks, reference=ranks,
        explanation="Counting is quicker than sorting, and it says what happens with ties, where sorting leaves it to the order of the columns. Half a place rounded up is "
                    "the place in the middle of all that say the same; so a model that says the same of everything stands in the middle and not on top.",
        passed="No loop, no sorting, and nobody wins by a tie."),
    Exercise(
        "07.recall", "R@K with several captions", points=3, minutes=12, level="core", needs="argsort along an axis, any along an axis",
        hints=("Image to text: the first K captions of each row; a hit if any of them has this image as its owner. Text to image: the first K images of each column; a hit "
               "if the owner is one.",
               "np.argsort(-similarity, axis=1)[:, :k] holds numbers of captions. owner[...] of it holds numbers of images: compare with the row's number.",
               "np.argsort(-similarity, axis=0)[:k] has shape (K, M): (that == owner).any(0).mean() is text to image."),
        grade=grade_recall, reference=recall,
        explanation="There are two numberings, captions and images, and owner leads from one to the other. An image asks once, and any of its captions will do; each "
                    "caption asks, and one image "
                    "will do. So the two directions have different numbers of queries, of candidates and of right answers, and must never be compared with each other as if "
                    "they were one task.",
        passed="Both directions, any number of captions."),
    Exercise(
        "07.interval", "the interval over pictures", points=3, minutes=12, level="core", needs="np.bincount, quantiles",
        hints=("For each row of `drawn`: collect the hits of all captions of the drawn pictures (twice, if drawn twice) and take their mean. Then the quantiles.",
               "np.bincount(owner, hits) is the number of hits of each picture, np.bincount(owner) its number of captions.",
               "won[drawn].sum(1) / asked[drawn].sum(1) is the share of each draw; np.quantile(shares, [0.025, 0.975])."),
        grade=grade_interval, reference=interval,
        explanation="The question is: what would have come out with other pictures? So pictures are drawn, with all their captions. Drawing captions asks another question, "
                    "with pictures fixed, "
                    "and takes five captions of one picture for five experiments: the interval comes out too narrow.",
        passed="Pictures are drawn, and their captions come along."),
    Exercise(
        "07.p_value", "is it chance?", points=3, minutes=10, level="stretch", needs="np.bincount, products of matrices",
        hints=("If the models were alike, each picture's difference could as well have the other sign. How far from 0 does the sum get then?",
               "gained = np.bincount(owner, after - before) is one number per picture; signs @ gained is the sum under each row of signs.",
               "(1 + how many are at least as far from 0 as gained.sum()) / (1 + number of rows)"),
        grade=grade_p_value, reference=p_value,
        explanation="The sign-flip test needs no bell curve: it lets the pictures themselves say how large a difference chance makes. Pictures on which both models do "
                    "alike drop out by themselves. "
                    "What was found counts as one of the draws, so p is never 0: with 99 rows one cannot claim less than 1 in 100.",
        passed="Chance has been asked, and has answered."),
)
