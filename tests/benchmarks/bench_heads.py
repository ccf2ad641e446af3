"""`miniclip train` with its default towers on the real data: mean, spread and interval over seeds and splits, beside what it was before, and the price.

    pytest tests/benchmarks/bench_heads.py -s

The validation part chooses, and is then fitted on as well; the test part is looked at once per run. Features come from the cache after the first run. "Before" is
the same closed form on `mini`'s own image tower, hubs not corrected, fitted on the training part alone, on the same splits.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import shared

from miniclip_helpers.datasets import load_dataset, write_split
from miniclip_helpers.encoders import load_encoder
from miniclip_helpers.model import load_saved
from miniclip_helpers.retrieval import evaluate
from miniclip_helpers.training import train_run
from miniclip_helpers.training.locked import features_of, fit_closed_form, locked_towers

DIRECTIONS = ("image_to_text", "text_to_image")


def line(name, reports):
    """One row of the table: R@1 in percent, mean ± deviation over runs, and the 95 % interval of the mean."""
    said = f"{name:46s} n={len(reports):<3d}"
    means = {}
    for direction in DIRECTIONS:
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


def before(dataset, splits):
    """The reports on `test` of the closed form with one tower, hubs not corrected, fitted once."""
    towers, reports = (load_encoder("efficientnet-lite0", mode="both"), load_encoder("minilm")), []
    for parts in splits:
        train, val = (features_of(*towers, dataset.select(parts[part])) for part in ("train", "val"))
        reports.append(evaluate(fit_closed_form(*towers, train, val, hubs=(0.0,), refit=False)[0], dataset.select(parts["test"])))
    return reports


def compared(name, dataset, splits, folder, seeds=None):
    """Both rows, and the paired difference over the splits; the means of the row that counts."""
    first = before(dataset, splits)
    found, longest = runs(dataset, splits, folder, seeds)
    line(f"{name}, before", first)
    means = line(name, found)
    for direction in DIRECTIONS:
        gains = [100 * (new[direction]["R@1"] - old[direction]["R@1"]) for new, old in zip(found, first)]
        half = 1.96 * statistics.stdev(gains) / len(gains) ** 0.5
        print(f"    {direction}: {statistics.mean(gains):+.1f} [{statistics.mean(gains) - half:+.1f}, {statistics.mean(gains) + half:+.1f}]")
    print(f"    the longest run took {longest:.0f} s", flush=True)
    return means


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
    assert compared("everyday photos, own split, seeds 0-4", dataset, [parts] * 5, tmp_path, range(5))["text_to_image"] >= 54


def test_everyday_twenty_splits(tmp_path):
    dataset = load_dataset(shared("everyday_photos"))
    splits = seeded(dataset, {"train": 147, "val": 31, "test": 32}, range(20))
    assert compared("everyday photos, 20 splits 147+31 / 32", dataset, splits, tmp_path)["text_to_image"] >= 50


@pytest.mark.parametrize("counts, least", [
    ({"train": 540, "val": 60, "test": 100}, (55, 46)),
    ({"train": 360, "val": 40, "test": 300}, (30, 25)),
])
def test_flickr(tmp_path, counts, least):
    dataset = load_dataset(shared("flickr8k"))
    means = compared(f"Flickr8k {counts['train']}+{counts['val']} / {counts['test']}", dataset, seeded(dataset, counts, range(5)), tmp_path)
    assert means["image_to_text"] >= least[0] and means["text_to_image"] >= least[1]


@pytest.mark.parametrize("name", ["everyday_photos", "flickr8k"])
def test_the_whole_command_with_a_cold_cache(tmp_path, name):
    """Imports, encoding, fitting, writing; then once more with the features in the cache."""
    environment = os.environ | {"MINICLIP_CACHE": str(tmp_path / "cache")}
    for state in ("cold", "warm"):
        begin = time.monotonic()
        subprocess.run([sys.executable, "-m", "miniclip_helpers.cli", "train", "--data", str(shared(name)), "--out", str(tmp_path / state)], env=environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"{name}, {state} cache: {time.monotonic() - begin:.0f} s")


def test_the_price_of_a_query():
    """What one picture costs that somebody searches with, by the tower of `mini` and by that of `train`; they take turns."""
    picture = load_dataset("photos8").image(0)
    towers = {"efficientnet-lite0, one view (mini)": load_encoder("efficientnet-lite0"), "efficientnet-lite-trio, two views (train)": locked_towers()[0]}
    seconds = {name: [] for name in towers}
    for _ in range(12):
        for name, tower in towers.items():
            begin = time.monotonic()
            tower.encode([picture])
            seconds[name].append(time.monotonic() - begin)
    for name, tower in towers.items():
        size = sum(p.numel() * p.element_size() for p in tower.net.parameters()) / 1e6
        print(f"{name}: {1000 * statistics.median(seconds[name][2:]):.0f} ms a picture with {torch.get_num_threads()} threads, {size:.0f} MB of weights")
