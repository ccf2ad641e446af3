"""The service as a process with sockets: clients that hang up, dawdle or never read; a stop; addresses and tokens."""

# ruff: noqa: F811  the names of fixtures
import contextlib
import logging
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from test_service import MB, engine, held, made, tagged_photo  # noqa: F401  fixtures

from miniclip_helpers import search
from miniclip_helpers.cli import main
from miniclip_helpers.errors import MiniclipError, UsageError
from miniclip_helpers.runtime import is_loopback, listen, signals_to
from miniclip_helpers.service import Engine, create_app, serve
from miniclip_helpers.service.connection import connection
from miniclip_helpers.service.guard import Exchange
from miniclip_helpers.service.running import settings


@contextlib.contextmanager
def serving(engine, finish=5, **limits):
    """(port, uvicorn's server) of a service in a thread, with the settings of `miniclip serve`."""
    import uvicorn

    config = settings(create_app(engine))
    config.timeout_graceful_shutdown = finish
    if limits:
        config.http = connection(**limits)
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def running(engine):
    """The port of a service."""
    with serving(engine) as (port, _):
        yield port


def ask(text="red", length=None):
    """A question as it goes over the wire. length: what its head says of its body, by default the truth."""
    body = b'{"query": "%s"}' % text.encode()
    return b"POST /search/text HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (length or len(body)) + body


def raw(port, data, wait=True):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(data)
        return client.recv(65536) if wait else b""


def counted(port):
    import httpx

    return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30, trust_env=False).text  # through no proxy


def until(true, seconds=10):
    """Wait until `true()` is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to this"
        time.sleep(0.02)


def test_clients_that_hang_up_in_the_middle_of_a_question(running, caplog):
    raw(running, ask("red", length=500), wait=False)
    raw(running, b"POST /search/image HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 500\r\n\r\n--b\r\n", wait=False)
    assert b" 400 " in raw(running, b"\x16\x03\x01 no http at all\r\n\r\n")
    assert b"200 OK" in raw(running, ask())
    until(lambda: 'route="/search/text",status="499"} 1.0' in counted(running) and 'route="/search/image",status="499"} 1.0' in counted(running))
    assert "Traceback" not in caplog.text


POST = b"POST /search/text HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("data", [
    POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", POST + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n", POST + b"Content-Length: -1\r\n\r\n", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    POST + b"Transfer-Encoding: gzip\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", POST + b"X: " + b"x" * 100_000 + b"\r\n\r\n", POST + b"X: a\0b\r\n\r\n", POST + b" folded: x\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n", b"GET http://evil.example/health HTTP/1.1\r\nHost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", b"\r\n\r\n\r\n\r\n", b"GET\r\n\r\n",
], ids=["length without end", "length of an ocean", "negative length", "two lengths", "unknown encoding", "broken chunk", "endless header", "zero in a header", "folded", "no host", "whole address", "star", "half escape", "http/2",
        "upgrade", "nothing", "no path"])
def test_heads_that_are_odd_or_hostile(running, caplog, data):
    said = raw(running, data)
    assert re.match(rb"HTTP/1.1 (4\d\d|200) ", said) or not said, said[:100]
    assert not said.startswith(b"HTTP/1.1 200") or b"/health" in data
    assert b" 200 " in raw(running, ask()) and "Traceback" not in caplog.text
    assert b" 200 " in raw(running, ask()) and "Traceback" not in caplog.text


def test_what_a_client_asked_who_hung_up_is_not_computed(running, made, held, caplog):
    first = socket.create_connection(("127.0.0.1", running))
    first.sendall(ask("held red"))
    assert held.asked.wait(10)  # the tower is busy
    raw(running, ask("nobody waits for this"), wait=False)
    until(lambda: 'route="/search/text",status="499"} 1.0' in counted(running))
    held.go.set()
    assert b"200 OK" in first.recv(65536) and b"200 OK" in raw(running, ask("blue"))
    assert made[1].text_tower.batches == [["held red"], ["blue"]] and "Traceback" not in caplog.text
    first.close()


def test_a_photo_whose_client_hung_up_is_not_made(running, engine, held, caplog):
    made_small, make = [], engine._as_jpeg
    engine._as_jpeg = lambda name, side: made_small.append(side) or make(name, side)
    engine._pictures.submit(held.go.wait, 20)  # the one thread for pictures is busy
    for side in range(100, 105):
        raw(running, b"GET /photos/red.jpg?side=%d HTTP/1.1\r\nHost: x\r\n\r\n" % side, wait=False)
    until(lambda: 'route="/photos/{name:path}",status="499"} 5.0' in counted(running))
    held.go.set()
    assert b"200 OK" in raw(running, b"GET /photos/red.jpg?side=200 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert made_small == [200] and "Traceback" not in caplog.text


def is_let_go(client, seconds=10):
    """Whether the service closes the connection, after what it still had to say."""
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_a_client_that_never_asks_is_let_go(engine):
    with serving(engine, ask=1.5) as (port, server):
        silent, slow, asked = (socket.create_connection(("127.0.0.1", port)) for _ in range(3))
        asked.sendall(ask())
        assert b"200 OK" in asked.recv(65536)
        asked.sendall(b"POST /search/text HT")  # the second head, too, has its limit
        with pytest.raises((ConnectionError, TimeoutError)):  # noqa: PT012  let go while it sends: no letter buys it more time
            for letter in b"GET /" + b"x" * 200:
                slow.sendall(bytes([letter]))
                time.sleep(0.05)
        assert all(is_let_go(client) for client in (silent, slow, asked))
        until(lambda: not server.server_state.connections)


def test_a_connection_is_kept_between_questions(engine):
    with serving(engine, ask=1.5) as (port, server), socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for _ in range(2):
            head, end = ask()[:20], ask()[20:]
            client.sendall(head)  # in two pieces, so that a clock was started
            time.sleep(0.1)
            client.sendall(end)
            said = b""
            while not said.endswith(b"}"):
                said += client.recv(65536)
            assert b"200 OK" in said
            time.sleep(1.8)
        assert len(server.server_state.connections) == 1
        client.sendall(b"POST /sea")
        assert is_let_go(client)


def test_a_question_that_takes_longer_than_its_head_may_is_answered(engine, held):
    with serving(engine, ask=1.5) as (port, _), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(raw, port, ask("held red"))
        assert held.asked.wait(10)
        time.sleep(1.8)
        held.go.set()
        assert b"200 OK" in answer.result(10)


@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_a_client_that_never_reads_is_let_go(engine, made, last):
    Image.effect_noise((1024, 1024), 100).convert("RGB").save(made[3] / "red.jpg", quality=95)  # more than the system's buffers hold, asked for several times
    with serving(engine, read=1.5) as (port, server):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            one = b"GET /photos/red.jpg?side=1024 HTTP/1.1\r\nHost: x\r\n"
            client.sendall((one + b"\r\n") * 20 + one + last + b"\r\n")
            until(lambda: server.server_state.connections)
            until(lambda: not server.server_state.connections, 20)


def test_names_are_not_paths(running, made):
    """As they go over the wire: clients such as httpx tidy up a path before they send it."""
    for path in ("../photos.index/index.json", "..%2fphotos.index%2findex.json", "./red.jpg", "x/../red.jpg", "/red.jpg", "%2fetc%2fpasswd", str(made[3] / "red.jpg"), "red.jpg/", "red.jpg%00", "%ff"):
        assert b" 404 " in raw(running, b"GET /photos/%s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()), path
    assert b" 200 " in raw(running, b"GET /photos/red%2ejpg HTTP/1.1\r\nHost: x\r\n\r\n")


def test_names_with_signs_lead_to_their_photos(made, tmp_path):
    import httpx

    odd = tmp_path / "odd"
    (odd / "a b").mkdir(parents=True)
    names = ["a b/100% red?.jpg", "a b/#1 & ;=.jpg", "a b/käse 雪 .jpg", "a b/a..jpg", "a b/%2e%2e.jpg", "a b/+.jpg"]
    for name in names:
        (odd / name).write_bytes(tagged_photo("red"))
    index = search.index_dataset(odd, made[1])
    with serving(Engine(index, made[1])) as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        hits = client.post("/search/text", json={"query": "red", "k": 100}).json()["hits"]
        assert sorted(hit["name"] for hit in hits) == sorted(names) == sorted(index.names)
        assert all(client.get(hit["photo"]).status_code == 200 for hit in hits)


def test_a_client_that_sends_50_mb_gets_to_read_why_not(running):
    head = b"POST /search/image HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % (50 * MB)
    said = raw(running, head + b"x" * 50 * MB)  # a plain client: sends all, then reads
    assert b" 413 " in said


@pytest.mark.parametrize(("path", "kind", "most"), [("/search/image", b"multipart/form-data; boundary=b", 20 * MB), ("/search/text", b"application/json", 64 * 1024)])
def test_a_client_that_asks_first_is_told_before_it_sends(running, path, kind, most):
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nExpect: 100-continue\r\nContent-Length: %%d\r\n\r\n" % (path.encode(), kind)
    assert raw(running, head % (most + 1)).startswith(b"HTTP/1.1 413 ")
    assert raw(running, head % most).startswith(b"HTTP/1.1 100 ")


def test_a_port_that_is_taken_and_addresses_that_cannot_be(monkeypatch):
    def ask_no_network(host, *more, **options):
        if host == "no.such.host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *more, **options)

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", ask_no_network)
    with listen("127.0.0.1", 0) as first, pytest.raises(MiniclipError, match=r"another service there.*--port"):
        listen("127.0.0.1", first.getsockname()[1])
    for host, port in (("127.0.0.1", 70000), ("no.such.host.invalid", 0), ("a" * 70, 0)):
        with pytest.raises(UsageError):
            listen(host, port)


def test_small_answers_are_sent_at_once(engine):
    """Without TCP_NODELAY the second answer on a connection waits 40 ms for the client's acknowledgement; asyncio sets it where the listening socket names TCP."""
    with serving(engine) as (port, server), socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(ask())
        assert b"200 OK" in client.recv(65536)
        (held,) = server.server_state.connections
        assert held.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("host", "near"), [("127.0.0.1", True), ("127.0.0.5", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("192.168.1.7", False), ("example.org", False)])
def test_what_only_this_machine_reaches(host, near):
    assert is_loopback(host) is near


@pytest.fixture
def started(made, monkeypatch):
    """started(**options): `serve` with these up to its last step. (a client of the application, what it said, uvicorn's settings, the models that were asked for)."""
    import uvicorn
    from fastapi.testclient import TestClient

    configs, models, hosts, stack = [], [], [], contextlib.ExitStack()
    monkeypatch.setattr("miniclip_helpers.service.running.listen", lambda host, port: hosts.append(host) or listen("127.0.0.1", port))  # macOS has no 127.0.0.5
    monkeypatch.setattr("miniclip_helpers.pretrained.load_model", lambda name: models.append(name) or made[1])
    monkeypatch.setattr(uvicorn, "Server", lambda config: configs.append(config) or types.SimpleNamespace(run=lambda sockets: None))

    def start(**options):
        said = []
        serve(made[2], port=0, say=lambda line, flush: said.append(line), **options)
        assert hosts[-1] == options.get("host", "127.0.0.1")
        return stack.enter_context(TestClient(configs[-1].app)), said, configs[-1], models

    with stack:
        yield start


def test_what_serve_makes_of_its_options(started, made):
    """Who may call it, by which names, with which token; what may be sent."""
    as_ = lambda client, host, **more: client.get("/metrics", headers={"host": host} | more).status_code  # noqa: E731
    client, said, config, models = started()
    assert config.http is connection() and not logging.getLogger("miniclip.service").handlers
    assert [as_(client, host) for host in ("localhost", "127.0.0.1:80", "[::1]", "evil.example")] == [200, 200, 200, 421]
    assert len(said) == 1 and re.fullmatch(r"3 pictures at (http://127.0.0.1:\d+) \(what to ask: \1/openapi.json\); Ctrl-C stops it", said[0]) and models == ["colours"]
    assert (config.ws, config.proxy_headers, config.server_header, config.limit_concurrency, config.timeout_keep_alive, config.timeout_graceful_shutdown) == ("none", False, False, 1000, 75, 8)
    client, said, _, models = started(host="127.0.0.5", hosts=["Photos.Example"], token="s3cret", model="another")
    assert [as_(client, host, authorization="Bearer s3cret") for host in ("127.0.0.5", "photos.example", "evil.example")] == [200, 200, 421] and models[-1] == "another"
    assert as_(client, "127.0.0.5") == 401
    client, said, _, _ = started(host="0.0.0.0", log=True)
    logging.getLogger("miniclip.service").removeHandler(*logging.getLogger("miniclip.service").handlers)
    assert as_(client, "any.example") == 200 and "every machine that reaches this address may ask" in said[1]
    client, said, _, _ = started(host="0.0.0.0", hosts=["photos.example"], token="s3cret", body=100_000)
    assert len(said) == 1 and [as_(client, host, authorization="Bearer s3cret") for host in ("photos.example", "localhost", "any.example")] == [200, 200, 421]
    answer = client.post("/search/image", content=b"x" * 100_001, headers={"host": "localhost", "authorization": "Bearer s3cret", "content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 413
    assert ["warm"] in made[1].text_tower.batches  # the weights are read before the first question


def test_the_command_hands_its_options_on(monkeypatch, tmp_path, capsys):
    got = []
    monkeypatch.setattr("miniclip_helpers.service.serve", lambda *options: got.append(options))
    monkeypatch.setenv("MINICLIP_TOKEN", "one")
    assert main(["serve", "x.index"]) == 0
    (tmp_path / "token").write_text("two\n")
    assert main(["serve", "x.index", "--model", "m", "--host", "h", "--port", "9", "--token-file", str(tmp_path / "token"), "--allow-host", "a", "--allow-host", "b", "--max-mb", "0.5", "--log"]) == 0
    assert got == [(pathlib.Path("x.index"), None, "127.0.0.1", 8000, "one", [], 20 * MB, False), (pathlib.Path("x.index"), "m", "h", 9, "two", ["a", "b"], MB // 2, True)]
    for wrong in ("0", "-1", "nan", "inf", "1e9"):
        assert main(["serve", "x.index", "--max-mb", wrong]) == 2 and "--max-mb must be above 0" in capsys.readouterr().err
    assert len(got) == 2


def test_a_port_is_told_before_a_model_is_loaded(tmp_path, capsys):
    with listen("127.0.0.1", 0) as first:
        assert main(["serve", str(tmp_path / "no.index"), "--port", str(first.getsockname()[1])]) == 1
    assert "another service there" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "no.index"), "--port", "0"]) == 1 and "holds no index" in capsys.readouterr().err


def test_tokens_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    from miniclip_helpers.cli.serving import token_of

    monkeypatch.delenv("MINICLIP_TOKEN", raising=False)
    assert token_of(None) is None
    monkeypatch.setenv("MINICLIP_TOKEN", "")
    assert token_of(None) is None
    monkeypatch.setenv("MINICLIP_TOKEN", "one")
    (tmp_path / "token").write_text("two\n")
    assert (token_of(None), token_of(tmp_path / "token")) == ("one", "two")
    for wrong in ("", "a b", "käse"):
        (tmp_path / "token").write_text(wrong, encoding="utf8")
        with pytest.raises(UsageError):
            token_of(tmp_path / "token")
    with pytest.raises(UsageError, match="cannot be read"):
        token_of(tmp_path / "none")


@pytest.mark.parametrize("finish", [5, 0.2], ids=["in time", "too late"])
def test_a_stop_waits_for_answers_and_not_for_ever(engine, held, caplog, finish):
    with ThreadPoolExecutor(2) as pool:
        with serving(engine, finish=finish) as (port, server):
            idle = socket.create_connection(("127.0.0.1", port))
            answer = pool.submit(raw, port, ask("held red"))
            assert held.asked.wait(10)
            server.should_exit = True
            until(lambda: not any(one.is_serving() for one in server.servers))
            if finish == 5:
                with pytest.raises(ConnectionError):
                    raw(port, ask())  # nobody new
                held.go.set()
            said = answer.result(10)
            held.go.set()
        assert is_let_go(idle)
    assert (b"200 OK" in said) if finish == 5 else (b" 503 " in said and b"application/json" in said), said
    assert "Traceback" not in caplog.text


def test_a_stop_does_not_wait_for_a_slow_sender(engine, caplog, monkeypatch):
    monkeypatch.setattr(Exchange.drain, "__defaults__", (64 * MB, 60))  # longer than this test waits
    with ThreadPoolExecutor(1) as pool:
        with serving(engine, finish=0.2) as (port, server):
            answer = pool.submit(raw, port, ask("red", length=500))
            until(lambda: server.server_state.tasks)
            start = time.monotonic()
        said = answer.result(10)
    assert b" 503 " in said and time.monotonic() - start < 20 and "Traceback" not in caplog.text


def test_signals_are_quiet_for_a_while_alone():
    before, heard = [signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)], []
    try:
        with signals_to(lambda number, frame: heard.append(number)):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGINT, signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before):
            signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_the_server_listens_to_signals_counts(made, monkeypatch, number):
    import uvicorn

    late = []

    class Early(uvicorn.Server):
        def run(self, sockets):
            def too_late():
                late.append(True)
                self.should_exit = True

            timer = threading.Timer(5, too_late)
            timer.start()
            signal.raise_signal(number)
            super().run(sockets)
            timer.cancel()

    monkeypatch.setattr(uvicorn, "Server", Early)
    monkeypatch.setattr("miniclip_helpers.pretrained.load_model", lambda name: made[1])
    serve(made[2], port=0, say=lambda *line, flush: None)
    assert not late


SERVER = """
import sys
from miniclip_helpers import index, pretrained
from miniclip_helpers import search
from miniclip_helpers.cli import main
from test_service import CountingColour, MeanColour, TwoTowers
class Told(CountingColour):
    def prepare(self, inputs):
        print(*inputs, flush=True)
        return super().prepare(inputs)
Told.name = CountingColour.name
pretrained.load_model = lambda name: TwoTowers(MeanColour(), Told(), name="colours", logit_scale=10)
sys.exit(main(["serve", sys.argv[1], "--port", "0", "--log"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_an_answer_finish(made, number):
    paths = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(made[2])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths})
    try:
        line = next(line for line in process.stdout if "127.0.0.1" in line)
        port = int(re.search(r"127.0.0.1:(\d+) ", line)[1])
        with ThreadPoolExecutor(1) as pool:
            body = b'{"query": "slow red"}'
            answer = pool.submit(raw, port, b"POST /search/text HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            next(line for line in process.stdout if "slow red" in line)  # now it is being answered
            process.send_signal(number)
            assert b"200 OK" in answer.result(10)
        said = process.communicate(timeout=20)[1]
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in said and "POST /search/text 200" in said and "slow red" not in said
