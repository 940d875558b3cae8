"""One try of a request at one replica."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import msgspec

from headrace.gateway import forwarding
from headrace.gateway.events import EventStream
from headrace.gateway.http.messages import Headers, fields_of
from headrace.gateway.http.upstream import UpstreamConnection, UpstreamPool
from headrace.gateway.patience import Patience
from headrace.gateway.replica import Replica
from headrace.gateway.route import ProxySettings


class Owner(Protocol):
    """The exchange that an attempt belongs to."""

    def attempt_head(self, attempt: Attempt) -> None:
        """Status and headers are there: of a stream, or of what was to go on with one."""
        ...

    def attempt_events(self, attempt: Attempt, data: bytes) -> None:
        """A piece of a stream."""
        ...

    def attempt_completed(self, attempt: Attempt) -> None:
        """The answer is whole."""
        ...

    def attempt_broke(self, attempt: Attempt, reason: str, is_connection: bool = False) -> None:
        """It failed before the answer was whole; `is_connection`: its connection could not be made, or is gone."""
        ...


class Attempt(msgspec.Struct, eq=False):
    """A request under way at a replica, counted there from `send` until `leave`.

    A struct because it is made for every request: that takes a third of the time.

    Attributes:
        owner: told of what comes. pool: connections to the replica. patience: with it.
        num_tokens: prompt tokens that the replica has to compute; 0 once it has.
        tokens_before: those and what it had to compute before them when this was sent.
        is_continuation: the answer was begun elsewhere.
        sent_s: when it was sent. last_s: when something of the answer came last; None before.
        is_live: until `leave`. is_stream: whether the answer is one. events: its events; body: of an answer that is
            none. fields: of the answer's headers, the first of each name.
        is_blamed: its silence was counted against the replica already.
        is_paused: it is the client that keeps it from going on.
    """

    owner: Owner
    replica: Replica
    pool: UpstreamPool
    patience: Patience
    num_tokens: int
    is_continuation: bool
    sent_s: float
    body: list[bytes] = []
    events: EventStream | None = None
    fields: Mapping[bytes, bytes] = {}
    headers: Headers = ()
    is_blamed: bool = False
    is_live: bool = True
    is_paused: bool = False
    is_stream: bool = False
    last_s: float | None = None
    num_body_bytes: int = 0
    status: int = 0
    tokens_before: int = 0
    _connection: UpstreamConnection | None = None
    _connect_timeout_s: float = 0.0
    _is_head: bool = False
    _most_bytes: int = 0
    _request_body: bytes = b""
    _request_head: bytes = b""
    _task: asyncio.Task[None] | None = None

    def send(self, head: bytes, body: bytes, is_head: bool, settings: ProxySettings) -> None:
        """Count it at the replica and send the request, on an idle connection where there is one.

        Args:
            is_head: its answer has no body.
        """
        self.tokens_before = self.replica.tokens_in_flight + self.num_tokens
        self.replica.begin(self.num_tokens, self.sent_s)
        self._request_head, self._request_body, self._is_head = head, body, is_head
        self._connect_timeout_s, self._most_bytes = settings.connect_timeout_s, settings.max_answer_bytes
        connection = self.pool.take()
        if connection is None:
            self._connect()
        else:
            self._ask(connection)

    def _connect(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._connected())

    async def _connected(self) -> None:
        timeout_s = self._connect_timeout_s
        try:
            connection = await self.pool.connect(timeout_s)
        except TimeoutError:
            self.broke(f"no connection to it within {timeout_s:g} s")
        except OSError as error:
            self.broke(f"no connection to it: {error.strerror or error}")
        else:
            if self.is_live:
                self._ask(connection)
            else:
                self.pool.give_back(connection)

    def _ask(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        if self.is_paused:
            connection.pause()
        connection.ask(self, self._request_head, self._request_body, self._is_head)

    def leave(self) -> None:
        """It is over: count it no more at the replica, and hang up if the answer is not whole. Harmless twice."""
        if not self.is_live:
            return
        self.is_live = False
        self.replica.end(self.num_tokens)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def prefilled(self) -> None:
        """Its first token came: the replica has computed the prompt."""
        self.replica.prefilled(self.num_tokens)
        self.num_tokens = 0

    def pause(self) -> None:
        """Let the replica wait for a client that reads slowly."""
        self.is_paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self.is_paused = False
        if self._connection is not None:
            self._connection.resume()

    # ---------------------------------------------------------------- from the connection

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Status and headers are there."""
        if not self.is_live:
            return
        self.status, self.headers = status, headers
        self.fields = fields = fields_of(headers)
        if (told := fields.get(forwarding.LOAD)) is not None:
            self.replica.load = forwarding.load(told) or self.replica.load
        self.is_stream = status == 200 and fields.get(b"content-type", b"").startswith(b"text/event-stream")
        if self.is_stream or self.is_continuation:
            self.owner.attempt_head(self)

    def data(self, data: bytes) -> None:
        """A piece of the body."""
        if not self.is_live:
            return
        if self.is_stream:
            self.owner.attempt_events(self, data)
            return
        self.body.append(data)
        self.num_body_bytes += len(data)
        if self.num_body_bytes > self._most_bytes:
            self.owner.attempt_broke(self, f"its answer is longer than {self._most_bytes} bytes")

    def completed(self) -> None:
        """The answer is whole; the connection is back in its pool."""
        connection, self._connection = self._connection, None
        if self.is_paused and connection is not None and connection.is_open:
            connection.resume()
        if self.is_live:
            self.owner.attempt_completed(self)

    def broke(self, reason: str) -> None:
        """The connection is gone."""
        connection, self._connection = self._connection, None
        if not self.is_live:
            return
        if connection is not None and connection.is_stale:
            self._connect()  # an idle connection that the replica closed just then is no failure of the replica
        else:
            self.owner.attempt_broke(self, reason, is_connection=True)
