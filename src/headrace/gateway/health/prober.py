"""Active health checks: whether a replica makes tokens, not whether its port is open.

headrace replicas are asked for /health/ready, which says yes only while steps progress. Servers that do not know that
path are asked for /health, or for their models.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from headrace.gateway.forwarding import reported_load
from headrace.gateway.gateway import Gateway
from headrace.gateway.http.messages import Headers, request_head
from headrace.gateway.replica import NO_LOAD, Replica

_log = logging.getLogger(__name__)

_PATHS = (b"/health/ready", b"/health", b"/v1/models")
_ALIVE = frozenset({401, 403, 429})
"""Answers of a server that is well and does not want to be asked."""

_ASK_S = 10.0
"""How often a replica is asked what it serves that has not told it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """How replicas are probed.

    Attributes:
        interval_s: between two probes of one replica. timeout_s: for an answer. threshold: misses in a row that say
            it is down. api_key: that the replicas want.
    """

    interval_s: float = 0.25
    timeout_s: float = 0.4
    threshold: int = 2
    api_key: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Reply:
    """A probe's answer, as the connection tells of it."""

    done: asyncio.Future[None]
    status: int = 0
    headers: Headers = ()
    body: list[bytes] = field(default_factory=list)

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self.headers = status, headers

    def data(self, data: bytes) -> None:
        self.body.append(data)

    def completed(self, data: bytes) -> None:
        self.body.append(data)
        if not self.done.done():
            self.done.set_result(None)

    def broke(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(reason))


class Prober:
    """Probes all replicas of a gateway, each in a task of its own: a slow one delays nobody's probe.

    Args:
        changed: told of every replica that goes down or comes up.
    """

    def __init__(
        self, gateway: Gateway, settings: ProbeSettings, changed: Callable[[Replica, str], None] | None = None
    ) -> None:
        """Nothing is probed yet."""
        self._gateway = gateway
        self._settings = settings
        self._changed = changed
        self._tasks: dict[Replica, asyncio.Task[None]] = {}
        self._asked_s: dict[Replica, float] = {}
        self._known: set[Replica] = set()

    def follow(self) -> None:
        """Probe those that are in the fleet now, and no others; to be called when the fleet changes."""
        present = set(self._gateway.router.fleet)
        for replica in self._tasks.keys() - present:
            self._tasks.pop(replica).cancel()
            self._asked_s.pop(replica, None)
            self._known.discard(replica)
        for replica in present - self._tasks.keys():
            task = asyncio.get_running_loop().create_task(self._probe(replica), name=f"headrace-probe-{replica.name}")
            self._tasks[replica] = task

    async def stop(self) -> None:
        """Probe nobody."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe(self, replica: Replica) -> None:
        num_misses, path = 0, 0
        while True:
            trouble, status = await self.ask(replica, _PATHS[path])
            if status in (404, 405) and path + 1 < len(_PATHS):
                path += 1
                continue
            if trouble is None:
                num_misses = 0
                await self._is_well(replica)
            else:
                num_misses += 1
                # A replica that says no in words is believed at once; silence may be a lost packet.
                if replica.is_up and (num_misses >= self._settings.threshold or status):
                    self._gateway.went_down(replica, f"its health check failed: {trouble}", answers=status > 0)
                    self._tell(replica, trouble)
            if replica.is_up and num_misses:
                continue  # in doubt: it is asked again at once
            await asyncio.sleep(self._settings.interval_s)

    async def _is_well(self, replica: Replica) -> None:
        now_s = self._gateway.router.clock()
        replica.breaker.seen_well(now_s)
        comes_back = not replica.is_up
        if comes_back:
            replica.came_up(now_s)
            self._tell(replica, "up")
        # What comes back may serve something else.
        if comes_back or (replica not in self._known and now_s >= self._asked_s.get(replica, 0.0)):
            self._asked_s[replica] = now_s + _ASK_S
            self._known.discard(replica)
            await self._learn_size(replica)
            await self._learn_models(replica)
            if replica.models:
                self._known.add(replica)

    def _tell(self, replica: Replica, state: str) -> None:
        _log.warning("replica %s is %s", replica.name, state if state == "up" else f"down: {state}")
        if self._changed is not None:
            self._changed(replica, state)

    async def ask(self, replica: Replica, path: bytes) -> tuple[str | None, int]:
        """What is wrong with a replica (None: nothing), and the status it answered with (0: it did not)."""
        try:
            reply = await self._get(replica, path)
        except TimeoutError:
            return f"no answer within {self._settings.timeout_s:g} s", 0
        except (OSError, ValueError) as error:  # a host's name that cannot be looked up may be either
            return str(getattr(error, "strerror", None) or error), 0
        load = reported_load(reply.headers)
        if load is not None:
            replica.load = load
        is_alive = reply.status < 400 or reply.status in _ALIVE
        return (None if is_alive else f"{path.decode()} answers {reply.status}"), reply.status

    async def _learn_size(self, replica: Replica) -> None:
        """What its cache holds bounds what the index believes of it; servers that do not tell have the default."""
        if replica.load is NO_LOAD:
            return  # none of headrace's: it would not know the path
        try:
            reply = await self._get(replica, b"/load")
            num_tokens = msgspec.json.decode(b"".join(reply.body))["num_cache_tokens"]
            self._gateway.router.index.set_capacity(replica.number, int(num_tokens))
        except (OSError, ValueError, LookupError, TypeError):
            return

    async def _learn_models(self, replica: Replica) -> None:
        try:
            reply = await self._get(replica, b"/v1/models")
            models = msgspec.json.decode(b"".join(reply.body))["data"]
            replica.learned_models = tuple(str(model["id"]) for model in models)
        except (OSError, ValueError, LookupError, TypeError):
            return  # it is asked again later

    async def _get(self, replica: Replica, path: bytes) -> _Reply:
        """One GET on a connection of its own: a probe must not wait behind anything, nor be served by a kept one."""
        endpoint = replica.endpoint
        reply = _Reply(asyncio.get_running_loop().create_future())
        headers = [(b"host", f"{endpoint.host}:{endpoint.port}".encode()), (b"connection", b"close")]
        if self._settings.api_key is not None:
            headers.append((b"authorization", b"Bearer " + self._settings.api_key.encode()))
        pool = self._gateway.router.make_pool(replica)
        async with asyncio.timeout(self._settings.timeout_s):
            connection = await pool.connect(self._settings.timeout_s)
            try:
                connection.ask(reply, request_head(b"GET", path, headers, 0), b"", False)
                await reply.done
            finally:
                connection.abandon()
        return reply
