"""What the tests share: small pictures, folders in every format, and the real data where they are at hand."""

import os
import pathlib
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
