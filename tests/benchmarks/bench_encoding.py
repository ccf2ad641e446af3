"""Encoding: images/s of several ways side by side, how time grows with the number of images, and how quickly things start.

    pytest tests/benchmarks/bench_encoding.py -s

MINICLIP_BENCH_GROWTH=1000,2000 takes other sizes than 1,000 to 8,000.
"""

import copy
import io
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import ImageChops

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import SHARED

from miniclip_helpers import embedding
from miniclip_helpers.datasets import ImageTextDataset, load_dataset
from miniclip_helpers.embedding import corpus, parts, running, workers
from miniclip_helpers.encoders import load_encoder
from miniclip_helpers.pretrained import load_model

COUNT, ROUNDS = 96, 5
SIZES = [int(size) for size in os.environ.get("MINICLIP_BENCH_GROWTH", "1000,2000,4000,8000").split(",")]


def photos(count):
    """Photos as files, of Flickr8k where it is at hand, else of the embedded stamps; and their name."""
    name = str(SHARED / "flickr8k") if (SHARED / "flickr8k").is_dir() else "stamps"
    return name, load_dataset(name).subset(range(count))


def by_processes(name, out, processes=2):
    """Images/s of worker processes once all of them have started: what follows their first results."""
    _, _, todo, _ = parts.plan(name, 32)
    todo = [part | {"shard": number} for number, part in enumerate(todo[: 2 * processes + 4])]
    job = {"model": "mini", "about": {}, "out": str(out), "of": "pictures", "skip_problems": False, "compile": None, "device": None}
    begin, ends = time.perf_counter(), []
    for _ in workers.share(job, todo, processes):
        ends.append(time.perf_counter())
    return (len(ends) - processes) * 32 / (ends[-1] - ends[processes - 1]), ends[0] - begin


def test_ways_to_encode(tmp_path):
    name, dataset = photos(COUNT)
    tower = load_encoder("efficientnet-lite0")
    tower.encode([dataset.image(0)])
    begin = time.perf_counter()
    compiled = copy.deepcopy(tower)
    compiled.encode = running._compiled(compiled, range(running.IMAGE_BATCH), dataset.image, running.IMAGE_BATCH)
    warm_up = time.perf_counter() - begin

    def batches(size):
        return lambda: [tower.encode([dataset.image(row) for row in range(start, min(COUNT, start + size))]) for start in range(0, COUNT, size)]

    plainly = copy.deepcopy(tower)  # as tutorials write it: the network as the library gives it, its default layout of memory
    net, preprocess = plainly.net.to(memory_format=torch.contiguous_format), tower.preprocess

    def one_by_one():
        with torch.no_grad():
            return [net(preprocess.batch([dataset.image(row)])).numpy() for row in range(COUNT)]

    ways = {"one by one, default layout": one_by_one, "one by one, channels last": batches(1), "batches of 4, all threads on each": batches(4), "batches of 32, all threads on each": batches(32),
            "batches of 4, one thread each (the package)": lambda: list(running.run_batches(tower, range(COUNT), dataset.image)),
            "the same, compiled": lambda: list(running.run_batches(compiled, range(COUNT), dataset.image))}
    took = {way: [] for way in ways}
    for turn in range(ROUNDS + 1):
        for way, call in ways.items():
            begin = time.perf_counter()
            call()
            if turn:  # the first is a warm-up
                took[way].append(time.perf_counter() - begin)
    plain = took["one by one, default layout"]
    print(f"\n{'efficientnet-lite0, ' + Path(name).name:46s} {'images/s':>9} {'times one by one, median of turns':>34}")
    for way, seconds in took.items():
        print(f"{way:46s} {COUNT / statistics.median(seconds):>9.1f} {statistics.median(a / b for a, b in zip(plain, seconds)):>34.2f}")
    rates = [by_processes(name, tmp_path) for _ in range(3)] if name != "stamps" else []
    if rates:
        rate, start = (statistics.median(row[column] for row in rates) for column in (0, 1))
        print(f"{'two processes, one thread each, started':46s} {rate:>9.1f} {rate * statistics.median(plain) / COUNT:>34.2f}   (mini's own tower; first shard after {start:.1f} s)")
    print(f"compiling took {warm_up:.1f} s")


def many(count):
    """So many different pictures of 224 pixels, made of the emoji, as JPEG bytes, each with a caption of its own."""
    emoji, sources = load_dataset("emoji"), []
    for row in range(count):
        picture = ImageChops.offset(emoji.image(row % len(emoji)).resize((224, 224)), 9 * (row // len(emoji)))
        sources.append(images_bytes(picture))
    return ImageTextDataset("many", [f"{row:05d}" for row in range(count)], [[f"{emoji.captions[row % len(emoji)][0]} {row}"] for row in range(count)], sources)


def images_bytes(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def exponent(sizes, seconds):
    """The slope of a straight line through the logarithms: 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def test_growth_is_linear(tmp_path, monkeypatch):
    """Each size with a cold cache of its own. Lite0 looks at 96 pixels here, a fifth of its work: what could grow otherwise is around it."""
    from miniclip_helpers.training.locked import features_of, fit_closed_form

    whole, pictures, texts = many(max(SIZES)), load_encoder("efficientnet-lite0", size=96), load_encoder("minilm")
    pictures.encode([whole.image(0)]), texts.encode(["a dog"])
    rows = {"encoding pictures": [], "from the cache": [], "encoding captions": [], "training, features cached": [], "shards of vectors": []}
    mini = load_model("mini")
    mini.image_tower = pictures
    for size in SIZES:
        monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / f"cache{size}"))
        part = whole.subset(range(size))
        ways = {"encoding pictures": lambda: embedding.image_features(pictures, part), "from the cache": lambda: embedding.image_features(pictures, part),  # noqa: B023
                "encoding captions": lambda: embedding.text_features(texts, part.all_captions),  # noqa: B023
                "training, features cached": lambda: fit_closed_form(pictures, texts, features_of(pictures, texts, part)),  # noqa: B023
                "shards of vectors": lambda: corpus.encode_corpus(part, tmp_path / f"out{size}", mini)}  # noqa: B023
        for way, call in ways.items():
            begin = time.perf_counter()
            call()
            rows[way].append(time.perf_counter() - begin)
    print("\n" + f"{'seconds for images':28s}" + "".join(f"{size:>9,}" for size in SIZES) + f"{'exponent':>10}")
    for way, seconds in rows.items():
        print(f"{way:28s}" + "".join(f"{took:>9.2f}" for took in seconds) + f"{exponent(SIZES, seconds):>10.2f}")


def test_starting(tmp_path):
    """What a fresh Python needs: the median of five, the first apart."""
    said = {}
    for what, command in {"miniclip --help": ["-m", "miniclip_helpers.cli", "--help"], "miniclip encode --help": ["-m", "miniclip_helpers.cli", "encode", "--help"],
                          "import miniclip_helpers": ["-c", "import miniclip_helpers"], "python itself": ["-c", "pass"],
                          "import miniclip_helpers.embedding": ["-c", "import miniclip_helpers.embedding"]}.items():
        seconds = []
        for _ in range(6):
            begin = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            seconds.append(time.perf_counter() - begin)
        said[what] = statistics.median(seconds[1:])
    print("\n" + "\n".join(f"{what:36s} {took:.2f} s" for what, took in said.items()))
    loaded = subprocess.run([sys.executable, "-c", "import sys, json; from miniclip_helpers.cli import build_parser; build_parser(); print(json.dumps(sorted(sys.modules)))"],
                            check=True, capture_output=True, text=True)
    assert not {"torch", "numpy", "PIL", "pandas", "faiss", "transformers"} & set(json.loads(loaded.stdout))
