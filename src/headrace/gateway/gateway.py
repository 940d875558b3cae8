"""The gateway itself: connections in, exchanges, and what happens with time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from headrace.errors import HeadraceError, ServerDraining
from headrace.gateway import answers
from headrace.gateway.exchange import Exchange
from headrace.gateway.http.downstream import ClientLimits, Downstream, Job
from headrace.gateway.http.messages import Request, lines_of
from headrace.gateway.replica import Endpoint, Replica
from headrace.gateway.route import Router
from headrace.gateway.watching import replica_is_down, watch

TICK_S = 0.05
"""How often silent replicas and slow clients are looked for."""


class OwnAnswer(NamedTuple):
    """Attributes: body: JSON unless `content_type` says otherwise."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class OwnPages(Protocol):
    """What the gateway answers itself."""

    def serves(self, request: Request) -> bool:
        """Whether a request is for the gateway."""
        ...

    def admits(self, request: Request) -> None:
        """Whether a request for a replica may pass. Raises HeadraceError."""
        ...

    async def answer(self, request: Request) -> OwnAnswer:
        """Answer it. May raise HeadraceError."""
        ...


class _NoPages:
    def serves(self, request: Request) -> bool:
        return False

    def admits(self, request: Request) -> None:
        """Everybody."""

    async def answer(self, request: Request) -> OwnAnswer:
        raise NotImplementedError


@dataclass(slots=True)
class Gateway:
    """Passes requests on. Used by one event loop.

    Attributes:
        router: fleet, policy and all that requests share. limits: of client connections. pages: answered here.
        live: exchanges under way. connections: of clients.
    """

    router: Router
    limits: ClientLimits = field(default_factory=ClientLimits)
    pages: OwnPages = field(default_factory=_NoPages)
    live: set[Exchange] = field(default_factory=set)
    connections: set[Downstream] = field(default_factory=set)
    is_draining: bool = False
    _servers: list[asyncio.Server] = field(default_factory=list)
    _ticker: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------- clients

    async def listen(
        self, sockets: Iterable[object] = (), tls: ssl.SSLContext | None = None, **address: object
    ) -> None:
        """Accept clients: on bound sockets, or on `host` and `port`. Starts the clockwork."""
        loop = asyncio.get_running_loop()
        for place in [{"sock": sock} for sock in sockets] or [address]:
            options: Mapping[str, object] = {"ssl": tls, "backlog": 2048, **place}
            self._servers.append(await loop.create_server(self.client, **options))  # type: ignore[call-overload]
        if self._ticker is None:
            self._ticker = loop.create_task(self._tick())

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return [sock.getsockname()[:2] for server in self._servers for sock in server.sockets]

    def client(self) -> Downstream:
        """The protocol of one client's connection."""
        return Downstream(self._handle, self.limits, self.connections)

    def _handle(self, request: Request, client: Downstream) -> Job:
        if self.pages.serves(request):
            own = _OwnJob(self.pages, request, client)
            own.start()
            return own
        if self.is_draining:
            return _refuse(client, ServerDraining("the gateway finishes what it has, and takes nothing new"))
        try:
            self.pages.admits(request)
        except HeadraceError as error:
            return _refuse(client, error)
        exchange = Exchange(self.router, request, client, self.live)
        exchange.start()
        return exchange

    # ---------------------------------------------------------------- replicas

    def update(self, endpoints: Iterable[Endpoint]) -> tuple[list[Replica], list[Replica]]:
        """Take over a full set from discovery; returns who came and who went."""
        came, gone = self.router.fleet.update(endpoints, self.router.clock())
        for replica in gone:
            self.router.forget(replica)
        return came, gone

    def went_down(self, replica: Replica, reason: str, answers: bool = False) -> None:
        """A probe says that a replica is down: its requests go elsewhere at once.

        One that `answers`, and says itself that it takes nothing new, finishes or fails what it has on its own: it may
        be draining.
        """
        replica.is_up = False
        self.router.index.remove_replica(replica.number)  # whatever comes back comes back with an empty cache
        self.router.index.add_replica(replica.number)
        if answers:
            return
        for exchange in list(self.live):
            replica_is_down(exchange, replica.name, reason)

    # ---------------------------------------------------------------- time

    async def _tick(self) -> None:
        swept_s = self.router.clock()
        while True:
            await asyncio.sleep(TICK_S)
            is_due = self.router.clock() >= swept_s + self.limits.sweep_s
            if is_due:
                swept_s = self.router.clock()
            self.tick(sweep=is_due)

    def tick(self, sweep: bool) -> None:
        """Look for silent replicas; with `sweep`, for slow and idle clients too."""
        now_s = self.router.clock()
        for exchange in list(self.live):
            watch(exchange, now_s)
        if sweep:
            for connection in list(self.connections):
                connection.sweep(now_s)

    # ---------------------------------------------------------------- the end

    async def drain(self, deadline_s: float) -> bool:
        """Take nothing new and let what is under way end; returns whether all of it did by the deadline (seconds)."""
        self.is_draining = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.drain()
        until = self.router.clock() + deadline_s
        while self.live and self.router.clock() < until:
            await asyncio.sleep(0.02)
        return not self.live

    async def close(self) -> None:
        """Break what is left, and free everything."""
        for server in self._servers:
            server.close()
        if self._ticker is not None:
            self._ticker.cancel()
        for connection in list(self.connections):
            connection.abort()
        for exchange in list(self.live):
            exchange.client_left()
        self.router.close()
        await asyncio.sleep(0)


class _OwnJob:
    """An answer of the gateway's own."""

    def __init__(self, pages: OwnPages, request: Request, client: Downstream) -> None:
        self._pages, self._request, self._client = pages, request, client
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        try:
            answer = await self._pages.answer(self._request)
        except HeadraceError as error:
            _refuse(self._client, error)
            return
        lines = lines_of([(b"content-type", answer.content_type), *answer.headers])
        self._client.reply(answer.status, lines, answer.body)

    def client_left(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause(self) -> None:
        """One answer, written at once."""

    def resume(self) -> None:
        """Likewise."""


class _Answered:
    """A request that was answered at once."""

    def client_left(self) -> None:
        """Nothing is under way."""

    def pause(self) -> None:
        """Nothing is under way."""

    def resume(self) -> None:
        """Nothing is under way."""


def _refuse(client: Downstream, error: HeadraceError) -> _Answered:
    client.reply(*answers.refusal(error))
    return _Answered()
