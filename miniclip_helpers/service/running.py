"""The service as a process: one socket, one model, a graceful end."""

import contextlib
import logging

from .. import search
from ..runtime import address_of, is_loopback, listen, signals_to
from .app import create_app
from .connection import connection
from .engine import Engine
from .guard import MAX_BODY

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SECONDS_TO_FINISH = 8  # for requests that are being answered when the service is told to stop: `docker stop` kills after 10
SECONDS_KEPT = 75  # an idle connection: longer than proxies keep theirs (60), or they ask on one that is just being closed
CONNECTIONS = 1000


def serve(folder, model=None, host="127.0.0.1", port=8000, token=None, hosts=(), body=MAX_BODY, log=False, say=print):
    """Serve the index in `folder` until SIGINT or SIGTERM; what is being answered then is finished.

    model: a model's name, by default that of the index. token: asked of every request but /health. hosts: further names that Host may hold; those of
    the loopback hold where only this machine listens. port 0 takes a free one. log: one line for each request, on stderr.
    """
    import uvicorn

    from ..index import load_index

    with contextlib.closing(listen(host, port)) as listener:  # first of all: a port that is taken is told before a model is loaded
        index = load_index(folder)
        engine = Engine(index, search.model_of(index, model), folder)
        engine.warm()
        near = is_loopback(host)
        app = create_app(engine, token, {*LOOPBACK, *(name.lower() for name in (host, *hosts))} if near or hosts else None, body)
        address = address_of(host, listener)
        say(f"{len(index)} {engine.state()['holds']} at {address} (what to ask: {address}/openapi.json); Ctrl-C stops it", flush=True)
        if not near and token is None:
            say("every machine that reaches this address may ask; a token keeps strangers out: MINICLIP_TOKEN, or --token-file", flush=True)
        if log:
            _log_requests()
        server = uvicorn.Server(settings(app))
        with signals_to(lambda *_: setattr(server, "should_exit", True)):  # one that comes before uvicorn listens counts, too; the one that it raises again at its end is no error
            server.run(sockets=[listener])


def settings(app):
    """uvicorn's, for `app`."""
    import uvicorn

    return uvicorn.Config(app, http=connection(), ws="none", lifespan="on", proxy_headers=False, log_level="warning", access_log=False, server_header=False,
                          limit_concurrency=CONNECTIONS, timeout_keep_alive=SECONDS_KEPT, timeout_graceful_shutdown=SECONDS_TO_FINISH)


def _log_requests():
    logger, handler = logging.getLogger("miniclip.service"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


