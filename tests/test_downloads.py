"""Fetches against a server on the loopback that cuts, ignores, lies and refuses."""

import contextlib
import hashlib
import io
import multiprocessing
import os
import tarfile

import pytest
from loopback import DATA, Server, serving

from miniclip_helpers import downloads
from miniclip_helpers.downloads import CHUNK, SOURCES, Source, fetch
from miniclip_helpers.errors import ChecksumError, DataError, MiniclipError, OfflineError, UsageError

resource = pytest.importorskip("resource")  # limits of the system: not on Windows

@pytest.fixture
def serve(monkeypatch):
    """Start servers; they end with the test."""
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("MINICLIP_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(serving(Server(*args, **options)))


def source(*servers, data=DATA, size=True, **options):
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    return Source("thing", urls, sha256=hashlib.sha256(data).hexdigest(), size=len(data) if size else None, **options)


def left(folder):
    """What lies in the folder, without the lock, which stays."""
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith(".lock"))


def dead():
    """An address at which nobody listens."""
    server = Server()
    server.server_close()
    return server.url


def test_a_whole_file_comes_once(serve, tmp_path):
    server = serve()
    path = fetch(source(server), tmp_path)
    assert path.read_bytes() == DATA and left(tmp_path) == ["file.bin"]
    assert fetch(source(server), tmp_path) == path and server.starts == [0] and server.sent == len(DATA)


def test_md5_serves_too(serve, tmp_path):
    thing = Source("thing", (serve().url,), md5=hashlib.md5(DATA).hexdigest())
    assert fetch(thing, tmp_path).read_bytes() == DATA


def test_a_cut_goes_on_where_it_stopped(serve, tmp_path):
    server = serve(cuts=[4 * CHUNK])
    assert fetch(source(server), tmp_path).read_bytes() == DATA
    assert server.starts == [0, 4 * CHUNK] and server.sent == len(DATA), "only the rest is fetched"


def test_many_cuts_within_one_call(serve, tmp_path):
    server = serve(cuts=[CHUNK] * 9)
    assert fetch(source(server), tmp_path).read_bytes() == DATA
    assert server.starts == [k * CHUNK for k in range(10)] and server.sent == len(DATA)


def test_a_cut_goes_on_in_a_later_call(serve, tmp_path):
    server = serve(cuts=[3 * CHUNK, 0, 0])
    with pytest.raises(OfflineError, match="the connection"):
        fetch(source(server), tmp_path)
    assert left(tmp_path) == [".file.bin.part"]
    assert fetch(source(server), tmp_path).read_bytes() == DATA
    assert server.sent == len(DATA) and server.starts[-1] == 3 * CHUNK and left(tmp_path) == ["file.bin"]


def test_the_second_source_goes_on_for_the_first(serve, tmp_path):
    first, second = serve(cuts=[5 * CHUNK, 0, 0, 0]), serve()
    assert fetch(source(first, second), tmp_path).read_bytes() == DATA
    assert second.starts == [5 * CHUNK] and first.sent + second.sent == len(DATA)


def test_without_a_length_a_cut_is_noticed(serve, tmp_path):
    server = serve(cuts=[2 * CHUNK], length=False)
    assert fetch(source(server), tmp_path).read_bytes() == DATA
    assert server.starts == [0, 2 * CHUNK]


def test_a_server_that_ignores_range_is_asked_for_all(serve, tmp_path):
    server = serve(cuts=[4 * CHUNK], ranges=False)
    assert fetch(source(server), tmp_path).read_bytes() == DATA
    assert server.sent == 4 * CHUNK + len(DATA)


def test_a_server_that_goes_on_from_another_place_is_asked_for_all(serve, tmp_path):
    server = serve(cuts=[4 * CHUNK], shift=CHUNK)
    assert fetch(source(server, size=False), tmp_path).read_bytes() == DATA and server.starts == [0, 4 * CHUNK, 0]


@pytest.mark.parametrize("size", [True, False])
def test_a_part_that_is_whole_already_is_only_verified(serve, tmp_path, size):
    server = serve()
    (tmp_path / ".file.bin.part").write_bytes(DATA)
    assert fetch(source(server, size=size), tmp_path).read_bytes() == DATA and server.sent == 0


@pytest.mark.parametrize("part", [bytes(CHUNK), DATA + b"more", bytes(len(DATA))])
@pytest.mark.parametrize("size", [True, False])
def test_a_part_of_something_else_is_thrown_away(serve, tmp_path, part, size):
    (tmp_path / ".file.bin.part").write_bytes(part)
    assert fetch(source(serve(), size=size), tmp_path).read_bytes() == DATA
    assert left(tmp_path) == ["file.bin"]


def test_a_wrong_checksum_leads_to_the_second_source(serve, tmp_path):
    wrong, right = serve(DATA[:-1] + b"?"), serve()
    assert fetch(source(wrong, right), tmp_path).read_bytes() == DATA
    assert len(wrong.starts) == len(right.starts) == 1 and right.starts == [0], "nothing of the wrong file is kept"


def test_a_file_of_another_size_is_not_even_read(serve, tmp_path):
    wrong, right = serve(DATA * 3), serve()
    assert fetch(source(wrong, right), tmp_path).read_bytes() == DATA and right.sent == len(DATA)
    with pytest.raises(OfflineError, match=f"expected {len(DATA):,} bytes, found {3 * len(DATA):,}"):
        fetch(source(wrong), tmp_path / "other")


def test_two_wrong_files_are_told(serve, tmp_path):
    bad = b"?" + DATA[1:]
    with pytest.raises(ChecksumError) as error:
        fetch(source(serve(bad), serve(bad)), tmp_path)
    assert str(error.value).count("another file came") == 2 and hashlib.sha256(bad).hexdigest() in str(error.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize("status, words", [(404, "404 Not Found"), (503, "503 Service Unavailable"), (None, "no connection")])
def test_both_down_says_which_and_what_to_try(serve, tmp_path, status, words):
    urls = [serve(status=status).url, serve(status=status).url] if status else [dead(), dead()]
    with pytest.raises(OfflineError) as error:
        fetch(source(*urls), tmp_path)
    message = str(error.value)
    assert all(f"{url}: {words}" in message for url in urls) and str(tmp_path / "file.bin") in message and "place it at" in message
    assert left(tmp_path) == []


def test_a_stalled_server_is_given_up(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", (1, 0.2))
    stalled, right = serve(delay=5), serve()
    assert fetch(source(stalled, right), tmp_path).read_bytes() == DATA and len(stalled.starts) == downloads.BARREN


def test_a_refusal_is_not_repeated_but_a_fault_of_the_server_is(serve, tmp_path):
    missing, busy = serve(status=404), serve(status=503)
    with pytest.raises(OfflineError):
        fetch(source(missing, busy), tmp_path)
    assert len(missing.starts) == 1 and len(busy.starts) == downloads.BARREN


@pytest.mark.parametrize("switch", ["MINICLIP_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_fails_at_once_but_uses_what_is_there(serve, tmp_path, monkeypatch, switch):
    server = serve()
    monkeypatch.setenv(switch, "1")
    with pytest.raises(OfflineError, match=r"switched off.*place it at"):
        fetch(source(server), tmp_path / "new")
    assert server.starts == [] and not (tmp_path / "new").exists()
    (tmp_path / "file.bin").write_bytes(DATA)  # placed by hand
    assert fetch(source(server), tmp_path).read_bytes() == DATA


def test_a_wrong_file_placed_by_hand_is_refused_and_kept(serve, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"something else")
    with pytest.raises(ChecksumError, match=r"is not thing.*remove it"):
        fetch(source(serve()), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == b"something else"


def test_two_processes_at_once_fetch_once(serve, tmp_path):
    server = serve(delay=0.3)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        paths = pool.starmap(fetch, [(source(server), tmp_path)] * 2)
    assert paths[0] == paths[1] and paths[0].read_bytes() == DATA and server.starts == [0]


def test_a_full_disk_leaves_nothing(serve, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * CHUNK, before[1]))  # the system refuses to write more into one file
        with pytest.raises(MiniclipError, match=r"cannot be written.*MINICLIP_CACHE"):
            fetch(source(serve()), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(serve, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(MiniclipError, match="file/under' cannot be written"):
        fetch(source(serve()), tmp_path / "file" / "under")


def archive(members):
    """A tar.gz of {name: bytes}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def packed(server, data):
    return Source("thing", (server.url.replace("file.bin", "file.tar.gz"),), sha256=hashlib.sha256(data).hexdigest(), unpack=True)


def test_an_archive_becomes_a_folder_and_goes(serve, tmp_path):
    data = archive({"inner/a": b"1", "inner/b": b"22"})
    server = serve(data)
    folder = fetch(packed(server, data), tmp_path)
    assert folder == tmp_path / "thing" and (folder / "inner" / "b").read_bytes() == b"22" and left(tmp_path) == ["thing"]
    assert fetch(packed(server, data), tmp_path) == folder and server.starts == [0]


def test_an_archive_placed_by_hand_is_unpacked_offline_and_stays(serve, tmp_path, monkeypatch):
    data = archive({"inner/a": b"1"})
    (tmp_path / "file.tar.gz").write_bytes(data)
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    assert (fetch(packed(serve(), data), tmp_path) / "inner" / "a").read_bytes() == b"1"
    assert left(tmp_path) == ["file.tar.gz", "thing"]


def test_an_archive_that_leads_out_unpacks_nothing(serve, tmp_path):
    data = archive({"inner/a": b"1", "../outside": b"2"})
    (tmp_path / "cache").mkdir()
    with pytest.raises(Exception, match="outside"):
        fetch(packed(serve(data), data), tmp_path / "cache")
    assert not (tmp_path / "outside").exists() and left(tmp_path / "cache") == ["file.tar.gz"]


@pytest.mark.parametrize("name, kind, words", [
    ("/etc/somewhere", tarfile.REGTYPE, "outside"), ("a/../../b", tarfile.REGTYPE, "outside"), ("..", tarfile.DIRTYPE, "outside"),
    ("link", tarfile.SYMTYPE, "neither"), ("hard", tarfile.LNKTYPE, "neither"), ("null", tarfile.CHRTYPE, "neither"), ("pipe", tarfile.FIFOTYPE, "neither")])
def test_what_is_no_file_of_the_folder_is_not_unpacked(name, kind, words, tmp_path):
    buffer, info = io.BytesIO(), tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(info)
    (tmp_path / "room").mkdir()
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar, pytest.raises(DataError, match=words):
        downloads.unpack_member(tar, tar.next(), tmp_path / "room")
    assert [path.name for path in tmp_path.rglob("*")] == ["room"]


def test_unpacking_onto_a_full_disk_leaves_no_half_folder(serve, tmp_path):
    data = archive({"inner/a": b"1", "inner/big": bytes(2**22)})  # small as an archive, large unpacked
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
        with pytest.raises(MiniclipError, match="cannot be written"):
            fetch(packed(serve(data), data), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left(tmp_path) == ["file.tar.gz"]


def test_cifar_is_the_file_that_torchvision_reads():
    from torchvision.datasets import CIFAR100

    cifar = SOURCES["cifar100"]
    assert cifar.md5 == CIFAR100.tgz_md5 and cifar.urls[0] == CIFAR100.url and cifar.file == CIFAR100.filename
    assert len(set(cifar.urls)) >= 2 and cifar.unpack


def test_unknown_downloads_are_named():
    with pytest.raises(UsageError, match="did you mean cifar100"):
        fetch("cifar10")


def test_read_url_is_bounded(serve, monkeypatch):
    server = serve()
    assert downloads.read_url(server.url) == DATA
    with pytest.raises(OfflineError, match="more than 1,000 bytes"):
        downloads.read_url(server.url, limit=1000)
    with pytest.raises(OfflineError, match="404 Not Found"):
        downloads.read_url(serve(status=404).url)
    with pytest.raises(OfflineError):
        downloads.read_url("no address")
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    with pytest.raises(OfflineError, match="switched off"):
        downloads.read_url(server.url)


def test_reachable():
    server = Server()
    assert downloads.reachable(server.url)
    server.server_close()
    assert not downloads.reachable(server.url)


def test_a_stop_by_hand_keeps_the_part(serve, tmp_path, monkeypatch):
    seen = []

    def interrupted(chunks, *_):
        for chunk in chunks:
            yield chunk
            seen.append(len(chunk))
            if len(seen) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(downloads.runtime, "progress", interrupted)
    server = serve()
    with pytest.raises(KeyboardInterrupt):
        fetch(source(server), tmp_path)
    monkeypatch.undo()
    assert os.path.getsize(tmp_path / ".file.bin.part") == 3 * CHUNK
    assert fetch(source(server), tmp_path).read_bytes() == DATA and server.starts == [0, 3 * CHUNK]
