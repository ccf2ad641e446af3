"""The bank of notebook 11."""

import os
import pathlib

import numpy as np
import pytest
from bank import cases, check_verdict

from miniclip_helpers import checks, datasets

ENDINGS = (".jpg", ".jpeg", ".png")


def relative(folder, file):
    return file[len(folder) + 1 :]


def dotted(name):
    return any(part.startswith(".") for part in name.split("/"))


def is_picture(name):
    return os.path.splitext(name)[1].lower() in ENDINGS and not dotted(name)


def one_each(name, captions):
    return [{"file_name": name, "caption": caption} for caption in captions]


def rows(name_of=relative, wanted=is_picture, give=one_each, order=lambda rows: sorted(rows, key=lambda row: row["file_name"])):
    """An answer to 11.captions, with one thing done otherwise."""

    def answer(folder, files, captions):
        found = []
        for file in files:
            name = relative(folder, file)
            if wanted(name) and captions.get(name):
                found += give(name_of(folder, file), captions[name])
        return order(found)

    return answer


def by_captions(folder, files, captions):
    """Right, from the other end: over the captions, sorted, where there is such a file."""
    there = {os.path.relpath(file, folder) for file in files}
    return [{"file_name": name, "caption": said} for name in sorted(captions) if name in there and is_picture(name) for said in captions[name]]


def pairs(rule=lambda c, i, j, least: c[i, j] >= least, unit=True, span=lambda i, count: range(i + 1, count), order=lambda found, c: sorted(found, key=lambda pair: -c[pair])):
    """An answer to 11.duplicates with loops, with one thing done otherwise."""

    def answer(features, least):
        rows = features / np.linalg.norm(features, axis=1, keepdims=True) if unit else features
        cosines = rows @ rows.T
        return order([(i, j) for i in range(len(rows)) for j in span(i, len(rows)) if rule(cosines, i, j, least)], cosines)

    return answer


def packaged_pairs(features, least):
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    return [pair[:2] for pair in datasets.similar_pairs(rows, least)]


def nearest(features, least):
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = rows @ rows.T - 2 * np.eye(len(rows))
    return sorted({tuple(sorted((i, int(j)))) for i, j in enumerate(cosines.argmax(1)) if cosines[i, j] >= least}, key=lambda pair: -cosines[pair])


def far_apart(features, least):
    return [(i, j) for j in range(len(features)) for i in range(j) if np.linalg.norm(features[i] - features[j]) >= least]


def diagnosis(rank=lambda s, r: 1 + int((s[~r] >= s[r].max()).sum()), inside=lambda rank, k: rank <= k, absent=lambda s, r: not r.any(), none=None):
    """An answer to 11.failing_query, with one thing done otherwise."""

    def answer(scores, right, k):
        if absent(scores, right):
            return "not there", none
        place = rank(scores, right) if right.any() else 1
        return ("found" if inside(place, k) else "too far down"), place

    return answer


def by_sorting(scores, right, k):
    """Right, by walking down the list; of equal scores the wrong photos stand first."""
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], bool(right[row])))
    for place, row in enumerate(order, 1):
        if right[row]:
            return ("found" if place <= k else "too far down"), place
    return "not there", None


BANK = {
    "11.captions": {
        "right": [by_captions, rows(), rows(order=lambda rows: tuple(sorted(rows, key=lambda row: row["file_name"])))],
        "wrong": [
            ("absolute path", rows(name_of=lambda folder, file: file)),
            ("The folder within the folder is lost", rows(name_of=lambda folder, file: os.path.basename(file))),
            ("asked for, with the key", rows(give=lambda name, captions: [{"file_name": name, "captions": captions}])),
            ("One row per caption is asked for.", rows(give=lambda name, captions: [{"file_name": name, "caption": captions}])),
            ("one dictionary", lambda folder, files, captions: {name: said for name, said in captions.items() if is_picture(name)}),
            ("is a text", lambda folder, files, captions: str(by_captions(folder, files, captions))),
            ("Only one caption", rows(give=lambda name, captions: one_each(name, captions[:1]))),
            ("Only one caption", rows(give=lambda name, captions: one_each(name, captions[-1:]))),
            ("ending is missing", rows(name_of=lambda folder, file: os.path.splitext(relative(folder, file))[0])),
            (".JPG was left out", rows(wanted=lambda name: name.endswith(ENDINGS) and not dotted(name))),
            (".png and .jpeg", rows(wanted=lambda name: name.lower().endswith(".jpg") and not dotted(name))),
            ("hidden file", rows(wanted=lambda name: os.path.splitext(name)[1].lower() in ENDINGS)),
            ("hidden file", rows(wanted=lambda name: os.path.splitext(name)[1].lower() in ENDINGS and not os.path.basename(name).startswith("."))),
            ("no picture", rows(wanted=lambda name: not dotted(name))),
            ("order in which the disk", rows(order=lambda rows: rows)),
            ("changed their order", rows(give=lambda name, captions: one_each(name, captions[::-1]))),
            ("keys file_name and caption", rows(give=lambda name, captions: [{"file": name, "caption": caption} for caption in captions], order=list)),
            ("cannot write", rows(name_of=lambda folder, file: pathlib.PurePosixPath(relative(folder, file)))),
            ("twice", rows(give=lambda name, captions: 2 * one_each(name, captions))),
        ],
    },
    "11.duplicates": {
        "right": [pairs(), packaged_pairs],
        "wrong": [
            ("not of length 1", pairs(unit=False, order=lambda found, c: found)),
            ("paired with itself", pairs(span=lambda i, count: range(i, count))),
            ("came twice, as", pairs(span=lambda i, count: [j for j in range(count) if j != i])),
            ("wrong way round", pairs(span=lambda i, count: range(i))),
            ("below the limit", pairs(rule=lambda c, i, j, least: c[i, j] < least)),
            ("is the opposite", pairs(rule=lambda c, i, j, least: abs(c[i, j]) >= least)),
            ("1 - cosine", pairs(rule=lambda c, i, j, least: 1 - c[i, j] >= least)),
            ("Copies have a small one", far_apart),
            ("Only neighbours", pairs(span=lambda i, count: range(i + 1, min(i + 2, count)))),
            ("its nearest only", nearest),
            ("least alike first", pairs(order=lambda found, c: sorted(found, key=lambda pair: c[pair]))),
            ("in another order", pairs(order=lambda found, c: set(found))),
            ("must hold row numbers", pairs(order=lambda found, c: [(f"IMG_{i}", f"IMG_{j}") for i, j in found])),
            ("two numbers each", pairs(order=lambda found, c: [(i, j, c[i, j]) for i, j in found])),
        ],
    },
    "11.failing_query": {
        "right": [by_sorting, diagnosis()],
        "wrong": [
            ("counts from 1", diagnosis(rank=lambda s, r: int((s[~r] >= s[r].max()).sum()))),
            ("sorted the wrong way", diagnosis(rank=lambda s, r: 1 + int((s < s[r].max()).sum()))),
            ("not in the list of answers", diagnosis(rank=lambda s, r: int(r.argmax()) + 1)),
            ("last right photo", diagnosis(rank=lambda s, r: 1 + int((s > s[r].min()).sum()))),
            ("mean rank", diagnosis(rank=lambda s, r: float(np.mean([1 + (s > value).sum() for value in s[r]])))),
            ("ahead of itself", diagnosis(rank=lambda s, r: 1 + int((s >= s[r].max()).sum()))),
            ("k-th place still counts", diagnosis(inside=lambda rank, k: rank < k)),
            ("proves nothing", diagnosis(absent=lambda s, r: False)),
            ("does not say so", diagnosis(absent=lambda s, r: not r.any() or s[r].max() < 0.5)),
            ("has no rank", diagnosis(none=0)),
            ("count ties against yourself", diagnosis(rank=lambda s, r: 1 + int((s[~r] > s[r].max()).sum()))),
            ("two things", lambda s, r, k: diagnosis()(s, r, k)[0]),
            ("The verdict is one of", lambda s, r, k: (bool(r.any()), diagnosis()(s, r, k)[1])),
            ("whole number", lambda s, r, k: (diagnosis()(s, r, k)[0], [1] if r.any() else None)),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_rows_are_those_that_the_package_writes_and_reads(tmp_path):
    """The exercise's reference against `write_captions`, and both through `load_dataset`."""
    import json

    from PIL import Image

    captions = {"2024/IMG_0001.jpg": ["a cat", "a cat on a chair"], "2025/IMG_0001.JPG": ["the sea"]}
    files = []
    for name in [*captions, "2024/.hidden.jpg"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
        files.append((tmp_path / name).as_posix())
    ours = checks.exercise("11.captions").reference(tmp_path.as_posix(), files, captions)
    datasets.write_captions(tmp_path / "captions.json", captions)
    assert json.loads((tmp_path / "captions.json").read_text(encoding="utf8")) == ours
    loaded = datasets.load_dataset(tmp_path)
    assert dict(zip(loaded.names, loaded.captions)) == captions


def test_the_rank_is_that_of_the_metrics():
    """The reference against `metrics.ranks`, which takes half of the ties: without ties they agree."""
    from miniclip_helpers import metrics

    random = np.random.default_rng(0)
    for _ in range(20):
        scores, right = random.normal(size=30), random.random(30) < 0.2
        if right.any():
            order = np.argsort(~right, kind="stable")  # the right ones are captions of picture 0, the wrong ones of picture 1
            similarity = np.stack([scores[order], np.zeros(30)])
            owner = np.sort(~right).astype(int)
            assert checks.exercise("11.failing_query").reference(scores, right, 5)[1] == metrics.ranks(similarity, owner)["image_to_text"][0]
