"""uvicorn's HTTP protocol, with what it lacks against clients that are slow on purpose: limits on a request's head.

::

    connected ──► head ──(complete)──► body and answer ──► idle (uvicorn's keep-alive timeout) ──► head …
                   │  limits: seconds from its first byte (or from the connection), and bytes
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_TIMEOUT_S = 10.0
MAX_HEAD_BYTES = 64 << 10


class _UntilTheEnd(int):
    """The length of a body that ends with its connection, as uvicorn's countdown sees it: enough, and then nothing."""

    def __lt__(self, _: object) -> bool:
        return False

    def __sub__(self, _: object) -> _UntilTheEnd:
        return self

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = int.__hash__


class GuardedHttpProtocol(HttpToolsProtocol):
    """One connection. A head that is not complete in time, or is too long, ends it with 408 or 431."""

    head_timeout_s = HEAD_TIMEOUT_S

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Waits for a connection."""
        super().__init__(*arguments, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._num_head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head has to come now."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more comes."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head; a chunk that ends one counts whole, which only a pipelining client notices."""
        if self._in_head:
            if self._head_timer is None:
                self._await_head()
            self._num_head_bytes += len(data)
        super().data_received(data)
        # The parser holds on to headers for ever; a body in the same chunk has ended the head by now.
        if self._in_head and self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the head of the request is over {MAX_HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":  # knows no chunks (RFC 9112, 6.1): the end of the connection is its end
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = _UntilTheEnd()

    def on_message_complete(self) -> None:
        """The next bytes are another head."""
        super().on_message_complete()
        self._stop_timer()
        self._in_head, self._num_head_bytes = True, 0

    def on_response_complete(self) -> None:
        """A client that was refused may still be sending its body; not for ever."""
        super().on_response_complete()
        if not self._in_head and not self.transport.is_closing():
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets an error of the form that all others have."""
        self._refuse(400, "what was sent is no HTTP/1.1 request")

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_timed_out)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refuse(408, f"the head of the request was not complete after {self.head_timeout_s:g} s")

    def _refuse(self, status: int, message: str) -> None:
        body = b'{"error":{"message":"%s","type":"invalid_request_error","param":null,"code":"bad_head"}}' % (
            message.encode()
        )
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
