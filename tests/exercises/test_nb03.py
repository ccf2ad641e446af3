"""The bank of notebook 03."""

import collections
import hashlib

import numpy as np
import pytest
import torch
from bank import cases, check_verdict

from miniclip_helpers import checks, tokenizers
from miniclip_helpers.datasets.splits import split_rows


def by_caption(owner, share, seed):
    order = np.random.default_rng(seed).permutation(len(owner))
    cut = round(share * len(owner))
    return order[cut:], order[:cut]


def by_image(owner, share, seed, shuffle=lambda images, seed: np.random.default_rng(seed).permutation(images), cut=lambda s, n: round(s * n), give=lambda a, b: (a, b)):
    """An answer to 03.split_by_image, with one thing done otherwise."""
    images = shuffle(np.unique(owner), seed)
    test = np.isin(owner, images[: cut(share, len(images))])
    return give(np.flatnonzero(~test), np.flatnonzero(test))


def split(**options):
    return lambda owner, share, seed: by_image(owner, share, seed, **options)


def looped_split(owner, share, seed):
    images = sorted(set(owner.tolist()))
    np.random.default_rng(seed).shuffle(images)
    chosen = set(images[: round(share * len(images))])
    parts = [], []
    for caption, image in enumerate(owner):
        parts[image in chosen].append(caption)
    return parts


def packaged_split(owner, share, seed):
    images = np.unique(owner)
    test = images[split_rows(len(images), {"test": round(share * len(images)) / len(images), "train": 1 - round(share * len(images)) / len(images)}, seed)["test"]]
    return [i for i, image in enumerate(owner) if image not in test], [i for i, image in enumerate(owner) if image in test]


def global_seed(images, seed):
    np.random.seed(seed)
    return np.random.permutation(images)


def until_enough_captions(owner, share, seed):
    images = np.random.default_rng(seed).permutation(np.unique(owner))
    test, held = [], 0
    for image in images:
        if held < share * len(owner) * 1.6:
            test.append(image)
            held += (owner == image).sum()
    inside = np.isin(owner, test)
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def first_captions(train, test, owner):
    _, first = np.unique(owner, return_index=True)
    return np.intersect1d(train, first), np.intersect1d(test, first)


def step(count=None, choose=lambda count: min(count, key=lambda pair: (-count[pair], pair)), merge=tokenizers.merge_pair, give=lambda pair, words: (pair, words)):
    """An answer to 03.bpe_merge, with one thing done otherwise."""

    def answer(words):
        counted = (count or counted_pairs)(words)
        best = choose(counted)
        merged = {}
        for pieces, times in words.items():
            merged[tuple(merge(list(pieces), best))] = times
        return give(best, merged)

    return answer


def counted_pairs(words):
    count = collections.Counter()
    for pieces, times in words.items():
        for i in range(len(pieces) - 1):
            count[pieces[i], pieces[i + 1]] += times
    return count


def across_words(words):
    text = [piece for pieces, times in words.items() for piece in pieces * times]
    return collections.Counter(zip(text, text[1:]))


def once(words):
    return collections.Counter(pair for pieces in words for pair in zip(pieces, pieces[1:]))


def replace_text(pieces, pair):
    return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split(" ")


def first_only(pieces, pair):
    for i in range(len(pieces) - 1):
        if (pieces[i], pieces[i + 1]) == pair:
            return [*pieces[:i], "".join(pair), *pieces[i + 2 :]]
    return pieces


def no_skip(pieces, pair):
    out = []
    for i, piece in enumerate(pieces):
        out.append("".join(pair) if (piece, *pieces[i + 1 : i + 2]) == pair else piece)
    return out


def from_the_right(pieces, pair):
    for i in range(len(pieces) - 2, -1, -1):
        if tuple(pieces[i : i + 2]) == pair:
            pieces[i : i + 2] = ["".join(pair)]
    return pieces


def in_place(pieces, pair):
    i = 0
    while i < len(pieces) - 1:
        if (pieces[i], pieces[i + 1]) == pair:
            pieces[i : i + 2] = ["".join(pair)]
        i += 1
    return pieces


def only_changed(words):
    pair, merged = step()(words)
    return pair, {pieces: times for pieces, times in merged.items() if pieces not in words}


def leak(test=lambda a, b: np.abs(a[1].astype(int) - b[1]).mean() < 8, give=list):
    """An answer to 03.find_the_leak: rows of the test for which `test` holds with some row of train."""
    return lambda train, rows: give([i for i, row in enumerate(rows) if any(test(row, other) for other in train)])


def picture(values=lambda x, factor: (x * factor).clamp(0, 1), after=lambda v: v, shape=(-1, 1, 1), by=255):
    """An answer to 03.prepare, with one thing done otherwise."""
    return lambda pixels, factor, mean, std: after((values(pixels.float() / by, factor) - mean.view(shape)) / std.view(shape))


def jitter_late(pixels, factor, mean, std):
    return (pixels.float() / 255 - mean[:, None, None]) / std[:, None, None] * factor


BANK = {
    "03.split_by_image": {
        "right": [looped_split, packaged_split, split(shuffle=lambda images, seed: images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).numpy()])],
        "wrong": [
            ("split by caption", by_caption),
            ("nothing is shuffled", split(shuffle=lambda images, seed: images)),
            ("nothing is shuffled", split(shuffle=lambda images, seed: np.random.default_rng(0).permutation(images))),
            ("The same seed gave another split", split(shuffle=lambda images, seed: np.random.default_rng().permutation(images))),
            ("everyone else", split(shuffle=global_seed)),
            ("wrong way round", split(give=lambda train, test: (test, train))),
            ("mask of True and False", lambda owner, share, seed: [np.isin(np.arange(len(owner)), part) for part in by_image(owner, share, seed)]),
            ("Count images, not captions", until_enough_captions),
            ("one per image", lambda owner, share, seed: first_captions(*by_image(owner, share, seed), owner)),
            ("numbers of the", lambda owner, share, seed: np.split(np.random.default_rng(seed).permutation(owner.max() + 1), [round((1 - share) * (owner.max() + 1))])),
            ("in neither part", split(give=lambda train, test: (train[1:], test))),
            ("test part is empty", split(cut=lambda share, n: 0)),
            ("Return two things", split(give=lambda train, test: test)),
            ("same caption stands in both parts", split(give=lambda train, test: (np.append(train, test[0]), test))),
        ],
    },
    "03.find_the_leak": {
        "right": [leak(), leak(lambda a, b: np.corrcoef(a[1].ravel(), b[1].ravel())[0, 1] > 0.9),
                  leak(lambda a, b: np.abs(a[1].astype(float) - b[1]).max() < 20, give=lambda rows: np.array(rows))],
        "wrong": [
            ("Equal names need not", leak(lambda a, b: a[0] == b[0])),
            ("share a caption", leak(lambda a, b: a[2] == b[2])),
            ("share a caption", leak(lambda a, b: a[2] == b[2] or (a[1] == b[1]).all())),
            ("saved again was missed", leak(lambda a, b: np.array_equal(a[1], b[1]))),
            ("saved again was missed", leak(lambda a, b: hashlib.sha256(a[1]).digest() == hashlib.sha256(b[1]).digest())),
            ("saved again was missed", leak(lambda a, b: np.abs(a[1] - b[1]).mean() < 8)),
            ("was called a leak", leak(lambda a, b: np.abs(a[1].astype(int) - b[1]).mean() < 200)),
            ("clean rows", lambda train, test: sorted(set(range(len(test))) - set(leak()(train, test)))),
            ("positions in `test`", leak(give=len)),
            ("under another name was missed", leak(lambda a, b: a[0] == b[0] and np.abs(a[1].astype(int) - b[1]).mean() < 8)),
            ("as numbers", lambda train, test: [row[0] for i, row in enumerate(test) if i in leak()(train, test)]),
        ],
    },
    "03.prepare": {
        "right": [
            picture(lambda x, f: torch.minimum(x * f, torch.ones(()))),
            lambda pixels, f, mean, std: torch.stack([(c.float().mul(f / 255).clip(max=1) - m) / s for c, m, s in zip(pixels, mean, std)]),
        ],
        "wrong": [
            ("colour was changed after normalising", jitter_late),
            ("thrown away every value below the mean", lambda *inputs: jitter_late(*inputs).clamp(0, 1)),
            ("clamped after normalising", picture(after=lambda v: v.clamp(0, 1))),
            ("is not changed", picture(lambda x, f: x)),
            ("not normalised", lambda pixels, f, mean, std: (pixels.float() / 255 * f).clamp(0, 1)),
            ("not divided by 255", picture(lambda x, f: (x * f).clamp(0, 255), by=1)),
            ("not divided by 255", picture(by=1)),
            ("deviation is missing", lambda pixels, f, mean, std: (pixels.float() / 255 * f).clamp(0, 1) - mean[:, None, None]),
            ("variance", lambda pixels, f, mean, std: ((pixels.float() / 255 * f).clamp(0, 1) - mean[:, None, None]) / std[:, None, None] ** 2),
            ("You multiplied by", lambda pixels, f, mean, std: ((pixels.float() / 255 * f).clamp(0, 1) - mean[:, None, None]) * std[:, None, None]),
            ("forget `return`", lambda *inputs: None),
        ],
    },
    "03.bpe_merge": {
        "right": [step(), step(merge=in_place), step(give=lambda pair, words: [list(pair), words])],
        "wrong": [
            ("stands in the most words", step(once)),
            ("border between two words", step(across_words)),
            ("first in the alphabet", step(choose=lambda count: max(count, key=lambda pair: (count[pair], pair)))),
            ("first in the alphabet", step(choose=lambda count: count.most_common(1)[0][0])),
            ("rarest pair", step(choose=lambda count: min(count, key=lambda pair: (count[pair], pair)))),
            ("only ends like", step(merge=replace_text)),
            ("first place in each word", step(merge=first_only)),
            ("Letters were lost or doubled", step(merge=no_skip)),
            ("from the right", step(merge=from_the_right)),
            ("Return a tuple of two pieces", step(give=lambda pair, words: ("".join(pair), words))),
            ("came back as one text", step(give=lambda pair, words: (pair, {"".join(pieces): times for pieces, times in words.items()}))),
            ("counts do not add up", only_changed),
            ("have not changed", step(merge=lambda pieces, pair: pieces)),
            ("Return two things", step(give=lambda pair, words: pair)),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_merge_is_what_the_package_learns():
    """The reference, repeated, gives the merges that `tokenizers.learn_merges` finds."""
    reference = checks.exercise("03.bpe_merge").reference
    words = {tuple("low"): 5, tuple("lower"): 2, tuple("newest"): 6, tuple("widest"): 3}
    learned = tokenizers.learn_merges(words, 6)
    for expected in learned:
        pair, words = reference(words)
        assert pair == expected
