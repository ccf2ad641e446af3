"""Fetches over the network: checksummed, resumed after a cut, from a second source when the first fails, whole or not at all.

pooch verifies the checksum; going on from a partial file and choosing between sources are added here.
"""

import dataclasses
import os
import pathlib
import shutil
import socket
import tarfile
import time

from . import runtime
from .errors import ChecksumError, DataError, MiniclipError, OfflineError, unknown

TIMEOUT = (10, 30)  # seconds to connect, and without a byte
CHUNK = 2**16
MOST_MEMBER = 2**32  # bytes of one file in an archive
TRIES, BARREN = 20, 2  # connections per source in all, and in a row that brought nothing
PAUSE = 1.0  # seconds before a source is asked again
HEADERS = {"User-Agent": "miniclip (teaching material)", "Accept-Encoding": "identity"}  # bytes as they lie on the server: they are counted and hashed


@dataclasses.dataclass(frozen=True)
class Source:
    """A file that may be fetched. urls: in order of preference. One of sha256 and md5: of the file. size: in bytes, where known.

    unpack: the file is an archive, and `fetch` returns the folder of what is in it.
    """

    name: str
    urls: tuple
    sha256: str = ""
    md5: str = ""
    size: int | None = None
    unpack: bool = False

    @property
    def file(self):
        """The file's name: the last part of the first address."""
        return self.urls[0].split("?")[0].rpartition("/")[2]

    @property
    def checksum(self):
        """The checksum as pooch writes it, "sha256:..." or "md5:..."."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}"


# The md5 is the one that torchvision pins. The second source is PaddlePaddle's mirror of the same archive, pinned there by the same md5.
SOURCES = {
    "cifar100": Source(
        "cifar100",
        ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz"),
        md5="eb9058c3a382ffc7106e4002c42a8d85", size=169001437, unpack=True),
}


class _Failed(Exception):
    """A source did not give the file; the text says why."""


def fetch(source, folder=None):
    """The path of a file, or of the folder unpacked from it, fetched unless it is there. Two processes may ask at once: one fetches.

    source: a `Source` or a name in SOURCES. folder: where it goes, by default downloads/ in the user's cache. A cut download goes
    on where it stopped, also in a later call. Raises `OfflineError` (switched off, or no source answers), `ChecksumError` (another
    file came) and `MiniclipError` (the folder cannot be written).
    """
    if not isinstance(source, Source):
        if source not in SOURCES:
            raise unknown("download", source, SOURCES)
        source = SOURCES[source]
    folder = pathlib.Path(folder) if folder else runtime.cache_dir() / "downloads"
    archive, target = folder / source.file, folder / (source.name if source.unpack else source.file)
    if source.unpack and target.is_dir():
        return target
    if runtime.offline() and not archive.exists():
        raise OfflineError(f"{source.name} is not on this machine, and the network is switched off (MINICLIP_OFFLINE or HF_HUB_OFFLINE). "
                           f"Unset both, or {_by_hand(source, archive)}")
    try:
        return _fetch_alone(source, archive, target)
    except OSError as error:
        raise MiniclipError(f"'{folder}' cannot be written ({error.strerror or error}); make room, or name another place with MINICLIP_CACHE") from error


def _fetch_alone(source, archive, target):
    import filelock
    import pooch

    runtime.make_folder(archive.parent)
    with filelock.FileLock(archive.parent / f".{source.file}.lock"):
        if source.unpack and target.is_dir():  # another process was first
            return target
        found = archive.exists()
        if not found:
            _from_any(source, archive)
        elif not pooch.hashes.hash_matches(str(archive), source.checksum):
            raise ChecksumError(f"'{archive}' is not {source.name}: expected {source.checksum}; remove it, and it is fetched anew")
        if source.unpack:
            with runtime.writing_folder(target) as fresh:
                with tarfile.open(archive) as tar:
                    for member in tar:
                        unpack_member(tar, member, fresh)
            if not found:  # what somebody placed by hand stays
                archive.unlink()
        return target


def unpack_member(tar, member, folder):
    """One file or folder of an open tar file, into `folder`. `DataError` for a name that leads outside it, for links and for devices.

    Python's own filter "data" does this and more, but is not in 3.11.2, which Debian 12 has.
    """
    if "\0" in member.name or member.issparse() or not 0 <= member.size <= MOST_MEMBER:
        raise DataError(f"{member.name!r} of an archive has a name or a size ({member.size:,} bytes) that no file here has; it is not unpacked")
    target = (pathlib.Path(folder) / member.name).resolve()
    if not target.is_relative_to(pathlib.Path(folder).resolve()):
        raise DataError(f"{member.name!r} of an archive would lie outside the folder that it is unpacked into; it is not what it should be, and is not unpacked")
    if member.isdir():
        return target.mkdir(parents=True, exist_ok=True)
    if not member.isfile():
        raise DataError(f"{member.name!r} of an archive is neither a file nor a folder; it is not what it should be, and is not unpacked")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tar.extractfile(member) as inside, open(target, "wb") as file:
        shutil.copyfileobj(inside, file)


def _by_hand(source, archive):
    return f"fetch {source.urls[0]} elsewhere and place it at '{archive}' ({source.checksum}{f', {source.size:,} bytes' if source.size else ''})."


def _from_any(source, archive):
    """Fill `archive` from the first source that gives the right file; an error that says why each did not."""
    faults, wrong = [], False
    for url in source.urls:
        try:
            return _from_one(url, source, archive)
        except ChecksumError as error:
            faults.append(f"{url}: {error}")
            wrong = True
        except _Failed as error:
            faults.append(f"{url}: {error}")
    lines = "".join(f"\n  - {fault}" for fault in faults)
    raise (ChecksumError if wrong else OfflineError)(f"{source.name} could not be fetched:{lines}\nTry again later: it goes on from where it stopped. "
                                                     f"Or {_by_hand(source, archive)}")


def _from_one(url, source, archive):
    import pooch

    part = archive.with_name(f".{archive.name}.part")
    resumed = part.exists()
    _download(url, part, source)
    if pooch.hashes.hash_matches(str(part), source.checksum):
        runtime.sync(part)
        os.replace(part, archive)
        return runtime.sync(archive.parent)
    found = pooch.file_hash(str(part), "sha256" if source.sha256 else "md5")
    part.unlink()
    if resumed:  # the fault may lie in what was there before
        return _from_one(url, source, archive)
    raise ChecksumError(f"another file came: expected {source.checksum}, found {found}")


def _download(url, part, source):
    """`part` completed, over several connections if need be."""
    import requests

    barren, why = 0, ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE)
        before = part.stat().st_size if part.exists() else 0
        try:
            return _continue(url, part, source, before)
        except requests.RequestException as error:
            why = _reason(error)
        barren = 0 if part.exists() and part.stat().st_size > before else barren + 1
        if barren == BARREN:
            break
    raise _Failed(why)


def _continue(url, part, source, start):
    """One connection: the bytes from `start` on, or all of them from a server that cannot do that, into `part`."""
    import requests

    if start and start == source.size:
        return
    with requests.get(url, headers=HEADERS | ({"Range": f"bytes={start}-"} if start else {}), stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing after `start`: the part is whole, or is of another file
            if answer.headers.get("Content-Range", "") != f"bytes */{start}":
                part.unlink()
                raise requests.ConnectionError("the server cannot go on from there")
            return
        if 400 <= answer.status_code < 500 and answer.status_code != 429:
            raise _Failed(f"{answer.status_code} {answer.reason}")
        answer.raise_for_status()
        goes_on = answer.status_code == 206
        if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)  # all of it, then
            raise requests.ConnectionError("the server went on from another place than asked")
        start = start if goes_on else 0
        length = int(answer.headers.get("Content-Length") or 0)
        if source.size and length and start + length != source.size:
            raise _Failed(f"another file: expected {source.size:,} bytes, found {start + length:,}")
        _write(answer.iter_content(CHUNK), part, "ab" if goes_on else "wb", source, start)
    if source.size and part.stat().st_size < source.size:
        raise requests.ConnectionError(f"the connection ended after {part.stat().st_size:,} of {source.size:,} bytes")


def _write(chunks, part, mode, source, start):
    import requests

    total = -(-(source.size - start) // CHUNK) if source.size else None
    try:
        with open(part, mode) as file:
            for chunk in runtime.progress(chunks, f"{source.name}, in pieces of {CHUNK // 1024} KiB", total):
                file.write(chunk)
    except requests.RequestException:
        raise  # also an OSError, and no fault of the disk
    except OSError:
        part.unlink(missing_ok=True)  # a full disk: leave the room to others
        raise


def _reason(error):
    """What a failed connection means, in words without an address or a path."""
    import requests

    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT[isinstance(error, requests.ReadTimeout)]} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or type(error.__cause__ or error.__context__).__name__ == "IncompleteRead":
        return "the connection was cut"
    return "no connection" if isinstance(error, requests.ConnectionError) and "HTTP" in str(error) else str(error).splitlines()[0]


def reachable(url, timeout=3):
    """Whether the host of an address takes connections."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or {"http": 80}.get(parts.scheme, 443)), timeout=timeout).close()
    except OSError:
        return False
    return True


def need_network(missing, address, how, instead):
    """Raise `OfflineError` at once when something must be fetched from `address` and the network is switched off or away.

    missing: what is not where, as a clause. how: the command that fetches it. instead: what does without, as a clause.
    """
    if runtime.offline() or not reachable(address):
        why = "switched off (MINICLIP_OFFLINE or HF_HUB_OFFLINE)" if runtime.offline() else "out of reach"
        raise OfflineError(f"{missing}, and the network is {why}. Fetch once on a connected machine: {how}. Without: {instead}.")


def read_url(url, limit=20_000_000, timeout=TIMEOUT):
    """The bytes at an address, at most `limit` of them. Raises `OfflineError` that says why there is nothing, or too much."""
    import requests

    if runtime.offline():
        raise OfflineError("the network is switched off (MINICLIP_OFFLINE or HF_HUB_OFFLINE)")
    try:
        with requests.get(url, headers=HEADERS, stream=True, timeout=timeout) as answer:
            answer.raise_for_status()
            data = b""
            for chunk in answer.iter_content(CHUNK):
                data += chunk
                if len(data) > limit:
                    raise OfflineError(f"more than {limit:,} bytes")
            return data
    except (requests.RequestException, ValueError) as error:
        raise OfflineError(_reason(error)) from error
