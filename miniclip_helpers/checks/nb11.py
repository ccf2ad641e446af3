"""Exercises of notebook 11: the rows of captions.json, near-duplicates out of embeddings, a query that fails, and why."""

import pathlib

import numpy as np

from .core import Exercise, Wrong, array, call


def caption_rows(folder, files, captions):
    rows = []
    for file in files:
        path = pathlib.PurePosixPath(file).relative_to(folder)
        hidden = any(part.startswith(".") for part in path.parts)
        if hidden or path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            continue
        for caption in captions.get(path.as_posix(), []):
            rows.append({"file_name": path.as_posix(), "caption": caption})
    return sorted(rows, key=lambda row: row["file_name"])


def _folder(random):
    """A folder, its files in no order, captions by relative name, and the rows that are right."""
    folder = f"/photos/ada{int(random.integers(100))}"
    number = int(random.integers(10, 80))
    names = [f"2024/IMG_{number:04d}.jpg", f"2025/IMG_{number:04d}.jpg", f"2025/IMG_{number + 1:04d}.JPG", f"2025/IMG_{number + 2:04d}.jpeg", "cover.png",
             f"2024/IMG_{number + 3:04d}.jpg"]
    others = ["notes.txt", "2024/.trashed-IMG_0001.jpg", ".thumbnails/IMG_0002.jpg", "2025/clip.mp4"]
    things = [str(thing) for thing in random.permutation(["a cat", "two cups", "the sea", "our street", "a red door", "snow", "a cake", "a map", "the hill"])]
    captions = {names[0]: things[:2], names[1]: things[2:3], names[2]: things[3:6], names[3]: things[6:7], names[4]: things[7:8]}
    captions |= {name: ["not to be seen"] for name in others}  # the last photo has no caption yet
    files = [f"{folder}/{name}" for name in random.permutation(names + others)]
    right = [{"file_name": name, "caption": caption} for name in sorted(names) for caption in captions.get(name, [])]
    return folder, files, captions, right


def grade_captions(answer, random):
    """Each property of the rows that `load_dataset` needs, one after the other."""
    folder, files, captions, right = _folder(random)
    rows = call(answer, folder, files, captions)
    if isinstance(rows, dict):
        raise Wrong("This is one dictionary. captions.json is a list of rows, {\"file_name\": ..., \"caption\": ...} each.")
    if isinstance(rows, str):
        raise Wrong("This is a text. Return the list of rows; json.dumps turns it into text when it is written.")
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, dict) for row in rows):
        raise Wrong("Expected a list of dictionaries, one row per caption.")
    for row in rows:
        _judge_row(row, folder, captions)
    names = {row["file_name"] for row in rows}
    _judge_names(names, right)
    found = [(row["file_name"], row["caption"]) for row in rows]
    wanted = [(row["file_name"], row["caption"]) for row in right]
    if len(set(found)) < len(found):
        raise Wrong("A row stands twice.")
    if len(found) == len(names) < len(wanted):
        raise Wrong("Only one caption of each photo has arrived. One row per caption: a photo with three captions has three rows.")
    if set(found) != set(wanted):
        raise Wrong(f"{len(set(wanted) - set(found))} of {len(wanted)} captions are missing, or stand with another photo.")
    if [name for name, _ in found] != sorted(name for name, _ in found):
        raise Wrong("The rows are right, but in the order in which the disk gave the files, which differs from machine to machine. Sort them by file_name.")
    if found != wanted:
        raise Wrong("The captions of one photo have changed their order. The first caption is the one that `--captions first` takes; sort by file_name alone.")


def _judge_row(row, folder, captions):
    """The keys and values of one row."""
    if set(row) != {"file_name", "caption"}:
        if "captions" in row or isinstance(row.get("caption"), (list, tuple)):
            raise Wrong("The captions of a photo stand in one row as a list. One row per caption is asked for, with the key \"caption\".")
        raise Wrong(f"Each row has the keys file_name and caption, found {sorted(map(str, row))}.")
    if isinstance(row["caption"], (list, tuple)):
        raise Wrong("The captions of a photo stand in one row as a list. One row per caption is asked for.")
    if not isinstance(row["file_name"], str):
        raise Wrong(f"file_name is a {type(row['file_name']).__name__}, which JSON cannot write. Turn the path into text: path.as_posix().")
    if row["file_name"].startswith(folder):
        raise Wrong("file_name is an absolute path. On another computer, or after the folder has moved, it leads nowhere: make it relative to the folder.")


def _judge_names(names, right):
    """The set of photos that the rows speak of."""
    wanted = {row["file_name"] for row in right}
    if names == wanted:
        return
    hidden = {name for name in names if any(part.startswith(".") for part in name.split("/"))}
    if hidden:
        raise Wrong(f"A hidden file came along: {min(hidden)}. Names, and folders, that begin with a dot are thumbnails and rubbish of some program.")
    if names - wanted and any(name.endswith((".txt", ".mp4")) for name in names):
        raise Wrong("A file came along that is no picture: look at the ending, .jpg, .jpeg or .png.")
    if names <= {name.rsplit("/", 1)[-1] for name in wanted}:
        raise Wrong("The folder within the folder is lost: 2024/IMG_0010.jpg and 2025/IMG_0010.jpg are two photos. Keep the path relative to the folder.")
    if {name.rsplit(".", 1)[0] for name in wanted} == names:
        raise Wrong("The ending is missing: the name of a file is written with it.")
    if names < wanted and any(name.endswith(".JPG") for name in wanted - names):
        raise Wrong("A photo that ends in .JPG was left out: cameras write large letters. Compare path.suffix.lower().")
    if names < wanted and any(name.endswith(".png") for name in wanted - names):
        raise Wrong("A photo with captions was left out: .png and .jpeg are pictures, too.")
    raise Wrong(f"The rows speak of {len(names)} files, expected {len(wanted)}: those photos that have a caption.")


def duplicate_pairs(features, least):
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = rows @ rows.T
    first, second = np.nonzero(np.triu(cosines >= least, 1))
    return sorted(zip(first.tolist(), second.tolist()), key=lambda pair: -cosines[pair])


def _copies(random):
    """Features of different lengths: two photos with one copy each, one with two, one that is the opposite of another; none near the limit."""
    while True:
        base = random.normal(size=(7, 12))
        near = [base[i] + random.normal(scale=0.08, size=12) for i in (1, 4, 5, 5)]
        rows = np.vstack([base, near, -base[2:3]])[random.permutation(12)]
        rows *= random.uniform(0.3, 3.0, size=(12, 1))
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        upper = (unit @ unit.T)[np.triu_indices(12, 1)]
        dots = (rows @ rows.T)[np.triu_indices(12, 1)]
        clear = (np.abs(upper - 0.9) > 0.03).all() and len(np.unique(upper.round(4))) == len(upper)
        telling = (np.diagonal(unit @ unit.T, 1) > 0.9).any() and ((dots > 0.9) != (upper > 0.9)).any()  # neighbours among them, lengths that matter
        if clear and telling and (upper > 0.9).sum() == 5:
            return rows, unit @ unit.T


def _pairs(cosines, rule):
    """The pairs i < j for which the rule holds."""
    return {(i, j) for j in range(len(cosines)) for i in range(j) if rule(i, j)}


def grade_duplicates(answer, random):
    """The pairs as a set first, each usual mistake by the set that it gives; then the order."""
    features, cosines = _copies(random)
    found = call(answer, features, 0.9)
    right = _pairs(cosines, lambda i, j: cosines[i, j] >= 0.9)
    rows = [tuple(pair) for pair in found] if isinstance(found, (list, tuple, set, np.ndarray)) and all(np.ndim(pair) == 1 for pair in found) else None
    if rows is None or any(len(pair) != 2 for pair in rows):
        raise Wrong("Return a list of pairs (i, j) of row numbers, two numbers each.")
    if not all(isinstance(value, (int, float, np.number)) for pair in rows for value in pair):
        raise Wrong(f"The pairs must hold row numbers, from 0 to {len(features) - 1}, found {rows[0]!r}.")
    values = array(np.array(rows, dtype=float).reshape(-1, 2), "the pairs")
    if (values != values.round()).any() or values.size and (values.min() < 0 or values.max() >= len(features)):
        raise Wrong(f"The pairs must hold row numbers, from 0 to {len(features) - 1}.")
    pairs = [(int(i), int(j)) for i, j in values]
    _judge_pairs(pairs, right, features, cosines)
    if pairs != sorted(pairs, key=lambda pair: -cosines[pair]) or isinstance(found, set):
        if pairs == sorted(pairs, key=lambda pair: cosines[pair]):
            raise Wrong("The right pairs, the least alike first. Put the most alike first: those are looked at first.")
        raise Wrong("The right pairs, in another order: a list, the highest cosine first.")


def _judge_pairs(pairs, right, features, cosines):
    if any(i == j for i, j in pairs):
        raise Wrong("A photo is paired with itself. It is a copy of itself at cosine 1, always: take pairs with i < j only.")
    if {(j, i) for i, j in pairs} & set(pairs):
        raise Wrong("Each pair came twice, as (i, j) and as (j, i). Take those with i < j: np.triu(..., 1) keeps the upper triangle.")
    if all(i > j for i, j in pairs) and {(j, i) for i, j in pairs} == right:
        raise Wrong("The pairs are the wrong way round: i < j is asked for.")
    if len(set(pairs)) < len(pairs):
        raise Wrong("A pair came twice.")
    if set(pairs) == right:
        return
    if not pairs:
        raise Wrong(f"No pair was found, and {len(right)} have a cosine of at least 0.9.")
    dots = features @ features.T
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1)
    nearest = np.argmax(cosines - 2 * np.eye(len(cosines)), axis=1)
    mistakes = [
        (lambda i, j: dots[i, j] >= 0.9, "These are dot products of rows that are not of length 1: a long vector is everybody's copy. Divide each row by its length first."),
        (lambda i, j: cosines[i, j] < 0.9, "These are the pairs below the limit: everything that is *not* a copy."),
        (lambda i, j: abs(cosines[i, j]) >= 0.9, "A pair with a cosine near -1 came along: that is the opposite, and no copy. Leave abs away."),
        (lambda i, j: 1 - cosines[i, j] >= 0.9, "This is a limit on the distance, 1 - cosine. Copies have a high cosine."),
        (lambda i, j: distance[i, j] >= 0.9, "This is a limit on the distance. Copies have a small one; ask for a high cosine instead."),
        (lambda i, j: distance[i, j] <= 0.9, "This is the distance of rows that are not of length 1. Take the cosine."),
        (lambda i, j: cosines[i, j] >= 0.9 and j == i + 1, "Only neighbours in the list were compared. A copy may lie anywhere in the folder."),
        (lambda i, j: nearest[i] == j and cosines[i, j] >= 0.9 or nearest[j] == i and cosines[i, j] >= 0.9,
         "Each photo was given its nearest only. A photo with two copies makes three pairs."),
        (lambda i, j: nearest[i] == j or nearest[j] == i, "Each photo was given its nearest, copy or not: the limit is missing."),
    ]
    for rule, hint in mistakes:
        if set(pairs) == _pairs(cosines, rule):
            raise Wrong(hint)
    raise Wrong(f"Expected {len(right)} pairs with a cosine of at least 0.9, found {len(pairs)}, of which {len(set(pairs) & right)} are right.")


def why(scores, right, k):
    if not right.any():
        return "not there", None
    rank = 1 + int((scores[~right] >= scores[right].max()).sum())
    return ("found" if rank <= k else "too far down"), rank


def _query(random, count, rank, more):
    """Scores and which photos are right: the first right one at `rank`, `more` right ones somewhere behind it; in random order."""
    scores = np.sort(random.uniform(0.05, 0.6, size=count))[::-1].copy()
    right = np.zeros(count, dtype=bool)
    if rank is not None:
        right[rank - 1] = True
        right[random.choice(np.arange(rank, count), size=min(more, count - rank), replace=False)] = True
    order = random.permutation(count)
    return scores[order], right[order]


def grade_failing_query(answer, random):
    """Queries found at the first and the k-th place, too far down, with a tie, and one with nothing to find and a high best score."""
    count, k = int(random.integers(14, 20)), int(random.integers(4, 7))
    cases = [_query(random, count, rank, more) for rank, more in ((1, 2), (k, 1), (k + 1, 2), (int(random.integers(k + 2, count - 3)), 2), (None, 0))]
    cases[-1][0][random.integers(count)] = 0.97
    found = [_checked_why(call(answer, scores, right, k), right) for scores, right in cases]
    wanted = [why(scores, right, k) for scores, right in cases]
    _judge_ranks([rank for _, rank in found[:-1]], [rank for _, rank in wanted[:-1]], cases)
    for (said, _), (verdict, rank) in zip(found, wanted, strict=True):
        if said != verdict:
            raise Wrong(f"Rank {rank}, and the first {k} are shown: the verdict should be {verdict!r}, found {said!r}." + " The k-th place still counts." * (rank == k))
    scores, right = _query(random, count, k, 0)
    scores[np.flatnonzero(~right & (scores < scores[right].max()))[0]] = scores[right].max()  # a tie: k becomes k + 1
    if call(answer, scores, right, k)[1] == k:
        raise Wrong("A wrong photo has exactly the score of the right one, and you let the right one win. Nobody knows which is shown first: count ties against yourself (>=).")


def _checked_why(found, right):
    """What the learner returned for one query, as (verdict, rank); `Wrong` where it cannot be right."""
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise Wrong(f"Return two things, the verdict and the rank. Found {type(found).__name__}.")
    said, place = found
    if said not in ("not there", "found", "too far down"):
        raise Wrong(f"The verdict is one of 'found', 'too far down' and 'not there', found {said!r}.")
    if not right.any() and said != "not there":
        raise Wrong(f"No photo of this folder is right, and the verdict is {said!r}. A high score proves nothing: something always comes first.")
    if not right.any() and place is not None:
        raise Wrong(f"What is not there has no rank: None is asked for, found {place!r}.")
    if right.any() and said == "not there":
        raise Wrong("A right photo is in the folder, and the verdict is 'not there'. A low score does not say so: look at `right`.")
    if right.any() and (isinstance(place, bool) or np.ndim(place) or not isinstance(place, (int, float, np.number))):
        raise Wrong(f"The rank is a whole number, found {place!r}.")
    return said, place


def _judge_ranks(found, wanted, cases):
    """The ranks of all queries at once, so that each usual mistake is told from the others."""
    if found == wanted:
        return
    above = lambda scores, value: int((scores > value).sum()) + 1  # noqa: E731
    mistakes = [
        (lambda s, r: above(s, s[r].max()) - 1, "The rank counts from 1: what stands first has rank 1."),
        (lambda s, r: above(-s, -s[r].max()), "The list is sorted the wrong way: the highest score stands first."),
        (lambda s, r: above(-s, -s[r].min()), "The list is sorted the wrong way: the highest score stands first."),
        (lambda s, r: int(np.argmax(r)), "This is the place of a photo in the folder, not in the list of answers: sort by score first."),
        (lambda s, r: int(np.argmax(r)) + 1, "This is the place of a photo in the folder, not in the list of answers: sort by score first."),
        (lambda s, r: above(s, s[r].min()), "This is the rank of the last right photo. One right answer is enough: take the best."),
        (lambda s, r: np.mean([above(s, value) for value in s[r]]), "This is the mean rank of all right photos. One right answer is enough: take the best."),
        (lambda s, r: int((s[~r] >= s[r].min()).sum()) + 1, "This is the rank of the last right photo. One right answer is enough: take the best."),
        (lambda s, r: int((s >= s[r].max()).sum()) + 1, "The right photo stands ahead of itself: count the wrong ones only, scores[~right]."),
    ]
    for rule, hint in mistakes:
        if np.allclose(found, [rule(scores, right) for scores, right in cases[:-1]]):
            raise Wrong(hint)
    place = next(number for number, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1])
    raise Wrong(f"The first right photo has rank {wanted[place]}, found {found[place]}.")


EXERCISES = (
    Exercise(
        "11.captions", "a captions.json from a folder", points=2, minutes=10, level="core", needs="pathlib, lists of dictionaries",
        hints=("Four steps for each file: make the path relative, pass over what is hidden or no picture, look its captions up, add a row for each of them.",
               "pathlib.PurePosixPath(file).relative_to(folder).as_posix() is the name; .parts tells whether any part begins with a dot; .suffix.lower() is the ending.",
               "for caption in captions.get(name, []): rows.append({\"file_name\": name, \"caption\": caption}); at the end sort by file_name alone."),
        grade=grade_captions, reference=caption_rows,
        explanation="Relative names, or the folder cannot move; the folder within the folder kept, as every camera begins again at IMG_0001; endings compared in small "
                    "letters; one row per caption, since that is what a pair is; and an order that does not depend on the disk, or two people get two splits from one seed. "
                    "(sorted is stable: captions of one photo stay in their order.)",
        passed="`miniclip train` takes it as it is."),
    Exercise(
        "11.duplicates", "near-duplicates out of features", points=2, minutes=10, level="core", needs="matrix product, np.triu, np.nonzero",
        hints=("Rows to length 1, then all cosines at once: rows @ rows.T.",
               "np.triu(cosines >= least, 1) keeps what lies above the diagonal: no photo with itself, no pair twice.",
               "np.nonzero gives the rows and columns; zip makes pairs of them; sorted(..., key=lambda pair: -cosines[pair]) puts the most alike first."),
        grade=grade_duplicates, reference=duplicate_pairs,
        explanation="The cosine matrix holds every pair twice and each photo with itself at 1; the upper triangle without the diagonal holds each pair once. Without "
                    "dividing by the lengths the loudest vector is everybody's copy. And N photos have N (N - 1) / 2 pairs: for 10,000 photos fifty million, "
                    "which is still a second of work.",
        passed="Each pair once, the most alike first."),
    Exercise(
        "11.failing_query", "a query that fails, and why", points=2, minutes=8, level="warm-up", needs="boolean masks, counting",
        hints=("Three cases: no photo is right; one is among the first k; one is there, but further down.",
               "The rank of the best right photo: 1 and the number of wrong photos whose score is at least as high.",
               "1 + (scores[~right] >= scores[right].max()).sum(); and None where not right.any()."),
        grade=grade_failing_query, reference=why,
        explanation="Two failures look the same on the screen and want different cures. What is not there no model will find, and its best score may be high all the "
                    "same. What is too far down is there: another wording, a larger k, or training may help. Only somebody who knows the folder can tell the two apart: "
                    "keep a list of right answers.",
        passed="Now a bad list of answers is a diagnosis."),
)
