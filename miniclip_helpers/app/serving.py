"""How Voila is started: on the loopback, with a page of ours that loads nothing from elsewhere."""

import contextlib
import html
import json
import os
import pathlib
import sys
import tempfile
import threading
import webbrowser

from .. import runtime
from ..errors import UsageError
from .page import PLACE
from .voila_page import voila_page

HERE = pathlib.Path(__file__).parent
TEMPLATES = HERE / "jupyter"  # Jupyter's layout: voila/templates/miniclip
NOTEBOOK = HERE / "photo_search.ipynb"
# Widgets need these two. What else is installed is made for JupyterLab; each page would load it, and on Voila's page it fails.
EXTENSIONS = ("@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8")
REDIRECT = """<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0; url={0}">
<title>Photo search</title><a href="{0}">Photo search</a>"""


def voila_options(port, tracebacks=False):
    """Voila's options for http://127.0.0.1:PORT. tracebacks: show those of failed cells on the page."""
    return ["--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}", "--VoilaConfiguration.template=miniclip", f"--VoilaConfiguration.show_tracebacks={tracebacks}",
            *(f"--VoilaConfiguration.extension_allowlist={name}" for name in EXTENSIONS)]


def voila_command(path, port, tracebacks=False):
    """The command line that serves a notebook, or a folder of them, to whoever asks on this machine."""
    return [sys.executable, "-m", "voila", str(path), *voila_options(port, tracebacks)]


def voila_environment(**more):
    """The environment for `voila_command`: ours, in which the template is found, and more."""
    found = os.environ.get("JUPYTER_PATH")
    return {**os.environ, "JUPYTER_PATH": os.pathsep.join(filter(None, (str(TEMPLATES), found))), **more}


def show(folder, model=None, host="127.0.0.1", port=8866, browser=True, say=print):
    """Show the index in `folder` as a page on this machine until SIGINT or SIGTERM; then it ends with all its kernels.

    model: a model's name, by default that of the index. port 0 takes a free one. browser: whether to open one. The address holds a token, without which
    nobody is answered: other users of the machine, or a page of another site, might ask, too. Settings of Jupyter and IPython are neither read nor written.
    Raises what is wrong with the index or its model, a `UsageError` for another host than this machine or no such port, a `MiniclipError` where the port is
    taken or the page's Python cannot be started.
    """
    if not runtime.is_loopback(host):
        raise UsageError(f"the page is for this machine alone, and cannot be shown at {host!r}: whoever reaches it sees the photos. Leave --host out; "
                         "for others, with a token, there is: miniclip serve")
    from ..index.saving import read_about

    read_about(folder)  # the rest is seen by the page's own Python, which loads it anyway
    with runtime.listen(host, port) as listener, tempfile.TemporaryDirectory(prefix="miniclip-app-") as work:
        asked = {"index": str(pathlib.Path(folder).absolute()), "model": model, "folder": os.getcwd()}
        pathlib.Path(work, "asked.json").write_text(json.dumps(asked), encoding="utf8")
        _write_kernel(pathlib.Path(work))
        os.environ.update(voila_environment(**{PLACE: work}, **_of_its_own(pathlib.Path(work))))
        os.environ["JUPYTER_PATH"] = os.pathsep.join((work, os.environ["JUPYTER_PATH"]))
        here = runtime.address_of(host, listener)

        def ready():
            address = f"{here}/?token={voila.token}"
            say(f"the photo search is at {address}\nCtrl-C stops it", flush=True)
            if browser:
                open_browser(address, pathlib.Path(work))

        say("making the page ready ...", flush=True)
        voila = voila_page(listener, pathlib.Path(work, "told.json"), ready)
        voila.initialize([str(NOTEBOOK), *voila_options(listener.getsockname()[1])])
        voila.start()
        if voila.problem:
            raise voila.problem


def open_browser(address, folder):
    """Open an address by a file in `folder`, which must be private, that leads there: on a browser's command line other users would see the token."""
    page = folder / "open.html"
    page.write_text(REDIRECT.format(html.escape(address)), encoding="utf8")

    def open_it():
        with contextlib.suppress(webbrowser.Error, OSError):  # the address is printed, too
            webbrowser.open(page.as_uri())

    threading.Thread(target=open_it, daemon=True).start()  # a browser of the terminal comes back when one leaves it, and until then asks us


def _of_its_own(folder):
    """Variables for a Jupyter that reads and writes nothing of the user's: the home may hold settings for other servers, or be closed to writing."""
    (folder / "data").mkdir()  # nbformat writes a secret there; not every version makes the folder
    return {**{f"JUPYTER_{name.upper()}_DIR": str(folder / name) for name in ("config", "data", "runtime")}, "JUPYTER_CONFIG_PATH": "", "IPYTHONDIR": str(folder / "ipython"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # the debugger of ipykernel 6 has something to say at each start


def _write_kernel(folder):
    """A kernel of this very Python: one called python3 in the user's folders may be of another, without the package."""
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--IPKernelApp.log_level=CRITICAL"]  # one that is stopped while it starts has nothing to tell
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}), encoding="utf8")
