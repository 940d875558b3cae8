"""One try of a request at one replica."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import msgspec

from headrace.gateway import forwarding
from headrace.gateway.events import EventStream
from headrace.gateway.features import Features
from headrace.gateway.http.messages import Headers
from headrace.gateway.http.upstream import UpstreamConnection
from headrace.gateway.replica import Replica
from headrace.gateway.route import Decision, ProxySettings, Way


class Owner(Protocol):
    """The exchange that an attempt belongs to."""

    def attempt_head(self, attempt: Attempt) -> None:
        """Status and headers are there: of a stream, or of what was to go on with one."""
        ...

    def attempt_events(self, attempt: Attempt, data: bytes) -> None:
        """A piece of a stream."""
        ...

    def attempt_ended(self, attempt: Attempt) -> None:
        """Its stream is whole."""
        ...

    def attempt_whole(self, attempt: Attempt, body: bytes) -> None:
        """An answer that is no stream."""
        ...

    def attempt_failed(
        self, attempt: Attempt, reason: str, outcome: str = "failed", is_connection: bool = False
    ) -> None:
        """It failed before the answer was whole; `is_connection`: its connection could not be made, or is gone."""
        ...


class Attempt(msgspec.Struct, eq=False):
    """A request under way at a replica, counted there from `send` until `leave`.

    A struct because it is made for every request: that takes a third of the time.

    Attributes:
        owner: told of what comes. way: to the replica, and what is known of it. decision: that sent it there.
        num_tokens: prompt tokens that the replica has to compute; 0 once it has.
        sent_s: when it was sent. last_s: when something of the answer came last; None before.
        request_head, request_body: as they are sent. is_head: the answer has no body.
        events: of the stream so far, which was begun elsewhere if there is one from the start.
        tokens_before: those and what it had to compute before them when this was sent.
        is_live: until `leave`. is_stream: whether the answer is one.
        headers: of the answer; fields: the first of each name.
        is_blamed: its silence was counted against the replica already.
        is_paused: it is the client that keeps it from going on.
    """

    owner: Owner
    replica: Replica
    way: Way
    settings: ProxySettings
    decision: Decision
    num_tokens: int
    sent_s: float
    request_head: bytes
    request_body: bytes
    is_head: bool
    events: EventStream | None
    is_continuation: bool
    fields: Mapping[bytes, bytes] = {}
    headers: Headers = ()
    is_blamed: bool = False
    is_live: bool = True
    is_paused: bool = False
    is_stream: bool = False
    last_s: float | None = None
    status: int = 0
    tokens_before: int = 0
    _connection: UpstreamConnection | None = None
    _num_bytes: int = 0  # of the answer's body, where it comes in pieces
    _pieces: list[bytes] | None = None
    _task: asyncio.Task[None] | None = None

    def send(self) -> None:
        """Count it at the replica and send the request, on an idle connection where there is one."""
        replica, num_tokens = self.replica, self.num_tokens
        self.tokens_before = replica.tokens_in_flight + num_tokens
        replica.begin(num_tokens, self.sent_s)
        connection = self.way.pool.take()
        if connection is None:
            self._connect()
        else:
            self._ask(connection)

    def _connect(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._connected())

    async def _connected(self) -> None:
        timeout_s = self.settings.connect_timeout_s
        try:
            connection = await self.way.pool.connect(timeout_s)
        except TimeoutError:
            self.broke(f"no connection to it within {timeout_s:g} s")
        except OSError as error:
            self.broke(f"no connection to it: {error.strerror or error}")
        else:
            if self.is_live:
                self._ask(connection)
            else:
                self.way.pool.give_back(connection)

    def _ask(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        if self.is_paused:
            connection.pause()
        connection.ask(self, self.request_head, self.request_body, self.is_head)

    def leave(self) -> None:
        """It is over: count it no more at the replica, and hang up if the answer is not whole. Harmless twice."""
        if not self.is_live:
            return
        self.is_live = False
        self.replica.end(self.num_tokens)
        if self._connection is not None:
            connection, self._connection = self._connection, None
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

    def resume(self, now_s: float) -> None:
        """The client has caught up: from now on it is the replica that is waited for."""
        self.is_paused = False
        if self.last_s is not None:
            self.last_s = now_s
        if self._connection is not None:
            self._connection.resume()

    def exceeded_s(self, now_s: float, asked: Features) -> float | None:
        """The limit that it has been silent for longer than; None while it is in time."""
        silent_s, settings = now_s - (self.last_s or self.sent_s), self.settings.patience
        if silent_s < settings.least_s or self.is_paused or not self.is_live:
            return None
        patience = self.way.patience
        if self.last_s is not None:
            limit_s = patience.gap_limit_s()
        elif asked.stream:
            limit_s = patience.first_limit_s(self.tokens_before)
        else:
            limit_s = patience.whole_limit_s(self.tokens_before, asked.num_output_tokens)
        return limit_s if silent_s > limit_s else None

    # ---------------------------------------------------------------- from the connection

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Status and headers are there."""
        if not self.is_live:
            return
        self.status, self.headers = status, headers
        self.fields = fields = dict(headers[::-1])
        if forwarding.LOAD in fields:
            self.replica.load = forwarding.load(fields[forwarding.LOAD]) or self.replica.load
        if status == 200 and fields.get(b"content-type", b"").startswith(b"text/event-stream"):
            self.is_stream = True
            self.owner.attempt_head(self)
        elif self.is_continuation:
            self.owner.attempt_head(self)

    def data(self, data: bytes) -> None:
        """A piece of the body."""
        if not self.is_live:
            return
        if self.is_stream:
            self.owner.attempt_events(self, data)
            return
        if self._pieces is None:
            self._pieces = []
        self._pieces.append(data)
        self._num_bytes += len(data)
        if self._num_bytes > self.settings.max_answer_bytes:
            self._too_long()

    def _too_long(self) -> None:
        self.owner.attempt_failed(self, f"its answer is longer than {self.settings.max_answer_bytes} bytes")

    def completed(self, data: bytes) -> None:
        """The answer is whole, `data` its last piece; the connection is back in its pool."""
        connection, self._connection = self._connection, None
        if self.is_paused and connection is not None and connection.is_open:
            connection.resume()
        if not self.is_live:
            return
        if self.is_stream:
            if data:
                self.owner.attempt_events(self, data)
            if self.is_live:
                self.owner.attempt_ended(self)
        elif self._num_bytes + len(data) > self.settings.max_answer_bytes:
            self._too_long()
        else:
            self.owner.attempt_whole(self, data if self._pieces is None else b"".join((*self._pieces, data)))

    def broke(self, reason: str) -> None:
        """The connection is gone."""
        connection, self._connection = self._connection, None
        if not self.is_live:
            return
        if connection is not None and connection.is_stale:
            self._connect()  # an idle connection that the replica closed just then is no failure of the replica
        else:
            self.owner.attempt_failed(self, reason, is_connection=True)
