"""One CUDA card: training against open_clip's own loop, the loss at a batch of 32,768, encoding. Random pictures, a ViT-B/32 with random weights, no network.

    pytest tests/benchmarks/bench_gpu.py -s

About five minutes on a card of 2024. Every function takes its sizes, so that `tests/test_bench_gpu.py` walks through all of it on a CPU.
"""

import statistics
import time
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from miniclip_helpers.losses import chunked_clip_loss, clip_loss
from miniclip_helpers.model import TwoTowers
from miniclip_helpers.runtime import generator
from miniclip_helpers.training.machine import Machine, ahead, throughput

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card at hand")
VIT_B_32 = {"embed_dim": 512, "vision_cfg": {"image_size": 224, "patch_size": 32, "width": 768, "layers": 12},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}}
BATCHES, ROUNDS, STEPS, WARM = (512, 2048), 2, 20, 5


class TextSide(nn.Module):
    """open_clip's text half: (B, L) ids to (B, D)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, ids):
        return self.net.encode_text(ids)


def network(sizes, seed=0):
    """open_clip's CLIP of these sizes, with random weights."""
    from open_clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIP(**sizes, output_dict=True)


def two_towers(sizes, seed=0):
    """The same network as one of ours."""
    net = network(sizes, seed)
    picture_side = net.visual
    del net.visual, net.logit_scale
    return TwoTowers(picture_side, TextSide(net))


def random_pairs(sizes, count, dtype=torch.bfloat16):
    """Pictures (count, 3, S, S) and ids (count, L) that end with the end token, the largest of all. Half precision: a card is fed twice as fast."""
    random, text = generator(0), sizes["text_cfg"]
    side = sizes["vision_cfg"]["image_size"]
    pictures = torch.randn(count, 3, side, side, generator=random).to(dtype)
    ids = torch.randint(1, text["vocab_size"] - 2, (count, text["context_length"]), generator=random)
    ids[:, -1] = text["vocab_size"] - 1
    return pictures, ids


class Loader:
    """What open_clip's loop wants of a loader: batches drawn at random out of tensors, pinned and one ahead, as ours are."""

    def __init__(self, images, texts, batch_size, steps, pinned):
        self.images, self.texts, self.batch_size, self.num_batches, self.pinned = images, texts, batch_size, steps, pinned
        self.num_samples, self.dataloader = batch_size * steps, self

    def set_epoch(self, epoch):
        self.random = generator(epoch)

    def _batches(self):
        for _ in range(self.num_batches):
            rows = torch.randperm(len(self.images), generator=self.random)[: self.batch_size]
            yield tuple(side[rows].pin_memory() if self.pinned else side[rows] for side in (self.images, self.texts))

    def __iter__(self):
        return ahead(self._batches()) if self.pinned else self._batches()


def _settled(device):
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_mb(device):
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0


def _forget(device):
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def theirs(sizes, images, texts, batch_size, device="cuda", precision="amp_bf16", compiled=False, steps=STEPS, warm=WARM):
    """open_clip_train's own `train_one_epoch`, with the optimizer of its `main`: {"pairs_per_second", "peak_mb"}."""
    from open_clip.loss import ClipLoss
    from open_clip_train.train import train_one_epoch

    _forget(device)
    net = network(sizes).to(device)
    plain = [weight for weight in net.parameters() if weight.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": plain, "weight_decay": 0.0}, {"params": [w for w in net.parameters() if w.ndim >= 2], "weight_decay": 0.2}],
                                  lr=1e-4, betas=(0.9, 0.98), eps=1e-6)
    args = types.SimpleNamespace(device=device, precision=precision, distill=False, accum_freq=1, skip_scheduler=True, horovod=False, grad_clip_norm=1.0, rank=0,
                                 world_size=1, log_every_n_steps=10**9, batch_size=batch_size, wandb=False, log_local=False)
    called = torch.compile(net) if compiled else net

    def epoch(number, count):
        data = {"train": Loader(images, texts, batch_size, count, device == "cuda")}
        train_one_epoch(called, data, ClipLoss(), number, optimizer, None, None, None, args)

    epoch(0, warm)
    begin = _settled(device)
    epoch(1, steps)
    return {"pairs_per_second": batch_size * steps / (_settled(device) - begin), "peak_mb": _peak_mb(device)}


def ours(sizes, images, texts, batch_size, device="cuda", precision="bf16", compiled=False, steps=STEPS, warm=WARM):
    """`fit` of this package: as `theirs`."""
    _forget(device)
    machine = Machine(device, precision, compile=compiled)
    with machine:
        return throughput(two_towers(sizes), images, texts, batch_size, machine, steps, warm)


def training_rows(sizes, batches=BATCHES, rounds=ROUNDS, compiled=(False, True), device="cuda", **options):
    """Rows (batch, who, pairs a second, peak MB): the median of `rounds`, in which the ways take turns."""
    ways = {f"{name}{', compiled' if flag else ''}": (way, flag) for flag in compiled for name, way in (("open_clip", theirs), ("miniclip", ours))}
    for batch in batches:
        images, texts = random_pairs(sizes, 2 * batch)
        found = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (way, flag) in ways.items():
                found[name].append(way(sizes, images, texts, batch, device, compiled=flag, **options))
        for name, runs in found.items():
            yield batch, name, statistics.median(run["pairs_per_second"] for run in runs), max(run["peak_mb"] for run in runs)


def loss_rows(batch=32768, dim=512, chunks=(512, 2048, 8192), device="cuda", rounds=3):
    """Rows (loss, seconds forward and backward, peak MB beyond the embeddings and their gradients), in float32."""
    rows = [F.normalize(torch.randn(batch, dim, generator=generator(seed)), dim=-1).to(device).requires_grad_() for seed in (1, 2)]
    scale = torch.tensor(20.0, device=device, requires_grad=True)
    ways = {"plain": lambda: clip_loss(*rows, scale)} | {f"chunks of {chunk:,}": lambda chunk=chunk: chunked_clip_loss(*rows, scale, chunk) for chunk in chunks}
    for name, way in ways.items():
        way().backward()  # a warm-up, which also makes room for the gradients
        _forget(device)
        before, took = _peak_mb(device), []
        for _ in range(rounds):
            begin = _settled(device)
            way().backward()
            took.append(_settled(device) - begin)
        yield name, statistics.median(took), _peak_mb(device) - before


def encoding_rows(sizes, batches=(64, 512, 2048), device="cuda", compiled=(False, True), rounds=10):
    """Rows (side, batch, who, items a second) without gradients, in bfloat16, from the host's memory to the host's memory."""
    model = two_towers(sizes).to(device).eval()
    for batch in batches:
        for side, tower, rows in zip(("pictures", "texts"), (model.image_tower, model.text_tower), random_pairs(sizes, batch), strict=True):
            rows = rows.pin_memory() if device == "cuda" else rows
            for flag in compiled:
                called = torch.compile(tower) if flag else tower

                def encode(called=called, rows=rows):
                    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
                        return called(rows.to(device, non_blocking=True)).float().cpu()

                encode()
                encode()
                begin = _settled(device)
                for _ in range(rounds):
                    encode()
                yield side, batch, "compiled" if flag else "as it is", rounds * batch / (_settled(device) - begin)


def table(head, rows):
    """Print as Markdown, row by row."""
    print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head))))
    made = []
    for row in rows:
        made.append(row)
        print("| " + " | ".join(f"{cell:,.1f}" if isinstance(cell, float) and cell >= 10 else f"{cell:.4f}" if isinstance(cell, float) else f"{cell}" for cell in row) + " |",
              flush=True)
    return made


def test_training():
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16 autocast, ViT-B/32")
    made = table(["batch", "loop", "pairs/s", "peak MB"], training_rows(VIT_B_32))
    for batch in BATCHES:
        rate = {name: pairs for size, name, pairs, _ in made if size == batch}
        print(f"batch {batch}: miniclip / open_clip {rate['miniclip'] / rate['open_clip']:.2f}, compiled {rate['miniclip, compiled'] / rate['open_clip, compiled']:.2f}")


def test_loss_memory():
    made = table(["loss at 32,768, d 512, float32", "s", "peak MB"], loss_rows())
    assert made[1][2] < 1000


def test_encoding():
    table(["side", "batch", "how", "items/s"], encoding_rows(VIT_B_32))
