"""A client that keeps to what a benchmark of gateways has to know of an answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

_TEXT = re.compile(rb'"content":"(t\d+ )"')


@dataclass(slots=True)
class Answer:
    """One answer, as far as it came.

    Attributes:
        begun_s, first_s, end_s: clock, of the request, the first byte of the body and the end. gap_s: the longest
            silence after the first byte. failure: why it is not whole; "" when it is. backend: that answered.
        text: of the events; num_events: of the stream, the last one included.
    """

    begun_s: float
    is_stream: bool
    first_s: float | None = None
    end_s: float = 0.0
    gap_s: float = 0.0
    status: int = 0
    failure: str = ""
    backend: str = ""
    text: str = ""
    num_events: int = 0
    body: list[bytes] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Not connected yet."""
        self._clock = clock
        self._done: asyncio.Future[None] | None = None
        self.is_open = False

    async def ask(self, request: bytes, is_stream: bool, timeout_s: float) -> Answer:
        """Send a request; the answer says whether it is whole. Never raises for what the other side does."""
        self._answer = answer = Answer(self._clock(), is_stream)
        self._last_s, self._keep_alive = 0.0, False
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            async with asyncio.timeout(timeout_s):
                await self._done
        except TimeoutError:
            answer.failure = f"nothing more within {timeout_s:g} s"
        except ConnectionError as error:
            answer.failure = str(error)
        self._done = None
        answer.end_s = self._clock()
        if answer.failure or not self._keep_alive:
            self.close()
        _judge(answer)
        return answer

    def close(self) -> None:
        """Hang up."""
        self.is_open = False
        self._transport.abort()

    def pause(self) -> None:
        """Read nothing: be a slow client."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def connection_lost(self, error: Exception | None) -> None:
        """The other side hung up."""
        self.is_open = False
        self._fail(f"the connection was lost{f': {error}' if error else ''}")

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer."""
        if self._done is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"no answer of HTTP/1.1: {error}")

    def _fail(self, reason: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(reason))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Who answered."""
        if name.lower() == b"x-backend":
            self._answer.backend = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        answer, now_s = self._answer, self._clock()
        if answer.first_s is None:
            answer.first_s = now_s
        else:
            answer.gap_s = max(answer.gap_s, now_s - self._last_s)
        self._last_s = now_s
        answer.body.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._answer.status = self._parser.get_status_code()
        self._keep_alive = self._parser.should_keep_alive()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


def _judge(answer: Answer) -> None:
    body = b"".join(answer.body)
    answer.body.clear()
    if answer.is_stream:
        answer.num_events = body.count(b"data:")
        answer.text = b"".join(_TEXT.findall(body)).decode()
    if answer.failure:
        return
    if answer.status != 200:
        answer.failure = f"HTTP {answer.status}"
    elif answer.is_stream and b"data: [DONE]" not in body:
        answer.failure = "the stream has no end"
    elif answer.is_stream and b'"error"' in body:
        answer.failure = "an error in the stream"


async def connect(port: int, clock: Callable[[], float]) -> Connection:
    """A new connection to a port of this machine. Raises OSError."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(clock), "127.0.0.1", port)
    return connection


def post(body: bytes) -> bytes:
    """A request for a chat completion."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: "
    return head + b"%d\r\n\r\n" % len(body) + body
