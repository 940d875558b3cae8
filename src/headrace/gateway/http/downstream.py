"""A client's connection: requests come in, one at a time is answered."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import cast

import httptools
import msgspec

from headrace.errors import BodyTooLarge, HeadraceError, InvalidRequest
from headrace.gateway.http.job import Job as Job
from headrace.gateway.http.limits import ClientLimits as ClientLimits
from headrace.gateway.http.messages import Request, response_head
from headrace.gateway.http.pieces import join_small
from headrace.protocol.error_body import error_body

_log = logging.getLogger(__name__)


Handle = Callable[[Request, "Downstream"], Job]


_JSON_LINES = b"content-type: application/json\r\n"
_JOINED_BYTES = 16 * 1024
"""A body that is shorter is copied behind its head; two pieces cost more than that."""
_READ_BYTES = 256 * 1024
"""As much as one read may bring: a head that begins in it may be as long before it is measured."""


class Downstream(asyncio.Protocol):
    """One connection. `handle` is called with each request and has to end with `reply` or `end_stream`, once.

    A request that cannot be read is answered here. What a client sends after that is thrown away for a moment before
    the connection is closed: closing at once would reset it, and the client would never see the answer.
    """

    __slots__ = (
        "_answered", "_body", "_chunked", "_client", "_closing", "_connections", "_fields", "_handle", "_head",
        "_headers", "_is_http_1_0", "_is_paused", "_is_tls", "_job", "_keep_alive", "_least_bytes", "_limits",
        "_num_fed_bytes", "_num_now_bytes", "_num_read", "_parser", "_seen", "_since_s", "_target", "_transport",
        "_waiting", "on_body",
    )  # fmt: skip

    def __init__(self, handle: Handle, limits: ClientLimits, connections: set[Downstream]) -> None:
        """Not connected yet; it is in `connections` as long as it is."""
        self._handle = handle
        self._limits = limits
        self._least_bytes = min(limits.max_header_bytes, limits.max_body_bytes)
        self._connections = connections
        self._waiting: deque[tuple[Request, bool, bool]] = deque()
        self._job: Job | None = None
        self._keep_alive = True
        self._chunked = False
        self._closing = False
        self._is_paused = False
        self._num_read = 0  # requests
        self._num_fed_bytes = 0  # since the last of them; more by what the same read brought before
        self._num_now_bytes = 0  # in this read
        self._seen: tuple[int, bool] | None = None  # what it did at the last sweep
        self._since_s = 0.0
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []  # after the head: trailers, which go nowhere
        self._head: list[tuple[bytes, bytes]] | None = None
        self._body: list[bytes] = []
        self.on_body = self._body.append  # for httptools: a piece of the body, chunked coding undone

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
        self._num_now_bytes = num_bytes = len(data)
        self._num_fed_bytes += num_bytes
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
        else:
            if self._num_fed_bytes > self._least_bytes and self._num_read == done:
                self._unfinished()

    def _unfinished(self) -> None:
        """A read brought a part of a request, and there is enough of it to look at its size."""
        limits = self._limits
        if self._num_fed_bytes > limits.max_body_bytes and sum(map(len, self._body)) > limits.max_body_bytes:
            self._refuse(self._too_large(sum(map(len, self._body))))
            return
        join_small(self._body)
        # The parser keeps a header to itself until it is whole.
        is_endless = self._head is None and self._num_fed_bytes > limits.max_header_bytes + _READ_BYTES
        if is_endless or self._headers_bytes() > limits.max_header_bytes:
            self._refuse(self._headers_too_long())

    def _headers_bytes(self) -> int:
        return len(self._target) + sum(map(len, chain.from_iterable(self._headers))) + 4 * len(self._headers)

    # ---------------------------------------------------------------- httptools' calls

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        limits, head = self._limits, self._headers
        if self._num_fed_bytes > limits.max_header_bytes and self._headers_bytes() > limits.max_header_bytes:
            raise self._headers_too_long()
        self._head, self._headers = head, []
        self._fields = fields = dict(head[::-1])
        if b"content-length" in fields and (length := int(fields[b"content-length"])) > limits.max_body_bytes:
            raise self._too_large(length)
        if b"expect" in fields and fields[b"expect"].lower() == b"100-continue" and self._job is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _headers_too_long(self) -> InvalidRequest:
        return InvalidRequest(f"the headers are longer than {self._limits.max_header_bytes} bytes")

    def _too_large(self, num_bytes: int) -> BodyTooLarge:
        return BodyTooLarge(f"the body has {num_bytes} bytes or more; at most {self._limits.max_body_bytes} are taken")

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._num_read += 1
        self._num_fed_bytes = self._num_now_bytes
        pieces, parser, target, fields = self._body, self._parser, self._target, self._fields
        body = b"".join(pieces)  # of one piece that is the piece itself
        pieces.clear()
        if len(body) > self._limits.max_body_bytes:
            raise self._too_large(len(body))
        if target[:1] != b"/":
            target = _origin_form(target)
        head = self._head or []
        request = Request(parser.get_method(), target, head, fields, body, self._client, self._is_tls)
        self._target, self._head, self._headers = b"", None, []
        keep_alive = parser.should_keep_alive()
        # To ask for the version is not cheap; before 1.1 nothing was kept alive unless a header said so.
        is_http_1_0 = (not keep_alive or b"connection" in fields) and parser.get_http_version() == "1.0"
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

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        """A whole answer, its headers given as lines."""
        num_bytes, keep_alive = len(body), self._keep_alive
        framing = b"content-length: %d" % num_bytes
        if num_bytes < _JOINED_BYTES:
            self._transport.write(response_head(status, lines, framing, keep_alive, body))
        else:
            self._transport.writelines((response_head(status, lines, framing, keep_alive), body))
        self._answered, self._job = True, None
        if self._waiting or not keep_alive:
            self._done()

    def begin_stream(self, status: int, lines: bytes, first: bytes) -> None:
        """The head of an answer of unknown length, and its first piece."""
        self._chunked = not self._is_http_1_0
        if not self._chunked:
            self._keep_alive = False
        framing = b"transfer-encoding: chunked" if self._chunked else b"cache-control: no-store"
        head = response_head(status, lines, framing, self._keep_alive)
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
        body = msgspec.json.encode(answer.body)
        framing = b"content-length: %d" % len(body)
        self._transport.write(response_head(answer.status, _JSON_LINES, framing, False, body))
        asyncio.get_running_loop().call_later(self._limits.linger_s, self._transport.close)

    # ---------------------------------------------------------------- time

    def sweep(self, now_s: float) -> None:
        """Close it when the client takes too long to send a request, or has been silent for long."""
        if self._closing or self._job is not None:
            self._seen = None
            return
        is_reading = self._target != b""
        if (self._num_read, is_reading) != self._seen:
            self._seen, self._since_s = (self._num_read, is_reading), now_s
            return
        limit_s = self._limits.read_timeout_s if is_reading else self._limits.idle_timeout_s
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
    _, is_absolute, rest = target.partition(b"://")
    return rest[rest.find(b"/") :] if is_absolute and b"/" in rest else b"/" if is_absolute else target
