"""What the tests share: small pictures, folders in every format, and the real data where they are at hand."""

import importlib.machinery
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import traceback
import warnings

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["MINICLIP_PROGRESS"] = "0"

import cutting
import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("MINICLIP_SHARED", ROOT.parent / "shared" / "data"))


def pytest_configure(config):
    """Tests never write over the committed figures. Each process of pytest has a folder of its own; one that only imports this file makes none."""
    folder = os.environ["MINICLIP_FIGURES"] = tempfile.mkdtemp(prefix="miniclip-figures-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(autouse=True, scope="session")
def one_io():
    """The interpreter's `_io` stays the one it is, and whoever makes another is told of.

    Seen once: a second one, with an `UnsupportedOperation` that no `except` knows any more, in whose process Pillow wrote no JPEG from then on.
    """
    create, ours = importlib.machinery.BuiltinImporter.create_module, sys.modules["_io"]

    def created(spec):
        if spec.name != "_io":
            return create(spec)
        warnings.warn("_io was not among the modules, and is imported anew by\n" + "".join(traceback.format_stack()), RuntimeWarning, stacklevel=1)
        return ours

    importlib.machinery.BuiltinImporter.create_module = staticmethod(created)
    yield
    importlib.machinery.BuiltinImporter.create_module = staticmethod(create)


def shared(name):
    """The folder `name` of the real data; skips the test, saying so, where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"the data set {name} is not on this machine (looked in MINICLIP_SHARED or ../shared/data)")
    return SHARED / name


def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that two workers end together (`--dist loadfile --no-loadscope-reorder`)."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(autouse=True, scope="session")
def two_threads():
    import torch

    torch.set_num_threads(2)


@pytest.fixture
def never_hang():
    """Ten minutes, then the test fails where it waits."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def fail(number, frame):
        raise BaseException("it hangs")  # no handler of errors may take it for one

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


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


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the web site, made once with the options of `make site`, where no connection can be opened; none was tried."""
    for needed in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(needed, reason="the site is made by Sphinx, myst-nb and furo, which are not all installed: uv sync")
    recipe = re.search(r"sphinx-build (.+) \$\(ARGS\)", (ROOT / "Makefile").read_text(encoding="utf8"))[1]
    folder = tmp_path_factory.mktemp("site")
    (folder / "build" / "site-work" / "pages").mkdir(parents=True)
    options = [str(ROOT / option) if option == "docs" else option for option in recipe.split()]
    cutting.assert_alone(cutting.cut_off([sys.executable, "-m", "sphinx", *options], folder))
    return folder / "build" / "site"
