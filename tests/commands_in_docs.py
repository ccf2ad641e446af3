"""The command lines of the documents, found by reading them, and a scratch copy of the checkout to type them in.

A line is typed as it stands. Around it: `uv` is a stand-in that hands on to the commands of this environment (nothing is installed), the folder has the files that
the text speaks of, small ones, and ARGS is set for `make`, as its help says. Two ways: in the small form the lines of `miniclip` come out of a process that has
imported torch already, in the long form each is a new one, by bash.
"""

import argparse
import dataclasses
import glob
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import warm
from conftest import ROOT

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "notebooks/README.md", "tests/README.md", "tests/benchmarks/README.md", "data/README.md"]
PROGRAMS = ("make", "uv", "miniclip", "curl", "torchrun", "accelerate", "nbgrader", "jupyter", "source", "cd", "docker", "conda", "pytest", "python", "rm", "apt-get", ".ci/run")
PROGRAM = re.compile(rf"(?:[A-Z_]+=(?:\"[^\"]*\"|\S+) )*(?:{'|'.join(map(re.escape, PROGRAMS))})(?= |$)")
MENTION = re.compile(r"(?:uv run )?miniclip [a-z-]+(?: (?:build|grade|report))?$|(?:nbgrader|jupyter lab|uv|miniclip|source|miniclip --help|torchrun|rm -rf|accelerate launch|apt-get update)$")
NEVER = ("uv could not be installed", "source")  # a message; a column of a table


@dataclasses.dataclass(frozen=True)
class Line:
    """A command line and where it stands: a document, or the help of a command."""

    where: str
    text: str

    def __str__(self):
        return f"{self.where}: {self.text}"


def without_comment(line):
    """A line as the shell takes it, without what stands behind a # of its own."""
    return re.sub(r"\s+#(?= ).*$", "", line).strip()


def in_blocks(text):
    """The lines of the fenced blocks of a document, block by block."""
    return [[without_comment(line) for line in block.splitlines() if line.strip()] for block in re.findall(r"(?ms)^```[a-z]*\n(.*?)^```", text)]


def in_code_spans(text):
    """What stands in backticks outside of blocks and begins with a program; what is only named, without anything to do, does not count but in a table's first column."""
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    first = set(re.findall(r"(?m)^\| `([^`]+)` \|", prose))
    return [span for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose) if PROGRAM.match(span) and span not in NEVER and (span in first or not MENTION.match(span))]


def parsers(parser, name="miniclip"):
    """{the words of a command: its parser}."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                found |= parsers(below, f"{name} {word}") or {f"{name} {word}": below}
    return found


def all_lines():
    """Every command line, in the order of the documents; a line that stands twice, once. Blocks without a command are left to `blocks_without_commands`."""
    from miniclip_helpers.cli import build_parser

    found = []
    for document in DOCUMENTS:
        if (ROOT / document).exists():
            text = (ROOT / document).read_text(encoding="utf8")
            lines = [line for block in in_blocks(text) if PROGRAM.match(block[0]) for line in block] + in_code_spans(text)
            found += [Line(document, line) for line in lines]
    for name, parser in parsers(build_parser()).items():
        found += [Line(f"{name} --help", line.strip()) for line in (parser.epilog or "").splitlines()[1:]]
    once = {}
    for line in found:
        once.setdefault(bare(line.text), line)
    return list(once.values())


def bare(text):
    """A line without what only says where miniclip is."""
    return text.removeprefix("uv run ")


def blocks_without_commands():
    """The first lines of blocks that begin with no program."""
    found = []
    for document in DOCUMENTS:
        if (ROOT / document).exists():
            found += [block[0] for block in in_blocks((ROOT / document).read_text(encoding="utf8")) if not PROGRAM.match(block[0])]
    return found


# --- where they are typed

UV = """#!/bin/sh
# Stands in for uv: nothing is installed, and `uv run X` is X of this environment.
[ "$1" = run ] || exit 0
shift
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


def lay_out(folder):
    """A scratch copy of the checkout in folder/checkout, with the files that the documents speak of; returns it."""
    copy = folder / "checkout"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "activate").write_text("")
    (copy / ".venv" / ".ready").touch()
    (folder / "bin").mkdir()
    (folder / "bin" / "uv").write_text(UV)
    (folder / "bin" / "uv").chmod(0o755)
    photos(copy)
    return copy


def photos(copy):
    """photos/ and other_photos/ with captions.json, cat.jpg and holiday.jpg, tars/, photos.parquet, sentences, questions, nouns and a split: all small."""
    from miniclip_helpers import datasets
    from miniclip_helpers.datasets import shards

    stamps, eight = datasets.load_dataset("stamps"), datasets.load_dataset("photos8")
    for name, places in {"photos": range(0, 240, 10), "other_photos": range(5, 165, 10)}.items():
        (copy / name / "2024").mkdir(parents=True)
        rows = []
        for number, place in enumerate(places):
            file = f"2024/IMG_{number:04}.jpg"
            stamps.image(place).convert("RGB").save(copy / name / file)
            rows += [{"file_name": file, "caption": text} for text in (stamps.captions[place][0], f"a picture of {stamps.captions[place][0]}")]
        (copy / name / "captions.json").write_text(json.dumps(rows), encoding="utf8")
    for name, place in {"cat.jpg": 2, "holiday.jpg": 4}.items():
        eight.image(place).convert("RGB").save(copy / name)
    ours = datasets.load_dataset(copy / "photos")
    eight.image(2).save(copy / "drawing.png")
    names = [f"2024/IMG_{number:04}.jpg" for number in range(24)]
    (copy / "split.json").write_text(json.dumps({"train": names[:14], "val": names[14:18], "test": names[18:]}), encoding="utf8")
    shards.write_shards(ours, copy / "tars", size=10)
    datasets.write_dataset(ours, copy / "photos.parquet")
    (copy / "sentences.txt").write_text("a cat\na dog on the beach\na red car\n", encoding="utf8")
    (copy / "questions.txt").write_text("a red fruit\nan animal\n", encoding="utf8")
    (copy / "nouns.txt").write_text("cat\ndog\nteapot\n", encoding="utf8")


# --- how they are typed

OURS = {"open": 0, "os.mkdir": 0, "os.remove": 0, "os.rename": 1, "sqlite3.connect": 0}  # audit events by which a place is written: which of its arguments names it


@dataclasses.dataclass
class Done:
    """A line that has ended: its exit status and what it printed."""

    status: int
    output: str


class Typist:
    """Types lines into a scratch copy of the checkout. forks: commands of miniclip come out of a process that has imported the package already."""

    def __init__(self, folder, forks):
        self.copy, self.forks, self.number = lay_out(folder), forks, 0
        path = os.pathsep.join([str(folder / "bin"), str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "MAKE", "MFLAGS", "PYTEST", "MINICLIP_BUILD", "MINICLIP_NOTEBOOKS", "MINICLIP_FIGURES"))}
        self.environment = kept | {"PATH": path, "PYTHONPATH": str(self.copy), "MINICLIP_OFFLINE": "1", "MINICLIP_PROGRESS": "0", "BROWSER": "true", "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}
        self.environment |= warm.no_models(folder / "hub") | {"MINICLIP_CACHE": str(folder / "cache")}

    def type(self, line, timeout=600, cwd=None, **environment):
        """Type a line, wait for its end, and return what came of it."""
        process, file = self.start(line, cwd, **environment)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.stop()
            raise AssertionError(f"`{line}` has not ended after {timeout} s; it printed\n{file.read_text(errors='replace')[-2000:]}") from None
        return Done(process.status(), file.read_text(encoding="utf8", errors="replace"))

    def start(self, line, cwd=None, **environment):
        """Begin a line; returns (the process, the file that its output goes to)."""
        self.number += 1
        file = self.copy.parent / f"output-{self.number}.txt"
        file.touch()
        given = self.environment | environment
        cwd = cwd or self.copy
        single = without_comment(line).removeprefix("uv run ")
        words = shlex.split(single) if self.forks and "&&" not in line else []
        settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
        words = words[len(settings) :]
        if words and words[0] == "miniclip":
            arguments = [name for word in words for name in (sorted(glob.glob(word, root_dir=cwd)) or [word] if "*" in word else [word])]
            process = warm.server().Process(target=run_miniclip, args=(arguments, str(cwd), given | settings, str(file)))
            process.start()
            return Forked(process), file
        with file.open("wb") as output:
            return Shell(subprocess.Popen(["bash", "-c", line], cwd=cwd, env=given, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)), file


def run_miniclip(words, folder, environment, file):
    """What the command `miniclip` does, in a process that has imported most of it."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.setsid()
    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1), os.dup2(output, 2)
    sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), open(1, "w", buffering=1, closefd=False), open(2, "w", buffering=1, closefd=False)
    sys.argv = words
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from miniclip_helpers import cli, runtime

    runtime.CHECKOUT = pathlib.Path(environment["PYTHONPATH"])  # what was imported beforehand is the package of the real one
    sys.addaudithook(stay_in_the_copy)
    cli.entry()


def stay_in_the_copy(event, arguments):
    """An audit hook: a process that is about to write into the real checkout ends, with the status 97."""
    if event not in OURS or event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    place = arguments[OURS[event]]
    if isinstance(place, str | bytes | os.PathLike) and (place := pathlib.Path(os.path.realpath(os.fsdecode(place)))).is_relative_to(ROOT):
        parts = place.relative_to(ROOT).parts
        if not parts or not parts[0].startswith(".venv") and "__pycache__" not in parts:  # caches of Python and of libraries
            print(f"{event} of {place}, which is in the real checkout", file=sys.stderr, flush=True)
            os._exit(97)


class Shell:
    """A line that bash runs."""

    def __init__(self, process):
        self.process, self.wait, self.pid = process, process.wait, process.pid

    def status(self):
        return self.process.returncode

    def running(self):
        return self.process.poll() is None

    def interrupt(self):
        """Ctrl-C, as a terminal sends it: to every process of the line."""
        os.killpg(self.pid, signal.SIGINT)

    def end(self):
        os.killpg(self.pid, signal.SIGTERM)

    def stop(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.wait(30)


class Forked(Shell):
    """A line whose process was forked from a warm one."""

    def __init__(self, process):
        self.process, self.pid = process, process.pid

    def wait(self, timeout):
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("miniclip", timeout)

    def status(self):
        return self.process.exitcode

    def running(self):
        return self.process.is_alive()


def answered(typist, line, pattern, ask, timeout=120):
    """Begin a line that serves, wait until its output matches, ask, stop it with Ctrl-C, and return (the match, what asking gave, how it ended)."""
    process, file = typist.start(line)
    try:
        end = time.monotonic() + timeout
        while not (match := re.search(pattern, file.read_text(errors="replace") if file.exists() else "")):
            if not process.running() or time.monotonic() > end:
                raise AssertionError(f"`{line}` did not say {pattern!r}; it said\n{file.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        given = ask(match)
        process.interrupt()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:  # JupyterLab asks whether it shall, and nobody is here to say yes
            process.end()
            process.wait(60)
        return match, given, Done(process.status(), file.read_text(errors="replace"))
    finally:
        if process.running():
            process.stop()


def is_free(port):
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) != 0
