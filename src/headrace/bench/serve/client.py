"""An HTTP client that costs little beside what it measures: an asyncio protocol on httptools.

One connection for each request that is under way, kept alive in between.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from headrace.bench.serve.records import Record
from headrace.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Target:
    """Where the requests go. Raises ConfigError for an address that is none."""

    host: str
    port: int
    path: str
    tls: bool
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, base_url: str, endpoint: str, api_key: str | None) -> Target:
        """`base_url` as the official clients take it, with or without /v1; `endpoint`: "chat" or "completions"."""
        url = urlsplit(base_url if "://" in base_url else f"http://{base_url}")
        try:
            port = url.port
        except ValueError:
            port = 0
        if url.scheme not in ("http", "https") or not url.hostname or port == 0:
            raise ConfigError(f"{base_url!r} is not the address of a server; http://127.0.0.1:8000 would be")
        path = url.path.rstrip("/").removesuffix("/v1") + "/v1/"
        path += "chat/completions" if endpoint == "chat" else "completions"
        headers = {"host": url.netloc, "content-type": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        tls = url.scheme == "https"
        return cls(url.hostname, port or (443 if tls else 80), path, tls, headers)

    def head(self, method: str, path: str, num_bytes: int) -> bytes:
        """Request line and headers."""
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        return ("\r\n".join([*lines, f"content-length: {num_bytes}"]) + "\r\n\r\n").encode()


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    token_ids: list[int] | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class Connection(asyncio.Protocol):
    """One connection; one answer at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Not connected yet."""
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self.is_open = False

    # ---------------------------------------------------------------- one request

    async def ask(self, request: bytes, record: Record, cancel_after: int | None) -> None:
        """Send a request and read its answer into the record. Raises ConnectionError when the connection breaks."""
        assert self._transport is not None
        self._record, self._cancel_after = record, cancel_after
        self._parser = httptools.HttpResponseParser(self)
        self._buffer = b""
        self._body: list[bytes] = []
        self._is_stream = False
        self._saw_end = False
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._done
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._done = None

    def close(self) -> None:
        """Hang up."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    # ---------------------------------------------------------------- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without being a subclass
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer."""
        if self._done is None or self._done.done():
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not an HTTP answer: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """The server hung up."""
        self.is_open = False
        self._fail(ConnectionError(f"the connection was lost{f': {error}' if error else ''}"))

    def _fail(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self.is_open = False
            self._done.set_exception(error)

    # ---------------------------------------------------------------- httptools' calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """Only the content type matters."""
        if name.lower() == b"content-type":
            self._is_stream = value.startswith(b"text/event-stream")

    def on_body(self, body: bytes) -> None:
        """A piece of the body, chunked coding undone."""
        if not self._is_stream:
            self._body.append(body)
            return
        now = self._clock()
        *events, self._buffer = (self._buffer + body).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            for line in event.split(b"\n"):
                if line.startswith(b"data:"):
                    self._take(line[5:].strip(), now)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        record, status = self._record, self._parser.get_status_code()
        record.end_s = self._clock()
        if status != 200:
            record.outcome = "rejected" if status in (429, 503) else "error"
            record.error = f"HTTP {status}: {b''.join(self._body)[:500].decode(errors='replace')}"
        elif not self._is_stream:
            record.error = "the answer is no event stream"
        elif not self._saw_end and not record.error:
            record.error = "the stream ended without [DONE]"
        elif not record.error:
            record.outcome = "ok"
            record.num_output_tokens = record.num_output_tokens or len(record.event_s)
        if not self._parser.should_keep_alive():
            self.close()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _take(self, data: bytes, now: float) -> None:
        record = self._record
        if data == b"[DONE]":
            self._saw_end = True
            return
        try:
            event = _decode(data)
        except msgspec.DecodeError as error:
            record.error = record.error or f"an event that is no JSON of the API: {error}"
            return
        if event.error is not None:
            record.error = record.error or str(event.error)[:500]
        if event.usage is not None:
            self._take_usage(event.usage)
        for choice in event.choices:
            record.token_ids += choice.token_ids or ()
        if any(_text(choice) for choice in event.choices):
            record.event_s.append(now)
            record.text += "".join(map(_text, event.choices))
            if self._cancel_after is not None and len(record.event_s) >= self._cancel_after:
                self._leave(now)

    def _take_usage(self, usage: _Usage) -> None:
        self._record.num_prompt_tokens = usage.prompt_tokens
        self._record.num_output_tokens = usage.completion_tokens
        if usage.prompt_tokens_details is not None:
            self._record.num_cached_tokens = usage.prompt_tokens_details.cached_tokens or 0

    def _leave(self, now: float) -> None:
        record = self._record
        record.outcome, record.end_s, record.num_output_tokens = "cancelled", now, len(record.event_s)
        self.close()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


def _text(choice: _Choice) -> str:
    delta = choice.delta
    if delta is None:
        return choice.text or ""
    if delta.tool_calls:
        return "…"
    return delta.content or delta.reasoning_content or delta.reasoning or ""


class Pool:
    """Connections to one target; as many as there are requests at a time."""

    def __init__(self, target: Target, clock: Callable[[], float]) -> None:
        """No connection yet."""
        self._target = target
        self._clock = clock
        self._idle: list[Connection] = []
        self._tls = ssl.create_default_context() if target.tls else None

    async def ask(self, body: Mapping[str, Any], record: Record, cancel_after: int | None) -> None:
        """Send a request and read its answer into the record; a connection that breaks is the record's error."""
        payload = msgspec.json.encode(body)
        request = self._target.head("POST", self._target.path, len(payload)) + payload
        try:
            connection = await self._connection()
            await connection.ask(request, record, cancel_after)
        except OSError as error:
            record.end_s, record.outcome = self._clock(), "error"
            record.error = f"{type(error).__name__}: {error}"
        else:
            if connection.is_open:
                self._idle.append(connection)

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            lambda: Connection(self._clock), self._target.host, self._target.port, ssl=self._tls
        )
        return made

    def close(self) -> None:
        """Hang up on all idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
