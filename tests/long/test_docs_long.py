"""Every command line of the documents, each in a new process by bash, as a reader types it; and the addresses outside, where there is a network."""

import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from commands_in_docs import Typist, all_lines, answered, bare, is_free
from conftest import ROOT
from links_in_docs import DOCUMENTS, outside
from test_docs_commands import ASKED, NOT_TYPED, SERVED, type_and_judge

# What makes a line small, from its surroundings: what the text itself says that one may set.
SMALL = {
    "make run": {"ARGS": "00 --profile smoke"},
    "make bench": {"ARGS": "--collect-only -q"},
    "make figures": {"ARGS": "00 --check"},
}
COLLECTED = {"PYTEST_ADDOPTS": "--collect-only -q"}  # pytest would run for an hour: here it finds what is asked for
NUMBER = "00"  # for NN
LINES = [line for line in all_lines() if bare(line.text) not in NOT_TYPED and not line.text.startswith(ASKED)]


@pytest.fixture(scope="module")
def typist(tmp_path_factory):
    typist = Typist(tmp_path_factory.mktemp("reader"), forks=False)
    settings = tmp_path_factory.mktemp("jupyter")
    server = {"ServerApp": {"open_browser": False, "allow_root": True, "ip": "127.0.0.1"}, "ExtensionApp": {"open_browser": False}}
    (settings / "jupyter_server_config.json").write_text(json.dumps(server), encoding="utf8")
    typist.environment |= {"JUPYTER_CONFIG_DIR": str(settings)}
    return typist


def hand_in(typist, folder):
    """A released notebook, handed in as it is by Ada, and in an archive for nbgrader."""
    course = typist.copy.parent / "course"
    released = course / "release" / "00_start_here" / "00_start_here.ipynb"
    if not released.exists():
        typist.type("miniclip coursework build --out ../course --seed 1234")
    (folder / "ada").mkdir(parents=True, exist_ok=True)
    shutil.copy(released, folder / "ada" / "00_start_here.ipynb")


def prepare(typist, text):
    """What the text takes for granted before this line; returns the folder that it is typed in."""
    copy, course = typist.copy, typist.copy.parent / "course"
    if " encode " in text:  # several lines name one folder
        shutil.rmtree(copy / "shards", ignore_errors=True)
    if text.startswith("ruff"):  # a course is no part of the project
        shutil.rmtree(copy / "course", ignore_errors=True)
    if "coursework build --out course" in text:  # three examples, each for itself
        shutil.rmtree(copy / "course", ignore_errors=True)
    if "coursework grade" in text:
        hand_in(typist, course / "submitted")
        if " course" in text or "homework" in text:
            shutil.rmtree(copy / "course", ignore_errors=True), shutil.copytree(course, copy / "course")
            hand_in(typist, copy / "homework")
    if text == "miniclip coursework grade submitted --out .":
        return course
    if "zip_collect" in text:
        archive = course / "downloaded" / "01_from_words_to_clip" / "archive"
        archive.mkdir(parents=True, exist_ok=True)
        shutil.copy(course / "release" / "01_from_words_to_clip" / "01_from_words_to_clip.ipynb", archive / "ada_late_01_from_words_to_clip.ipynb")
        return course
    return copy


def is_heard(address):
    """Whether somebody listens at an address, if it is one of this machine."""
    parts = urllib.parse.urlsplit(address)
    return parts.hostname != "127.0.0.1" or not is_free(parts.port)


def opened(address):
    """What a page gives that is asked for as a browser does; JupyterLab says its address a moment before it listens."""
    end = time.monotonic() + 30
    while not is_heard(address) and time.monotonic() < end:
        time.sleep(0.2)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=120) as answer:
        return answer.status


@pytest.mark.parametrize("line", LINES, ids=str)
def test_what_the_documents_tell_to_type_can_be_typed_by_a_reader(line, typist):
    text = bare(line.text).replace("NN", NUMBER)
    if SERVED.match(text):
        type_and_judge(typist, line)
    elif re.match(r"miniclip app|make lab|jupyter lab", text):
        _, status, done = answered(typist, text, r"http://127\.0\.0\.1:\d+/\S*token=\S+", lambda match: opened(match[0]), timeout=300)
        assert status == 200 and "Traceback" not in done.output
    else:
        folder = prepare(typist, text)
        where = typist.copy if folder == typist.copy else folder
        extra = SMALL.get(text, COLLECTED if "pytest" in text else {})
        if folder == typist.copy and not extra and text == bare(line.text):
            type_and_judge(typist, line)
        else:
            done = typist.type(text, timeout=1800, cwd=where, **extra)
            assert done.status == 0 and "Traceback" not in done.output, f"{line}\nended with {done.status}; it printed\n{done.output[-3000:]}"
        if text == "miniclip train-mini":  # indexes made before are of the old one
            shutil.copytree(ROOT / "data" / "mini", typist.copy / "data" / "mini", dirs_exist_ok=True)


@pytest.fixture(scope="module")
def network():
    try:
        opened("https://github.com/")
    except OSError as error:
        pytest.skip(f"the web is unreachable from here: {error}")


@pytest.mark.skipif(bool(os.environ.get("MINICLIP_OFFLINE")), reason="MINICLIP_OFFLINE is set: nothing outside is asked")
@pytest.mark.parametrize("address", sorted({address for document in DOCUMENTS for address in outside(document)}))
def test_addresses_outside_answer(address, network):
    """A page may want a browser (403, 429) or be the project's own, which a fork has under another name; one that is gone (404, 410) is a fault."""
    if "/miniclip/miniclip" in address:
        pytest.skip("the project's own address, which `miniclip badges` puts in")
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
    except urllib.error.HTTPError as error:
        assert error.code in (403, 405, 429), address  # noqa: PT017
