"""What notebook 10 measures: pairs of one concept by two hands, small towers on features, and how the error falls with the number of pairs."""

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import embedding, metrics, runtime
from ..datasets import load_dataset
from ..errors import UsageError
from ..losses import clip_loss
from ..metrics.blocks import finite_real
from ..model import TwoTowers
from ..model.heads import root
from .heads import canonical_maps, pair_statistics
from .loop import DIVERGED, Diverged

AXES = 256  # directions kept of the picture features
REDRAWS = 300  # redraws of the bootstrap


@dataclasses.dataclass(frozen=True)
class Pairs:
    """C concepts, row by row. names: C captions. features: {hand: (C, width)}, of its drawings. said: (C, W), of the captions.

    pictures: {hand: (C, 256)}, the features along their largest directions. captions: (C, W), unit rows.
    """

    names: list
    features: dict
    said: torch.Tensor
    pictures: dict
    captions: torch.Tensor


def emoji_pairs(model, hands=("noto", "twemoji"), every=1):
    """The emoji that each of the hands has drawn, with their names, as `model`'s towers see them: `Pairs`. every: so-manieth concept."""
    emoji = load_dataset("emoji")
    drawn = {hand: emoji.where("source", hand) for hand in hands}
    codes = sorted(set.intersection(*(set(part.columns["hexcode"]) for part in drawn.values())))[::every]
    rows = {hand: {code: row for row, code in enumerate(part.columns["hexcode"])} for hand, part in drawn.items()}
    drawn = {hand: part.subset([rows[hand][code] for code in codes]) for hand, part in drawn.items()}
    names = [said[0] for said in drawn[hands[0]].captions]
    features = {hand: embedding.image_features(model.image_tower, part) for hand, part in drawn.items()}
    said = embedding.text_features(model.text_tower, names)
    rooted = {hand: F.normalize(root(part), dim=-1) for hand, part in features.items()}
    centre = rooted[hands[0]].mean(0)
    axes = torch.linalg.svd(rooted[hands[0]][::2] - centre, full_matrices=False)[2][:AXES].T
    return Pairs(names, features, said, {hand: (part - centre) @ axes for hand, part in rooted.items()}, F.normalize(said, dim=-1))


def spread(rows):
    """Rows centred, and brought to a standard deviation of 1 over all their numbers. A `UsageError` where all are the same, or one is not finite."""
    centred = rows - rows.mean(0)
    if not 0 < centred.abs().max() < np.inf:
        raise UsageError("expected two different rows at least, all finite: these have no spread")
    return centred / centred.std()


def small_towers(image_width, text_width, seed=0):
    """Two towers of one hidden layer each, over features, with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TwoTowers(*(nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 64)) for width in (image_width, text_width)))


def flat_gradient(model):
    """All gradients of a model but the temperature's, as one vector."""
    return torch.cat([weight.grad.ravel() for name, weight in model.named_parameters() if name != "log_logit_scale"])


def accumulated_step(model, images, texts, size, loss=clip_loss):
    """Gradient accumulation: backward of each small batch's loss, weighed by its share. Returns the mean loss; the gradients are in `.grad`, afresh.

    Raises `Diverged` at a loss that is not finite.
    """
    model.zero_grad()
    total = 0.0
    for one, two in zip(images.split(size), texts.split(size)):
        part = loss(*model(one, two)) * (len(one) / len(images))
        if not math.isfinite(part.item()):
            raise Diverged(f"the loss of a small batch {DIVERGED}")
        part.backward()
        total += part.item()
    return total


def train_small(images, texts, stops, size=None, seed=0, rate=1e-3):
    """Train `small_towers` on all pairs, one step a pass, and yield (step, towers) before the first step and at each of `stops`.

    size: pairs per small batch, accumulated, in a new order at each step; None for the whole batch at once.
    """
    towers, random = small_towers(images.shape[1], texts.shape[1], seed), runtime.generator(seed)
    optimizer = torch.optim.AdamW(towers.parameters(), lr=rate)
    for step in range(max(stops) + 1):
        if step in (0, *stops):
            yield step, towers
        order = torch.randperm(len(images), generator=random)
        accumulated_step(towers, images[order], texts[order], size or len(images))
        optimizer.step()


def recall_at_10(image_rows, text_rows):
    """The mean of R@10 over both directions; row i belongs to row i."""
    cosines = F.normalize(image_rows, dim=-1) @ F.normalize(text_rows, dim=-1).T
    found = metrics.retrieval_metrics(cosines.numpy(), np.arange(len(cosines)), ks=(10,))
    return float(np.mean([found[direction]["R@10"] for direction in ("image_to_text", "text_to_image")]))


def small_scores(images, texts, test_images, test_texts, steps, size=None, seeds=3):
    """R@10 of `small_towers` on held-out pairs, after `steps` steps of `train_small`: one number per seed."""
    scores = []
    for seed in range(seeds):
        *_, (_, trained) = train_small(images, texts, (steps,), size, seed)
        with torch.no_grad():
            scores.append(recall_at_10(*trained(test_images, test_texts)[:2]))
    return scores


def learning_curve(pairs, sizes, test=400, shrink=10.0, seed=0):
    """1 - R@10 on `test` held-out concepts, of heads in closed form fitted to `sizes` concepts: (errors (sizes,), error with each concept drawn twice).

    The first hand's drawings train and test; the last number adds the second hand's drawings of the largest size's concepts. The seed draws the concepts.
    """
    first, second = pairs.pictures.values()
    order = torch.randperm(len(first), generator=runtime.generator(seed))
    held, rest = order[:test], order[test:]
    if max(sizes) > len(rest):
        raise UsageError(f"expected at most {len(rest)} concepts to train on beside {test} held out, found {max(sizes)}")

    def error(images, texts):
        maps = canonical_maps(pair_statistics(images, texts, range(len(images))), shrink, shrink)
        return 1 - recall_at_10((first[held].double() - maps.image_mean) @ maps.image_map, (pairs.captions[held].double() - maps.text_mean) @ maps.text_map)

    errors = [error(first[rest[:size]], pairs.captions[rest[:size]]) for size in sizes]
    most = rest[: max(sizes)]
    return errors, error(torch.cat([first[most], second[most]]), torch.cat([pairs.captions[most]] * 2))


def _law(sizes, errors, least):
    """The two as float64 arrays (n,); a `UsageError` where no line goes through their logarithms."""
    sizes, errors = finite_real(sizes, "sizes"), finite_real(errors, "errors")
    if sizes.ndim != 1 or sizes.shape != errors.shape or len(np.unique(sizes)) < least or sizes.min() <= 0 or errors.min() <= 0:
        raise UsageError(f"expected sizes and errors (n,), all above 0, and {least} different sizes at least, found {sizes.tolist()} and {errors.tolist()}; an error "
                         "of 0 has no logarithm: test on more pairs, or leave that size out")
    return sizes, errors


def fit_power_law(sizes, errors):
    """error = A * n ** -alpha, by a straight line through the logarithms: (alpha, function of n). Sizes and errors above 0, two different sizes at least."""
    sizes, errors = _law(sizes, errors, 2)
    slope, start = np.polyfit(np.log(sizes), np.log(errors), 1)
    return float(-slope), lambda n: np.exp(start + slope * np.log(n))


def fit_floor(sizes, errors):
    """error = E + A * n ** -alpha by least squares: (E, A, alpha), none below 0. Sizes and errors above 0, three different sizes at least."""
    from scipy.optimize import curve_fit

    sizes, errors = _law(sizes, errors, 3)

    def law(n, floor, a, alpha):
        return floor + a * n**-alpha

    return curve_fit(law, np.asarray(sizes, dtype=float), errors, p0=(0.05, 1.0, 0.3), bounds=([0, 0, 0], [1, 10, 3]), maxfev=20000)[0]


def judge_law(sizes, errors, seed=0):
    """Fit a power law to all sizes but the largest, and hold its promise for that one against what was measured.

    errors: (seeds, sizes). Intervals: 95 %, by drawing seeds anew. Returns {"alpha", "predicted", "floor": (low, high), "measured", "law": function of n,
    "alpha95", "predicted95"}; the floor is that of E + A * n ** -alpha through all sizes. One seed gives intervals without width. A `UsageError` as of
    `fit_power_law` and `fit_floor`.
    """
    errors, random = np.asarray(errors), np.random.default_rng(seed)
    alpha, law = fit_power_law(sizes[:-1], errors[:, :-1].mean(0))
    drawn = [errors[random.integers(0, len(errors), len(errors))].mean(0) for _ in range(REDRAWS)]
    fits = [fit_power_law(sizes[:-1], sample[:-1]) for sample in drawn]
    between = lambda values: tuple(float(value) for value in np.quantile(values, [0.025, 0.975]))  # noqa: E731
    return {"alpha": alpha, "alpha95": between([found for found, _ in fits]), "predicted": float(law(sizes[-1])), "law": law,
            "predicted95": between([line(sizes[-1]) for _, line in fits]), "measured": float(errors[:, -1].mean()),
            "floor": between([fit_floor(sizes, sample)[0] for sample in drawn[::5]])}
