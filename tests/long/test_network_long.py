"""The rest of what must ask nobody: notebooks, JupyterLab, Voila, fine-tuning, a course. And known vulnerabilities, where their list can be reached."""

import json
import subprocess
import sys

import pytest
from conftest import picture
from cutting import assert_alone, commands_cut_off, cut_off

LIBRARIES = ("transformers", "datasets", "huggingface_hub", "timm", "open_clip", "peft", "accelerate", "webdataset", "faiss", "sklearn", "skimage", "ipywidgets", "papermill", "torchvision")
SHOWN = """
import re, subprocess, sys, time, urllib.error, urllib.request
server = subprocess.Popen([sys.executable, "-m", *sys.argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
try:
    for line in server.stdout:
        print(line, end="", flush=True)
        if found := re.search(r"http://(?:127[.]0[.]0[.]1|localhost):[0-9]+[^ ]*", line):
            break
    for left in range(120)[::-1]:  # JupyterLab says its address a moment before it listens
        try:
            assert urllib.request.urlopen(found[0], timeout=120).status == 200
            break
        except urllib.error.URLError:
            if not left:
                raise
            time.sleep(0.5)
    time.sleep(8)  # for whatever is done once the first page is out
finally:
    server.terminate(); server.wait(120)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut-long")
    (folder / "photos").mkdir()
    for number in range(24):
        picture(number).save(folder / "photos" / f"{number}.png")
    (folder / "photos" / "captions.json").write_text(json.dumps([{"file_name": f"{number}.png", "caption": f"picture number {number}"} for number in range(24)]))
    assert_alone(commands_cut_off([["index", folder / "photos", "--out", "photos.index"]], folder))
    return folder


def test_every_library_is_imported_and_asks_nobody(tmp_path):
    assert_alone(cut_off([sys.executable, "-c", f"import importlib\nfor name in {LIBRARIES}: importlib.import_module(name)"], tmp_path))


def test_every_notebook_asks_nobody(tmp_path):
    assert_alone(commands_cut_off([["run", "--profile", "smoke"]], tmp_path, seconds=3000))
    assert len(list((tmp_path / "build").rglob("*.ipynb"))) >= 12


@pytest.mark.parametrize("command", [["jupyter", "lab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--IdentityProvider.token=", "--allow-root"],
                                     ["miniclip_helpers.cli", "app", "photos.index", "--port", "0", "--no-browser"]], ids=["lab", "app"])
def test_pages_ask_nobody(place, command):
    assert_alone(cut_off([sys.executable, "-c", SHOWN, *command], place))


def test_fine_tuning_and_courses_ask_nobody(place):
    pytest.importorskip("nbgrader")
    assert_alone(commands_cut_off([["fine-tune", "--model", "mini", "--data", place / "photos", "--method", "heads", "--out", "tuned", "--epochs", "1"],
                                   ["coursework", "build", "--out", "course", "--notebooks", "01"]], place, seconds=900))


def test_no_known_vulnerability_is_installed():
    """pip-audit asks the registry's list. What it cannot look up it skips, and then says that all is well: that is no answer here."""
    pytest.importorskip("pip_audit", reason="pip-audit is not installed: uv pip install pip-audit")
    done = subprocess.run([sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner", "off", "-f", "json"], capture_output=True, text=True, timeout=600)
    if not done.stdout.strip():
        pytest.skip(f"the list of known vulnerabilities cannot be reached: {done.stderr.strip().splitlines()[-1][-200:] if done.stderr.strip() else 'no answer'}")
    rows = json.loads(done.stdout)["dependencies"]
    asked = [row for row in rows if "skip_reason" not in row]
    found = {f"{row['name']} {row['version']}: {one['id']}" for row in asked for one in row["vulns"]} - set(EXPLAINED)
    assert not found, found
    if len(asked) < len(rows) / 2:
        pytest.skip(f"{len(rows) - len(asked)} of {len(rows)} packages could not be looked up: this registry keeps no list of known vulnerabilities")


EXPLAINED = {}  # {"package version: ID": why it does no harm here}
