"""Several processes, one loss: a worker that proves gathering with gradients equal to one process, and who starts two of them.

    python -m miniclip_helpers.training.processes OUT.npz      under torchrun; `run_processes` starts it by itself
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from torch import distributed

from .. import runtime
from ..errors import MiniclipError
from ..losses import clip_loss, clip_loss_local
from ..model import TwoTowers
from .gathering import gather_with_gradients, shard_rows

SECONDS = 180  # after which a process that waits for another gives up
BATCH, WIDTH, DIM = 32, 24, 16  # of the demonstration


def small_towers(seed=0):
    """Two towers of one hidden layer each, with seeded weights: (B, WIDTH) numbers in the place of a picture, and of a text."""
    random = runtime.generator(seed)
    towers = [torch.nn.Sequential(torch.nn.Linear(WIDTH, 32), torch.nn.GELU(), torch.nn.Linear(32, DIM)) for _ in range(2)]
    model = TwoTowers(*towers, logit_scale=5.0)  # at 1 / 0.07 random towers have a loss of 7, whose last digit in float32 is 5e-7
    with torch.no_grad():
        for weight in (*towers[0].parameters(), *towers[1].parameters()):
            weight.copy_(torch.randn(weight.shape, generator=random) * (0.3 if weight.ndim > 1 else 0.1))
    return model


def small_batch(seed=0, batch=BATCH):
    """(images, texts), each (batch, WIDTH): two noisy sights of the same thing."""
    random = runtime.generator(seed + 1)
    thing = torch.randn(batch, WIDTH, generator=random)
    return tuple(thing + 0.5 * torch.randn(batch, WIDTH, generator=random) for _ in range(2))


def one_process(seed=0, batch=BATCH):
    """What the whole batch gives in one process: {"loss": number, "gradients": {weight's name: array}}."""
    model = small_towers(seed)
    loss = clip_loss(*model(*small_batch(seed, batch)))
    loss.backward()
    return {"loss": loss.item(), "gradients": {name: weight.grad.numpy() for name, weight in model.named_parameters()}}


def _alone(images, texts, scale, rank):
    return clip_loss(images, texts, scale)


def _local(images, texts, scale, rank):
    return clip_loss_local(images, texts, gather_with_gradients(images), gather_with_gradients(texts), scale, rank)


def _detached(images, texts, scale, rank):
    return clip_loss_local(images, texts, gather_with_gradients(images.detach()), gather_with_gradients(texts.detach()), scale, rank)


def _own_block(images, texts, scale, rank):
    whole = []
    for rows in (images, texts):
        blocks = list(gather_with_gradients(rows.detach()).split(len(rows)))
        blocks[rank] = rows  # the others' stay constants
        whole.append(torch.cat(blocks))
    return clip_loss(*whole, scale)


def _own_block_scaled(images, texts, scale, rank):
    return _own_block(images, texts, scale, rank) * distributed.get_world_size()


WAYS = {"gather with gradients": _local, "no gather": _alone, "gather, detached": _detached, "own block only": _own_block,
        "own block, loss times W": _own_block_scaled}


def work(out, seed=0, batch=BATCH, meet=None):
    """One worker: its share of the batch, each of `WAYS`, through Accelerate, which averages the gradients. Process 0 writes `out`, whole or not at all.

    meet: a file that is not there yet, in which the workers of one machine find each other. Without one they do so as their launcher says, over
    TCP, for which torch asks a name server who 127.0.0.1 is.
    """
    import datetime

    from accelerate import Accelerator, InitProcessGroupKwargs

    waiting = datetime.timedelta(seconds=SECONDS)
    if meet is not None:
        rank, processes = runtime.launched()
        distributed.init_process_group("gloo", store=distributed.FileStore(str(meet), processes), rank=rank, world_size=processes, timeout=waiting)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[InitProcessGroupKwargs(timeout=waiting)])
    model = accelerator.prepare(small_towers(seed))
    mine = shard_rows(batch, accelerator.process_index, accelerator.num_processes)
    images, texts = (side[mine] for side in small_batch(seed, batch))
    found = {}
    for way, loss_of in WAYS.items():
        model.zero_grad()
        loss = loss_of(*model(images, texts), accelerator.process_index)
        accelerator.backward(loss)
        found[f"{way}/loss"] = accelerator.reduce(loss.detach(), "mean").numpy()
        found |= {f"{way}/{name}": weight.grad.numpy().copy() for name, weight in accelerator.unwrap_model(model).named_parameters()}
    if accelerator.is_main_process:
        with runtime.writing(pathlib.Path(out)) as path, open(path, "wb") as file:
            np.savez(file, processes=accelerator.num_processes, **found)
    accelerator.end_training()


def _environment(rank, processes):
    """What tells a worker who it is. All talk over the loopback alone."""
    system = {"linux": {"GLOO_SOCKET_IFNAME": "lo"}, "darwin": {"GLOO_SOCKET_IFNAME": "lo0"}}
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "TORCHELASTIC_", "OMPI_", "PMI_"))}
    places = os.pathsep.join(filter(None, [str(runtime.CHECKOUT), os.environ.get("PYTHONPATH")]))
    return kept | system.get(sys.platform, {}) | {name: str(value) for name, value in numbers.items()} | {
        "MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": places}


def run_processes(processes=2, seed=0, batch=BATCH, timeout=400):
    """Start `processes` workers on this machine, wait, and return {way: {"loss", "gradients"}}, as `one_process` returns one.

    Each is a fresh Python: forking would copy a torch whose threads are already running, which hangs, and a notebook's kernel has always
    run some. Raises `MiniclipError` with the last words of a worker that failed; none is left running.
    """
    shard_rows(batch, 0, processes)
    with tempfile.TemporaryDirectory() as folder:
        out, workers = pathlib.Path(folder) / "found.npz", []
        try:
            for rank in range(processes):
                command = [sys.executable, "-m", "miniclip_helpers.training.processes", str(out), "--seed", str(seed), "--batch", str(batch),
                           "--meet", str(pathlib.Path(folder) / "meet")]
                with open(pathlib.Path(folder) / f"{rank}.log", "wb") as log:
                    workers.append(subprocess.Popen(command, env=_environment(rank, processes), stdout=log, stderr=log, stdin=subprocess.DEVNULL))
            _wait(workers, pathlib.Path(folder), timeout)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        with np.load(out) as table:
            return {way: {"loss": float(table[f"{way}/loss"]), "gradients": {name.split("/", 1)[1]: table[name] for name in table.files
                    if name.startswith(f"{way}/") and not name.endswith("/loss")}} for way in WAYS}


def _towers_and_temperature(gradients):
    return np.concatenate([value.ravel() for name, value in gradients.items() if name != "log_logit_scale"]), float(gradients["log_logit_scale"])


def compare(one, several):
    """`run_processes` held against `one_process`: a row per way, the gradient of the towers (cosine, length) and of the temperature relative to one process's."""
    right, temperature = _towers_and_temperature(one["gradients"])
    rows = []
    for way, result in several.items():
        towers, scale = _towers_and_temperature(result["gradients"])
        furthest = max(abs(result["loss"] - one["loss"]), np.abs(towers - right).max(), abs(scale - temperature))
        length = np.linalg.norm(towers) / np.linalg.norm(right)
        rows.append({"way": way, "loss": round(result["loss"], 3), "towers: cosine": round(float(towers @ right / np.linalg.norm(right) ** 2 / length), 3),
                     "towers: length": round(float(length), 3), "temperature": round(scale / temperature, 3), "equal to 1e-6": bool(furthest <= 1e-6)})
    return rows


def _wait(workers, folder, timeout):
    """Until all have ended well; the first that has not is told."""
    end = time.monotonic() + timeout
    while any(worker.poll() is None for worker in workers) and time.monotonic() < end:
        if any(worker.poll() for worker in workers):
            break
        time.sleep(0.05)
    for rank, worker in enumerate(workers):
        if worker.poll() != 0:
            said = (folder / f"{rank}.log").read_text(encoding="utf8", errors="replace").strip().splitlines()[-8:]
            what = f"took longer than {timeout} s" if worker.poll() is None else f"failed ({worker.poll()})"
            if worker.poll() is None and any(other.poll() for other in workers):
                continue  # it only waits for the one that failed
            raise MiniclipError("\n".join([f"process {rank} of {len(workers)} {what}; its last words:", *said]))


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m miniclip_helpers.training.processes", description="Loss and gradients of a small model by several processes.")
    parser.add_argument("out", help="an .npz file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=BATCH, help="pairs in all")
    parser.add_argument("--meet", help="a file that is not there yet, in which the processes of one machine find each other (default: as the launcher says)")
    given = parser.parse_args(arguments)
    work(given.out, given.seed, given.batch, given.meet)


if __name__ == "__main__":
    main()
