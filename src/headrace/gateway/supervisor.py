"""Replicas that live with the gateway: started, kept alive, restarted one after the other, and ended.

::

    starting ─► ready, in the fleet ─► ended: out of the fleet ─► after a pause: starting ─► …
        │               │                                              └─► too often: given up
        │               └─► drained in the fleet ─► SIGTERM ─► ended     (restart in turn, fewer replicas)
        └─► before any was ready: a model that cannot be loaded ends the gateway
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from headrace.engine.remote.restart import RestartPolicy, failures_in_a_row
from headrace.errors import InvalidRequest, ReplicaFailed
from headrace.gateway.child import Child
from headrace.gateway.discovery import parse_endpoint
from headrace.gateway.fleet import Fleet
from headrace.gateway.replica import Endpoint

_log = logging.getLogger(__name__)

GIVEN_UP = 5
"""Exit code when no replica can be kept alive: what `headrace serve` ends with when its engine cannot."""

_HOPELESS = frozenset({2, 3})
"""Exit codes that another start will not change: a setting that cannot be, a model that cannot be loaded."""

_POLL_S = 0.02
_STOP_MARGIN_S = 5.0
_SEEN_S = 5.0

StartChild = Callable[[str], Awaitable[Child]]
"""Starts the process of a replica, given the replica's name. Raises OSError."""


@dataclass(slots=True, eq=False)
class _Place:
    """A replica through all of its lives.

    Attributes:
        settled: whether it became ready at all, once that is known. unwanted: set when it is not to be started again.
        child: while it lives. endpoint: while it is ready. task: that keeps it alive.
        num_failures: in a row.
    """

    name: str
    settled: asyncio.Future[bool]
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    child: Child | None = None
    endpoint: Endpoint | None = None
    task: asyncio.Task[None] | None = None
    num_failures: int = 0


class Supervisor:
    """Runs replicas, and is a source of them. Used by one event loop.

    Args:
        start_child: starts one. count: how many there are to be.
        policy: how one that ended is started again. kind: what their names begin with.
        drain_timeout_s: what a replica has under way gets this long when it is restarted or taken away.

    Attributes:
        fleet: that the gateway chooses from; to be set before replicas are restarted or taken away.
        settle: awaited until a change of the fleet is known wherever it is chosen from, and the fleet counts what is
            under way since.
    """

    def __init__(
        self,
        start_child: StartChild,
        count: int,
        drain_timeout_s: float,
        policy: RestartPolicy | None = None,
        kind: str = "replica",
    ) -> None:
        """Nothing runs yet."""
        self.fleet: Fleet | None = None
        self.settle: Callable[[], Awaitable[None]] = _settled
        self._kind = kind
        self._start_child = start_child
        self._count = count
        self._drain_timeout_s = drain_timeout_s
        self._policy = policy or RestartPolicy()
        self._numbers = itertools.count()
        self._places: list[_Place] = []
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._was_ready = False

    # ---------------------------------------------------------------- for the gateway's life

    async def start(self) -> int | None:
        """Start all; None once each is ready or given up, an exit code when none can be."""
        places = [self._begin(self._new_name()) for _ in range(self._count)]
        settled = asyncio.gather(*(place.settled for place in places))
        await asyncio.wait((settled, self._end), return_when=asyncio.FIRST_COMPLETED)
        return self._end.result() if self._end.done() else None

    async def run(self) -> int:
        """Returns only when no replica can be kept alive, with the exit code."""
        return await self._end

    async def stop(self, deadline_s: float) -> None:
        """Let them finish what they have, for so many seconds, and end them."""
        await asyncio.gather(*(self._retire(place, deadline_s) for place in list(self._places)))

    def kill(self) -> None:
        """End them at once."""
        for place in self._places:
            place.unwanted.set()
            if place.child is not None:
                place.child.kill()

    # ---------------------------------------------------------------- a source of replicas

    async def sets(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """Those that are ready, now and after each change."""
        while True:
            self._changed.clear()
            yield tuple(place.endpoint for place in self._places if place.endpoint is not None)
            await self._changed.wait()

    # ---------------------------------------------------------------- for administrators

    async def rolling_restart(self) -> list[str]:
        """Restart each in turn, with no request lost; returns their names.

        Raises:
            InvalidRequest: there are not two that are ready. ReplicaFailed: one did not come back; those after it run
                as they did.
        """
        async with self._lock:
            ready = [place for place in self._places if place.endpoint is not None]
            if len(ready) < 2:
                raise InvalidRequest(
                    f"{len(ready)} replicas are ready, so a restart would lose requests: scale to 2 or more before"
                )
            for place in list(self._places):
                await self._drain(place)
                await self._retire(place, self._drain_timeout_s)
                await self._joined(self._begin(place.name))
            return [place.name for place in self._places]

    async def scale(self, count: int) -> int:
        """Run so many; returns when they are ready, or drained and gone. Raises ReplicaFailed."""
        async with self._lock:
            new = [self._begin(self._new_name()) for _ in range(count - len(self._places))]
            for place in new:
                await self._joined(place)
            for place in self._places[count:][::-1]:
                await self._drain(place)
                await self._retire(place, self._drain_timeout_s)
            return len(self._places)

    async def _joined(self, place: _Place) -> None:
        """Until a replica is ready and the gateway sends it requests."""
        if not await place.settled:
            await self._retire(place, 0.0)
            raise ReplicaFailed(f"{place.name} did not become ready; its log says why")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SEEN_S):
                while self.fleet is not None and (known := place.endpoint) is not None:
                    replica = self.fleet.get(place.name)
                    if replica is not None and replica.endpoint == known and replica.is_up:
                        return
                    await asyncio.sleep(_POLL_S)

    async def _drain(self, place: _Place) -> None:
        """Until the gateway waits for nothing of a replica any more, or for as long as that may take."""
        replica = None if self.fleet is None else self.fleet.get(place.name)
        if replica is None:
            return
        replica.draining = True
        await self.settle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_timeout_s):
                while replica.num_in_flight:
                    await asyncio.sleep(_POLL_S)

    # ---------------------------------------------------------------- one replica

    def _new_name(self) -> str:
        return f"{self._kind}-{next(self._numbers)}"

    def _begin(self, name: str) -> _Place:
        """Have a replica run, in the place of an earlier one of that name."""
        place = _Place(name, asyncio.get_running_loop().create_future())
        names = [known.name for known in self._places]
        if name in names:
            self._places[names.index(name)] = place
        else:
            self._places.append(place)
        place.task = asyncio.get_running_loop().create_task(self._keep(place), name=f"headrace-{name}")
        return place

    async def _retire(self, place: _Place, deadline_s: float) -> None:
        """End a replica, which is not started again."""
        place.unwanted.set()
        self._unlist(place)
        if place.child is not None:
            await place.child.stop(deadline_s + _STOP_MARGIN_S if deadline_s else 0.0)
        if place.task is not None:
            await asyncio.wait((place.task,))
        if place in self._places:
            self._places.remove(place)

    async def _keep(self, place: _Place) -> None:
        loop = asyncio.get_running_loop()
        while not place.unwanted.is_set():
            ready_s, code, last_words = await self._live(place)
            if place.unwanted.is_set():
                break
            ready_for_s = None if ready_s is None else loop.time() - ready_s
            place.num_failures = failures_in_a_row(place.num_failures, ready_for_s, self._policy.calm_s)
            pause_s = self._policy.delay_s(place.num_failures)
            if pause_s is None or (code in _HOPELESS and not place.settled.done()):
                self._give_up(place, code, last_words)
                return
            _log.warning(
                "%s %s (%s); it is started again in %g s",
                place.name,
                _how(code),
                last_words or "without a word",
                pause_s,
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await place.unwanted.wait()
        if not place.settled.done():
            place.settled.set_result(False)

    async def _live(self, place: _Place) -> tuple[float | None, int, str]:
        """One life; returns when it became ready (None: never), its exit code, and what it said last."""
        ready_s = None
        try:
            child = await self._start_child(place.name)
        except OSError as error:
            return None, 1, str(error)
        place.child = child
        try:
            if place.unwanted.is_set():
                await child.stop(0.0)
            elif await child.ready() and not place.unwanted.is_set():
                place.endpoint = parse_endpoint(
                    {"url": child.url, "name": place.name, "metadata": {"pid": str(child.pid)}}
                )
                ready_s, self._was_ready = asyncio.get_running_loop().time(), True
                self._changed.set()
                if not place.settled.done():
                    place.settled.set_result(True)
                _log.info("%s is ready at %s, process %d", place.name, child.url, child.pid)
            return ready_s, await child.ended(), child.last_words
        finally:
            place.child = None
            self._unlist(place)

    def _unlist(self, place: _Place) -> None:
        if place.endpoint is not None:
            place.endpoint = None
            self._changed.set()

    def _give_up(self, place: _Place, code: int, last_words: str) -> None:
        _log.error("%s %s and is given up: %s", place.name, _how(code), last_words)
        if not place.settled.done():
            place.settled.set_result(False)
        is_hopeless = code in _HOPELESS and not self._was_ready
        others = [other for other in self._places if other is not place and not _is_over(other)]
        if (is_hopeless or not others) and not self._lock.locked() and not self._end.done():
            self._end.set_result(code if is_hopeless else GIVEN_UP)


async def _settled() -> None:
    """Where there is one process, it knows."""


def _is_over(place: _Place) -> bool:
    return place.task is None or place.task.done()


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
