"""Voila in this process, for one notebook and one user: a socket that listens already, a token, a kernel that is ready before it is asked for."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sys
import tempfile

from ..errors import MiniclipError, UsageError
from ..runtime import signals_to

SECONDS_KEPT = 300  # a kernel whose page is gone without a word: a browser that crashed, a telephone that fell asleep
LOOK = 100  # milliseconds between two looks at what the first kernel says
SHORT = 40  # letters of a folder's path: that of a socket in it has 107 at most
LOOKS = 50  # at a kernel that is being started anew, before it is ended all the same
BODY = 64 * 2**20  # of a message at most: a picture as cameras write it


def voila_page(listener, told, ready):
    """A Voila to `initialize` and `start`: it serves on `listener` until SIGINT or SIGTERM. `.problem` is then the `MiniclipError` that ended it, or None.

    told: the file in which the first kernel leaves word, see `page.leave_word`. ready: called when the first page can be opened.
    """
    from tornado.httpserver import HTTPServer
    from tornado.ioloop import IOLoop
    from voila.app import Voila
    from voila.tornado.handler import TornadoVoilaHandler

    class Handler(TornadoVoilaHandler):
        async def get(self, *args, **options):
            self.xsrf_token  # noqa: B018  reading sets the cookie, without which the page may not say that it is closed, and its kernel would stay
            return await super().get(*args, **options)

    class VoilaPage(Voila):
        problem = ioloop = None

        def _handle_signal_stop(self, *signal):
            if self.ioloop is None:  # it has not begun
                raise KeyboardInterrupt
            super()._handle_signal_stop(*signal)

        def load_config_file(self, *args, **options):
            """Nothing: what somebody set for another Voila is not meant here."""

        def init_handlers(self):
            return [(path, Handler if kind is TornadoVoilaHandler else kind, *rest) for path, kind, *rest in super().init_handlers()]

        def listen(self):
            """In place of Voila's own, which looks for a port itself."""
            listener.setblocking(False)
            HTTPServer(self.app).add_socket(listener)
            self.ioloop = IOLoop.current()
            try:
                with signals_to(self._handle_signal_stop), looking(self, told, ready):
                    self.ioloop.start()
            finally:
                self.stop()

        def stop(self):
            """At once: the kernels hold nothing to keep, and one that is just starting would complain of an interruption."""
            (self.ioloop or IOLoop.current()).run_sync(lambda: end_all(self.kernel_manager))  # the loop in which they were started

    logging.getLogger("tornado").setLevel(logging.CRITICAL)  # a request that is refused is no news
    return VoilaPage(**settings(str(told.parent)))


def settings(private):
    """What this Voila differs in. private: a folder that ends with the command, for connection files."""
    from traitlets.config import Config

    config = Config({
        "VoilaConfiguration": {"preheat_kernel": True, "default_pool_size": 1, "file_denylist": [".*"]},
        "MappingKernelManager": {"cull_idle_timeout": SECONDS_KEPT, "cull_interval": SECONDS_KEPT // 5},
        "KernelManager": {"shutdown_wait_time": 1.0, "transport": "ipc" if sys.platform == "linux" and len(private) < SHORT else "tcp"},
    })
    return {"config": config, "token": secrets.token_urlsafe(24), "cookie_secret": os.urandom(32), "config_file_paths": [], "connection_dir_root": private,
            "tornado_settings": {"websocket_max_message_size": BODY}, "log_level": logging.CRITICAL}


async def end_all(manager):
    """End all kernels. Those being started are awaited first: half started they are not known yet, and would stay."""
    await asyncio.gather(*(task for pool in manager._pools.values() for task in pool), return_exceptions=True)
    for _ in range(LOOKS):  # one that died is being started anew at this moment by the manager itself, which cannot end it before it has done so
        if all(manager.get_kernel(number).ready.done() for number in manager.list_kernel_ids()):
            break
        await asyncio.sleep(LOOK / 1000)
    await manager.shutdown_all(now=True)


@contextlib.contextmanager
def looking(page, told, ready):
    """Meanwhile look for word of the first kernel: it is ready, has failed, or will never be ready. The latter two end the page, with `.problem`."""
    from tornado.ioloop import PeriodicCallback

    async def look():
        hindrance = await hindered(page.kernel_manager)
        if not looks.is_running():  # the page is ending, and its kernels with it
            return
        word = json.loads(told.read_text(encoding="utf8")) if told.exists() else None  # last: it may have come meanwhile
        if word is None and hindrance is None:
            return
        looks.stop()
        if word is None:
            page.problem = MiniclipError(hindrance)
        elif word["problem"] is None:
            return ready()
        else:
            page.problem = (UsageError if word["exit_code"] == UsageError.exit_code else MiniclipError)(word["problem"])
        page.ioloop.stop()

    looks = PeriodicCallback(look, LOOK)
    looks.start()
    try:
        yield
    finally:
        looks.stop()


async def hindered(manager):
    """Why the first kernel cannot become ready, in words; None as long as it may."""
    kernels = [manager.get_kernel(number) for number in manager.list_kernel_ids()]
    if not all([await kernel.is_alive() for kernel in kernels if kernel.has_kernel]):
        return "the page's Python ended before it was ready, perhaps for want of memory; close other programs, and try again"
    started = [task for pool in manager._pools.values() for task in pool if task.done() and not task.cancelled()]
    shown = [task.result()["task"] for task in started if task.exception() is None]
    over = [task for task in shown if task.done() and not task.cancelled()]
    for error in filter(None, (task.exception() for task in (*started, *over))):
        return f"the page's Python cannot be started ({type(error).__name__}: {error}); check that temporary files can be written: {tempfile.gettempdir()}"
    return f"the page's Python said nothing; see whether it works: {sys.executable} -c 'import miniclip_helpers.app'" if over else None
