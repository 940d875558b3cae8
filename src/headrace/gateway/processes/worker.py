"""A process that passes requests on, and its parent as it sees it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from urllib.parse import unquote

from headrace.gateway.assembly import Assembly
from headrace.gateway.gateway import OwnAnswer
from headrace.gateway.http.messages import Request
from headrace.gateway.pages import Pages
from headrace.gateway.processes.link import Link
from headrace.gateway.processes.messages import Message, ReplicaReport, Report, Sent, State, hashes_of, sent
from headrace.gateway.processes.shared_index import SharedIndex

_REPORT_S = 0.25
_PARENT_GONE = 1


class WorkerPages(Pages):
    """Health and models are this process's to tell; administration and metrics are the parent's."""

    parent: Link

    async def answer(self, request: Request) -> OwnAnswer:
        """Answer a request for the gateway."""
        path = unquote(request.path.decode("latin-1"))
        if path.startswith("/admin") or path == "/metrics":
            return await self.parent.ask(request)
        return await super().answer(request)


class Worker:
    """Does what the parent says and tells it what happened; to a gateway's life, what feeds it.

    Args:
        assembly: of this process, without sources of replicas; its index is a SharedIndex, its pages are WorkerPages.
        end: of the socket pair.
    """

    def __init__(self, assembly: Assembly, end: socket.socket) -> None:
        """Not connected."""
        self._assembly = assembly
        self._end = end
        self._router = assembly.gateway.router
        index, pages = self._router.index, assembly.pages
        assert isinstance(index, SharedIndex)
        assert isinstance(pages, WorkerPages)
        self._index = index
        loop = asyncio.get_running_loop()
        self._told: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[int] = loop.create_future()
        self._number = 0
        # What the parent asks a process for are its decisions, whoever wants to know them.
        self._link = pages.parent = Link(self._received, lambda request: pages.decided(request), self._lost)
        self._reporting: asyncio.Task[None] | None = None

    async def start(self) -> int | None:
        """Returns when the parent has told of the replicas."""
        await self._link.connect(self._end)
        await asyncio.wait((self._told, self._gone), return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done():
            return self._gone.result()
        self._index.tell = self._tell
        self._reporting = asyncio.get_running_loop().create_task(self._report_often(), name="headrace-reports")
        return None

    async def run(self) -> int:
        """Returns when the parent is gone."""
        return await self._gone

    async def stop(self, deadline_s: float) -> None:
        """Report for the last time."""
        if self._reporting is not None:
            self._reporting.cancel()
        self._index.tell = None
        self._report()
        self._link.close()

    def kill(self) -> None:
        """The replicas are the parent's."""

    # ---------------------------------------------------------------- from the parent

    def _received(self, message: Message) -> None:
        if isinstance(message, State):
            self._assembly.fleet_changed(message.endpoints)
            for replica in self._router.fleet:
                is_draining = replica.name in message.draining
                if replica.draining != is_draining:
                    replica.draining = is_draining
            self._number = message.number
            self._report()
            if not self._told.done():
                self._told.set_result(None)
        elif isinstance(message, Sent):
            known = self._router.fleet.get(message.replica)
            if known is not None:
                self._index.heard(hashes_of(message), known.number)

    def _lost(self) -> None:
        if not self._gone.done():
            self._gone.set_result(_PARENT_GONE)

    # ---------------------------------------------------------------- to the parent

    def _tell(self, number: int, hashes: Sequence[int]) -> None:
        name = next((replica.name for replica in self._router.fleet if replica.number == number), None)
        if name is not None:
            self._link.send_if_room(sent(name, hashes))

    async def _report_often(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            self._report()

    def _report(self) -> None:
        now_s = self._router.clock()
        replicas = {
            replica.name: ReplicaReport(replica.num_in_flight, replica.tokens_in_flight, replica.condition(now_s))
            for replica in self._router.fleet
        }
        self._link.send(Report(self._number, replicas, self._assembly.journal.tally()))
