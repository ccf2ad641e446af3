"""Around every request: who may ask, how much may come in and for how long, a number to find it again, and its time."""

import asyncio
import hmac
import json
import logging
import re
import time
import uuid

log = logging.getLogger("miniclip.service")
MAX_BODY = 20 * 2**20  # of a request with a picture
MAX_WORDS = 64 * 2**10  # of any other
UPLOADS = 16  # requests with a picture at once: what they hold together stays below UPLOADS * MAX_BODY
SECONDS_TO_SEND = 30  # for a whole request to come in
ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
OPEN = ("/health",)  # asked by machines that look after the service, and tells nothing private
STOPPED = "the service is being stopped, and this took longer than it waits"
# no-store: answers change with the index. same-site: no page of another site may show a photo out of here.
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff", "cross-origin-resource-policy": "same-site"}


class RefusedError(Exception):
    """A request that is not answered: status and message."""

    def __init__(self, status, message, headers=()):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers)


class Guard:
    """ASGI middleware. metrics: told of each request. token: what `Authorization: Bearer` must hold, or None. hosts: the names that Host may
    hold, None for any: a page of another site that points its own name at 127.0.0.1 has another. body: bytes at most of a request with a picture.
    seconds: within which a request must be there whole."""

    def __init__(self, app, metrics, token=None, hosts=None, body=MAX_BODY, seconds=SECONDS_TO_SEND):
        self.app, self.metrics, self.token, self.hosts, self.body, self.seconds = app, metrics, token, hosts, body, seconds
        self.uploads = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        # HEAD is GET without the body, which the server leaves out; the number in `state` is shared by both
        exchange = Exchange(self, scope | {"method": "GET"} if scope["method"] == "HEAD" else scope, receive, send)
        try:
            await self.answer(exchange)
        finally:
            self.uploads -= exchange.counted
            seconds = time.perf_counter() - exchange.started
            self.metrics.count(scope["method"], exchange.route, exchange.status, seconds)
            log.info("%s %s %s %s %.1f ms", exchange.id, scope["method"][:10], exchange.route, exchange.status, 1000 * seconds)

    async def answer(self, exchange):
        try:
            self.check(exchange.scope, exchange)
            exchange.begin()
            await self.app(exchange.scope, exchange.receive, exchange.send)
            if exchange.refusal:
                await exchange.refuse(exchange.refusal)
        except RefusedError as error:
            await exchange.refuse(error)
        except asyncio.CancelledError:
            if not exchange.gone:  # the server's patience is at its end
                await exchange.refuse(RefusedError(503, STOPPED), drain=False)
        except Exception:
            log.exception("request %s failed", exchange.id)
            await exchange.refuse(RefusedError(500, "the service failed; its log says why, under this request's number"))

    def check(self, scope, exchange):
        """Raise `RefusedError` for a request that may not pass. Uploads that may are counted: strangers keep nobody out."""
        headers = exchange.headers
        host = re.sub(r":\d+$", "", headers.get("host", ""))
        if self.hosts is not None and host.lower() not in self.hosts:
            raise RefusedError(421, "the service does not go by this name; ask it as 127.0.0.1 or localhost, or start it with --allow-host NAME")
        if self.token is not None and scope["path"] not in OPEN:
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin1"), self.token.encode("utf8")):
                raise RefusedError(401, "a token is needed: send the header Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
        if self.token is None and headers.get("sec-fetch-site") == "cross-site" and (scope["method"] != "GET" or headers.get("sec-fetch-mode") != "navigate"):
            raise RefusedError(403, "a page of another site may not ask; open the address itself, or start the service with a token")
        if exchange.length > exchange.most:
            raise exchange.too_large()
        if exchange.uploads:
            if self.uploads >= UPLOADS:
                raise RefusedError(503, f"{UPLOADS} pictures are being looked at; try again in some seconds", {"retry-after": "2"})
            self.uploads += 1
            exchange.counted = True


class Exchange:
    """One request and its answer."""

    def __init__(self, guard, scope, receive, send):
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        self.headers = {key.decode("latin1"): value.decode("latin1") for key, value in reversed(scope["headers"])}  # the first of each counts
        self.uploads = self.headers.get("content-type", "").lower().startswith("multipart/form-data")
        self.most = guard.body if self.uploads else min(guard.body, MAX_WORDS)
        length, asked = (self.headers.get(name, "") for name in ("content-length", "x-request-id"))
        self.length = int(length[:19]) if length.isdecimal() else 0  # enough digits to see that it is too much
        self.id = asked if ID.fullmatch(asked) else uuid.uuid4().hex[:16]
        self.started, self.status = time.perf_counter(), 499  # 499: the client hung up before an answer
        self.answering = self.whole = self.gone = self.counted = self.bare = False
        self.taken, self.refusal, self.task, self.watch = 0, None, asyncio.current_task(), None
        scope.setdefault("state", {})["request_id"] = self.id

    @property
    def route(self):
        """The route's pattern, not the path that was asked: there are only so many."""
        return getattr(self.scope.get("route"), "path", "other")

    def begin(self):
        """Watch for the end of a request that has no body: its route asks for no part, and so would never hear that the client hung up."""
        if self.scope["method"] == "GET" and not self.length and "transfer-encoding" not in self.headers:
            self.whole = self.bare = True
            self.watch = asyncio.create_task(self.until_gone())  # kept, because a task that nobody holds may be collected

    async def receive(self):
        """The next part of the body. `RefusedError` when it is too much or takes too long; FastAPI turns that into a 400, so it is kept, too."""
        if self.bare:  # the watch took the empty one
            self.bare = False
            return {"type": "http.request", "body": b"", "more_body": False}
        if self.whole:
            return await self._receive()
        try:
            return await self._next()
        except RefusedError as error:
            self.refusal = error
            raise

    async def _next(self):
        left = self.guard.seconds - (time.perf_counter() - self.started)
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.01))
        except TimeoutError:
            raise RefusedError(408, f"the request did not come in whole within {self.guard.seconds:g} seconds") from None
        self.gone, self.whole = message["type"] == "http.disconnect", not message.get("more_body", False)
        self.taken += len(message.get("body", b""))
        if self.taken > self.most:
            raise self.too_large()
        if self.whole and not self.gone:
            self.watch = asyncio.create_task(self.until_gone())
        return message

    async def until_gone(self):
        """Stop the work when the client hangs up before the answer: nobody waits for it. After the answer, too, the server says that it is over."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.answering:
            self.gone = True
            self.task.cancel()

    def too_large(self):
        allowed = f"{self.most / 2**20:g} MB" if self.most >= 2**20 else f"{self.most / 2**10:g} KB"
        return RefusedError(413, f"the request is larger than the {allowed} allowed; send less, or a smaller picture")

    async def send(self, message):
        """Pass a part of the answer on, with the request's number and what keeps browsers from guessing."""
        if self.gone or self.refusal and not self.answering and message.get("status") != self.refusal.status:
            return
        if message["type"] == "http.response.start":
            self.status, self.answering = message["status"], True
            there = {key.lower() for key, _ in message["headers"]}
            extra = [(key.encode(), value.encode()) for key, value in (HEADERS | {"x-request-id": self.id}).items() if key.encode() not in there]
            message = message | {"headers": [*message["headers"], *extra]}
        await self._send(message)

    async def refuse(self, error, drain=True):
        """Answer with the problem, unless an answer has begun."""
        if self.answering:
            return
        if drain and error.status != 408:
            await self.drain()
        body = json.dumps({"status": error.status, "message": error.message, "request_id": self.id}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"} | error.headers
        await self.send({"type": "http.response.start", "status": error.status, "headers": [(key.encode(), value.encode()) for key, value in headers.items()]})
        await self.send({"type": "http.response.body", "body": body})

    async def drain(self, most=64 * 2**20, seconds=10):
        """Let a client finish sending, and forget what it sends: one that is cut off in the middle never reads the answer."""
        if self.whole or "expect" in self.headers or self.length > most:
            return
        try:
            async with asyncio.timeout(seconds):
                while most > 0 and not self.whole:
                    message = await self._receive()
                    self.whole = not message.get("more_body", False)
                    most -= len(message.get("body", b""))
        except TimeoutError:
            pass
