"""Runs the package on damaged pictures in processes of their own, with limits, and counts what happened. Prints the counts:

    python tests/fuzzing.py pictures 10000          # or: texts 100000
    python tests/fuzzing.py pictures 1 --seed 2026 --first 421    # one case again

The pictures come from `fuzzing_pictures.py`, the texts from `fuzzing_texts.py`. A case is right, or an error of ours; everything else is a finding.
"""

import argparse
import collections
import contextlib
import faulthandler
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent
CPU_SECONDS = 20  # of one case; a picture of 100 megapixels takes two
QUIET_SECONDS = 1200  # without a word from a process: it waits for something that never comes
MEMORY_MB = 2000  # above what the process holds before: 100 megapixels with transparency take 16 bytes each
GROUP = 50  # pictures in a folder
LARGE = 4_000_000  # pixels from which a picture goes through the doors alone
COLUMNS = ("cases", "errors of ours", "right results", "crashes", "hangs", "drops", "over memory", "other findings")
SEED = 2026


class Counts(dict):
    """{kind: Counter of COLUMNS}, and what was found, one line each."""

    def __init__(self):
        super().__init__()
        self.findings = []

    def add(self, kind, column, times=1):
        self.setdefault(kind, collections.Counter())[column] += times

    def find(self, kind, column, line):
        self.add(kind, column)
        self.findings.append(f"{column}: {line}")

    def total(self, column):
        return sum(row[column] for row in self.values())

    def __str__(self):
        rows = [[kind, *(f"{self[kind][column]:,}" for column in COLUMNS)] for kind in sorted(self)]
        rows.append(["all", *(f"{self.total(column):,}" for column in COLUMNS)])
        lines = [f"| {' | '.join(row)} |" for row in [["what", *COLUMNS], ["---"] * (1 + len(COLUMNS)), *rows]]
        return "\n".join([*lines, *self.findings[:50]])


# --- the parent -------------------------------------------------------------------------------------------------------------------


def run_cases(what, count, seed=SEED, first=0, within=None):
    """Cases first to first + count - 1 of a seed, in processes of their own: `Counts`. A process that dies is a crash or a hang of its case; the rest goes on.

    within: the folder that they work in, each in one of its own that goes with it; None: the system's for such."""
    counts, at, stop = Counts(), first, first + count
    while at < stop:
        last, kind, code, words = _one_process(what, seed, at, stop, counts, within)
        if code == 0:
            break
        print(f"{what} {last}: ended with {code}", file=sys.stderr, flush=True)
        column = "hangs" if code in ("silent", -24) else "crashes"  # 24 is SIGXCPU
        counts.find(kind, column, f"{what} --seed {seed} --first {last}: ended with {code}; {words[-600:]}")
        at = last + 1
    return counts


def _one_process(what, seed, at, stop, counts, within):
    """(the case it was at, its kind, how it ended, its last words)."""
    last, kind, told = at, "?", time.monotonic()
    with tempfile.TemporaryDirectory(prefix="miniclip-fuzz-", dir=within) as folder, tempfile.TemporaryFile("w+") as said:
        environment = os.environ | {"MINICLIP_CACHE": f"{folder}/cache", "MINICLIP_OFFLINE": "1", "MINICLIP_PROGRESS": "0", "MPLBACKEND": "Agg", "PYTHONFAULTHANDLER": "1"}
        child = subprocess.Popen([sys.executable, __file__, what, str(stop - at), "--seed", str(seed), "--first", str(at), "--folder", folder],
                                 stdout=subprocess.PIPE, stderr=said, text=True, env=environment)
        code = None
        for line in _lines(child):
            if line is None:
                child.kill()
                code = "silent"
                break
            if not line.startswith("{"):
                continue
            event = json.loads(line)
            last, kind = event.get("case", last), event.get("kind", kind)
            for column, times in event.get("add", {}).items():
                counts.add(kind, column, times)
            for column, words in event.get("found", ()):
                counts.find(kind, column, words)
                print(f"{column}: {words}", file=sys.stderr, flush=True)
            if event.get("add") and time.monotonic() - told > 60:
                print(f"up to case {last}\n{counts}", file=sys.stderr, flush=True)
                told = time.monotonic()
        child.wait()
        said.seek(max(0, said.seek(0, 2) - 3000))
        return last, kind, child.returncode if code is None else code, said.read()


def _lines(child):
    """What the child says; None when it has been silent for too long."""
    import queue
    import threading

    heard = queue.Queue()
    threading.Thread(target=lambda: [*map(heard.put, child.stdout), heard.put("")], daemon=True).start()
    while True:
        try:
            line = heard.get(timeout=QUIET_SECONDS)
        except queue.Empty:
            yield None
            return
        if not line:
            return
        yield line


# --- the child --------------------------------------------------------------------------------------------------------------------


def say(**event):
    print(json.dumps(event), flush=True)


def limit_time(seconds=CPU_SECONDS):
    """Let the system end this process once it has computed for so long from now."""
    import resource  # Windows has none

    used = resource.getrusage(resource.RUSAGE_SELF)
    now = used.ru_utime + used.ru_stime
    resource.setrlimit(resource.RLIMIT_CPU, (int(now + seconds) + 1, resource.RLIM_INFINITY))
    faulthandler.dump_traceback_later(QUIET_SECONDS - 20)


def memory_mb(word="VmHWM"):
    """The most memory this process has held since `forget_memory` (VmHWM), or holds now (VmRSS); 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith(word):
                return int(line.split()[1]) / 1024
    return 0


def forget_memory():
    """Let VmHWM begin anew; the megabytes held now, or 0 where the system cannot do that."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        return memory_mb("VmRSS")
    return 0


def real_photos(count=8):
    """The bytes of a few real photos, where they are at hand."""
    folder = pathlib.Path(os.environ.get("MINICLIP_SHARED", ROOT.parent / "shared" / "data")) / "everyday_photos" / "images"
    return tuple(file.read_bytes() for file in sorted(folder.glob("*.jpg"))[:count]) if os.environ.get("MINICLIP_FUZZ_PHOTOS") else ()


def child_pictures(first, stop, seed, folder):
    from doors import Doors
    from fuzzing_pictures import damaged

    doors, photos = Doors(folder), real_photos()
    for start in range(first, stop, GROUP):
        group = []
        for case in range(start, min(start + GROUP, stop)):
            name, suffix, data = damaged(seed, case, photos)
            kind = name.split(": ")[1].split()[0].rstrip(",")
            say(case=case, kind=kind)
            limit_time()
            verdict, pixels, found = doors.alone(name, suffix, data)
            say(case=case, kind=kind, add={"cases": 1} | ({verdict: 1} if verdict else {}), found=found)
            if pixels < LARGE:
                group.append((case, suffix, data, pixels > 0))
        limit_time(CPU_SECONDS + len(group))
        say(case=min(start + GROUP, stop) - 1, kind="folders, indexes, shards", add={"cases": 1})
        found = doors.together(f"seed {seed}, cases from {start}", group)
        say(kind="folders, indexes, shards", add={} if found else {"right results": 1}, found=found)


def child_texts(first, stop, seed, folder):
    from fuzzing_texts import check_group

    for start in range(first, stop, 1000):
        say(case=start, kind="texts")
        limit_time(600)
        for kind, add, found in check_group(seed, start, min(start + 1000, stop), folder):
            say(case=start, kind=kind, add=add, found=found)


CHILDREN = {"pictures": child_pictures, "texts": child_texts}


def main(argv=None):
    parser = argparse.ArgumentParser(description="Damaged pictures and odd texts through the package; the counts as a table.")
    parser.add_argument("what", choices=CHILDREN)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--folder", help="where a child process works; given by its parent")
    args = parser.parse_args(argv)
    if args.folder:
        sys.path.insert(0, str(ROOT))
        warnings.simplefilter("ignore")
        faulthandler.enable()
        CHILDREN[args.what](args.first, args.first + args.count, args.seed, pathlib.Path(args.folder))
        return 0
    counts = run_cases(args.what, args.count, args.seed, args.first)
    print(counts)
    return int(bool(counts.findings))


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    sys.exit(main())
