"""One try of a request at one replica."""

from __future__ import annotations

import asyncio
from typing import Protocol

from headrace.gateway.events import EventStream
from headrace.gateway.http.messages import Headers
from headrace.gateway.http.upstream import UpstreamConnection, UpstreamPool
from headrace.gateway.replica import Replica


class Owner(Protocol):
    """The exchange that an attempt belongs to."""

    def attempt_head(self, attempt: Attempt) -> None:
        """`attempt.status` and `attempt.headers` are there."""
        ...

    def attempt_data(self, attempt: Attempt, data: bytes) -> None:
        """A piece of the body."""
        ...

    def attempt_completed(self, attempt: Attempt) -> None:
        """The answer is whole."""
        ...

    def attempt_broke(self, attempt: Attempt, reason: str) -> None:
        """It failed before the answer was whole."""
        ...


class Attempt:
    """A request under way at a replica, counted there from the beginning until `leave`.

    Args:
        num_tokens: prompt tokens that the replica has to compute. tokens_before: with those under way there.
        is_continuation: the answer was begun elsewhere.

    Attributes:
        sent_s: when it was sent. last_s: when something of the answer came last; None before.
        is_stream: whether the answer is one. events: its events; body: of an answer that is none.
        is_blamed: its silence was counted against the replica already.
    """

    __slots__ = (
        "_connect_timeout_s", "_connection", "_is_head", "_is_paused", "_num_tokens", "_owner", "_pool", "_request",
        "_task", "body", "events", "headers", "is_blamed", "is_continuation", "is_live", "is_stream", "last_s",
        "num_body_bytes", "replica", "sent_s", "status", "tokens_before",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, replica: Replica, pool: UpstreamPool, num_tokens: int, is_continuation: bool, now_s: float
    ) -> None:
        """Counted at the replica; not sent yet."""
        self.replica = replica
        self.is_continuation = is_continuation
        self.tokens_before = replica.tokens_in_flight + num_tokens
        self.status = 0
        self.headers: Headers = ()
        self.sent_s = now_s
        self.last_s: float | None = None
        self.is_live = True
        self.is_stream = False
        self.is_blamed = False
        self.events: EventStream | None = None
        self.body: list[bytes] = []
        self.num_body_bytes = 0
        self._owner = owner
        self._pool = pool
        self._num_tokens: int = num_tokens
        self._connection: UpstreamConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_paused = False
        replica.begin(num_tokens, now_s)

    def send(self, request: bytes, is_head: bool, connect_timeout_s: float) -> None:
        """Send the request, on an idle connection where there is one."""
        self._request, self._is_head, self._connect_timeout_s = request, is_head, connect_timeout_s
        connection = self._pool.take()
        if connection is None:
            self._connect()
        else:
            self._ask(connection)

    def _connect(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._connected())

    async def _connected(self) -> None:
        try:
            connection = await self._pool.connect(self._connect_timeout_s)
        except TimeoutError:
            self.broke(f"no connection to it within {self._connect_timeout_s:g} s")
        except OSError as error:
            self.broke(f"no connection to it: {error.strerror or error}")
        else:
            if self.is_live:
                self._ask(connection)
            else:
                self._pool.give_back(connection)

    def _ask(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        if self._is_paused:
            connection.pause()
        connection.ask(self, self._request, self._is_head)

    def leave(self) -> None:
        """It is over: count it no more at the replica, and hang up if the answer is not whole. Harmless twice."""
        if not self.is_live:
            return
        self.is_live = False
        self.prefilled()
        self.replica.end()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def prefilled(self) -> None:
        """Its first token came: the replica has computed the prompt."""
        self.replica.prefilled(self._num_tokens)
        self._num_tokens = 0

    def pause(self) -> None:
        """Let the replica wait for a client that reads slowly."""
        self._is_paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self._is_paused = False
        if self._connection is not None:
            self._connection.resume()

    @property
    def is_paused(self) -> bool:
        """Whether it is the client that keeps it from going on."""
        return self._is_paused

    # ---------------------------------------------------------------- from the connection

    def head(self, status: int, headers: Headers) -> None:
        """Status and headers are there."""
        if self.is_live:
            self.status, self.headers = status, headers
            self._owner.attempt_head(self)

    def data(self, data: bytes) -> None:
        """A piece of the body."""
        if self.is_live:
            self._owner.attempt_data(self, data)

    def completed(self) -> None:
        """The answer is whole; the connection is back in its pool."""
        connection, self._connection = self._connection, None
        if connection is not None and self._is_paused and connection.is_open:
            connection.resume()
        if self.is_live:
            self._owner.attempt_completed(self)

    def broke(self, reason: str) -> None:
        """The connection is gone."""
        connection, self._connection = self._connection, None
        if not self.is_live:
            return
        if connection is not None and connection.is_stale:
            self._connect()  # an idle connection that the replica closed just then is no failure of the replica
        else:
            self._owner.attempt_broke(self, reason)
