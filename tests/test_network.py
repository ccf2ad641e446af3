"""Nothing asks the network unless told to: no telemetry, no look for a newer version, no fetching by the way. Attempts are counted, not only cut."""

import sys

import pytest
from conftest import picture
from cutting import assert_alone, commands_cut_off, cut_off, namespace

SERVED = """
import json, pathlib, re, subprocess, sys, time, urllib.request
server = subprocess.Popen([sys.executable, "-m", "miniclip_helpers.cli", "serve", "photos.index", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
try:
    for line in server.stdout:
        print(line, end="")
        if found := re.search(r"http://127[.]0[.]0[.]1:[0-9]+", line):
            break
    asked = urllib.request.Request(found[0] + "/search/text", json.dumps({"query": "red"}).encode(), {"Content-Type": "application/json"})
    assert len(json.load(urllib.request.urlopen(asked))["hits"]) == 5
finally:
    server.terminate()
    try:
        server.wait(120)
    except subprocess.TimeoutExpired:
        server.kill()
        raise
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos/, six pictures and their captions."""
    folder = tmp_path_factory.mktemp("cut")
    (folder / "photos").mkdir()
    rows = []
    for number in range(6):
        picture(number).save(folder / "photos" / f"{number}.png")
        rows.append(f'{{"file_name": "{number}.png", "caption": "picture number {number}"}}')
    (folder / "photos" / "captions.json").write_text(f"[{','.join(rows)}]")
    return folder


def test_the_counters_count(tmp_path):
    """What the other tests rest on: an attempt of Python, one of a child's child, and one of a program that is no Python are all seen."""
    python = "import socket, subprocess, sys\ntry:\n    socket.create_connection(('203.0.113.7', 80), 1)\nexcept OSError: pass\n"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {python!r}])"
    code, output, attempts, packets = cut_off([sys.executable, "-c", python + f"subprocess.run([sys.executable, '-c', {child!r}])"], tmp_path)
    assert code == 0 and len(attempts) == 2 and all("203.0.113.7" in line for line in attempts), (output, attempts)  # looked up, by two processes
    if not namespace():
        pytest.skip("this system gives no network of its own to a process (unshare -rn): attempts of other programs than Python are not counted here")
    assert packets == 0  # Python's were stopped before the kernel heard of them
    assert cut_off(["bash", "-c", "exec 3<>/dev/tcp/203.0.113.7/80 || true"], tmp_path)[3] >= 1


def test_every_module_and_the_commands_ask_nobody(place):
    photos, mini = place / "photos", ["--model", "mini"]
    assert_alone(commands_cut_off([
        ["doctor"], ["index", photos, "--out", "photos.index"], ["search", "photos.index", "a red fruit", "--figure", "found.png"], ["search", "photos.index", "--image", photos / "1.png"],
        ["zero-shot", "--labels", "cat,dog", photos / "1.png"], ["evaluate", *mini, "--data", photos], ["encode", "--data", photos, "--out", "shards"],
        ["train", "--data", photos, "--out", "run", "--image-encoder", "small-cnn", "--text-encoder", "bag-of-words", "--epochs", "1", "--batch-size", "4", "--val-size", "0"],
        ["export", "mini", "--to", "hub"]], place))
    assert (place / "hub" / "config.json").is_file() and (place / "found.png").stat().st_size > 1000


def test_the_service_asks_nobody(place):
    if not (place / "photos.index").is_dir():
        assert_alone(commands_cut_off([["index", place / "photos", "--out", "photos.index"]], place))
    assert_alone(cut_off([sys.executable, "-c", SERVED], place))


def test_processes_that_learn_together_ask_nobody(tmp_path):
    """Who meet over TCP ask a name server for 127.0.0.1's name, in code that is no Python."""
    assert_alone(cut_off([sys.executable, "-c", "from miniclip_helpers.training.processes import run_processes; assert run_processes(2)"], tmp_path))
