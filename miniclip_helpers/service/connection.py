"""One connection whose other end may be slow on purpose."""

import functools

SECONDS_TO_ASK = 30  # for the head of a request to come in whole, from the connection or the first byte of it
SECONDS_TO_READ = 75  # for an answer to be taken


@functools.cache
def connection(ask=SECONDS_TO_ASK, read=SECONDS_TO_READ):
    """uvicorn's protocol with two limits that it lacks, in seconds: without them a thousand clients that say nothing, or read nothing, keep all others out.

    The body has its own limit, in `guard`.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Connection(H11Protocol):
        asking = unread = None  # timers

        def connection_made(self, transport):
            super().connection_made(transport)
            self.expect()

        def data_received(self, data):
            super().data_received(data)
            self.expect()

        def expect(self):
            if self.cycle is not None and not self.cycle.response_complete:  # the head is there whole
                self.stop("asking")
            elif self.asking is None:
                self.asking = self.loop.call_later(ask, self.transport.abort)

        def stop(self, timer):
            if getattr(self, timer) is not None:
                getattr(self, timer).cancel()
                setattr(self, timer, None)

        def on_response_complete(self):
            super().on_response_complete()
            self.stop("unread")
            if self.transport.get_write_buffer_size():
                self.unread = self.loop.call_later(read, self.let_go)

        def let_go(self):
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # closing would wait for a reader who does not read

        def connection_lost(self, error):
            self.stop("asking")
            self.stop("unread")
            super().connection_lost(error)

    return Connection
