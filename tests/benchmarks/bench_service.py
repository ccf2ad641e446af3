"""`miniclip serve` under load: 950 stamps, `mini`, a client of asyncio over the loopback that shares the cores with the service.

    pytest tests/benchmarks/bench_service.py -s

SERVICE_REQUESTS is how many requests the long run makes (default 10,000).
"""

import asyncio
import dataclasses
import io
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from PIL import Image

from miniclip_helpers.datasets import load_dataset

WORDS = ("a red fruit|a small bird|a snowman|two flowers|an old car|a musical instrument|the moon|a wooden boat|a green frog|a slice of cake|a blue fish|a tree in autumn").split("|")
PLACES = "on a table|in the water|in winter|seen from above|for children|on white|at night|near a house|drawn by hand|in the sun|with leaves|made of wood".split("|")
REQUESTS = int(os.environ.get("SERVICE_REQUESTS", 10_000))
PICTURES = 300


@dataclasses.dataclass
class Question:
    """What is sent, and how to see that the answer is right. body None: a GET."""

    path: str
    body: bytes | None
    right: Callable
    kind: str = "application/json"


def text(query, k=5):
    return Question("/search/text", json.dumps({"query": query, "k": k}).encode(), lambda said: len(json.loads(said)["hits"]) == k)


def form(path, picture, fields, right):
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields]
    parts += [b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n', picture, b"\r\n--b--\r\n"]
    return Question(path, b"".join(parts), right, "multipart/form-data; boundary=b")


def image(picture, k=5):
    return form("/search/image", picture, [("k", k)], lambda said: len(json.loads(said)["hits"]) == k)


def zero_shot(picture):
    labels = ["apple", "dog", "car", "flower", "boat"]
    return form("/zero-shot", picture, [("labels", label) for label in labels], lambda said: abs(sum(row["probability"] for row in json.loads(said)["labels"]) - 1) < 1e-3)


def photo(name):
    return Question(f"/photos/{name}?side=256", None, lambda said: said[:3] == b"\xff\xd8\xff")


def new_texts(seed):
    """Queries without end, none twice."""
    draw = random.Random(seed)
    return (text(f"{draw.choice(WORDS)} {draw.choice(PLACES)}, number {seed}{number}") for number in itertools.count())


def new_pictures(seed):
    """JPEGs of a telephone's size made small, 640 x 480, none twice."""
    draw = np.random.default_rng(seed)
    while True:
        out = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (48, 64, 3), dtype=np.uint8)).resize((640, 480), Image.Resampling.BICUBIC).save(out, "JPEG")
        yield out.getvalue()


def mixed(known, names):
    """Of twenty: twelve texts that were asked before, three new ones, a new picture, one that was named before, three photos."""
    fresh, pictures, draw = new_texts(4), list(itertools.islice(new_pictures(4), PICTURES)), random.Random(4)
    for number in itertools.count():
        some = [*(text(draw.choice(known)) for _ in range(12)), *itertools.islice(fresh, 3), image(pictures[number % PICTURES] + str(number).encode()),
                zero_shot(pictures[number % 20]), *(photo(draw.choice(names)) for _ in range(3))]
        draw.shuffle(some)
        yield from some


class Client:
    """One connection that is kept. `ask` gives the status, 0 for an answer that is not right, and the seconds."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def ask(self, question):
        start = time.perf_counter()
        if self.writer is None or self.reader.at_eof():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"Host: 127.0.0.1:{self.port}\r\n"
        if question.body is None:
            self.writer.write(f"GET {question.path} HTTP/1.1\r\n{head}\r\n".encode())
        else:
            self.writer.write(f"POST {question.path} HTTP/1.1\r\n{head}Content-Type: {question.kind}\r\nContent-Length: {len(question.body)}\r\n\r\n".encode() + question.body)
        said = await self.reader.readuntil(b"\r\n\r\n")
        answer = await self.reader.readexactly(int(re.search(rb"content-length: (\d+)", said)[1]))
        seconds, status = time.perf_counter() - start, int(said.split(b" ", 2)[1])
        return status if status != 200 or question.right(answer) else 0, seconds

    def close(self):
        if self.writer is not None:
            self.writer.close()


async def closed_loop(port, questions, clients, requests):
    """As fast as it goes: each of `clients` asks again as soon as it is answered. (statuses, seconds each, seconds in all)."""
    found, questions = [], iter(list(itertools.islice(questions, requests)))  # made before the clock starts

    async def work():
        client = Client(port)
        for question in questions:
            found.append(await client.ask(question))
        client.close()

    start = time.perf_counter()
    await asyncio.gather(*[work() for _ in range(clients)])
    return *zip(*found), time.perf_counter() - start


async def open_loop(port, questions, rate, seconds):
    """`rate` questions a second at random times, whether or not the earlier ones are answered: waiting counts."""
    draw, idle, tasks, start = random.Random(0), [], [], time.perf_counter()

    async def one(question, due):
        client = idle.pop() if idle else Client(port)
        status, _ = await client.ask(question)
        idle.append(client)
        return status, time.perf_counter() - due

    due = start
    while due < start + seconds:
        await asyncio.sleep(max(0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(next(questions), due)))
        due += draw.expovariate(rate)
    found = await asyncio.gather(*tasks)
    for client in idle:
        client.close()
    return *zip(*found), time.perf_counter() - start


class Table:
    """Prints a row for each load. The service's own processor time says what it needs whatever else the machine does."""

    def __init__(self, process):
        self.process, self.wrong = process, 0
        print(f"\nload of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print("| load | requests | per second | p50 ms | p95 | p99 | failed | processor ms each | target |\n|---|---|---|---|---|---|---|---|---|")

    def used(self):
        times = self.process.cpu_times()
        return times.user + times.system

    def row(self, name, call, least=None, p95_below=None):
        """call() gives (statuses, seconds each, seconds in all). least: requests a second that are asked of it; p95_below: milliseconds."""
        before = self.used()
        statuses, seconds, whole = call()
        each, rate = 1000 * (self.used() - before) / len(statuses), len(statuses) / whole
        p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1000
        wrong = sum(status != 200 for status in statuses)
        target = ""
        if least is not None:
            target = f"{least} a second: {'met' if rate >= least else 'missed'}"
        if p95_below is not None:
            target = f"p95 below {p95_below} ms: {'met' if p95 < p95_below else 'missed'}"
        print(f"| {name} | {len(statuses):,} | {rate:.0f} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {wrong} | {each:.1f} | {target} |", flush=True)
        self.wrong += wrong


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """(port, process) of `miniclip serve` over the stamps."""
    folder = tmp_path_factory.mktemp("service") / "stamps.index"
    subprocess.run([sys.executable, "-m", "miniclip_helpers.cli", "index", "stamps", "--out", str(folder)], check=True, capture_output=True)
    process = subprocess.Popen([sys.executable, "-m", "miniclip_helpers.cli", "serve", str(folder), "--port", "0"], stdout=subprocess.PIPE, text=True)
    port = int(re.search(r":(\d+) ", process.stdout.readline())[1])
    yield port, psutil.Process(process.pid)
    process.terminate()
    assert process.wait(60) == 0


def test_load(service):
    port, process = service
    known, table = [f"{word} {place}" for word in WORDS for place in PLACES], Table(process)
    asked = [text(query) for query in known]
    table.row("new texts, 8 at once", lambda: asyncio.run(closed_loop(port, iter(asked), 8, len(asked))), least=25)
    table.row("new texts, one at a time", lambda: asyncio.run(closed_loop(port, new_texts(1), 1, 100)), least=25)
    table.row("new texts, 32 at once", lambda: asyncio.run(closed_loop(port, new_texts(2), 32, 500)), least=25)
    table.row("new texts, 20 a second at random times", lambda: asyncio.run(open_loop(port, new_texts(3), 20, 30)), p95_below=100)
    table.row("cached texts, one at a time", lambda: asyncio.run(closed_loop(port, itertools.cycle(asked), 1, 500)), least=200)
    table.row("cached texts, 8 at once", lambda: asyncio.run(closed_loop(port, itertools.cycle(asked), 8, 2000)), least=200)
    table.row("cached texts, 200 a second at random times", lambda: asyncio.run(open_loop(port, itertools.cycle(asked), 200, 10)))
    table.row("new pictures of 640 x 480, 4 at once", lambda: asyncio.run(closed_loop(port, map(image, new_pictures(5)), 4, 200)))
    names, held = load_dataset("stamps").names, {}
    table.row("photos at 256 pixels, 4 at once", lambda: asyncio.run(closed_loop(port, (photo(name) for name in names), 4, 300)))
    questions = mixed(known, names)

    def long():
        statuses, seconds, whole = [], [], 0.0
        for part in range(1, 11):
            found = asyncio.run(closed_loop(port, questions, 8, REQUESTS // 10))
            statuses, seconds, whole = [*statuses, *found[0]], [*seconds, *found[1]], whole + found[2]
            held[part * REQUESTS // 10] = process.memory_info().rss / 2**20
        return statuses, seconds, whole

    table.row("all kinds mixed, 8 at once", long)
    print("memory of the service, MB, after so many of these: " + ", ".join(f"{count:,}: {value:.0f}" for count, value in held.items()))
    assert not table.wrong
