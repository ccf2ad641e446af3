"""One process against two on this machine's processors: the same global batch through the same loop, seconds per step and the weights that come out.

    pytest tests/benchmarks/bench_processes.py -s

The ways take turns within one run of the two workers, so that a busy machine slows all of them. While one process works alone, the other waits.
Towers that learn, on random pictures, augmented as in training: the small network of notebook 04 beside a bag of words, whose batch normalisations ask all processes
for their statistics in forward and backward; and two transformers, which have none.
"""

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import pytest
import torch

from miniclip_helpers import images
from miniclip_helpers.encoders import BagOfWords, SmallCNN, SmallTransformer, ViT
from miniclip_helpers.model import LinearHead, TwoTowers
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import Machine, PairBatches, TrainConfig, fit
from miniclip_helpers.training.machine import ALONE

COUNT, BATCH, SIZE, TURNS = 1536, 256, 64, 4
TOWERS = ("small-cnn and bag of words", "ViT and transformer")


def model_and_batches(towers):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if towers == TOWERS[0]:
            image, text = SmallCNN(size=SIZE), BagOfWords([f"word{n}" for n in range(500)])
        else:
            image, text = ViT(pretrained=False, size=SIZE, hidden=128, layers=4), SmallTransformer(hidden=128, layers=4, dropout=0.0)
        model = TwoTowers(image, text, LinearHead(image.width, 128), LinearHead(text.width, 128))
    random = generator(0)
    pixels = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), generator=random, dtype=torch.uint8)

    def augment(shown, random, share=None):
        return images.normalise(images.augment(shown, random, share=share))

    return model, PairBatches(pixels, torch.randint(2, 500, (COUNT, 6), generator=random), range(COUNT), BATCH, augment=augment)


def turn(machine, threads, towers):
    """(seconds per step, the weights after an epoch), the first step apart."""
    torch.set_num_threads(threads)
    model, batches = model_and_batches(towers)
    seconds = [record.seconds for record in fit(model, batches, TrainConfig(epochs=1, batch_size=BATCH), machine=machine)]
    return (seconds[-1] - seconds[0]) / (len(seconds) - 1), model.state_dict()


def work(out, towers):
    found, machine = {"one process, one thread": [], "one process, two threads": [], "two processes, one thread each": []}, Machine("cpu")
    with machine:
        for _ in range(TURNS):
            for name, threads in (("one process, one thread", 1), ("one process, two threads", 2)):
                if machine.first:
                    found[name].append(turn(ALONE, threads, towers))
                machine.accelerator.wait_for_everyone()
            found["two processes, one thread each"].append(turn(machine, 1, towers))
        if machine.first:
            torch.save(found, out)


@pytest.mark.parametrize("towers", TOWERS)
def test_one_process_against_two(towers):
    from loopback import find_port, worker_environment  # not on the path of the workers

    with tempfile.TemporaryDirectory() as folder:
        out, port = pathlib.Path(folder) / "found.pt", find_port()
        started = time.monotonic()
        workers = [subprocess.Popen([sys.executable, __file__, str(out), towers], env=worker_environment(rank, 2, port)) for rank in range(2)]
        assert [worker.wait(timeout=900) for worker in workers] == [0, 0]
        found = torch.load(out, weights_only=True)
    one = statistics.median(seconds for seconds, _ in found["one process, one thread"])
    print(f"\n{towers}, batch {BATCH}, {SIZE} pixels, median of {TURNS} turns; the whole run {time.monotonic() - started:.0f} s")
    for name, turns in found.items():
        seconds = statistics.median(spent for spent, _ in turns)
        reference = found["one process, one thread"][0][1]
        furthest = max((turns[0][1][key].double() - reference[key].double()).abs().max().item() for key in reference)
        print(f"{name:32s} {seconds:7.3f} s per step   {one / seconds:5.2f} times   furthest weight from one process's {furthest:.1e}")


if __name__ == "__main__":
    work(*sys.argv[1:])
