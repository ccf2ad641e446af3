"""`miniclip fine-tune` of `mini` on Flickr8k: before and after, the paired interval of the gain, and what WiSE-FT keeps of another domain.

    pytest tests/benchmarks/bench_finetune.py -s

Five seeded splits; the test part is looked at once per run. The other domain are the pictures of the 100 nouns that `mini` never saw.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench_heads import seeded
from conftest import shared

from miniclip_helpers import metrics, retrieval
from miniclip_helpers.datasets import load_dataset, write_split
from miniclip_helpers.finetuning import fine_tune_run, interpolate
from miniclip_helpers.pretrained import load_mini, load_model
from miniclip_helpers.training import mini_data
from miniclip_helpers.zero_shot import TEMPLATES, evaluate_labels

DIRECTIONS, ALPHAS = ("image_to_text", "text_to_image"), [step / 10 for step in range(11)]


def hits(model, dataset):
    """{direction: (queries,) whether the right answer came first}."""
    ranks = metrics.ranks(retrieval.similarity(model, dataset), dataset.owner)
    return {direction: (ranks[direction] == 1).astype(float) for direction in DIRECTIONS}


def queries(dataset):
    """{direction: (queries,) the image's name of each query}: whole images are drawn for the intervals."""
    names = np.array(dataset.names)
    return {"image_to_text": names, "text_to_image": names[dataset.owner]}


def unseen_nouns():
    """(pictures, labels, targets) of the nouns that `mini` never saw."""
    stamps, labels = load_dataset("stamps"), mini_data.held_out()["nouns"]
    nouns = mini_data.stamp_nouns(stamps)
    rows = [row for row, noun in enumerate(nouns) if noun in labels]
    return stamps.subset(rows), labels, np.array([labels.index(nouns[row]) for row in rows])


def other_domain(model, nouns):
    """[top-1, top-5] among the 100 unseen nouns, 113 pictures: one picture is 0.9 points."""
    found = evaluate_labels(model, *nouns, templates=TEMPLATES)
    return [found["top-1"], found["top-5"]]


def test_fine_tune_mini_on_flickr(tmp_path):
    dataset, mini, nouns = load_dataset(shared("flickr8k")), load_mini(), unseen_nouns()
    rows, groups, curve = {"before": [], "after": []}, [], []
    for number, parts in enumerate(seeded(dataset, {"train": 600, "val": 0, "test": 100}, range(5))):
        write_split(tmp_path / f"split{number}.json", parts)
        tuned = load_model(fine_tune_run("mini", dataset, tmp_path / f"run{number}", method="heads", split=tmp_path / f"split{number}.json"))
        test = dataset.select(parts["test"])
        for name, model in (("before", mini), ("after", tuned)):
            rows[name].append(hits(model, test))
        groups.append(queries(test))
        between = [interpolate(mini, tuned, alpha) for alpha in ALPHAS]
        curve.append([[np.mean([hits(model, test)[direction].mean() for direction in DIRECTIONS]), *other_domain(model, nouns)] for model in between])
    after = {}
    for direction in DIRECTIONS:
        start, end = ([run[direction] for run in rows[name]] for name in ("before", "after"))
        spread = [100 * found.mean() for found in end]
        after[direction] = np.mean(spread)
        gain, low, high = metrics.paired_interval(np.concatenate(start), np.concatenate(end), np.concatenate([found[direction] for found in groups]))
        print(f"{direction}: R@1 {100 * np.concatenate(start).mean():.1f} -> {after[direction]:.1f} ± {np.std(spread, ddof=1):.1f}, "
              f"gain {100 * gain:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        assert low > 0
    target, first, five = np.mean(curve, 0).T
    for alpha, t, o, f in zip(ALPHAS, target, first, five):
        print(f"alpha {alpha:.1f}: R@1, both directions, {100 * t:.1f} ({(t - target[0]) / (target[-1] - target[0]):4.0%} of the gain), "
              f"other domain top-1 {100 * o:.1f} ({o / first[0]:4.0%} kept), top-5 {100 * f:.1f} ({f / five[0]:4.0%})")
    assert after["image_to_text"] >= 50 and after["text_to_image"] >= 42
    assert any(f >= 0.95 * five[0] and t - target[0] >= 0.8 * (target[-1] - target[0]) for t, f in zip(target, five))
