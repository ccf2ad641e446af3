"""The machine: seeds, devices, folders, whole-or-not-at-all writes, progress, ports, the offline switch."""

import contextlib
import hashlib
import os
import pathlib
import signal
import sys
import threading

from ..errors import DataError, MiniclipError, UsageError
from .strangers import check_ends, has_halves, is_endless, parse_json, plain, without_halves  # noqa: F401
from .unwritten import Unwritten, told
from .whole import bring_back, cleared, is_aside, make_folder, sync, writing, writing_folder  # noqa: F401

__all__ = [
    "CHECKOUT", "PACKAGE", "Unwritten", "address_of", "bring_back", "build_dir", "cache_dir", "check_ends", "check_replaceable", "cleared", "data_dir", "device", "digest",
    "figures_dir", "generator", "in_checkout", "is_aside", "is_endless", "is_loopback", "launched", "listen", "make_folder", "notebooks_dir", "offline", "parse_json",
    "peak_memory_mb", "plain", "progress", "read_lines", "sha256", "signals_to", "sync", "told", "writing", "writing_folder",
]

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
CHECKOUT = PACKAGE.parent


def launched():
    """(number of this process, how many there are), as torchrun and accelerate launch say it; (0, 1) without a launcher. Number 0 writes and speaks."""
    try:
        rank, processes = int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)
    except ValueError:  # somebody else's variables
        return 0, 1
    return (rank, processes) if "MASTER_ADDR" in os.environ and 0 <= rank < processes else (0, 1)


def generator(seed):
    """A `torch.Generator` on the CPU with this seed. Helpers take one instead of seeding global state."""
    import torch

    return torch.Generator().manual_seed(int(seed))


def device(name="auto"):
    """The `torch.device` called `name`; "auto" takes CUDA, then MPS, then the CPU."""
    import torch

    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def in_checkout():
    """Whether the package runs from a checkout of the project, not from an installed wheel."""
    return (CHECKOUT / "pyproject.toml").is_file() and (CHECKOUT / "notebooks").is_dir()


def _shipped(name):
    """A folder that stands beside the package in a checkout and inside the package in a wheel."""
    folder = CHECKOUT / name if in_checkout() else PACKAGE / name
    if not folder.is_dir():
        raise MiniclipError(f"the folder {name}/ is missing beside the package; install miniclip-helpers again")
    return folder


def data_dir():
    """Where the embedded data lie: emoji, stamps, the heads of `mini`."""
    return _shipped("data")


def notebooks_dir():
    """Where the notebooks of the series lie: $MINICLIP_NOTEBOOKS, else beside or in the package."""
    return pathlib.Path(os.environ["MINICLIP_NOTEBOOKS"]) if os.environ.get("MINICLIP_NOTEBOOKS") else _shipped("notebooks")


def build_dir():
    """Where executed notebooks and results are written: $MINICLIP_BUILD, else build/ of the checkout or of the current folder."""
    if os.environ.get("MINICLIP_BUILD"):
        return pathlib.Path(os.environ["MINICLIP_BUILD"])
    return (CHECKOUT if in_checkout() else pathlib.Path.cwd()) / "build"


def figures_dir():
    """Where `save_figure` writes: $MINICLIP_FIGURES, else figures/ of the checkout, else build/figures."""
    if os.environ.get("MINICLIP_FIGURES"):
        return pathlib.Path(os.environ["MINICLIP_FIGURES"])
    return CHECKOUT / "figures" if in_checkout() else build_dir() / "figures"


def cache_dir():
    """Where features and downloads are kept between runs: $MINICLIP_CACHE, else the user's cache folder. A `MiniclipError` for a user without a home."""
    if os.environ.get("MINICLIP_CACHE"):
        return pathlib.Path(os.environ["MINICLIP_CACHE"])
    name, below = ("LOCALAPPDATA", ("AppData", "Local")) if sys.platform == "win32" else ("XDG_CACHE_HOME", (".cache",))
    try:
        base = os.environ.get(name) or pathlib.Path.home().joinpath(*below)
    except RuntimeError as error:  # a user without a name, as a container may have
        raise MiniclipError("this user has no home folder; set MINICLIP_CACHE to a folder that you may write to") from error
    return pathlib.Path(base) / "miniclip"


def offline():
    """Whether the network is switched off by the user: MINICLIP_OFFLINE=1 or HF_HUB_OFFLINE=1."""
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in ("MINICLIP_OFFLINE", "HF_HUB_OFFLINE"))


def sha256(path):
    """The sha256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts):
    """A short stable name for some bytes and strings: the key of a cache entry."""
    state = hashlib.sha256()
    for part in parts:
        part = part if isinstance(part, bytes) else str(part).encode("utf8", "surrogatepass")
        state.update(len(part).to_bytes(8, "little") + part)
    return state.hexdigest()[:32]


def read_lines(path, what):
    """{number from 1: text} of the lines of a text file in UTF-8, one `what` a line; blank ones are left out. A `DataError` where none is left."""
    check_ends(path, pipes=True)
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").split("\n")  # not at the further line ends that Unicode knows
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read as text, one {what} a line: {error}") from error
    found = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    if not found:
        raise DataError(f"'{path}' holds no {what}; expected one a line")
    return found


def check_replaceable(folder, names):
    """Raise a `UsageError` unless `folder` is absent, empty, or holds nothing but files called `names`: it may then be written.

    What a killed writer left aside does not count."""
    folder = pathlib.Path(folder)
    bring_back(folder)
    with told(folder):
        if not folder.exists():
            place = next(parent for parent in folder.absolute().parents if parent.exists())
            if not place.is_dir() or not os.access(place, os.W_OK):
                raise MiniclipError(f"'{folder}' cannot be written, because of '{place}'; name a place that you may write to")
            return
        held = {file.name for file in folder.iterdir() if not is_aside(file.name)} if folder.is_dir() else {"a file"}
    if not held <= set(names):
        raise UsageError(f"'{folder}' holds something else ({', '.join(sorted(held - set(names))[:3])}); it is left as it is: name a new folder")


def progress(iterable, description, total=None):
    """Wrap an iterable in a progress bar that appears after two seconds, in a terminal or a notebook; none where MINICLIP_PROGRESS=0."""
    from tqdm.auto import tqdm

    watched = "ipykernel" in sys.modules or sys.stderr.isatty()
    hidden = os.environ.get("MINICLIP_PROGRESS", "1") == "0" or not watched
    return tqdm(iterable, desc=description, total=total, delay=2, disable=hidden, leave=False)


def peak_memory_mb(children=False):
    """The most memory that this process has held so far, or any finished child of it, in MiB (0 where the system does not tell)."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def is_loopback(host):
    """Whether only this machine reaches a service at this address."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host, port):
    """A socket that listens. `UsageError` for an address that cannot be, `MiniclipError` for one that is taken."""
    import socket

    if not 0 <= port <= 65535:
        raise UsageError(f"expected a port from 1 to 65535, or 0 for any that is free, found {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)[0]
        listener = socket.socket(family, kind, protocol)  # asyncio sends at once (TCP_NODELAY) only where TCP is named: else each answer takes 40 ms
    except (OSError, UnicodeError) as error:
        raise UsageError(f"the host {host!r} is not known ({error}); give 127.0.0.1, or 0.0.0.0 for all networks") from error
    try:
        if os.name != "nt":  # on Windows this would let a second service take the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)  # at once: two sockets may be bound to a port as long as neither listens
    except OSError as error:
        listener.close()
        raise MiniclipError(f"nothing can listen at {host}:{port} ({error.strerror}); is another service there? Give another port with --port, or 0 for a free one") from error
    return listener


def address_of(host, listener):
    """The http address under which what `listen` gave is reached at `host`."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


@contextlib.contextmanager
def signals_to(heard):
    """SIGINT and SIGTERM call `heard(number, frame)` and end nothing. In another thread than the main one, where Python tells of no signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
