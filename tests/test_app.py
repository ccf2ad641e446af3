"""How Voila is started, and that its page names no address outside; that it really opens is tested in tests/browser."""

import asyncio
import contextlib
import html
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import psutil
import pytest

from miniclip_helpers import app, cli, datasets, runtime, search
from miniclip_helpers.app import page, serving, voila_page
from miniclip_helpers.errors import ModelError
from miniclip_helpers.index import load_index

TEMPLATE = pathlib.Path(app.__file__).parent / "jupyter" / "voila" / "templates" / "miniclip"
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\S{20,}")


def test_the_command_stays_on_the_loopback():
    command = app.voila_command("folder", 8123)
    assert command[0] == sys.executable and "--Voila.ip=127.0.0.1" in command and "--port=8123" in command and "--VoilaConfiguration.template=miniclip" in command
    assert "--VoilaConfiguration.show_tracebacks=False" in command and "--VoilaConfiguration.show_tracebacks=True" in app.voila_command("folder", 1, tracebacks=True)


def test_the_template_is_found_beside_what_is_already_there(monkeypatch):
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    assert pathlib.Path(app.voila_environment()["JUPYTER_PATH"], "voila", "templates", "miniclip") == TEMPLATE
    monkeypatch.setenv("JUPYTER_PATH", "elsewhere")
    assert app.voila_environment(A="b")["JUPYTER_PATH"].endswith("elsewhere") and app.voila_environment(A="b")["A"] == "b"


def test_every_address_that_voilas_page_names_is_taken_out():
    """Voila may change its addresses: then the template must follow."""
    paths = pytest.importorskip("jupyter_core.paths").jupyter_path("voila", "templates", "lab", "index.html.j2")
    theirs = next(pathlib.Path(path) for path in paths if pathlib.Path(path).exists()).read_text(encoding="utf8")
    outside = set(re.findall(r'(?:href|src)="(https?://[^"]+)"', theirs))
    ours = (TEMPLATE / "index.html.j2").read_text(encoding="utf8")
    stem = re.search(r"https://\S+?(?=')", ours)[0]
    taken = {stem + name for name in re.findall(r"outside ~ '([^']+)'", ours)}
    assert outside == taken


# --- the page -----------------------------------------------------------------------------------------------------------------------


def test_the_notebook_is_short_without_outputs_and_calls_what_there_is():
    book = json.loads(serving.NOTEBOOK.read_text(encoding="utf8"))
    code = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    assert code == ["from miniclip_helpers import app, widgets\n\napp.open_page(widgets.photo_search)"] and book["metadata"]["title"] == "Photo search"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in book["cells"]) and "widgets" not in book["metadata"]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A folder with two photos and their index by `mini`."""
    folder = tmp_path_factory.mktemp("mine")
    photos = datasets.load_dataset("photos8")
    for row in range(2):
        (folder / "photos").mkdir(exist_ok=True)
        photos.image(row).save(folder / "photos" / f"{row}.png")
    search.index_dataset(datasets.load_photos(folder / "photos"), "mini").save(folder / "photos.index")
    return folder / "photos.index"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Function that asks for an index as the command does. Gives what the page says."""
    monkeypatch.setenv(page.PLACE, str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def ask(index, model=None, search=lambda *found, **options: (found, options)):
        (tmp_path / "asked.json").write_text(json.dumps({"index": str(index), "model": model, "folder": str(tmp_path)}))
        return app.open_page(search), json.loads((tmp_path / "told.json").read_text())

    return ask


def test_the_page_opens_what_was_asked_for_and_leaves_word(asked, index):
    ((found, model), options), word = asked(index)
    assert found.names == ["0.png", "1.png"] and model.name == "mini" and options == {"query": None, "k": 24} and word == {"problem": None}


def test_the_page_says_what_is_wrong_and_leaves_word(asked, index, tmp_path):
    def widget(index, model, **options):
        raise ModelError("made by <another>")

    for shown, word, said, code in ((*asked(tmp_path / "none"), "holds no index", 1), (*asked(index, "nonesuch"), "nonesuch", 2), (*asked(index, search=widget), "<another>", 1)):
        assert said in word["problem"] and word["exit_code"] == code
        assert 'role="alert"' in shown.data and "<another>" not in shown.data and html.escape(said) in shown.data


def test_what_nobody_foresaw_is_told_to_the_command_too(asked, index, tmp_path):
    with pytest.raises(ZeroDivisionError):
        asked(index, search=lambda *found, **options: 1 / 0)
    assert "ZeroDivisionError" in json.loads((tmp_path / "told.json").read_text())["problem"]


def test_without_a_command_the_page_says_which(monkeypatch):
    monkeypatch.delenv(page.PLACE, raising=False)
    assert "miniclip app INDEX" in app.open_page(None).data


# --- the command --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options, code, said", [(["--host", "0.0.0.0"], 2, "for this machine alone"), (["--host", "192.168.1.5"], 2, "miniclip serve"),
                                                 (["--port", "70000"], 2, "1 to 65535")])
def test_what_cannot_be_is_refused_at_once(options, code, said, index, capsys):
    assert cli.main(["app", str(index), *options]) == code and said in capsys.readouterr().err


def test_a_port_that_is_taken_and_an_index_that_is_not_there(index, tmp_path, capsys):
    with runtime.listen("127.0.0.1", 0) as taken:
        assert cli.main(["app", str(index), "--port", str(taken.getsockname()[1])]) == 1
        assert "is another service there" in capsys.readouterr().err
    assert cli.main(["app", str(tmp_path)]) == 1 and "holds no index" in capsys.readouterr().err


@contextlib.contextmanager
def started(index, folder, *options, run=("-m", "miniclip_helpers.cli"), **more):
    """(process, its log, a list) of `miniclip app`, with temporary files of its own. Its kernels, once known, belong into the list: none of them, and no file, may be left.

    run: how Python starts it. more: variables of its environment."""
    log, temporary = folder / "log.txt", pathlib.Path(tempfile.mkdtemp(prefix="t-"))  # short: sockets have paths of 107 letters at most
    environment = {**os.environ, "TMPDIR": str(temporary), "MINICLIP_OFFLINE": "1", "PYTHONPATH": str(pathlib.Path(cli.__file__).parents[2]), **more}
    options = options if "BROWSER" in more else (*options, "--no-browser")
    with open(log, "w", encoding="utf8") as file:
        process = subprocess.Popen([sys.executable, *run, "app", str(index), "--port", "0", *options], stdout=file, stderr=file, env=environment)
    family = []
    try:
        yield process, log, family
        gone, left = psutil.wait_procs(family, timeout=10)
        assert not left and not list(temporary.glob("miniclip-app-*")), "something is left behind"
    finally:
        for one in [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else family:
            with contextlib.suppress(psutil.Error):
                one.kill()
        shutil.rmtree(temporary)


def wait_until(true, process, log, seconds=200):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf8")
        time.sleep(0.1)
    return found


def kernels(process):
    """Those that run, of which some may end meanwhile."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found += [child] if "ipykernel" in " ".join(child.cmdline()) else []
    return found


def status(address, **headers):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of one's own has no way to this machine
    try:
        with opener.open(urllib.request.Request(address, headers=headers), timeout=60) as answer:
            return answer.status, answer.url
    except urllib.error.HTTPError as error:
        return error.code, error.url


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_the_command_serves_with_a_token_and_ctrl_c_ends_it_with_its_kernels(index, tmp_path):
    with started(index, tmp_path) as (process, log, family):
        address = wait_until(lambda: ADDRESS.search(log.read_text(encoding="utf8")), process, log)[0]
        bare = address.split("?")[0]
        assert "/login" in status(bare)[1], "without the token a page asks for it"
        assert status(f"{bare}api/kernels/{'0' * 8}-{'0' * 4}-{'0' * 4}-{'0' * 4}-{'0' * 12}")[0] in (401, 403)
        assert status(f"{bare}voila/files/photo_search.ipynb", Authorization=f"token {address.split('=')[1]}")[0] == 403, "no files"
        family += kernels(process)
        assert family and status(address)[0] == 200
        family += [child for child in kernels(process) if child not in family]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        told = log.read_text(encoding="utf8")
        assert "Traceback" not in told and len(told.splitlines()) == 3, told


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_sigterm_while_the_page_is_being_made_ready(index, tmp_path):
    with started(index, tmp_path) as (process, log, family):
        family += wait_until(lambda: kernels(process), process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0 and log.read_text(encoding="utf8") == "making the page ready ...\n"


def test_an_index_by_another_model_ends_the_command(index, tmp_path):
    other = load_index(index)
    other.about["text_tower"] = "another"
    other.save(tmp_path / "other.index")
    with started(tmp_path / "other.index", tmp_path) as (process, log, family):
        family += wait_until(lambda: kernels(process), process, log)
        assert process.wait(200) == 1 and "text tower differ" in log.read_text(encoding="utf8") and "Traceback" not in log.read_text(encoding="utf8")


def test_a_kernel_that_dies_before_it_is_ready_ends_the_command(index, tmp_path):
    with started(index, tmp_path) as (process, log, family):
        family += wait_until(lambda: kernels(process), process, log)
        family[0].kill()
        assert process.wait(200) == 1 and "ended before it was ready" in log.read_text(encoding="utf8")


def test_a_kernel_that_is_being_started_anew_is_ended_too(tmp_path):
    """By the manager's own watcher, after it died: of such a one the manager cannot say yet whether it is ready, and fails when it is asked to end it."""
    from jupyter_client import AsyncMultiKernelManager

    async def begin_and_end():
        manager = AsyncMultiKernelManager(connection_dir=str(tmp_path))
        manager._pools = {}
        number = await manager.start_kernel()
        again = asyncio.create_task(manager.restart_kernel(number, now=True))
        while manager.get_kernel(number).ready.done():
            await asyncio.sleep(0)
        kernel = manager.get_kernel(number)
        await voila_page.end_all(manager)
        await again
        return manager.list_kernel_ids(), await kernel.is_alive()

    assert asyncio.run(begin_and_end()) == ([], False)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_home_that_cannot_be_written(index, tmp_path):
    """A file, under which nobody can make a folder, root neither."""
    (tmp_path / "home").touch()
    with started(index, tmp_path, HOME=str(tmp_path / "home")) as (process, log, family):
        wait_until(lambda: ADDRESS.search(log.read_text(encoding="utf8")), process, log)
        family += kernels(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0 and len(log.read_text(encoding="utf8").splitlines()) == 3, log.read_text(encoding="utf8")


# Python, as a browser that is waited for: it goes where the file leads, and says how it was started and what it got.
READER = """
import html, pathlib, re, sys, urllib.request
file = pathlib.Path(urllib.request.url2pathname(sys.argv[1].removeprefix("file://")))
address = html.unescape(re.search('url=([^"]+)"', file.read_text(encoding="utf8"))[1])
got = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=60)
private = not (file.parent.stat().st_mode & 0o077)
pathlib.Path(sys.argv[0]).with_name("read.txt").write_text(f"{got.status} {private} {address} {sys.argv[1]}", encoding="utf8")
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_the_browser_is_led_by_a_private_file_and_settings_of_ones_own_are_left_alone(index, tmp_path):
    """The token stands on no command line; and a browser of the terminal, which ends when one leaves it, is answered meanwhile."""
    script, read, home, ran = tmp_path / "reader.py", tmp_path / "read.txt", tmp_path / "home", tmp_path / "ran"
    script.write_text(READER, encoding="utf8")
    for setting in (".jupyter/jupyter_config.py", ".jupyter/jupyter_server_config.py", ".ipython/profile_default/startup/first.py", "more/jupyter_config.py"):
        (home / setting).parent.mkdir(parents=True, exist_ok=True)
        (home / setting).write_text(f"open({str(ran)!r}, 'w').close()\n", encoding="utf8")
    before = sorted(home.rglob("*"))
    browser = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} %s"
    with started(index, tmp_path, HOME=str(home), JUPYTER_CONFIG_PATH=str(home / "more"), BROWSER=browser, MPLCONFIGDIR=str(tmp_path / "mpl")) as (process, log, family):
        address = wait_until(lambda: ADDRESS.search(log.read_text(encoding="utf8")), process, log)[0]
        told = wait_until(lambda: read.exists() and read.read_text(encoding="utf8"), process, log).split()
        family += kernels(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert told[:3] == ["200", "True", address] and "token" not in told[3]
    assert not ran.exists() and sorted(path for path in home.rglob("*") if ".cache" not in path.parts) == before


@pytest.mark.parametrize("book, said", [("no notebook", "cannot be started"), ({"cells": []}, "said nothing")])
def test_a_page_whose_python_cannot_be_started_ends_the_command(index, tmp_path, book, said):
    """Voila is given another notebook: one that it cannot read, and one that does not open the search."""
    book = book if isinstance(book, str) else json.dumps(json.loads(serving.NOTEBOOK.read_text(encoding="utf8")) | book)
    (tmp_path / "book.ipynb").write_text(book, encoding="utf8")
    run = f"import pathlib, sys; from miniclip_helpers import cli; from miniclip_helpers.app import serving; serving.NOTEBOOK = pathlib.Path({str(tmp_path / 'book.ipynb')!r}); sys.exit(cli.main())"
    with started(index, tmp_path, run=("-c", run)) as (process, log, family):
        assert process.wait(200) == 1, log.read_text(encoding="utf8")
        assert said in log.read_text(encoding="utf8") and "Traceback" not in log.read_text(encoding="utf8")
