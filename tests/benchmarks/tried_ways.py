"""The ways that `bench_tried.py` compares: each is a function of (part to fit on, seed) and returns a function of the part that is asked, which gives cosines (N, M)."""

import copy

import numpy as np
import torch
from torch.nn import functional as F
from tried_photos import LOGITS, VIEWS, class_vectors

from miniclip_helpers import training
from miniclip_helpers.encoders import load_encoder
from miniclip_helpers.encoders.efficientnet import BLOCKS
from miniclip_helpers.model import BlockHead, MlpHead, TwoTowers
from miniclip_helpers.training import sides
from miniclip_helpers.training.heads import canonical_maps, pair_statistics
from miniclip_helpers.training.locked import ClosedForm, Features, block_heads, correct_hubs, mini_heads, similarity

WIDTHS, DIM = list(BLOCKS.values()), 256
IMAGE_SHRINK, TEXT_SHRINK = 20.0, 3.0  # the package's
STEPS, RATE, BATCH = 40, 3e-3, 128  # of the heads that learn by steps; the best of nine settings on splits with other seeds


def small_towers():
    """`mini`'s towers; the picture is looked at twice."""
    return load_encoder("efficientnet-lite0", mode="both"), load_encoder("minilm")


def blocks(features, widths=WIDTHS, rooted=True):
    """Each block rooted and of unit length, as `BlockHead` sees them."""
    return BlockHead(widths, 1, rooted).blocks(features)


def unit(rows):
    return F.normalize(rows, dim=-1)


def cosines(images, texts):
    return unit(images) @ unit(texts).T


def model_of(image_head, text_head):
    """Heads as the loop takes them, on the locked towers of `mini`, which are never read: they are fed features."""
    return sides.on_features(TwoTowers(*small_towers(), image_head, text_head))


def asks(model):
    """The function of a part that gives the cosines under a model on features."""
    def ask(part):
        return torch.mm(*[rows if place == 0 else rows.T for place, rows in enumerate(sides.embed(model, part.images(), part.texts()))])

    return ask


# --- in closed form -------------------------------------------------------------------------------------------------------------------------------


def maps_of(images, texts, owner, image_shrink=IMAGE_SHRINK, text_shrink=TEXT_SHRINK, power=0.5):
    """(images -> shared space, texts -> shared space) by regularised CCA."""
    m = canonical_maps(pair_statistics(images, texts, owner), image_shrink, text_shrink, power=power)
    return (lambda rows: unit((rows.double() - m.image_mean) @ m.image_map)), (lambda rows: unit((rows.double() - m.text_mean) @ m.text_map))


def in_blocks(*views, rooted=True):
    """The blocks of several views of a picture, side by side."""
    return lambda part: torch.cat([blocks(part.images(view), VIEWS[view]().block_widths, rooted) for view in views], 1)


def pooled_alone(part):
    """The last convolution's means over space: what the classifier sees, and most people take."""
    return blocks(part.images()[:, sum(WIDTHS[:3]) : sum(WIDTHS[:4])], WIDTHS[3:4])


def wordings(*names):
    """The captions' features in several wordings or layers, side by side."""
    return lambda part: torch.cat([unit(part.texts(name)) for name in names], 1)


def further(what):
    """Further captions of each photo, to fit on alone."""
    return lambda part: [(part.tags(), torch.arange(len(part.rows)))] if what == "tags" else [(part.texts(what), part.owner)]


def plain(train):
    """The captions' features as they are."""
    return lambda part: unit(part.texts())


def closed(see=lambda part: blocks(part.images()), read=None, reads=plain, more=None, **settings):
    """CCA on what `see` and `read` make of a part; reads: makes `read` out of the part to fit on. more: gives further (texts, owner) of that part."""
    def fit(train, seed):
        read_ = read or reads(train)
        texts, owner = read_(train), train.owner
        for extra, whose in more(train) if more else ():
            texts, owner = torch.cat([texts, unit(extra)]), torch.cat([owner, whose])
        image, text = maps_of(see(train), texts, owner, **settings)
        return lambda part: cosines(image(see(part)), text(read_(part))).float()

    return fit


def spelled(train, weight=0.5):
    """Function of a part: its captions' features with their spelling beside, tf-idf of runs of three to five letters that the training captions hold."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    seen = TfidfVectorizer(sublinear_tf=True, ngram_range=(3, 5), analyzer="char_wb").fit(train.captions())
    return lambda part: torch.cat([unit(part.texts()), weight * torch.from_numpy(seen.transform(part.captions()).toarray()).float()], 1)


def fitted(view="both", hubs=0.0, refit=False):
    """The package's own closed form with the heads of `mini` beside; hubs: how much of the closeness to everybody is taken off."""
    towers = VIEWS[view](), load_encoder("minilm")

    def features(part):
        return Features(part.images(view), part.texts(), part.owner)

    def fit(train, seed):
        seen = features(train.whole if refit else train)
        model = correct_hubs(ClosedForm(*towers, seen).model(IMAGE_SHRINK, TEXT_SHRINK), seen, (hubs,))[hubs]
        return lambda part: similarity(model, features(part))

    return fit


def ridge(shrink):
    """Least squares from picture to caption, one direction: the text space stays as MiniLM made it, less its mean."""
    def fit(train, seed):
        texts, x = unit(train.texts()).double(), blocks(train.images()).double()
        mean, text_mean = x.mean(0), texts.mean(0)
        target = torch.zeros(len(x), texts.shape[1], dtype=torch.float64).index_add(0, train.owner, texts) / torch.bincount(train.owner)[:, None] - text_mean
        x = x - mean
        kernel = x @ x.T
        dual = torch.linalg.solve(kernel + shrink * kernel.diagonal().mean() * torch.eye(len(x)), target)
        return lambda part: cosines((blocks(part.images()).double() - mean) @ (x.T @ dual), unit(part.texts()).double() - text_mean).float()

    return fit


def neighbours(sharpness=30.0):
    """No map at all: a picture is what the captions of the training pictures say that look like it."""
    def fit(train, seed):
        seen, said = unit(blocks(train.images())), unit(train.texts())
        mean = said.mean(0)
        told = torch.zeros(len(seen), said.shape[1]).index_add(0, train.owner, said - mean) / torch.bincount(train.owner)[:, None]
        return lambda part: cosines((sharpness * unit(blocks(part.images())) @ seen.T).softmax(-1) @ told, unit(part.texts()) - mean)

    return fit


def radial(gamma=0.5):
    """CCA on how close a picture lies to each training picture, exp(-gamma * squared distance): a map that is not linear."""
    def fit(train, seed):
        seen = blocks(train.images())
        close = lambda part: torch.exp(-gamma * torch.cdist(blocks(part.images()), seen).square())  # noqa: E731
        return closed(close)(train, seed)

    return fit


def conse(train, seed):
    """Nothing is fitted: the class logits weigh MiniLM's vectors of the class names, and a caption is compared with their sum."""
    mean = class_vectors().mean(0)
    return lambda part: cosines((part.images()[:, LOGITS] / 2).softmax(-1) @ (class_vectors() - mean), unit(part.texts()) - mean)


def mini(train, seed):
    """`mini` as it is: nothing is fitted."""
    return asks(model_of(*mini_heads(*small_towers())))


def together(*ways, shares=None):
    """The weighted mean of several ways' cosines."""
    weights = shares or [1 / len(ways)] * len(ways)

    def fit(train, seed):
        fitted = [way(train, seed) for way in ways]
        return lambda part: sum(weight * ask(part) for weight, ask in zip(weights, fitted, strict=True))

    return fit


def seeds(way, count=5):
    """The mean cosine of the same way under several seeds."""
    return lambda train, seed: (lambda fitted: lambda part: sum(ask(part) for ask in fitted) / count)([way(train, seed + 1000 * n) for n in range(count)])


# --- by steps -------------------------------------------------------------------------------------------------------------------------------------


def linear_heads(train, dim=DIM):
    """Heads that start from noise, centred on what they will see."""
    heads = BlockHead(WIDTHS, dim), BlockHead([train.texts().shape[1]], dim, rooted=False)
    for head, rows in zip(heads, (train.images(), train.texts()), strict=True):
        head.mean.copy_(head.blocks(rows).mean(0))
    return heads


def mlp_heads(train, dim=DIM):
    """Two layers on each side."""
    return MlpHead(sum(WIDTHS), dim), MlpHead(train.texts().shape[1], dim)


def closed_heads(train, dim=DIM):
    """Heads that start as the closed form left them."""
    maps = canonical_maps(pair_statistics(blocks(train.images()), unit(train.texts()), train.owner), IMAGE_SHRINK, TEXT_SHRINK)
    return block_heads(maps, WIDTHS, train.texts().shape[1])


def heads_of_mini(train, dim=DIM):
    """Heads that start as `mini`'s."""
    return [copy.deepcopy(head) for head in mini_heads(*small_towers())]


def dropout(share):
    return lambda rows, generator: rows * (torch.rand(rows.shape, generator=generator) >= share) / (1 - share)


def mixed(share):
    """Each picture's features with a little of another's of the batch."""
    return lambda rows, generator: (1 - share) * rows + share * rows[torch.randperm(len(rows), generator=generator)]


def steps(heads=linear_heads, loss="clip", total=STEPS, rate=RATE, decay=0.1, batch=BATCH, augment=None, every_caption=False, scale=1 / 0.07, **settings):
    """AdamW on the heads by the package's own loop, about `total` steps. every_caption: each caption is a pair of its own; equal ones are one group.

    Captions of one picture need no group here: on locked features they share the picture's vector, and then `clip_loss` and `multi_positive_loss` with
    the pictures as groups have the same value and the same gradients.
    """
    def fit(train, seed):
        images, texts, owner = train.images(), train.texts(), train.owner
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = model_of(*heads(train))
            with torch.no_grad():
                model.log_logit_scale.fill_(torch.tensor(scale).log())
            pairs = (images[owner], texts, torch.arange(len(texts))) if every_caption else (images, texts, owner)
            same = torch.from_numpy(np.unique(train.captions(), return_inverse=True)[1]) if every_caption else None
            batches = training.PairBatches(*pairs, batch, groups=same, augment=augment)
            config = training.TrainConfig(epochs=max(1, round(total / len(batches))), learning_rate=rate, weight_decay=decay, batch_size=batch, loss=loss, seed=seed, **settings)
            for _ in training.fit(model, batches, config):
                pass
        return asks(model)

    return fit
