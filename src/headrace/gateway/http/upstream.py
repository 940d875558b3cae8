"""Connections to one replica: one exchange at a time each, kept alive in between."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from headrace.gateway.replica import Endpoint

_log = logging.getLogger(__name__)
_JOINED_BYTES = 16 * 1024
"""A body that is shorter is copied behind its head; two pieces cost more than that."""


class Listener(Protocol):
    """Who asked; one of `completed` and `broke` is called, last and once."""

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Status and headers are there."""
        ...

    def data(self, data: bytes) -> None:
        """A piece of the body, chunked coding undone."""
        ...

    def completed(self, data: bytes) -> None:
        """The answer is whole; `data`: the rest of its body."""
        ...

    def broke(self, reason: str) -> None:
        """The connection is gone, or what came is no HTTP."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to a replica. Owned by its pool.

    Attributes: is_open: whether something can be sent.
    """

    __slots__ = (
        "_headers",
        "_heard",
        "_is_head",
        "_listener",
        "_num_exchanges",
        "_parser",
        "_pieces",
        "_pool",
        "_status",
        "_transport",
        "is_open",
        "on_body",
    )  # fmt: skip

    def __init__(self, pool: UpstreamPool) -> None:
        """Not connected yet."""
        self._pool = pool
        self._listener: Listener | None = None
        self.is_open = False
        self._num_exchanges = 0
        self._heard = False
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # for httptools: what one read brings is passed on together

    @property
    def is_stale(self) -> bool:
        """Whether it was idle before this exchange and nothing came since: the replica may just have hung up on it."""
        return self._num_exchanges > 1 and not self._heard

    def ask(self, listener: Listener, head: bytes, body: bytes, is_head: bool) -> None:
        """Send a request; `is_head` when its answer has no body."""
        self._listener = listener
        self._is_head = is_head
        self._num_exchanges += 1
        self._heard = False
        self._headers: list[tuple[bytes, bytes]] = []
        if len(body) < _JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def abandon(self) -> None:
        """Nobody wants the answer: hang up, which is how a replica learns of it."""
        self._listener = None
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.is_open = False
        self._transport.abort()

    def pause(self) -> None:
        """Read no more for now."""
        if self.is_open:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.is_open:
            self._transport.resume_reading()

    # ---------------------------------------------------------------- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer."""
        if self._listener is None:
            self.close()  # an answer that nobody asked for
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._pieces:
                self._deliver()
            cause = error.__context__  # httptools wraps what a callback raises: a fault of ours, not of the replica
            if cause is not None:
                _log.error("an answer could not be passed on", exc_info=cause)
            self._break(f"what it sent is no answer of HTTP/1.1: {error}")
            self.close()
        else:
            if self._pieces:
                self._deliver()

    def eof_received(self) -> bool:
        """The replica sends no more."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The replica hung up."""
        self.is_open = False
        self._pool.lost(self)
        self._break("it closed the connection" if error is None else f"the connection broke: {error}")

    def _break(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.broke(reason)

    # ---------------------------------------------------------------- httptools' calls

    def on_message_begin(self) -> None:
        """The first byte of an answer, which may be one that nobody asked for, right behind another."""
        if self._listener is None:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._status = status = self._parser.get_status_code()
        if status < 200:
            self._headers = []
        elif self._listener is not None:
            self._listener.head(status, self._headers)
            if self._is_head:
                self._complete(self._listener, reusable=False)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._status >= 200 and self._listener is not None:
            self._complete(self._listener, self._parser.should_keep_alive())

    def _deliver(self) -> None:
        """Pass on what came of the body."""
        data = b"".join(self._pieces)  # of one piece that is the piece itself
        self._pieces.clear()
        if self._listener is not None:
            self._listener.data(data)

    def _complete(self, listener: Listener, reusable: bool) -> None:
        self._listener = None
        data = b"".join(self._pieces)
        self._pieces.clear()
        if reusable and self.is_open:
            self._pool.give_back(self)
        else:
            self.close()
        listener.completed(data)


class UpstreamPool:
    """The connections to one replica.

    Args:
        endpoint: where it is. tls: for https. max_idle: connections that are kept for later.
    """

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None, max_idle: int = 256) -> None:
        """None yet."""
        self._endpoint = endpoint
        self._tls = tls
        self._max_idle = max_idle
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._closed = False

    @property
    def num_open(self) -> int:
        """Connections, idle ones included."""
        return len(self._open)

    def take(self) -> UpstreamConnection | None:
        """An idle connection, the one used last first; None when there is none."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def connect(self, timeout_s: float) -> UpstreamConnection:
        """A new connection. Raises OSError (TimeoutError included)."""
        loop = asyncio.get_running_loop()
        endpoint = self._endpoint
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self), endpoint.host, endpoint.port, ssl=self._tls
            )
        self._open.add(connection)
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """Its exchange is over."""
        if self._closed or len(self._idle) >= self._max_idle:
            connection.close()
        else:
            self._idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """It is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """No new exchanges; those under way go on to their end."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()


PoolFactory = Callable[[Endpoint], UpstreamPool]
