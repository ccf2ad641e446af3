"""10,000 damaged pictures and 100,000 odd texts; tables of ten million rows; coverage-guided fuzzing of each parser. Prints the counts: pytest -s."""

import os
import pathlib
import subprocess
import sys

import pytest
from fuzzing import COLUMNS, run_cases
from fuzzing_targets import TARGETS

TESTS = pathlib.Path(__file__).resolve().parent.parent
RUNS = int(os.environ.get("MINICLIP_FUZZ_RUNS", 20_000))
ROWS = int(os.environ.get("MINICLIP_FUZZ_ROWS", 10_000_000))


@pytest.mark.parametrize("what, count", [("pictures", 10_000), ("texts", 100_000)])
def test_all_of_them(what, count, monkeypatch, tmp_path):
    monkeypatch.setenv("MINICLIP_FUZZ_PHOTOS", "1")
    counts = run_cases(what, count, within=tmp_path)
    print(f"\n{counts}")
    assert not counts.findings and counts.total(COLUMNS[0]) >= count


TABLE = """
import json, pathlib, sys, time
from fuzzing import forget_memory, memory_mb
from miniclip_helpers.datasets import load_dataset
folder, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
load_dataset(folder / "images")
before, started = forget_memory(), time.process_time()
dataset = load_dataset(folder / ("t." + kind))
print(json.dumps({"captions": sum(map(len, dataset.captions)), "mb": memory_mb() - before, "seconds": time.process_time() - started, "problems": len(dataset.problems)}))
"""


def write_rows(file, kind, rows):
    """A table of so many rows about 1,000 pictures, written as it goes."""
    with open(file, "w", encoding="utf8") as out:
        if kind in ("csv", "txt"):
            out.write("image,caption\n")
        for start in range(0, rows, 10_000):
            numbers = range(start, min(start + 10_000, rows))
            if kind == "jsonl":
                out.writelines(f'{{"file_name": "p{number % 1000}.png", "caption": "caption number {number} of them"}}\n' for number in numbers)
            elif kind == "token":
                out.writelines(f"p{number % 1000}.png#{number}\tcaption number {number} of them\n" for number in numbers)
            else:
                out.writelines(f'p{number % 1000}.png,"caption number {number}, of them"\n' for number in numbers)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_ten_million_rows(kind, tmp_path):
    """What is held is the captions themselves: at most 200 bytes a row, and nothing of the rows that they stood in."""
    import json

    from fuzzing_texts import _png

    (tmp_path / "images").mkdir()
    for number in range(1000):
        (tmp_path / "images" / f"p{number}.png").write_bytes(_png(1))
    write_rows(tmp_path / f"t.{kind}", kind, ROWS)
    done = subprocess.run([sys.executable, "-c", TABLE, str(tmp_path), kind], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    print(f"\n{kind}: {ROWS:,} rows, {found['mb']:,.0f} MB, {found['seconds']:.0f} s of computing")
    assert found["captions"] == ROWS and found["problems"] == 0
    assert found["mb"] * 2**20 < 200 * ROWS + 100 * 2**20


@pytest.mark.parametrize("name", TARGETS)
def test_coverage_guided(name, tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed (it has wheels for Linux on x86-64, and Python 3.11 to 3.13): uv pip install atheris")
    done = subprocess.run([sys.executable, str(TESTS / "fuzzing_targets.py"), name, f"-runs={RUNS}", "-seed=2026", "-max_len=4096", "-rss_limit_mb=6000", "-timeout=60",
                           f"-artifact_prefix={tmp_path}/"], capture_output=True, text=True, errors="replace", cwd=tmp_path, env=os.environ | {"MINICLIP_OFFLINE": "1", "MINICLIP_CACHE": str(tmp_path / "cache")})
    assert done.returncode == 0 and "Done" in done.stderr, (done.stdout + done.stderr)[-4000:]
    print(f"\n{name}: {RUNS:,} runs, {[line for line in done.stderr.splitlines() if 'cov:' in line][-1][:120]}")
