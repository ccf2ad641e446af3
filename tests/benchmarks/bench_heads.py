"""`miniclip train` with its default towers on the real data: mean, spread and interval over seeds and splits.

    pytest tests/benchmarks/bench_heads.py -s

The validation part chooses; the test part is looked at once per run. Features come from the cache after the first run.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import shared

from miniclip_helpers.datasets import load_dataset, write_split
from miniclip_helpers.model import load_saved
from miniclip_helpers.retrieval import evaluate
from miniclip_helpers.training import train_run


def line(name, reports):
    """One row of the table: R@1 in percent, mean ± deviation over runs, and the 95 % interval of the mean."""
    said = f"{name:38s} n={len(reports):<3d}"
    means = {}
    for direction in ("image_to_text", "text_to_image"):
        values = [100 * report[direction]["R@1"] for report in reports]
        mean, spread = statistics.mean(values), statistics.stdev(values)
        half = 1.96 * spread / len(values) ** 0.5
        means[direction] = mean
        said += f"  {direction} {mean:5.1f} ± {spread:4.1f} [{mean - half:.1f}, {mean + half:.1f}]"
    print(said, flush=True)
    return means


def runs(dataset, splits, folder, seeds=None):
    """The report on `test` of one run per split (a JSON file's parts), and the longest run in seconds."""
    reports, longest = [], 0
    for number, parts in enumerate(splits):
        write_split(folder / f"split{number}.json", parts)
        begin = time.monotonic()
        out = train_run(dataset, folder / f"run{number}", split=folder / f"split{number}.json", seed=seeds[number] if seeds else 0)
        longest = max(longest, time.monotonic() - begin)
        reports.append(evaluate(load_saved(out), dataset.select(parts["test"])))
    return reports, longest


def seeded(dataset, counts, seeds):
    """Splits by image with `counts` = {part: images}, one per seed."""
    found = []
    for seed in seeds:
        order, parts, start = np.random.default_rng(seed).permutation(len(dataset)), {}, 0
        for part, count in counts.items():
            parts[part] = [dataset.names[row] for row in sorted(order[start : start + count])]
            start += count
        found.append(parts)
    return found


def test_everyday_fixed_split(tmp_path):
    dataset = load_dataset(shared("everyday_photos"))
    parts = json.loads((shared("everyday_photos") / "split_seed42.json").read_text())
    found, longest = runs(dataset, [parts] * 5, tmp_path, range(5))
    print(f"the longest run took {longest:.0f} s")
    assert line("everyday photos, own split, seeds 0-4", found)["text_to_image"] >= 47


def test_everyday_twenty_splits(tmp_path):
    dataset = load_dataset(shared("everyday_photos"))
    found, _ = runs(dataset, seeded(dataset, {"train": 147, "val": 31, "test": 32}, range(20)), tmp_path)
    assert line("everyday photos, 20 splits 147/31/32", found)["text_to_image"] >= 47


@pytest.mark.parametrize("counts, least", [
    ({"train": 540, "val": 60, "test": 100}, (46, 38)),
    ({"train": 360, "val": 40, "test": 300}, (23, 20.3)),  # what heads trained by gradient steps gave
])
def test_flickr(tmp_path, counts, least):
    dataset = load_dataset(shared("flickr8k"))
    found, longest = runs(dataset, seeded(dataset, counts, range(5)), tmp_path)
    means = line(f"Flickr8k {counts['train']}+{counts['val']} / {counts['test']}", found)
    print(f"the longest run took {longest:.0f} s")
    assert means["image_to_text"] >= least[0] and means["text_to_image"] >= least[1]
