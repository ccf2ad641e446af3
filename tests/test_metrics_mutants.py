"""Wrong scorers that real projects used, each a function: the fixtures of the metrics' tests must tell every one of them from the right one.

A scorer takes similarity (n_images, n_captions) and owner, and gives R@1 image to text, R@1 text to image, MRR text to image, MedR text to image.
"""

import numpy as np
import pytest

from miniclip_helpers import finetuning, metrics

BATCH = 8


def random_case(seed, images=24, most=7):
    """Captions in random order, 1 to 7 an image, scores of one decimal, so that there are ties: what the metrics' own tests use."""
    random = np.random.default_rng(seed)
    owner = random.permutation(np.repeat(np.arange(images), random.integers(1, most + 1, images)))
    similarity = random.normal(size=(images, len(owner)))
    similarity[owner, np.arange(len(owner))] += 1.5
    return np.round(similarity, 1), owner


def figures(rank):
    by_image, by_text = np.asarray(rank["image_to_text"]), np.asarray(rank["text_to_image"], dtype=float)
    with np.errstate(divide="ignore"):
        return (by_image <= 1).mean(), (by_text <= 1).mean(), (1 / by_text).mean(), np.median(by_text)


def right(similarity, owner):
    return figures(metrics.ranks(similarity, owner))


def column_per_caption(similarity, owner):
    """Project 002: a column per caption, the best one's number compared with the image's number."""
    found = finetuning.broken_scorer(similarity, owner)["R@1"]
    repeated = similarity[owner].T  # (M, M): the image of each line, once per line
    place = (-repeated).argsort(1, kind="stable").argsort(1, kind="stable")[np.arange(len(owner)), owner] + 1
    return right(similarity, owner)[0], found, (1 / place).mean(), np.median(place)


def within_a_batch(similarity, owner):
    """Projects 000 and 001: the rank among the pictures of a batch."""
    by_text = [1 + (similarity[owner[c] // BATCH * BATCH : owner[c] // BATCH * BATCH + BATCH, c] > similarity[owner[c], c]).sum() for c in range(len(owner))]
    return figures({"image_to_text": metrics.ranks(similarity, owner)["image_to_text"], "text_to_image": by_text})


def first_caption_only(similarity, owner):
    """Other captions are neither queries nor candidates."""
    first = np.unique(owner, return_index=True)[1]
    return right(similarity[:, first], owner[first])


def first_caption_is_the_only_right_one(similarity, owner):
    """All captions are candidates, but only the first one of an image counts as right."""
    first = np.unique(owner, return_index=True)[1]
    rank = {"image_to_text": metrics.target_ranks(similarity, first), "text_to_image": metrics.ranks(similarity, owner)["text_to_image"]}
    return figures(rank)


def ties_as_wins(similarity, owner):
    """rank = 1 + how many are strictly better."""
    return figures(metrics.ranks(similarity, owner, ties="optimistic"))


def rank_from_zero(similarity, owner):
    """The place in a list that counts from 0, called rank."""
    return figures({key: rank - 1 for key, rank in metrics.ranks(similarity, owner).items()})


def ascending(similarity, owner):
    """argsort without the minus: the worst first."""
    return right(-similarity, owner)


def the_other_direction(similarity, owner):
    """The two directions under each other's names."""
    rank = metrics.ranks(similarity, owner)
    return figures({"image_to_text": rank["text_to_image"], "text_to_image": rank["image_to_text"]})


def captions_compete(similarity, owner):
    """An image's own captions count against each other: every one of them must come first."""
    by_image = []
    for image, row in enumerate(similarity):
        order = np.argsort(-row, kind="stable")
        by_image.append(1 + np.flatnonzero(owner[order] == image).max())
    return figures({"image_to_text": by_image, "text_to_image": metrics.ranks(similarity, owner)["text_to_image"]})


def gallery_with_training(similarity, owner):
    """Project 000: the pictures of training stand among the candidates."""
    extra = np.random.default_rng(99).normal(size=(60, similarity.shape[1]))
    by_text = 1 + (np.vstack([similarity, extra]) > similarity[owner, np.arange(len(owner))]).sum(0)
    return figures({"image_to_text": metrics.ranks(similarity, owner)["image_to_text"], "text_to_image": by_text})


def image_wins_when_any_caption_does(similarity, owner):
    """Text to image scored per image: found if any caption finds it."""
    by_text = metrics.ranks(similarity, owner)["text_to_image"]
    best = np.array([by_text[owner == image].min() for image in range(len(similarity))])
    return figures({"image_to_text": metrics.ranks(similarity, owner)["image_to_text"], "text_to_image": best})


MUTANTS = [column_per_caption, within_a_batch, first_caption_only, first_caption_is_the_only_right_one, ties_as_wins, rank_from_zero, ascending,
           the_other_direction, captions_compete, gallery_with_training, image_wins_when_any_caption_does]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
@pytest.mark.parametrize("seed", range(5))
def test_the_fixtures_tell_a_mutant_from_the_right_scorer(mutant, seed):
    similarity, owner = random_case(seed)
    assert not np.allclose(mutant(similarity, owner), right(similarity, owner), atol=1e-9), "this mistake would pass unseen"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_no_mutant_agrees_with_the_case_by_hand(mutant):
    """Four images, seven captions, one tie. Counted by hand; caption 4 ties with one wrong image, which costs it a place."""
    owner = np.array([0, 0, 1, 1, 2, 2, 3])
    similarity = np.array([[0.9, 0.8, 0.3, 0.1, 0.6, 0.5, 0.7],
                           [0.2, 0.1, 0.4, 0.9, 0.4, 0.2, 0.5],
                           [0.1, 0.3, 0.5, 0.2, 0.4, 0.4, 0.6],
                           [0.7, 0.6, 0.2, 0.3, 0.5, 0.2, 0.4]])
    found = metrics.ranks(similarity, owner)
    assert found["image_to_text"].tolist() == [1, 1, 3, 4] and found["text_to_image"].tolist() == [1, 1, 2, 1, 4, 2, 4]
    if mutant not in (within_a_batch, gallery_with_training):  # four images make one batch; the made-up gallery scores on another scale
        assert not np.allclose(mutant(similarity, owner), right(similarity, owner), atol=1e-9)


def test_a_perfect_model_under_project_002_s_scorer():
    """1,215 images of five captions: 5 / 6075 = 0.08 %."""
    owner = np.repeat(np.arange(1215), 5)
    perfect = (np.arange(1215)[:, None] == owner).astype(np.float32)
    assert finetuning.broken_scorer(perfect, owner)["R@1"] == pytest.approx(5 / 6075)
    assert metrics.retrieval_metrics(perfect, owner)["text_to_image"]["R@1"] == 1
