"""What growing costs, side by side: plain against chunked loss, plain against gradient-cached step, shards against files.

    pytest tests/benchmarks/bench_scale.py -s
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from miniclip_helpers.datasets import load_dataset, shards, write_dataset
from miniclip_helpers.encoders.sequence import SmallTransformer
from miniclip_helpers.encoders.vision import ViT
from miniclip_helpers.losses import chunked_clip_loss, clip_loss
from miniclip_helpers.model import LinearHead, TwoTowers
from miniclip_helpers.runtime import generator
from miniclip_helpers.training.gradient_cache import gradient_cached_step
from miniclip_helpers.training.memory import loss_bytes, peak_bytes


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


def unit_rows(batch, dim=512):
    return [F.normalize(torch.randn(batch, dim, generator=generator(seed)), dim=-1).requires_grad_() for seed in (1, 2)]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_chunked_loss_against_the_plain_one(threads):
    """d 512, float32, forward and backward, the default chunk."""
    torch.set_num_threads(threads)
    print(f"\n| batch, {threads} thread(s) | plain s | chunked s | ratio | plain MB | chunked MB |\n|---|---|---|---|---|---|")
    for batch in (2048, 4096, 8192):
        rows, scale = unit_rows(batch), torch.tensor(20.0)
        plain, chunked = seconds(*[lambda: loss(*rows, scale).backward() for loss in (clip_loss, chunked_clip_loss)], rounds=3)  # noqa: B023
        held = [loss_bytes(loss, batch) / 1e6 for loss in (clip_loss, chunked_clip_loss)]
        print(f"| {batch:,} | {plain:.2f} | {chunked:.2f} | {chunked / plain:.2f} | {held[0]:,.0f} | {held[1]:,.0f} |", flush=True)
        assert held[1] <= held[0] / 2


GROWN = """
import sys, time, torch
from torch.nn import functional as F
from miniclip_helpers.encoders.sequence import SmallTransformer
from miniclip_helpers.encoders.vision import ViT
from miniclip_helpers.losses import chunked_clip_loss
kilobytes = lambda key: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
batch = int(sys.argv[1])
rows = [torch.randn(batch, 512) for _ in range(2)]
for row in rows:
    row.div_(row.norm(dim=1, keepdim=True)).requires_grad_()
scale = torch.tensor(20.0, requires_grad=True)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before, begin = kilobytes("VmRSS"), time.perf_counter()
chunked_clip_loss(*rows, scale).backward()
print((kilobytes("VmHWM") - before) / 1e3, time.perf_counter() - begin)
"""


def test_the_chunked_loss_at_32768():
    """What a process really grows by, its gradients with it; and what is counted, with the embeddings, too."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the kernel's own count of memory is Linux's")
    grown, took = map(float, subprocess.run([sys.executable, "-c", GROWN, "32768"], capture_output=True, text=True, check=True).stdout.split())
    print(f"\nbatch 32,768, d 512: grows by {grown:,.0f} MB in {took:.0f} s; counted with the embeddings {loss_bytes(chunked_clip_loss, 32768) / 1e6:,.0f} MB, "
          f"plain {loss_bytes(clip_loss, 32768) / 1e6:,.0f} MB")
    assert grown < 1000


def vit_towers():
    """Two transformers with random weights: ViT of 64 pixels and a text tower of the same depth."""
    torch.manual_seed(0)
    return TwoTowers(ViT(pretrained=False, size=64, hidden=128, layers=4), SmallTransformer(hidden=128, layers=4, dropout=0.0),
                     LinearHead(128, 64), LinearHead(128, 64))


def vit_pairs(count):
    return torch.randn(count, 3, 64, 64, generator=generator(0)), torch.randint(1, 1000, (count, 24), generator=generator(1))


def mlp_towers():
    torch.manual_seed(0)
    return TwoTowers(*(nn.Sequential(*[part for _ in range(8) for part in (nn.Linear(384, 384), nn.GELU())]) for _ in range(2)))


def mlp_pairs(count):
    return torch.randn(count, 384, generator=generator(0)), torch.randn(count, 384, generator=generator(1))


@pytest.mark.parametrize("name, towers, pairs, batch", [("ViT and transformer", vit_towers, vit_pairs, 256), ("eight layers", mlp_towers, mlp_pairs, 1024)])
def test_gradient_caching_against_the_plain_step(name, towers, pairs, batch):
    """By arithmetic a third more: four passes in place of three. In float32 the gradients agree to 1e-6 of the largest (ViT), 1e-5 (eight layers of GELU)."""
    model, (images, texts) = towers(), pairs(batch)
    chunks = (32, 64, 128) if batch == 256 else (64, 128, 256)
    ways = [lambda: clip_loss(*model(images, texts)).backward(),
            *(lambda chunk=chunk: gradient_cached_step(model, images, texts, clip_loss, chunk) for chunk in chunks)]
    took, held, found = seconds(*ways, rounds=3), [], []
    for way in ways:
        model.zero_grad()
        held.append(peak_bytes(way)[1] / 1e6)
        found.append(torch.cat([weight.grad.ravel() for weight in model.parameters() if weight.grad is not None]))
    print(f"\n| {name}, batch {batch:,} | s | ratio | MB | furthest gradient |\n|---|---|---|---|---|")
    for said, second, most, gradient in zip(("plain", *(f"cached, chunks of {chunk}" for chunk in chunks)), took, held, found):
        apart = ((gradient - found[0]).abs().max() / found[0].abs().max()).item()
        print(f"| {said} | {second:.2f} | {second / took[0]:.2f} | {most:,.0f} | {apart:.1e} |", flush=True)
        assert apart < 1e-4  # float32; tests/test_gradient_cache.py holds it exactly
    assert max(held[1:]) < held[0]


def test_gradient_caching_s_memory_is_flat():
    """ViT and transformer, chunks of 32 and the loss in chunks; counted, the gradients of the weights aside."""
    model = vit_towers()
    print("\n| batch | plain MB | cached MB |\n|---|---|---|")
    for batch in (128, 256, 512, 1024):
        images, texts = vit_pairs(batch)
        gradient_cached_step(model, images[:32], texts[:32], clip_loss, 32)
        cached = peak_bytes(lambda: gradient_cached_step(model, images, texts, chunked_clip_loss, 32))[1] / 1e6  # noqa: B023
        plain = f"{peak_bytes(lambda: clip_loss(*model(images, texts)).backward())[1] / 1e6:,.0f}" if batch <= 256 else "not tried"  # noqa: B023
        print(f"| {batch:,} | {plain} | {cached:,.0f} |", flush=True)


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
