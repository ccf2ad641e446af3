"""What growing costs, side by side: plain against chunked loss, plain against gradient-cached step, shards against files.

    pytest tests/benchmarks/bench_scale.py -s
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from miniclip_helpers.datasets import load_dataset, shards, write_dataset
from miniclip_helpers.losses import chunked_clip_loss, clip_loss
from miniclip_helpers.model import TwoTowers
from miniclip_helpers.runtime import generator
from miniclip_helpers.training.gradient_cache import gradient_cached_step
from miniclip_helpers.training.memory import peak_bytes


def seconds(*ways, rounds=5):
    """The median seconds of each way; the ways take turns, so that a busy moment hits all of them."""
    took = [[] for _ in ways]
    for turn in range(rounds + 1):
        for way, found in zip(ways, took):
            start = time.perf_counter()
            way()
            if turn:  # the first is a warm-up
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in took]


def test_the_chunked_loss_against_the_plain_one():
    print(f"\n{'batch':>6} {'plain s':>8} {'chunked s':>10} {'ratio':>6} {'plain MB':>9} {'chunked MB':>11}")
    for batch in (512, 1024, 2048, 4096):
        rows = [F.normalize(torch.randn(batch, 256, generator=generator(seed)), dim=-1).requires_grad_() for seed in (1, 2)]
        scale = torch.tensor(20.0)
        ways = [lambda: clip_loss(*rows, scale).backward(), lambda: chunked_clip_loss(*rows, scale, 256).backward()]  # noqa: B023
        plain, chunked = seconds(*ways)
        held = [peak_bytes(way)[1] / 1e6 for way in ways]
        print(f"{batch:>6} {plain:>8.3f} {chunked:>10.3f} {chunked / plain:>6.2f} {held[0]:>9.0f} {held[1]:>11.0f}")
    assert held[1] < held[0] / 5


def test_gradient_caching_against_the_plain_step():
    """Towers deep enough that the loss is nothing beside them. By arithmetic a third more: four passes in place of three."""
    torch.manual_seed(0)
    model = TwoTowers(*(nn.Sequential(*[part for _ in range(8) for part in (nn.Linear(384, 384), nn.GELU())]) for _ in range(2)))
    images, texts = torch.randn(1024, 384), torch.randn(1024, 384)
    print(f"\n{'chunk':>6} {'plain s':>8} {'cached s':>9} {'ratio':>6} {'plain MB':>9} {'cached MB':>10}")
    for chunk in (64, 256):
        ways = [lambda: clip_loss(*model(images, texts)).backward(), lambda: gradient_cached_step(model, images, texts, clip_loss, chunk)]  # noqa: B023
        plain, cached = seconds(*ways)
        held = []
        for way in ways:
            model.zero_grad()
            held.append(peak_bytes(way)[1] / 1e6)
        print(f"{chunk:>6} {plain:>8.3f} {cached:>9.3f} {cached / plain:>6.2f} {held[0]:>9.0f} {held[1]:>10.0f}")
        assert held[1] < held[0]


def test_shards_against_files(tmp_path):
    """950 stamps, decoded: from a folder of files and from ten shards, warm."""
    stamps = load_dataset("stamps").first_captions()
    files = load_dataset(write_dataset(stamps, tmp_path / "files"))
    folder = shards.write_shards(stamps, tmp_path / "shards", size=95)

    def read_files():
        assert sum(1 for row in range(len(files)) if files.image(row)) == 950

    def read_shards(buffer):
        assert sum(1 for _ in shards.read_shards(folder, buffer=buffer)) == 950

    from_files, in_order, mixed = seconds(read_files, lambda: read_shards(0), lambda: read_shards(500), rounds=3)
    print(f"\npictures/s: files {950 / from_files:.0f}, shards in order {950 / in_order:.0f}, shards through a buffer of 500 {950 / mixed:.0f}")
