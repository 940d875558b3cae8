"""A client's connection: requests come in, one at a time is answered."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, cast

import httptools
import msgspec

from headrace.errors import BodyTooLarge, HeadraceError, InvalidRequest
from headrace.gateway.http.messages import Request, response_head
from headrace.protocol.error_body import error_body

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """What one connection may ask of the gateway.

    Attributes:
        max_header_bytes: of one request. max_body_bytes: likewise. max_pipelined: requests read ahead.
        read_timeout_s: for a request to be complete, from its first byte. idle_timeout_s: between two requests.
    """

    max_header_bytes: int = 64 * 1024
    max_body_bytes: int = 64 * 1024 * 1024
    max_pipelined: int = 16
    read_timeout_s: float = 60.0
    idle_timeout_s: float = 120.0


class Job(Protocol):
    """What answers a request."""

    def client_left(self) -> None:
        """Nobody waits for the answer any more."""
        ...

    def pause(self) -> None:
        """The client reads more slowly than the answer comes."""
        ...

    def resume(self) -> None:
        """It has caught up."""
        ...


Handle = Callable[[Request, "Downstream"], Job]

_LINGER_S = 1.0


class Downstream(asyncio.Protocol):
    """One connection. `handle` is called with each request and has to end with `reply` or `end_stream`, once.

    A request that cannot be read is answered here. What a client sends after that is thrown away for a second before
    the connection is closed: closing at once would reset it, and the client would never see the answer.
    """

    __slots__ = (
        "_answered", "_body", "_chunked", "_client", "_clock", "_closing", "_connections", "_handle", "_headers",
        "_is_http_1_0", "_is_paused", "_is_reading", "_is_tls", "_job", "_keep_alive", "_limits", "_most_header_bytes",
        "_num_body_bytes", "_num_header_bytes", "_num_read", "_parser", "_since_s", "_target", "_transport", "_waiting",
    )  # fmt: skip

    def __init__(
        self, handle: Handle, limits: ClientLimits, clock: Callable[[], float], connections: set[Downstream]
    ) -> None:
        """Not connected yet; it is in `connections` as long as it is."""
        self._handle = handle
        self._limits = limits
        self._most_header_bytes = limits.max_header_bytes
        self._clock = clock
        self._connections = connections
        self._waiting: deque[tuple[Request, bool, bool]] = deque()
        self._job: Job | None = None
        self._keep_alive = True
        self._chunked = False
        self._closing = False
        self._is_paused = False
        self._num_read = 0
        self._since_s = clock()
        self._is_reading = False  # in the middle of a request

    # ---------------------------------------------------------------- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without being a subclass
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else "unix"
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._connections.add(self)
        self._parser = httptools.HttpRequestParser(self)

    def connection_lost(self, error: Exception | None) -> None:
        """It left."""
        self._connections.discard(self)
        self._closing = True
        self._waiting.clear()
        if self._job is not None:
            job, self._job = self._job, None
            job.client_left()

    def pause_writing(self) -> None:
        """Its receive window is full."""
        if self._job is not None:
            self._job.pause()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._job is not None:
            self._job.resume()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._closing:
            return
        done = self._num_read
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._num_read == done:  # one without a body is complete: it is answered as if it had not asked
                self._refuse(InvalidRequest("this server speaks HTTP/1.1 only; send the request without Upgrade"))
        except httptools.HttpParserError as error:
            limit = error.__context__  # httptools wraps what a callback raises
            if not isinstance(limit, HeadraceError):
                if limit is not None:
                    _log.error("a request could not be handled", exc_info=limit)
                limit = InvalidRequest(f"not a request of HTTP/1.1: {error}")
            self._refuse(limit)

    # ---------------------------------------------------------------- httptools' calls

    def on_message_begin(self) -> None:
        """A request begins."""
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._num_header_bytes = self._num_body_bytes = 0
        self._is_reading, self._since_s = True, self._clock()

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url
        self._num_header_bytes += len(url)
        if self._num_header_bytes > self._most_header_bytes:
            raise self._headers_too_long()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._num_header_bytes += len(name) + len(value) + 4
        if self._num_header_bytes > self._most_header_bytes:
            raise self._headers_too_long()
        self._headers.append((name.lower(), value))

    def _headers_too_long(self) -> InvalidRequest:
        return InvalidRequest(f"the headers are longer than {self._most_header_bytes} bytes")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        for name, value in self._headers:
            if name == b"content-length" and int(value) > self._limits.max_body_bytes:
                raise self._too_large(int(value))
            if name == b"expect" and value.lower() == b"100-continue" and self._job is None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body, chunked coding undone."""
        self._num_body_bytes += len(body)
        if self._num_body_bytes > self._limits.max_body_bytes:
            raise self._too_large(self._num_body_bytes)
        self._body.append(body)

    def _too_large(self, num_bytes: int) -> BodyTooLarge:
        return BodyTooLarge(f"the body has {num_bytes} bytes or more; at most {self._limits.max_body_bytes} are taken")

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._num_read += 1
        self._is_reading, self._since_s = False, self._clock()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        method = self._parser.get_method()
        request = Request(method, _origin_form(self._target), self._headers, body, self._client, self._is_tls)
        keep_alive, is_http_1_0 = self._parser.should_keep_alive(), self._parser.get_http_version() == "1.0"
        if self._job is None and not self._waiting:
            self._start(request, keep_alive, is_http_1_0)
            return
        self._waiting.append((request, keep_alive, is_http_1_0))
        if self._job is None:
            self._next()
        elif len(self._waiting) >= self._limits.max_pipelined and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    # ---------------------------------------------------------------- answers

    def _start(self, request: Request, keep_alive: bool, is_http_1_0: bool) -> None:
        self._keep_alive, self._is_http_1_0 = keep_alive, is_http_1_0
        self._answered = False
        job = self._handle(request, self)
        if not self._answered:
            self._job = job

    def _next(self) -> None:
        while self._waiting and self._job is None and not self._closing:
            self._start(*self._waiting.popleft())
        if self._is_paused and not self._closing and len(self._waiting) < self._limits.max_pipelined:
            self._is_paused = False
            self._transport.resume_reading()

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """A whole answer."""
        framing = b"content-length: %d" % len(body)
        self._transport.write(response_head(status, headers, framing, self._keep_alive) + body)
        self._done()

    def begin_stream(self, status: int, headers: Iterable[tuple[bytes, bytes]], first: bytes) -> None:
        """The head of an answer of unknown length, and its first piece."""
        self._chunked = not self._is_http_1_0
        if not self._chunked:
            self._keep_alive = False
        framing = b"transfer-encoding: chunked" if self._chunked else b"cache-control: no-store"
        head = response_head(status, headers, framing, self._keep_alive)
        # An empty chunk would be the end of the answer.
        is_chunk = self._chunked and first
        self._transport.write(head + (b"%x\r\n%b\r\n" % (len(first), first) if is_chunk else first))

    def write(self, data: bytes) -> None:
        """More of a stream."""
        if data:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end_stream(self) -> None:
        """The end of a stream."""
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")
        self._done()

    def abort(self) -> None:
        """Break the connection: there is no honest way left to end the answer."""
        self._closing, self._job = True, None
        self._transport.abort()

    def _done(self) -> None:
        self._answered, self._job = True, None
        self._since_s = self._clock()
        if not self._keep_alive:
            self._closing = True
            self._transport.close()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._next)

    def _refuse(self, error: HeadraceError) -> None:
        """Answer what could not be read; after the answers that are due before it, so it waits for none of them."""
        self._closing = True
        self._waiting.clear()
        if self._job is not None:
            job, self._job = self._job, None
            job.client_left()
            self._transport.abort()
            return
        answer = error_body(error)
        headers = [(b"content-type", b"application/json")]
        body = msgspec.json.encode(answer.body)
        framing = b"content-length: %d" % len(body)
        self._transport.write(response_head(answer.status, headers, framing, False) + body)
        asyncio.get_running_loop().call_later(_LINGER_S, self._transport.close)

    # ---------------------------------------------------------------- time

    def sweep(self, now_s: float) -> None:
        """Close it when the client takes too long to send a request, or has been silent for long."""
        if self._closing or self._job is not None:
            return
        limit_s = self._limits.read_timeout_s if self._is_reading else self._limits.idle_timeout_s
        if now_s - self._since_s > limit_s:
            self._closing = True
            self._transport.close()

    def drain(self) -> None:
        """Close it as soon as nothing is under way."""
        self._keep_alive = False
        if self._job is None and not self._closing:
            self._closing = True
            self._transport.close()


def _origin_form(target: bytes) -> bytes:
    """Path and query of a target, which a proxy's client gives with scheme and host: both are the same request."""
    if target.startswith(b"/"):
        return target
    _, is_absolute, rest = target.partition(b"://")
    return rest[rest.find(b"/") :] if is_absolute and b"/" in rest else b"/" if is_absolute else target
