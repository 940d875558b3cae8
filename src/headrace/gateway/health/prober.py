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
from headrace.gateway.replica import Replica

_log = logging.getLogger(__name__)

_PATHS = (b"/health/ready", b"/health", b"/v1/models")


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

    def head(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers

    def data(self, data: bytes) -> None:
        self.body.append(data)

    def completed(self) -> None:
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

    def follow(self) -> None:
        """Probe those that are in the fleet now, and no others; to be called when the fleet changes."""
        present = set(self._gateway.router.fleet)
        for replica in self._tasks.keys() - present:
            self._tasks.pop(replica).cancel()
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
        misses, path = 0, 0
        while True:
            trouble, status = await self.ask(replica, _PATHS[path])
            if status in (404, 405) and path + 1 < len(_PATHS):
                path += 1
                continue
            if trouble is None:
                misses = 0
                if not replica.is_up:
                    replica.came_up(self._gateway.router.clock())
                    self._tell(replica, "up")
                if not replica.models:
                    await self._learn_models(replica)
            else:
                misses += 1
                # A replica that says no in words is believed at once; silence may be a lost packet.
                if replica.is_up and (misses >= self._settings.threshold or status):
                    self._gateway.went_down(replica, f"its health check failed: {trouble}")
                    self._tell(replica, trouble)
            await asyncio.sleep(self._settings.interval_s)

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
        except OSError as error:
            return str(error.strerror or error), 0
        load = reported_load(reply.headers)
        if load is not None:
            replica.load = load
        return (None if reply.status < 400 else f"{path.decode()} answers {reply.status}"), reply.status

    async def _learn_models(self, replica: Replica) -> None:
        try:
            reply = await self._get(replica, b"/v1/models")
            models = msgspec.json.decode(b"".join(reply.body))["data"]
            replica.learned_models = tuple(str(model["id"]) for model in models)
        except (OSError, msgspec.DecodeError, LookupError, TypeError):
            return  # it is asked again with the next probe

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
                connection.ask(reply, request_head(b"GET", path, headers, 0), False)
                await reply.done
            finally:
                connection.abandon()
        return reply
