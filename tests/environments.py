"""What the tests of other machines share: a device that is none, rights that are missing, a bare environment, Colab's setup cell."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

COLAB = "torch==2.9.0+cu126\ntorchvision==0.24.0+cu126\nnumpy==2.0.2\n"  # as `pip list --format=freeze` tells them there, end of 2025
MOVES = {"aten::_to_copy", "aten::copy_", "aten::to", "aten::lift_fresh", "aten::_pin_memory"}  # whose business it is to go from one device to another


class MixedDevices(AssertionError):
    """Two tensors of different devices meet: on a card this is torch's RuntimeError."""


class Elsewhere(TorchDispatchMode):
    """Inside, tensors on "meta", which have shapes and no content, stand for those of a card: an operation that joins them with the CPU's raises, forward
    and backward. Numbers without dimensions may come from the CPU, as on a card. Where code looks at content it finds ones, all rows, and no two alike.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        places = {leaf.device.type for leaf in tensors if leaf.ndim}
        if len(places) > 1 and name not in MOVES:
            raise MixedDevices(f"{name} joins {', '.join(f'{tuple(leaf.shape)} on {leaf.device.type}' for leaf in tensors)}")
        if "meta" in {leaf.device.type for leaf in tensors}:
            if name == "aten::_local_scalar_dense":
                return 1 if not args[0].is_floating_point() else 1.0
            if name == "aten::nonzero":
                return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.long, device="meta")
            if name in ("aten::_unique2", "aten::unique_dim"):
                return args[0].clone(), torch.empty_like(args[0], dtype=torch.long), torch.empty_like(args[0], dtype=torch.long)
            if name == "aten::_to_copy" and torch.device(kwargs.get("device") or "meta").type == "cpu":
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            if name == "aten::index":
                masks = [torch.arange(len(row), device="meta") if row is not None and row.dtype == torch.bool else row for row in args[1]]
                return func(args[0], masks)
        return func(*args, **kwargs)


def powerless():
    """What stands before a command so that rights on files hold for it: root alone does not ask for them. Skips where that cannot be had."""
    if os.name == "nt":
        pytest.skip("rights on files are others on Windows")
    if os.geteuid():
        return []
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    if not shutil.which("setpriv") or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("root may write anywhere, and setpriv, which takes that from it, does not work here")
    return prefix


def bare(**more):
    """An environment of little more than a PATH: no home, no locale, no folder for caches, settings or figures; None leaves a name out."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"MINICLIP_OFFLINE": "1"} | {name: str(value) for name, value in more.items() if value is not None}


def miniclip(*arguments, before=(), cwd=None, seconds=1800, stdin=subprocess.DEVNULL, **environment):
    """The command in a bare environment, out of this checkout: the finished process."""
    variables = bare(**{"PYTHONPATH": ROOT} | environment)
    return subprocess.run([*before, sys.executable, "-m", "miniclip_helpers.cli", *map(str, arguments)], cwd=cwd, env=variables, stdin=stdin,
                          capture_output=True, timeout=seconds, check=False)


@contextlib.contextmanager
def unwritable(folder):
    """`folder`, made, into which nobody may write for a while."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o555)
    try:
        yield folder
    finally:
        folder.chmod(0o755)


def checkout(folder):
    """A copy of what is committed or would be, without environments and results, in `folder`."""
    folder.mkdir(parents=True)
    for name in ("miniclip_helpers", "notebooks", "data", "figures", "docs", "tests", ".ci"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for file in ROOT.iterdir():
        if file.is_file() and file.suffix in (".toml", ".md", ".yml", ".cff", "") and file.name != ".ready":
            shutil.copy(file, folder / file.name)
    return folder


def setup_command():
    """The shell command of the notebooks' setup cell."""
    cells = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf8"))["cells"]
    source = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    told = []

    class Shell:
        @staticmethod
        def system(command):
            told.append(command)

    import importlib.util
    from unittest import mock

    with mock.patch.object(importlib.util, "find_spec", lambda name: None):
        exec(compile(source, "setup cell", "exec"), {"get_ipython": Shell})  # noqa: S102  our own notebook
    (command,) = told
    return command
