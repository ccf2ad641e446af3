"""Fresh Pythons that encode parts of a corpus: one line of JSON in, one line out."""

import contextlib
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading

from .. import runtime
from ..errors import MiniclipError


def share(job, todo, processes, model=None):
    """Yield the result of each part as it is done, by so many worker processes; they are gone when this ends, however it ends.

    Each is a fresh Python, started by its module's name: a notebook's kernel cannot be forked once torch's threads run, and a script need not
    guard its main part. Raises `MiniclipError` with what a worker reported, or with the last words of one that died.
    """
    waiting, done = queue.SimpleQueue(), queue.SimpleQueue()
    for part in todo:
        waiting.put(part)
    with tempfile.TemporaryDirectory() as folder:
        logs = [pathlib.Path(folder) / f"{number}.log" for number in range(processes)]
        started = []
        try:
            for log in logs:
                started.append(_start(log, processes))
                threading.Thread(target=_feed, args=(started[-1], job, waiting, done), daemon=True).start()
            for _ in todo:
                worker, part, result = done.get()
                if result is None:
                    raise MiniclipError("\n".join([f"a worker ended ({worker.wait()}) at shard {part['shard']:05d}; finished shards are kept: run it again. "
                                                   "Its last words:", *_last_words(logs[started.index(worker)])]))
                if "error" in result:
                    raise MiniclipError(result["error"])
                yield result
        finally:
            for worker in started:
                worker.kill()
                worker.wait()
                worker.stdout.close()
                with contextlib.suppress(OSError):
                    worker.stdin.close()
            for part in todo:  # what a killed worker had begun to write
                for file in pathlib.Path(job["out"]).glob(f".{part['shard']:05d}.parquet.*"):
                    file.unlink(missing_ok=True)


def _start(log, processes):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    places = os.pathsep.join(filter(None, [str(runtime.CHECKOUT), os.environ.get("PYTHONPATH")]))
    said = {"PYTHONPATH": places, "OMP_NUM_THREADS": str(max(1, cores // processes)), "MINICLIP_PROGRESS": "0", "PYTHONIOENCODING": "utf8"}
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    with open(log, "wb") as file:
        command = [sys.executable, "-c", "from miniclip_helpers.embedding import workers; workers.main()"]
        return subprocess.Popen(command, env=kept | said, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, encoding="utf8")


def _feed(worker, job, waiting, done):
    """Hand a worker the job and then part after part, and pass on what it answers; None for one that is gone."""
    part = None
    try:
        worker.stdin.write(json.dumps(job) + "\n")
        while True:
            part = waiting.get_nowait()
            worker.stdin.write(json.dumps(part) + "\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            done.put((worker, part, json.loads(line) if line.endswith("\n") else None))
            if not line:
                return
    except queue.Empty:
        pass
    except (OSError, ValueError):  # its end of the pipe is closed
        done.put((worker, part, None))


def _last_words(log):
    return log.read_text(encoding="utf8", errors="replace").strip().splitlines()[-8:]


def main():
    """What a worker runs: a job, then parts, from its standard input."""
    from .corpus import serve

    answers = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    job = json.loads(sys.stdin.readline())
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        for result in serve(job, (json.loads(line) for line in sys.stdin)):
            answers.write(json.dumps(result) + "\n")
            answers.flush()
