"""Harm done on purpose, shared by tests/test_faults*.py and tests/long/test_faults_long.py.

A call runs in a process of its own, forked from a server that has imported torch and the package (seconds saved each time), with at most one fault in it: the
n-th opening, write, sync, closing or renaming under a folder fails, or is cut short, or the process is killed there; or no file may grow beyond so many bytes.
"""

import builtins
import contextlib
import dataclasses
import errno
import functools
import hashlib
import io
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import sys
import tarfile
import threading
import time

import loopback
import numpy as np
import warm

ERRORS = ("ENOSPC", "EIO", "EACCES", "EDQUOT")
ENVIRONMENT = {"MINICLIP_OFFLINE": "", "HF_HUB_OFFLINE": "", "MINICLIP_PROGRESS": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong. what: an errno's name, "kill", "short" (half of a write is taken), or "limit" (no file beyond `at` bytes). at: the number of the
    operation under `root`, from 0. after: seconds from there to a kill. steps: training steps count as operations, too."""

    what: str
    at: int = 0
    after: float = 0.0


class Injector:
    """Counts the operations on files under `root`, tells them to `log`, and lets one of them go wrong."""

    def __init__(self, root, fault, log=None, steps=False):
        self.root, self.fault, self.log, self.count, self.real, self.steps = os.path.realpath(root), fault, log, 0, {}, steps
        self.lock = threading.Lock()

    def inside(self, place):
        if isinstance(place, int):
            try:
                place = os.readlink(f"/proc/self/fd/{place}")
            except OSError:
                return False
        place = os.path.realpath(os.fsdecode(place))
        return place == self.root or place.startswith(self.root + os.sep)

    def hit(self, name, place):
        """Count one operation; True where it is the one that goes wrong in another way than by an error."""
        with self.lock:
            number, self.count = self.count, self.count + 1
        if self.log:
            with self.real["open"](self.log, "a") as file:
                file.write(f"{name} {place}\n")
        if self.fault is None or number != self.fault.at or self.fault.what == "limit":
            return False
        if self.fault.what == "kill":
            if not self.fault.after:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Thread(target=lambda: (time.sleep(self.fault.after), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()
            return False
        if self.fault.what in ("INT", "TERM"):
            os.kill(os.getpid(), getattr(signal, f"SIG{self.fault.what}"))  # at once: a thread that waits would strike another place on a busy machine
            return False
        if self.fault.what == "short":
            return True
        code = getattr(errno, self.fault.what)
        raise OSError(code, os.strerror(code), *([place] if name in ("open", "replace", "mkdir", "swap") else []))

    def _watched(self, module, name, label, pick=lambda *args: args[0], when=lambda *args, **options: True):
        real = getattr(module, name)

        def call(*args, **options):
            place = pick(*args)
            if when(*args, **options) and self.inside(place):
                self.hit(label, place)
            return real(*args, **options)

        setattr(module, name, call)

    def install(self):
        from miniclip_helpers.runtime import whole
        from miniclip_helpers.training import loop

        self.real["open"] = io.open
        self._watched(os, "open", "open", when=lambda path, flags, *_, **__: flags & os.O_CREAT)
        for name in ("replace", "rename"):
            self._watched(os, name, "replace", lambda old, new, *_: new)
        self._watched(os, "mkdir", "mkdir")
        self._watched(os, "fsync", "fsync")
        self._watched(os, "sendfile", "write")
        self._watched(whole, "swap", "swap", lambda one, other: other)
        if self.steps:
            self._watched(loop, "train_step", "step", lambda *_: self.root)
        builtins.open = io.open = self.open
        if self.fault is not None and self.fault.what == "limit":
            _limit(self.fault.at)
        return self

    def open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        if not set(mode) & set("wax+") or not self.inside(file):
            return self.real["open"](file, mode, buffering, encoding, errors, newline, closefd, opener)
        self.hit("open", file)
        raw = Raw(self, file, mode.replace("b", "").replace("t", ""), closefd)
        whole = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return whole if "b" in mode else io.TextIOWrapper(whole, encoding or "utf8", errors, newline)


def _limit(size):
    """No file may grow beyond so many bytes from now on; None: as before."""
    import resource

    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))


class Raw(io.FileIO):
    """A file whose writes and whose closing are counted."""

    def __init__(self, injector, file, mode, closefd):
        super().__init__(file, mode, closefd)
        self.injector = injector

    def write(self, data):
        if self.injector.hit("write", self.name) and len(data) > 1:
            data = memoryview(data)[: len(data) // 2]
        return super().write(data)

    def close(self):
        opened = not self.closed
        super().close()
        if opened:
            self.injector.hit("close", self.name)


def _child(call, args, log, environment, root, fault, counted, steps):
    """What the forked process does. It ends like the command line: one line for an error of ours; anything else is a traceback and 70."""
    import traceback

    import torch

    from miniclip_helpers.errors import MiniclipError

    handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.dup2(handle, 1), os.dup2(handle, 2)
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w"), "utf8", write_through=True) for number in (1, 2))
    os.environ.update(ENVIRONMENT | environment)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if fault is not None or counted:
        Injector(root, fault, counted, steps).install()
    code = 70
    try:
        code = call(*args) or 0
    except MiniclipError as error:
        if fault is not None and fault.what == "limit":  # what it says is a file, too
            _limit(None)
        print(f"miniclip: {error}", file=sys.stderr)
        code = error.exit_code
    except SystemExit as end:
        code = end.code or 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    os._exit(code)  # no farewell: what has to be on the disk is there


def start(call, *args, log, environment=None, root="/", fault=None, counted=None, steps=False):
    """Begin a call in a forked process."""
    process = warm.server().Process(target=_child, args=(call, args, str(log), {name: str(value) for name, value in (environment or {}).items()}, str(root), fault,
                                                    counted and str(counted), steps))
    process.start()
    return process


def finish(process, log, seconds=300):
    """(exit code, or minus the signal; what it said)."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"no end after {seconds} s: {pathlib.Path(log).read_text(errors='replace')[-2000:]}")
    code = process.exitcode
    process.close()
    return code, pathlib.Path(log).read_text(encoding="utf8", errors="replace")


def run(call, *args, log, **options):
    return finish(start(call, *args, log=log, **options), log)


def miniclip(*argv):
    """A command, as the script `miniclip` runs it."""
    from miniclip_helpers import cli

    sys.argv = ["miniclip", *map(str, argv)]
    cli.entry()


# What is written: name -> (function (folder, version), how its state is read, whether it is one whole or files that are whole each).

def small_model(seed=0):
    import torch

    from miniclip_helpers.encoders import BagOfWords, SmallCNN
    from miniclip_helpers.model import LinearHead, TwoTowers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        image, text = SmallCNN(channels=4, size=16), BagOfWords(["red", "blue", "ball"], width=12)
        return TwoTowers(image, text, LinearHead(image.width, 6), LinearHead(12, 6), logit_scale=5.0)


def png(pixels):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def small_dataset(seed=0, count=6):
    from miniclip_helpers.datasets import ImageTextDataset

    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return ImageTextDataset("small", [f"{row:02d}.png" for row in range(count)], [[f"a {row} of {seed}"] for row in range(count)], [png(one) for one in pixels])


def write_checkpoint(folder, version):
    from miniclip_helpers.training import TrainConfig, loop

    config = TrainConfig(epochs=1, batch_size=2, seed=version)
    loop.save_checkpoint(loop._State(small_model(version), config), folder / "checkpoint.pt", config)


def write_run(folder, version):
    from miniclip_helpers.training.machine import ALONE
    from miniclip_helpers.training.run import _save

    _save(small_model(version), [{"step": step, "loss": version} for step in range(50)], folder / "run", {"data": "x", "seed": version},
          {"train": range(4), "val": range(2)}, {"train": ["a"], "val": ["b"]}, ALONE)


def write_history(folder, version):
    from miniclip_helpers.training.folder import write_history as write

    write(folder / "history.csv", [{"step": step, "loss": version} for step in range(2000)])


def write_features(folder, version):
    from miniclip_helpers.embedding import FeatureCache

    with contextlib.closing(FeatureCache("f", 300, folder)) as cache:
        cache.put({f"{row}-{version}": np.full(300, row + version, np.float32) for row in range(100)})


def write_index(folder, version):
    from miniclip_helpers.index import build_index

    rows = np.random.default_rng(version).normal(size=(50, 16)).astype(np.float32)
    build_index(rows / np.linalg.norm(rows, axis=1, keepdims=True), [f"{row}.jpg" for row in range(50)], kind="flat", about={"version": version}).save(folder / "photos.index")


def write_vectors(folder, version):
    from miniclip_helpers.embedding import shards

    about = {"model": "m", "image_tower": "i", "text_tower": "t", "heads": "h", "holds": "pictures", "shard": 0}
    shards.write_vectors(folder / "00000.parquet", [f"{row}.jpg" for row in range(100)], np.full((100, 16), version, np.float32), about)


def write_captions(folder, version):
    from miniclip_helpers.datasets import captions

    captions.write_captions(folder / "captions.json", {f"{row}.jpg": [f"picture {row} of {version}"] for row in range(500)})


def write_split(folder, version):
    from miniclip_helpers import datasets

    datasets.write_split(folder / "split.json", {"train": [f"{row}.jpg" for row in range(500)], "val": [f"v{version}.jpg"]})


def write_json(folder, version):
    from miniclip_helpers.cli import common

    common.write_json(folder / "scores.json", {"version": version, "rows": list(range(3000))})


def write_results(folder, version):
    from miniclip_helpers.series import running

    row = {"seconds": version, "peak_memory_mb": 1, "status": "ok", "results": {f"r{row}": version for row in range(500)}, "problems": []}
    running._write_results({"01_x": row}, folder / "build" / "results.json")


def write_notebook(folder, version):
    import nbformat
    from nbformat import v4

    from miniclip_helpers.series import running

    cells = [v4.new_code_cell("1", id=f"c{row}", outputs=[v4.new_output("stream", text=f"{version}\n" * 50)]) for row in range(40)]
    text = nbformat.writes(v4.new_notebook(cells=cells))
    executed = folder.parent / f"executed-{version}.ipynb"
    if not executed.exists():
        executed.write_text(text, encoding="utf8")
    running.write_back(executed, folder / "01_x.ipynb")


def write_figures(folder, version):
    from miniclip_helpers import plots

    drawn = folder.parent / f"drawn-{version}"
    if not drawn.exists():
        (drawn / "data").mkdir(parents=True)
        for part in ("01_a.png", "01_a.svg", "data/01_a.json"):
            (drawn / part).write_bytes(f"{part} {version} ".encode() * 3000)
        (drawn / "index.md").write_text(f"| [01_a](01_a.png) ([svg](01_a.svg)) | 01 | caption {version} | words |\n", encoding="utf8")
    plots.take_figures(drawn, folder / "figures", "01")


def write_course(folder, version):
    from miniclip_helpers.coursework import folders

    course = folder.parent / "course"
    if not course.exists():
        for name in ("source", "release"):
            (course / name / "01_x").mkdir(parents=True)
            (course / name / "01_x" / "01_x.ipynb").write_text(f"{name} " * 3000, encoding="utf8")
        (course / "nbgrader_config.py").write_text("c = 1\n" * 100, encoding="utf8")
        (course / "gradebook.db").write_bytes(b"book" * 5000)
    folders.copy_course(course, folder)


def write_stamps(folder, version):
    from miniclip_helpers.datasets import write_dataset

    write_dataset(small_dataset(version), folder / "photos")


def write_parquet(folder, version):
    from miniclip_helpers.datasets import write_dataset

    write_dataset(small_dataset(version), folder / "photos.parquet")


def write_tars(folder, version):
    from miniclip_helpers.datasets import shards

    shards.write_shards(small_dataset(version), folder / "tars", size=3)


def write_download(folder, version):
    from miniclip_helpers.downloads import Source, fetch

    fetch(Source("thing", (os.environ["FAULT_URL"],), sha256=hashlib.sha256(served()).hexdigest()), folder)


def write_unpacked(folder, version):
    from miniclip_helpers.downloads import Source, fetch

    url = os.environ["FAULT_URL"].replace("file.bin", "file.tar")
    fetch(Source("thing", (url,), sha256=hashlib.sha256(served()).hexdigest(), unpack=True), folder)


def write_pictures(folder, version):
    import pandas

    from miniclip_helpers import datasets

    datasets.download_pictures(pandas.DataFrame([{"caption": f"picture {row}", "url": f"{os.environ['FAULT_URL']}{row}"} for row in range(3)]), folder / "fetched")


@functools.cache
def served():
    """The archive that the server on the loopback gives."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a", "b"):
            info = tarfile.TarInfo(f"inner/{name}")
            info.size = 100_000
            tar.addfile(info, io.BytesIO(name.encode() * info.size))
    return buffer.getvalue()


def files(folder):
    """{path: digest} of all files, and what is hidden."""
    from miniclip_helpers.runtime import is_aside

    found, hidden = {}, []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(is_aside(part) for part in parts) or path.name.endswith(".part"):
            hidden.append(path.relative_to(folder).as_posix())
        elif path.is_file() and not path.name.endswith(".lock") and path.name != "file.tar":  # an archive that was fetched and not yet unpacked is whole, and used
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return found, hidden


def features(folder):
    """{key: digest} of a feature cache, as SQLite reads it; its integrity is asked for."""
    file = folder / "features" / "f.sqlite"
    if not file.exists():
        return {}, []
    base = sqlite3.connect(file)
    try:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not base.execute("SELECT name FROM sqlite_master WHERE name = 'features'").fetchone():
            return {}, []
        rows = base.execute("SELECT key, value FROM features").fetchall()
    finally:
        base.close()
    assert all(np.array_equal(np.frombuffer(value, np.float32), np.full(300, sum(map(int, key.split("-"))), np.float32)) for key, value in rows)
    return {key.split("-")[1]: str(sum(other.endswith(key[-2:]) for other, _ in rows)) for key, _ in rows}, []


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of write. again: whether it may be written over. whole: all files change together; else each file by itself. native: a library writes by itself,
    past Python's own files, so that only the limit of the system can cut it. serves: what a server on the loopback gives meanwhile."""

    write: object
    again: bool = True
    whole: bool = True
    read: object = files
    native: bool = False
    serves: object = None


KINDS = {"checkpoint": Kind(write_checkpoint), "run folder": Kind(write_run), "history": Kind(write_history), "feature cache": Kind(write_features, read=features, native=True),
         "index": Kind(write_index), "shard of vectors": Kind(write_vectors), "captions": Kind(write_captions), "split": Kind(write_split), "--json": Kind(write_json),
         "results.json": Kind(write_results), "notebook": Kind(write_notebook), "figures": Kind(write_figures, whole=False), "course": Kind(write_course, again=False, whole=False),
         "data set": Kind(write_stamps, again=False), "parquet": Kind(write_parquet, again=False), "tar shards": Kind(write_tars, again=False),
         "download": Kind(write_download, again=False, serves=served), "archive": Kind(write_unpacked, again=False, serves=served),
         "pictures by address": Kind(write_pictures, again=False, whole=False, serves=lambda: png(np.zeros((8, 8, 3), np.uint8)))}


class Bench:
    """One kind of write: its old and its new state, and what a fault in the writing of the new one leaves."""

    def __init__(self, name, folder, url):
        self.name, self.kind, self.folder, self.more = name, KINDS[name], folder, {"FAULT_URL": url}
        folder.mkdir(parents=True)
        self.log = folder / "said.txt"
        old, new = folder / "old", folder / "new"
        old.mkdir(), new.mkdir()
        if self.kind.again:
            self._good(old, 0), self._good(new, 0)
        self.counted = folder / "counted.txt"
        self._good(new, 1, counted=self.counted, root=new)
        self.operations = [line.split(" ", 1)[0] for line in self.counted.read_text().splitlines()] if self.counted.exists() else []
        assert self.operations or self.kind.native, f"{name}: the injector sees nothing of what is written"
        self.old, self.new = self.kind.read(old)[0], self.kind.read(new)[0]
        assert self.old != self.new and self.new, name
        self.largest = max((path.stat().st_size for path in new.rglob("*") if path.is_file()), default=0)

    def _good(self, folder, version, **options):
        code, said = run(self.kind.write, folder, version, log=self.log, environment=self.more, **options)
        assert code == 0, f"{self.name}: {said}"

    def faults(self, count, seed):
        """A seeded choice of `count` faults, and one Ctrl-C: each operation may be struck, in each way."""
        dice, chosen = random.Random(f"{self.name} {seed}"), []
        for number in range(count):
            if self.kind.native or number % 4 == 3:
                chosen.append(Fault("limit", dice.randrange(self.largest)))
                continue
            at = dice.randrange(len(self.operations))
            what = dice.choice([*ERRORS, "kill", "kill", "short" if self.operations[at] == "write" else "EIO"])
            chosen.append(Fault(what, at))
        return chosen if self.kind.native else [*chosen, Fault("INT", dice.randrange(len(self.operations)))]

    def strike(self, fault):
        """Write the new state over the old with a fault in it, and look; then once more without. An `AssertionError` says which case broke what."""
        folder = self.folder / "struck"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder / "old", folder)
        code, said = run(self.kind.write, folder, 1, log=self.log, environment=self.more, root=folder, fault=fault)
        on = self.operations[fault.at] if fault.what != "limit" and fault.at < len(self.operations) else ""
        case = f"{self.name}, {fault}, {on}: exit {code}, said {said[-600:]!r}"
        held, hidden = self.kind.read(folder)
        self._whole(held, case)
        if code == 0:
            assert held == self.new, case
        elif code == -signal.SIGKILL:
            assert fault.what == "kill", case
        elif fault.what == "INT":
            assert code == 130 and "Traceback" not in said and (not hidden or self.kind.serves), (case, hidden)
        else:
            assert code == 1 and said.count("\n") == 1 and said.startswith("miniclip: ") and "cannot be" in said and (";" in said), case
            assert not hidden or self.kind.serves, (case, hidden)  # a part of a download is gone on from
        self._good(folder, 1) if self.kind.again or held != self.new else None
        held, hidden = self.kind.read(folder)
        assert held == self.new and not hidden, f"afterwards: {case}: {hidden or held}"
        return code

    def _whole(self, held, case):
        if self.kind.whole:
            assert held in (self.old, self.new), f"{case}: neither the old nor the new: {held}"
        else:
            for name in self.old.keys() | held.keys():
                assert held.get(name) in (self.old.get(name), self.new.get(name)), f"{case}: {name} is neither old nor new"


def strike_all(folder, per_kind, seed, kinds=KINDS):
    """{kind: number of faults}; every broken file is an `AssertionError` at the end, so that all are told."""
    done, broken, ended = {}, [], {"done all the same": 0, "told": 0, "killed": 0}
    for name in kinds:
        with contextlib.ExitStack() as stack:
            serves = KINDS[name].serves
            url = stack.enter_context(loopback.serving(loopback.Server(serves()))).url if serves else ""
            bench = Bench(name, folder / name.replace(" ", "-"), url)
            for fault in bench.faults(per_kind, seed):
                try:
                    code = bench.strike(fault)
                    ended["killed" if code < 0 else "told" if code else "done all the same"] += 1
                except AssertionError as error:
                    broken.append(str(error))
                done[name] = done.get(name, 0) + 1
            shutil.rmtree(bench.folder, ignore_errors=True)
    print(f"{sum(done.values())} faults in {len(done)} kinds of writes, {len(broken)} broken; {ended}; seed {seed}")
    assert not broken, f"{len(broken)} of {sum(done.values())} (seed {seed}):\n" + "\n".join(broken)
    assert ended["told"] + ended["killed"] >= sum(done.values()) / 2, f"too few faults were felt (seed {seed}): {ended}"
    return done


# Training that is killed, and goes on.

STEPS = ["--epochs", "3", "--batch-size", "6", "--val-size", "0.25", "--size", "16", "--seed", "3"]
TRAINED = {"small-cnn and bag-of-words": ["--image-encoder", "small-cnn", "--text-encoder", "bag-of-words", "--learning-rate", "0.003"],
           "preset 001 and a transformer": ["--preset", "001", "--image-encoder", "small-cnn", "--text-encoder", "transformer"]}
STRATA = ("start-up", "step", "checkpoint", "end")


def training_data(folder, count=24):
    """A folder of small pictures and captions."""
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    dice = np.random.default_rng(0)
    lines = ["image,caption"]
    for row in range(count):
        Image.fromarray(dice.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "images" / f"{row:02d}.png")
        lines.append(f"{row:02d}.png,a {('red', 'blue', 'green')[row % 3]} {('ball', 'dog', 'house', 'tree')[row % 4]} of number {row}")
    (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
    return folder


def outcome(out):
    """What a run left, without its times: {file: bytes, or rows}."""
    import csv

    found = {file.name: file.read_bytes() for file in out.iterdir()}
    rows = csv.DictReader(io.StringIO(found.pop("history.csv").decode()))
    return found | {"history.csv": [{key: value for key, value in row.items() if key != "seconds"} for row in rows]}


class Training:
    """One way to train, run once without harm: what it leaves, and the operations and steps that it takes on the way."""

    def __init__(self, name, folder):
        self.name, self.folder, self.data = name, folder, training_data(folder / "photos")
        self.log, counted, begin = folder / "said.txt", folder / "counted.txt", time.monotonic()
        code, said = self.train("whole", counted=counted)
        assert code == 0, said
        self.seconds, self.whole = time.monotonic() - begin, outcome(folder / "whole" / "run")
        self.events = counted.read_text(encoding="utf8").splitlines()
        assert sum(event.startswith("step") for event in self.events) == 9 and len(self.whole["history.csv"]) == 9

    def argv(self, where, *more):
        return ["train", "--data", self.data, *TRAINED[self.name], *STEPS, "--out", self.folder / where / "run", *more]

    def options(self, where):
        (self.folder / where).mkdir(exist_ok=True)
        return {"root": self.folder / where, "steps": True, "environment": {"MINICLIP_CACHE": self.folder / "cache"}}

    def train(self, where, *more, **options):
        return run(miniclip, *self.argv(where, *more), log=self.log, **self.options(where), **options)

    def moment(self, stratum, dice):
        """A `Fault` in this part of the run; for the start-up the seconds until the process is killed from outside."""
        places = {"step": [number for number, event in enumerate(self.events) if event.startswith("step")],
                  "checkpoint": [number for number, event in enumerate(self.events) if "checkpoint.pt" in event]}
        last = max(places["checkpoint"])
        places["end"] = [number for number in range(len(self.events)) if number > last]
        if stratum == "start-up":
            return dice.uniform(0, self.seconds / 2)
        return Fault("kill", dice.choice(places[stratum]), dice.choice([0.0, dice.uniform(0, 0.02)]))

    def killed(self, where, moment):
        """The exit code of a run that is killed at this moment."""
        if isinstance(moment, Fault):
            return self.train(where, fault=moment)[0]
        process = start(miniclip, *self.argv(where), log=self.log, **self.options(where))
        time.sleep(moment)
        process.kill()
        return finish(process, self.log)[0]

    def check(self, where, stratum, dice):
        """Kill, resume, compare bit for bit."""
        moment, code = self.moment(stratum, dice), 0
        for _ in range(6):
            code = self.killed(where, moment)
            if code:
                break
            shutil.rmtree(self.folder / where)  # it had ended before: once more, and sooner
            moment = dataclasses.replace(moment, after=0.0) if isinstance(moment, Fault) else moment / 3
        left = sorted(file.name for file in (self.folder / where).rglob("*"))
        case = f"{self.name}, {stratum}, {moment}: exit {code}, left {left}"
        assert code == -signal.SIGKILL, case
        again, said = self.train(where, "--resume")
        assert again == 0, f"{case}; resumed: {said}"
        found = outcome(self.folder / where / "run")
        assert found.keys() == self.whole.keys(), f"{case}; {sorted(found)}"
        assert found["history.csv"] == self.whole["history.csv"], f"{case}: other losses"
        assert found == self.whole, f"{case}: {[name for name in found if found[name] != self.whole[name]]} differ"
        assert [file.name for file in (self.folder / where).iterdir()] == ["run"], f"{case}: {list((self.folder / where).iterdir())}"


def kill_and_resume(folder, moments, seed):
    """Kill runs at so many moments, spread over both ways to train and all parts of a run, and resume each."""
    dice, trainings = random.Random(seed), [Training(name, folder / str(number)) for number, name in enumerate(TRAINED)]
    for number in range(moments):
        training = trainings[(number // len(STRATA) + number) % 2]
        training.check(f"cut{number}", STRATA[number % len(STRATA)], dice)
    print(f"SIGKILL and resume: {moments} of {moments} equal; seed {seed}")


# A disk that is really full: a small tmpfs that only the process sees.

def small_disk(folder, kilobytes):
    """Mount a tmpfs on `folder` in a name space of this process alone; as another user than root in one where it may. False where the system does not let us."""
    import ctypes

    libc, user, private = ctypes.CDLL(None, use_errno=True), os.getuid(), 1 << 14 | 1 << 18  # MS_REC | MS_PRIVATE
    ids = os.getuid(), os.getgid()
    if libc.unshare(0x00020000 | (0x10000000 if user else 0)):  # CLONE_NEWNS, CLONE_NEWUSER
        return False
    if user:
        try:
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {ids[0]} 1"), ("gid_map", f"0 {ids[1]} 1")):
                pathlib.Path("/proc/self", name).write_text(text)
        except OSError:  # Ubuntu 24.04 gives a name space without rights in it
            return False
    if libc.mount(b"none", b"/", None, private, None):
        return False
    return libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={kilobytes}k".encode()) == 0


def on_a_full_disk(name, folder, kilobytes=1600):
    """Write the old state, fill the disk but for what the seed says, write the new one: 0 if nothing broke, 77 where no small disk can be had. Runs in a process of its own."""
    from miniclip_helpers.errors import MiniclipError

    kind, struck = KINDS[name], folder / "disk"
    struck.mkdir()
    if not small_disk(struck, kilobytes):
        return 77
    place, told, done = struck / "place", 0, 0
    place.mkdir()
    kind.write(place, 1)  # what it reads lies beside it, and is made now
    for room in (0, 1, 3, 9):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if kind.again:
            kind.write(place, 0)
        old = kind.read(place)[0]
        _fill(struck / "ballast", room)
        try:
            kind.write(place, 1)
            done += 1
        except MiniclipError as error:
            told += 1
            assert ("No space left" in str(error) or "disk is full" in str(error)) and ("free some space" in str(error) or "make room" in str(error)) and "\n" not in str(error), str(error)  # noqa: PT017
            (struck / "ballast").unlink()  # SQLite cannot so much as read there
            held, hidden = kind.read(place)
            assert not hidden, hidden
            if kind.whole:
                assert held == old, (name, room, held, old)
        (struck / "ballast").unlink(missing_ok=True)
        if kind.again or not done:
            kind.write(place, 1)
        new = kind.read(place)[0]
        assert new and new != old, (name, room)
    assert told, f"{name}: the disk was never full"
    print(f"{name}: {told} times full, {done} times room enough")
    return 0


def _fill(file, room):
    """Take the whole disk but `room` pages."""
    with open(file, "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017
        ballast.truncate(max(0, ballast.tell() // 4096 - room) * 4096)
