"""Every live request, in one of two queues: those that hold blocks, and those that wait for some."""

from __future__ import annotations

from bisect import insort
from itertools import chain
from typing import Any

from headrace.engine.request import Request
from headrace.engine.scheduler.rows import describe
from headrace.engine.scheduler.waiting import WaitingQueue
from headrace.errors import InvalidRequest


class Queues:
    """Where each request stands. Moves them; their blocks are the scheduler's business.

    Attributes:
        running: requests that hold blocks, by order of arrival. waiting: those that hold none.
    """

    __slots__ = ("_live", "_num_arrived", "running", "waiting")

    def __init__(self) -> None:
        """Nobody is there."""
        self.running: list[Request] = []
        self.waiting = WaitingQueue()
        self._live: dict[str, Request] = {}
        self._num_arrived = 0

    def __len__(self) -> int:
        """Live requests."""
        return len(self._live)

    @property
    def num_running_tokens(self) -> int:
        """Tokens, prompt and output so far, of running requests. From another thread: of some moment."""
        return sum([len(request.token_ids) for request in self.running])

    def get(self, request_id: str) -> Request | None:
        """A live request."""
        return self._live.get(request_id)

    def ids(self) -> list[str]:
        """Of all live requests."""
        return list(self._live)

    def add(self, request: Request) -> None:
        """Someone arrives; InvalidRequest when the id is taken by a live request."""
        if request.request_id in self._live:
            raise InvalidRequest(f"request id {request.request_id!r} is taken by a request that is still live")
        request.order = self._num_arrived
        self._num_arrived += 1
        self._live[request.request_id] = request
        self.waiting.add(request)

    def start(self, request: Request) -> None:
        """From waiting to running; called before the request has blocks."""
        self.waiting.remove(request)
        insort(self.running, request, key=lambda r: r.order)

    def preempt(self, request: Request) -> None:
        """Back to waiting; called when its loss is on its account."""
        self.running.remove(request)
        self.waiting.add_preempted(request)

    def remove(self, request: Request) -> None:
        """Someone has ended; called while the request still has its blocks."""
        if request.blocks is not None:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        del self._live[request.request_id]

    def dump_state(self) -> dict[str, Any]:
        """For people and for tests, as plain data."""
        return {
            "running": [describe(request) for request in self.running],
            "waiting": [describe(request) for request in self.waiting],
        }

    def check(self) -> list[str]:
        """What is wrong; empty when all is well."""
        queued = [request.request_id for request in chain(self.running, self.waiting)]
        problems = []
        if sorted(queued) != sorted(self._live):
            problems.append(f"{len(self._live)} live requests, {len(queued)} in queues")
        problems += [f"running request {r.request_id} holds no blocks" for r in self.running if r.blocks is None]
        problems += [f"waiting request {r.request_id} holds blocks" for r in self.waiting if r.blocks is not None]
        return problems
