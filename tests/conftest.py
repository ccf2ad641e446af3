"""What the tests share: small pictures, folders in every format, and the real data where they are at hand."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["MINICLIP_PROGRESS"] = "0"
os.environ["MINICLIP_FIGURES"] = tempfile.mkdtemp(prefix="miniclip-figures-")  # tests never write over the committed figures

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("MINICLIP_SHARED", ROOT.parent / "shared" / "data"))


def shared(name):
    """The folder `name` of the real data; skips the test, saying so, where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"the data set {name} is not on this machine (looked in MINICLIP_SHARED or ../shared/data)")
    return SHARED / name


@pytest.fixture(autouse=True, scope="session")
def two_threads():
    import torch

    torch.set_num_threads(2)


@pytest.fixture
def private_cache(tmp_path, monkeypatch):
    """A feature cache of the test's own."""
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed=0, size=(40, 30)):
    """A small picture of noise, its own for each seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def photo_folder(tmp_path):
    """A folder with three pictures a.png, b.png and c.png in images/."""
    (tmp_path / "photos" / "images").mkdir(parents=True)
    for seed, name in enumerate("abc"):
        picture(seed).save(tmp_path / "photos" / "images" / f"{name}.png")
    return tmp_path / "photos"


CUT_OFF = """
import socket, sys
def refuse(*args, **kwargs):
    raise OSError(f"the network is cut: {args[-1]!r}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the web site, made once with the options of `make site`, where no connection can be opened."""
    for needed in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(needed, reason="the site is made by Sphinx, myst-nb and furo, which are not all installed: uv sync")
    recipe = re.search(r"sphinx-build (.+) \$\(ARGS\)", (ROOT / "Makefile").read_text(encoding="utf8"))[1]
    folder = tmp_path_factory.mktemp("site")
    (folder / "build" / "site-work" / "pages").mkdir(parents=True)
    options = [str(ROOT / option) if option == "docs" else option for option in recipe.split()]
    done = subprocess.run([sys.executable, "-c", CUT_OFF, *options], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return folder / "build" / "site"
