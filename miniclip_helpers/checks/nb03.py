"""Exercises of notebook 03: split by image, the order of augmentation, one merge of byte-pair encoding, find the leak."""

import collections

import numpy as np
import torch

from .core import Exercise, Wrong, array, call, compare


def split_by_image(owner, share, seed):
    random = np.random.default_rng(seed)
    images = random.permutation(np.unique(owner))
    test_images = images[: round(share * len(images))]
    in_test = np.isin(owner, test_images)
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def _parts(found, captions):
    """What the learner returned, as two int arrays of caption positions; `Wrong` where it is something else."""
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise Wrong(f"Return two things, train and test, each the positions of captions. Found {type(found).__name__}.")
    parts = []
    for name, part in zip(("train", "test"), found, strict=True):
        if np.asarray(part).dtype == bool:
            raise Wrong(f"{name} is a mask of True and False. Positions are asked for: np.flatnonzero turns one into the other.")
        rows = array(list(part), name)
        if rows.size and (rows.min() < 0 or rows.max() >= captions or (rows != rows.round()).any()):
            raise Wrong(f"{name} must hold positions of captions, from 0 to {captions - 1}; found {rows.min():g} to {rows.max():g}.")
        parts.append(rows.astype(int))
    return parts


def grade_split_by_image(answer, random):
    """Images with one to six captions, not in order; every property that a split must have is looked at."""
    images = int(random.integers(12, 20))
    owner = random.permutation(np.repeat(np.arange(images), random.integers(1, 7, size=images)))
    share, seed = 0.25, int(random.integers(1000))
    before = np.random.get_state()[1].copy()
    train, test = _parts(call(answer, owner, share, seed), len(owner))
    both = np.concatenate([train, test])
    if not len(test) or not len(train):
        raise Wrong(f"The {'test' if len(train) else 'training'} part is empty.")
    if images < len(owner) and sorted(both) == list(range(images)):
        raise Wrong(f"These are the numbers of the {images} images. Return positions of captions: np.isin(owner, test_images) finds them.")
    if len(np.intersect1d(train, test)):
        raise Wrong("The same caption stands in both parts.")
    shared = np.intersect1d(owner[train], owner[test])
    if len(shared):
        raise Wrong(f"{len(shared)} of {images} images have captions in both parts: this is a split by caption. Deal out images; each caption follows.")
    if len(both) == images < len(owner):
        raise Wrong(f"Only {len(both)} positions came back, one per image, and there are {len(owner)} captions. Keep all captions of an image, not only its first.")
    if len(both) < len(owner):
        raise Wrong(f"{len(owner) - len(both)} of {len(owner)} captions are in neither part. Nothing may be dropped in silence.")
    held = len(np.unique(owner[test]))
    if held == images - round(share * images) and held != round(share * images):
        raise Wrong("The parts are the wrong way round: `share` is the share of the test, and train comes first.")
    if held != round(share * images):
        raise Wrong(f"The test holds {held} of {images} images, expected round({share} * {images}) = {round(share * images)}. Count images, not captions.")
    again = _parts(call(answer, owner, share, seed), len(owner))
    if set(again[1]) != set(test):
        raise Wrong("The same seed gave another split. Draw from np.random.default_rng(seed), or nobody can repeat your experiment.")
    others = {tuple(sorted(_parts(call(answer, owner, share, seed + step), len(owner))[1])) for step in range(1, 6)}
    if others == {tuple(sorted(test))}:
        raise Wrong("Six seeds gave one split: nothing is shuffled. The first or last images of a folder are often of one kind, taken on one day.")
    if (np.random.get_state()[1] != before).any():
        raise Wrong("The split is right, but np.random.seed or np.random.shuffle changed the random numbers of everyone else: use np.random.default_rng(seed).")


def prepare(pixels, brightness, mean, std):
    values = (pixels.float() / 255 * brightness).clamp(0, 1)
    return (values - mean[:, None, None]) / std[:, None, None]


def grade_prepare(answer, random):
    """A picture with dark and bright places, a factor above or below 1, and different numbers for each channel."""
    size = int(random.integers(3, 6))
    pixels = torch.tensor(random.integers(0, 256, size=(3, size, size)), dtype=torch.uint8)
    pixels[:, 0, 0] = 255
    factor = float(random.choice([random.uniform(0.5, 0.8), random.uniform(1.25, 1.6)]))
    mean, std = (torch.tensor(random.uniform(*span, size=3), dtype=torch.float32) for span in ((0.3, 0.6), (0.15, 0.3)))
    x, m, s = pixels.double().numpy() / 255, mean.double().numpy()[:, None, None], std.double().numpy()[:, None, None]
    bright = np.clip(x * factor, 0, 1)
    expected = (bright - m) / s
    normalised = (x - m) / s
    late = "The colour was changed after normalising: there 0 is the mean colour, so 'brighter' pushes dark places further down. Pixels first, then normalise."
    compare(call(answer, pixels, factor, mean, std), expected, [
        (normalised * factor, late),
        (np.clip(normalised * factor, 0, 1), "Changed and clamped too late, which has thrown away every value below the mean. Pixels first, then normalise."),
        (np.clip((np.clip(x * factor, 0, 1) - m) / s, 0, 1), "The result is clamped after normalising. Normalised values lie on both sides of 0: clamp the pixels, not these."),
        ((x * factor - m) / s, "Values above 1 are left in: no picture file can hold them. Clamp to [0, 1] after changing the brightness."),
        (normalised, "The brightness is not changed."),
        (bright, "The values are not normalised: subtract the mean, divide by the deviation."),
        ((np.clip(x * 255 * factor, 0, 255) - m) / s, "The pixels were not divided by 255: mean and std are those of values in [0, 1]."),
        ((np.clip(x * 255 * factor, 0, 1) - m) / s, "The pixels were not divided by 255, so nearly all were clamped to white."),
        (bright - m, "The division by the standard deviation is missing."),
        ((bright - m) * s, "You multiplied by the standard deviation. Divide by it."),
        ((bright - m) / s ** 2, "You divided by the variance. Divide by its root, std."),
    ], what="the picture", rtol=1e-4, atol=1e-4)


def merge_step(words):
    count = collections.Counter()
    for pieces, times in words.items():
        for pair in zip(pieces, pieces[1:]):
            count[pair] += times
    best = min(count, key=lambda pair: (-count[pair], pair))
    merged = {}
    for pieces, times in words.items():
        new, place = [], 0
        while place < len(pieces):
            here = pieces[place : place + 2] == best
            new.append("".join(best) if here else pieces[place])
            place += 2 if here else 1
        merged[tuple(new)] = times
    return best, merged


def _joined(pieces, pair, first_only=False):
    """Pieces with the pair joined, by another way than the reference: recursion on the first place where it stands."""
    for place in range(len(pieces) - 1):
        if tuple(pieces[place : place + 2]) == pair:
            rest = pieces[place + 2 :] if first_only else _joined(pieces[place + 2 :], pair)
            return (*pieces[:place], pair[0] + pair[1], *rest)
    return tuple(pieces)


def _cases(random):
    """Words in which each mistake shows. The letters change, so that nothing can be written down by heart."""
    a, b, c, d, e, f = (chr(number) for number in sorted(random.choice(np.arange(97, 123), 6, replace=False)))
    n = int(random.integers(4, 9))
    yield {(c, d, e, f): 1, (c, d, f): 1, (c, d): 1, (c, d, e): 1, (a, b): n, (f, a, b, a, b): 1}  # rare words with one pair, a frequent word with another
    yield {(a, a, a): n, (a, a, a, a): 2, (b, a): 1}
    yield {(c + a, b): 2, (a, b): n, (a, b, c): 3, (d, c + a, b): 2}  # a longer piece that ends like the pair
    yield {(e, f): n, (a, b): n, (c, d): n - 1}
    yield {(a,): 3 * n, (b, c): 2, (d, b, c): 1}  # one frequent word of one piece: next to itself it is no pair


def grade_merge_step(answer, random):
    """Several small dictionaries; pair and words are compared with another way of computing them."""
    for words in _cases(random):
        count, once = collections.Counter(), collections.Counter()
        for pieces, times in words.items():
            for place in range(len(pieces) - 1):
                count[pieces[place : place + 2]] += times
                once[pieces[place : place + 2]] += 1
        best = sorted(pair for pair in count if count[pair] == max(count.values()))[0]
        found = call(answer, words)
        if not isinstance(found, (tuple, list)) or len(found) != 2 or not isinstance(found[1], dict):
            raise Wrong(f"Return two things: the pair, and the dictionary of words after the merge. Found {type(found).__name__}.")
        pair, merged = found
        pair = tuple(pair) if isinstance(pair, list) else pair
        _judge_pair(pair, best, count, once, words)
        _judge_words(merged, best, words)


def _judge_pair(pair, best, count, once, words):
    if pair == best:
        return
    if isinstance(pair, str):
        raise Wrong(f"The pair came back as the text {pair!r}. Return a tuple of two pieces: a joined text does not say where it was cut.")
    if pair not in count:
        if pair in {(left[-1], right[0]) for left in words for right in words}:
            raise Wrong(f"{pair} stands in no word: it was counted across the border between two words. Pairs live within a word.")
        raise Wrong(f"{pair!r} is not a pair of neighbours in any word.")
    if count[pair] == count[best]:
        raise Wrong(f"{pair} and {best} are equally frequent. Take the first in the alphabet, so that everyone learns the same merges.")
    if once[pair] == max(once.values()) and once[pair] > once[best]:
        raise Wrong(f"You chose {pair}, which stands in the most words. A word said {max(words.values())} times counts {max(words.values())} times: {best} is more frequent.")
    if count[pair] == min(count.values()):
        raise Wrong(f"You chose the rarest pair, {pair}. The most frequent one is merged.")
    raise Wrong(f"You chose {pair}, which is found {count[pair]} times; {best} is found {count[best]} times, words weighted by how often they were said.")


def _judge_words(merged, best, words):
    expected = {_joined(pieces, best): times for pieces, times in words.items()}
    if merged == expected:
        return
    keys = [tuple(key) if not isinstance(key, str) else key for key in merged]
    if merged == words:
        raise Wrong("The words have not changed. Join the pair wherever it stands.")
    if any(isinstance(key, str) for key in keys):
        raise Wrong("A word came back as one text. Keep tuples of pieces, or the next merge cannot see where the pieces end.")
    if sum(merged.values()) != sum(words.values()):
        raise Wrong("The counts do not add up any more: each word keeps its count, also the words that do not hold the pair.")
    if merged == {_joined(pieces, best, first_only=True): times for pieces, times in words.items()}:
        raise Wrong("Only the first place in each word was joined. The pair may stand in a word twice.")
    if any("".join(key) not in {"".join(pieces) for pieces in words} for key in keys):
        raise Wrong("Letters were lost or doubled. Joined, the pieces of each word must still spell it. After a merge go on two places, else one.")
    text = {tuple(" ".join(pieces).replace(" ".join(best), "".join(best)).split(" ")): times for pieces, times in words.items()}
    if merged == text:
        raise Wrong(f"A piece that only ends like {best[0]!r} was joined too: with replace on text, 'x{best[0]} {best[1]}' holds '{best[0]} {best[1]}'. "
                    "Compare whole pieces.")
    if merged == {tuple(_joined(pieces[::-1], best[::-1])[::-1]): times for pieces, times in words.items()}:
        raise Wrong("The pair was joined from the right. Three equal letters in a row become two of them and one, from the left.")
    raise Wrong(f"The words are not right: expected {dict(list(expected.items())[:3])}, found {dict(list(merged.items())[:3])}.")


def find_the_leak(train, test):
    leaks = []
    for place, (_, picture, _) in enumerate(test):
        gaps = [np.abs(picture.astype(float) - other).mean() for _, other, _ in train]
        if min(gaps) < 5:
            leaks.append(place)
    return leaks


def _leaky_parts(random):
    """Two parts and, per kind of row in the test, its positions: copies under one name, under another, saved again; and innocent look-alikes."""
    picture = lambda: random.integers(0, 256, size=(8, 8, 3)).astype(np.uint8)  # noqa: E731
    again = lambda old: np.clip(old.astype(int) + random.integers(-3, 4, size=old.shape), 0, 255).astype(np.uint8)  # noqa: E731
    train = [(f"image_{number}.jpg", picture(), f"caption {number}") for number in range(8)]
    rows = [
        ("other caption", ("image_0.jpg", train[0][1].copy(), "another caption of it")),
        ("other name", ("IMG_4711.jpg", train[1][1].copy(), "a picture with two names")),
        ("saved again", ("image_2.jpg", again(train[2][1]), "the same, saved once more")),
        ("other name, saved again", ("copy.jpg", again(train[3][1]), "renamed and saved once more")),
        ("same caption", ("image_90.jpg", picture(), "caption 4")),
        ("same name", ("image_5.jpg", picture(), "another folder's number five")),
        ("innocent", ("image_91.jpg", picture(), "nothing to do with it")),
        ("innocent", ("image_92.jpg", picture(), "nor this")),
    ]
    kinds = {}
    order = random.permutation(len(rows))
    for place, row in enumerate(order):
        kinds.setdefault(rows[row][0], set()).add(place)
    return [train[i] for i in random.permutation(len(train))], [rows[i][1] for i in order], kinds


def grade_find_the_leak(answer, random):
    """Each kind of leak and each innocent look-alike once; the positions returned are compared kind by kind."""
    train, test, kinds = _leaky_parts(random)
    found = call(answer, train, test)
    if isinstance(found, (bool, int, float, str)):
        raise Wrong(f"Return the positions in `test` of all rows that leak, as a list; found {type(found).__name__}.")
    rows = array(list(found) if not hasattr(found, "detach") else found, "the positions")
    if rows.shape == (len(test),) and set(rows.tolist()) <= {0.0, 1.0} and np.asarray(list(found)).dtype == bool:
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or (rows.size and (rows.min() < 0 or rows.max() >= len(test))):
        raise Wrong(f"Expected positions in `test`, 0 to {len(test) - 1}, found an array of shape {rows.shape}.")
    rows = {int(row) for row in rows}
    leaks = set().union(*(kinds[kind] for kind in ("other caption", "other name", "saved again", "other name, saved again")))
    if rows == leaks:
        return
    hits = {kind: bool(places & rows) for kind, places in kinds.items()}
    if rows == set(range(len(test))) - leaks:
        raise Wrong("These are the clean rows. The leaking ones are asked for.")
    if hits["innocent"]:
        raise Wrong("A picture that is not in train was called a leak. Look at how far apart two different pictures are, and set the limit well below.")
    if hits["same caption"]:
        raise Wrong("Two pictures may share a caption without being one picture: 'caption 4' says the same of two things. A leak is a picture seen before.")
    if hits["same name"]:
        raise Wrong("Equal names need not be equal pictures: each folder has its image_5.jpg. Compare the pictures.")
    if not hits["other caption"]:
        raise Wrong("The same picture with another caption was missed: that is the leak of a split by caption.")
    if not hits["other name"]:
        raise Wrong("A picture that stands in train under another name was missed. Compare pictures, not names.")
    raise Wrong("A copy that was saved again was missed. Saving as JPEG changes pixels by a few levels, so no hash and no == finds it. "
                "Allow a small mean difference, and subtract as floats: uint8 wraps round below zero.")


EXERCISES = (
    Exercise(
        "03.split_by_image", "a split by image", points=2, minutes=8, level="core", needs="np.unique, np.isin, a seeded generator",
        hints=("Deal out images, not captions: np.unique(owner) lists them.",
               "np.random.default_rng(seed).permutation(images) shuffles; the first round(share * count) of them are the test.",
               "np.isin(owner, test_images) says of each caption whether it goes to the test; np.flatnonzero turns that into positions."),
        grade=grade_split_by_image, reference=split_by_image,
        explanation="Captions of one image say nearly the same. If one is trained on and another is the question, the model has seen the picture it is asked about. "
                    "So images are dealt out, and each caption follows its image. The generator is seeded and its own: the split comes again and disturbs nobody.",
        passed="No image on both sides, no caption lost, and the same split tomorrow."),
    Exercise(
        "03.find_the_leak", "find the leak", points=3, minutes=10, level="core", needs="mean absolute difference",
        hints=("A name or a caption proves nothing in either direction. Compare pictures.",
               "Saved again, a picture changes by a few levels of 255 at each pixel; two different pictures differ by dozens in the mean.",
               "For each test picture: the smallest np.abs(a.astype(float) - b).mean() over all training pictures; below 5 it is a leak."),
        grade=grade_find_the_leak, reference=find_the_leak,
        explanation="Has the model seen this picture? Names miss copies and accuse namesakes, captions accuse look-alikes, hashes of bytes miss what was saved again. "
                    "The difference of pixels finds them (astype(float) first: uint8 wraps round below zero). On large sets a perceptual hash does it in one pass.",
        passed="You looked at the pictures, not at their labels. Few published splits are checked like this."),
    Exercise(
        "03.prepare", "pixels first, then normalise", points=2, minutes=6, level="core", needs="clamp, broadcasting over channels",
        hints=("Bytes to [0, 1] first: mean and std are those of such values.",
               "Brightness multiplies the values; what leaves [0, 1] is clamped, as in a photo.",
               "Then (values - mean[:, None, None]) / std[:, None, None]."),
        grade=grade_prepare, reference=prepare,
        explanation="A photo has black at 0 and white at 1, and 'brighter' means nearer to white. After normalising, 0 is the mean colour: multiplying makes dark places "
                    "darker, and a clamp to [0, 1], which colour transforms contain, wipes out everything below the mean.",
        passed="Pixels are changed while they still are pixels."),
    Exercise(
        "03.bpe_merge", "one merge of byte-pair encoding", points=3, minutes=12, level="core", needs="Counter, zip, tuples",
        hints=("Count pairs of neighbours with zip(pieces, pieces[1:]); a word said five times adds five.",
               "Ties: min(count, key=lambda pair: (-count[pair], pair)).",
               "Walk through each word: where pieces[i : i + 2] is the pair, append the joined piece and go on two places, else one."),
        grade=grade_merge_step, reference=merge_step,
        explanation="Learning a byte-pair vocabulary is this step, repeated, and the pairs written down in order; cutting a new word replays them. The counts weigh each "
                    "word by how often it was said, pairs never cross the border of a word, and a rule for ties lets two machines learn the same vocabulary.",
        passed="Do that 48,894 times on the captions of CLIP's training set, and you have CLIP's vocabulary."),
)
