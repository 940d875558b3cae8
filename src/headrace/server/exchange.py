"""One HTTP request and its answer, in the terms of ASGI: no objects between a token and the socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from headrace.protocol.error_body import error_body
from headrace.protocol.table.endpoints import Endpoint, Style
from headrace.server.auth import Identity

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_JSON = b"application/json"
_EVENT_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events back
)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Outcome:
    """What a request came to; for its log line and its metrics. Fields as in RequestRecord."""

    model: str = ""
    is_generation: bool = False
    finish_reasons: tuple[str, ...] = ()
    error_code: str | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    queued_s: float | None = None
    prefill_s: float | None = None
    ttft_s: float | None = None


@dataclass(eq=False)
class Exchange:
    """A request under way.

    Attributes:
        scope, receive, send: of ASGI. request_id: in every answer and log line. started_s: when its head was read.
        closes: the answer also closes the connection.
        endpoint: None where no route fits. identity: None until it is known.
        status: of the answer; None before it began.
        extra_headers: to add to the answer.
        outcome: filled on the way.
    """

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    started_s: float
    endpoint: Endpoint | None = None
    identity: Identity | None = None
    status: int | None = None
    closes: bool = False
    extra_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """Of the request, by lower-case name; of several of one name the last."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.scope["headers"]}

    @property
    def style(self) -> Style:
        """Of its errors."""
        return "openai" if self.endpoint is None else self.endpoint.style

    @property
    def route(self) -> str:
        """The pattern of its route, for metrics; never the path that was asked for."""
        return "unknown" if self.endpoint is None else self.endpoint.path

    async def start(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        """Send the head of the answer."""
        every = [*headers, *self.extra_headers]
        await self.send({"type": "http.response.start", "status": status, "headers": every})

    async def start_events(self, *headers: tuple[bytes, bytes]) -> None:
        """Send the head of a stream of events."""
        await self.start(200, *_EVENT_STREAM, *headers)

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Send more of the body; waits while the client's socket takes nothing."""
        await self.send({"type": "http.response.body", "body": data, "more_body": not is_last})

    async def answer(self, status: int, data: bytes, content_type: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Send a whole answer."""
        length = (b"content-length", b"%d" % len(data))
        await self.start(status, (b"content-type", content_type), length, *headers)
        await self.write(data, is_last=True)

    async def answer_json(self, value: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        """Send a value as JSON."""
        await self.answer(status, _encode(value), _JSON, *headers)

    async def answer_error(self, error: BaseException) -> None:
        """Send an error in the form that the route's clients read."""
        answer = error_body(error, self.style, self.request_id)
        known = ((name.encode(), value.encode()) for name, value in answer.headers.items() if name != "x-request-id")
        await self.answer_json(answer.body, answer.status, *known)
