"""The parent of a gateway's processes: keeps them alive, tells them of the replicas, and sums up what they did."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from headrace.gateway.assembly import Assembly
from headrace.gateway.child import Child
from headrace.gateway.gateway import OwnAnswer
from headrace.gateway.http.messages import Request
from headrace.gateway.processes.link import Link
from headrace.gateway.processes.messages import Message, Report, Sent, State, hashes_of, summed
from headrace.gateway.replica import Endpoint
from headrace.gateway.supervisor import Supervisor
from headrace.gateway.tally import Tally

_LOOK_S = 0.05
_SETTLE_S = 2.0

Spawn = Callable[[str, socket.socket], Awaitable[Child]]
"""Starts the process of a name with its end of a socket pair, which is closed here afterwards. Raises OSError."""


@dataclass(slots=True, eq=False)
class _Process:
    """One process while it lives. Attributes: report: its last. waiting: for its report on a state."""

    link: Link
    report: Report = field(default_factory=lambda: Report(-1, {}, Tally()))
    reported: asyncio.Event = field(default_factory=asyncio.Event)


class Processes:
    """All processes of a gateway, as their parent has them. Used by one event loop.

    Args:
        assembly: the parent's: it follows the sources, checks the replicas and answers administrators, and passes
            nothing on. spawn: starts a process. count: how many there are to be.
        drain_timeout_s: what a process has under way gets this long when it ends.
    """

    def __init__(self, assembly: Assembly, spawn: Spawn, count: int, drain_timeout_s: float) -> None:
        """Nothing runs yet."""
        self._assembly = assembly
        self._router = assembly.gateway.router
        self._spawn = spawn
        self._supervisor = Supervisor(self._start_child, count, drain_timeout_s, kind="process")
        self._living: dict[str, _Process] = {}
        self._ended = Tally()  # what those counted that live no more
        self._state = State(0, [], [])
        self._looking: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------- for the gateway's life

    async def start(self) -> int | None:
        """Start all; None once each takes requests or is given up, an exit code when none can."""
        self._looking = asyncio.get_running_loop().create_task(self._look_often(), name="headrace-processes")
        return await self._supervisor.start()

    async def run(self) -> int:
        """Keep them alive; returns only when none can be, with the exit code."""
        return await self._supervisor.run()

    async def stop(self, deadline_s: float) -> None:
        """Let them finish what they have, for so many seconds, and end them."""
        await self._supervisor.stop(deadline_s)
        if self._looking is not None:
            self._looking.cancel()

    def kill(self) -> None:
        """End them at once."""
        self._supervisor.kill()

    async def _start_child(self, name: str) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._assembly.keep_memory()  # it begins with what is known of the caches
            child = await self._spawn(name, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

        def lost() -> None:
            self._ended += process.report.tally
            del self._living[name]  # the next of that name is started when this one has ended
            process.reported.set()
            self._sum_up()

        process = _Process(Link(lambda m: self._received(process, m), self._assembly.pages.answer, lost))
        self._living[name] = process
        await process.link.connect(ours)
        process.link.send(self._state)
        return child

    # ---------------------------------------------------------------- to the processes

    async def settle(self) -> None:
        """Until every process knows the fleet as it is now, and what they have under way since is known here."""
        self._tell(self._seen())
        for process in list(self._living.values()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_S):
                    while process.report.number < self._state.number and process in self._living.values():
                        process.reported.clear()
                        await process.reported.wait()

    async def ask_all(self, request: Request) -> list[OwnAnswer]:
        """What each process answers; those that end meanwhile are left out."""
        asked = [process.link.ask(request) for process in self._living.values()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, OwnAnswer)]

    async def _look_often(self) -> None:
        """Replicas come from sources, and are drained by administrators: whoever changed the fleet, it is told."""
        while True:
            endpoints, draining = self._seen()
            if (endpoints, draining) != (self._state.endpoints, self._state.draining):
                self._tell((endpoints, draining))
            await asyncio.sleep(_LOOK_S)

    def _seen(self) -> tuple[list[Endpoint], list[str]]:
        fleet = self._router.fleet
        return [replica.endpoint for replica in fleet], [replica.name for replica in fleet if replica.draining]

    def _tell(self, seen: tuple[list[Endpoint], list[str]]) -> None:
        self._state = State(self._state.number + 1, *seen)
        for process in self._living.values():
            process.link.send(self._state)

    # ---------------------------------------------------------------- from the processes

    @property
    def conditions(self) -> dict[str, dict[str, str]]:
        """By replica: how each process sees it."""
        found: dict[str, dict[str, str]] = {}
        for name, process in sorted(self._living.items()):
            for replica, seen in process.report.replicas.items():
                found.setdefault(replica, {})[name] = seen.condition
        return found

    def _received(self, process: _Process, message: Message) -> None:
        if isinstance(message, Report):
            process.report = message
            process.reported.set()
            self._sum_up()
        elif isinstance(message, Sent):
            replica = self._router.fleet.get(message.replica)
            if replica is not None:
                self._router.index.record(hashes_of(message), replica.number)
            for other in self._living.values():
                if other is not process:
                    other.link.send_if_room(message)

    def _sum_up(self) -> None:
        reports = [process.report for process in self._living.values()]
        self._assembly.journal.take(sum((report.tally for report in reports), self._ended))
        under_way = summed(report.replicas for report in reports)
        for replica in self._router.fleet:
            replica.load_is(*under_way.get(replica.name, (0, 0)))
