"""Pages in a real browser: Chromium without a window, which reaches the loopback and nothing else.

What tests here are given:

    open_page(name, address, width=1280, height=1000, server=None) -> Driven
        a page at that address. `driving.Driven` has .page (Playwright's), .shot(what) -> build/browser/NAME_WHAT.png, .narrow(what) (the same at
        600 px), .until(true, what), .changes(act), .stays(act, words), .says(words), .write(label, text), .slide(label, key, times), .push(button),
        .pick(menu, option), .upload(button, path), .tabbed(). At the end of the test each page must have had no error, no error on its console and no request to the outside;
        a test that expects one takes it out of .errors or .foreign.
    open_widget(name, source) -> Driven
        a notebook of one cell, the last line of which is a widget, served by Voila and opened; waits until the widget is there.
    voila(path, **environment) -> Server
        Voila over a notebook or a folder of notebooks, started once per path: .address, .told() (its log), .runs(). A notebook in a folder is at
        address + "voila/render/NAME.ipynb".
    running(command, answers, environment=None, cwd=None) -> Server
        any server as a process: `command` is started, and `answers`, an address, is waited for. It ends with the tests, with all its kernels, even
        when pytest is killed (`keeper.py`).
    static(folder) -> address
        the files of a folder over HTTP.
    free_port() -> int; private_jupyter() -> environment without the settings and caches of who runs the tests.

Without a browser, or without playwright, the tests are skipped and say so; MINICLIP_BROWSER names a browser that lies elsewhere.
"""

import contextlib
import functools
import http.server
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from loopback import find_port

from miniclip_helpers import app

from .driving import ROOT, SECONDS, Driven, executable

# Nothing leaves: names are not found, and addresses go to a proxy that is not there. Chromium's own calls home are off. A sandbox of its own is not to
# be had by root in a container; /dev/shm is small there.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--proxy-server=http://127.0.0.1:9", "--proxy-bypass-list=127.0.0.1"]
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of one's own has no way to this machine
KEEPER = pathlib.Path(__file__).with_name("keeper.py")


@pytest.fixture(scope="module")
def browser():
    """Chromium; skips where there is none. Not for the whole session: as long as playwright is there, this thread has a loop that runs, and other tests want none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright, which is not installed: uv sync")
    path, missing = executable()
    if missing:
        pytest.skip(missing)
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, headless=True, args=FLAGS, timeout=SECONDS * 1000)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def free_port():
    return find_port


class Server:
    """A server as a process under `keeper.py`: .address, where it answers."""

    def __init__(self, command, answers, log, environment=None, cwd=None):
        self.address, self.log = answers, log
        with open(log, "w", encoding="utf8") as file:
            self.process = subprocess.Popen([sys.executable, KEEPER, *map(str, command)], stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT,
                                            env=environment, cwd=cwd, start_new_session=True)

    def runs(self):
        return self.process.poll() is None

    def told(self):
        """The end of what it wrote."""
        return f"\nthe server wrote: {self.log.read_text(encoding='utf8', errors='replace')[-3000:]}"

    def ready(self, address):
        """Wait until something answers there."""
        deadline = time.monotonic() + SECONDS
        while self.runs() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                try:
                    OPENER.open(address, timeout=5).close()
                except urllib.error.HTTPError:  # an answer is an answer
                    pass
                return self
            time.sleep(0.1)
        pytest.fail(f"no answer at {address}{self.told()}")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """Function that starts a server and waits for it; see the top of this file."""
    with contextlib.ExitStack() as ends:

        def run(command, answers, environment=None, cwd=None):
            server = Server(command, answers, tmp_path_factory.mktemp("server") / "log.txt", environment, cwd)
            ends.callback(server.stop)
            return server.ready(answers)

        yield run


@pytest.fixture(scope="session")
def private_jupyter(tmp_path_factory):
    """Function of more variables that gives an environment in which Jupyter sees no settings and no caches of who runs the tests."""

    def environment(**more):
        private = tmp_path_factory.mktemp("jupyter")
        own = {f"JUPYTER_{name}_DIR": private / name for name in ("CONFIG", "DATA", "RUNTIME")}
        own |= {f"JUPYTERLAB_{name}_DIR": private / name for name in ("SETTINGS", "WORKSPACES")}
        own |= {"IPYTHONDIR": private / "ipython", "MINICLIP_CACHE": private / "cache", "MINICLIP_FIGURES": private / "figures", "MINICLIP_OFFLINE": 1, "MINICLIP_PROGRESS": 0}
        return app.voila_environment(**{name: str(value) for name, value in (own | {"PYTHONPATH": ROOT} | more).items()})

    return environment


@pytest.fixture(scope="session")
def voila(running, private_jupyter):
    """Function of a notebook or a folder that serves it; see the top of this file."""

    @functools.cache
    def serve(path, **environment):
        port, folder = find_port(), path if path.is_dir() else path.parent
        server = running(app.voila_command(path, port, tracebacks=True), f"http://127.0.0.1:{port}/voila/static/voila.js", private_jupyter(**environment), folder)
        server.address = f"http://127.0.0.1:{port}/"
        return server

    return serve


@pytest.fixture(scope="session")
def static():
    """Function of a folder that serves its files over HTTP: the address."""
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    def serve(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=os.fspath(folder)))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def open_page(browser):
    """Function that opens a page; see the top of this file. At the end of the test it must have had no fault."""
    pages = []

    def open_it(name, address=None, width=1280, height=1000, server=None):
        context = browser.new_context(viewport={"width": width, "height": height}, service_workers="block")
        pages.append(Driven(context.new_page(), name, server))
        return pages[-1].go(address) if address else pages[-1]

    yield open_it
    problems = [problem for driven in pages if (problem := driven.problem())]
    for driven in pages:
        driven.page.close(run_before_unload=True)  # Voila ends a kernel whose page says good-bye
        driven.page.context.close()
    foreign = [address for driven in pages for address in driven.foreign]
    assert not problems, problems
    assert not foreign, f"asked outside: {foreign}"


@pytest.fixture(scope="session")
def widget_pages(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def open_widget(open_page, voila, widget_pages):
    """Function of a name and a cell's source, the last line of which is the widget: a `Driven` page."""
    import nbformat

    def open_it(name, source, **options):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
        nbformat.write(notebook, widget_pages / f"{name}.ipynb")
        server = voila(widget_pages)
        return open_page(name, f"{server.address}voila/render/{name}.ipynb", server=server, **{"height": 1400, **options}).opened()

    return open_it
