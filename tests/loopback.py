"""What listens on the loopback: a server that cuts, ignores Range, lies and refuses, against which downloads are tested; workers that find each other over TCP."""

import contextlib
import http.server
import socket
import threading

import numpy as np

DATA = np.random.default_rng(0).bytes(10 * 2**16 + 123)


def find_port():
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def worker_environment(rank, count, port):
    """What a launcher tells worker `rank` of `count`, who meet at a port."""
    from miniclip_helpers.training import processes

    return processes._environment(rank, count) | {"MASTER_PORT": str(port), "USE_LIBUV": "0"}  # torch for Windows lacks libuv


class Server(http.server.ThreadingHTTPServer):
    """Serves `data` at any path, with Range unless told otherwise, and counts. cuts: after how many bytes each next answer ends; shift: goes on that much too early."""

    daemon_threads = True

    def __init__(self, data=DATA, cuts=(), ranges=True, status=None, delay=0.0, length=True, shift=0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.cuts, self.ranges, self.status, self.delay, self.length, self.shift = data, list(cuts), ranges, status, delay, length, shift
        self.sent, self.starts, self.lock = 0, [], threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        with server.lock:
            server.starts.append(start)
            cut = server.cuts.pop(0) if server.cuts else None
        if server.status:
            return self.send_error(server.status)
        if start >= len(server.data) and asked and server.ranges:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = max(0, start - server.shift)
        body = server.data[start:]
        self.send_response(206 if start else 200)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        self.end_headers()
        threading.Event().wait(server.delay)
        with contextlib.suppress(OSError):
            sent = body if cut is None else body[:cut]
            with server.lock:
                server.sent += len(sent)  # before the client can have them and ask for the count
            self.wfile.write(sent)
        self.close_connection = True


@contextlib.contextmanager
def serving(server):
    """Run a server until the block ends."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
