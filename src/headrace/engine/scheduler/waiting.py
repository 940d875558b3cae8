"""Who waits for blocks, in the order in which they get them.

::

    priority 0    preempted, by arrival │ never started, by arrival      lower numbers go first
    priority 5    preempted, by arrival │ never started, by arrival

Priorities are strict: while requests of a lower number keep coming and fill the engine, those of a higher one wait,
for as long as their `queue_timeout_s` says. Within one priority nobody is overtaken for good: the first in line holds
up the others until it fits. A request that runs keeps its pace, whatever its priority.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from headrace.engine.request import Request

_FEW_DEADLINES = 64


class _Level:
    """The waiting requests of one priority."""

    __slots__ = ("arrived", "preempted")

    def __init__(self) -> None:
        self.preempted: list[Request] = []  # by order
        self.arrived: dict[str, Request] = {}  # by order, because it is the order of insertion


class WaitingQueue:
    """Requests without blocks, ordered by (priority, preempted first, arrival).

    Attributes:
        num_tokens: of all of them, prompt and output so far.
    """

    def __init__(self) -> None:
        """Nobody waits."""
        self.num_tokens = 0
        self._num_requests = 0
        self._levels: dict[int, _Level] = {}
        self._priorities: list[int] = []
        # A heap of (deadline, order, priority, id); entries of those that left stay for a while.
        self._deadlines: list[tuple[float, int, int, str]] = []

    def __len__(self) -> int:
        """How many wait."""
        return self._num_requests

    def __iter__(self) -> Iterator[Request]:
        """In order. Take a slice of it into a list before changing the queue."""
        for priority in self._priorities:
            level = self._levels[priority]
            yield from level.preempted
            yield from level.arrived.values()

    def add(self, request: Request) -> None:
        """Queue a request that has arrived."""
        self._level(request).arrived[request.request_id] = request
        if request.queue_timeout_s is not None:
            deadline = request.arrival_s + request.queue_timeout_s
            heappush(self._deadlines, (deadline, request.order, request.priority, request.request_id))

    def add_preempted(self, request: Request) -> None:
        """Queue a request that has lost its blocks."""
        insort(self._level(request).preempted, request, key=lambda r: r.order)

    def _level(self, request: Request) -> _Level:
        level = self._levels.get(request.priority)
        if level is None:
            level = self._levels[request.priority] = _Level()
            insort(self._priorities, request.priority)
        self._num_requests += 1
        self.num_tokens += request.num_tokens
        return level

    def remove(self, request: Request) -> None:
        """Take a request out, because it starts or ends."""
        level = self._levels[request.priority]
        if request.num_preemptions:
            level.preempted.remove(request)
        else:
            del level.arrived[request.request_id]
        if not level.preempted and not level.arrived:
            del self._levels[request.priority]
            self._priorities.remove(request.priority)
        self._num_requests -= 1
        self.num_tokens -= request.num_tokens

    def overdue(self, now_s: float) -> list[Request]:
        """Requests that were never started and have waited for longer than their limit. They stay queued."""
        found = []
        while self._deadlines and self._deadlines[0][0] < now_s:
            request = self._find(*heappop(self._deadlines)[1:])
            if request is not None:
                found.append(request)
        # An entry outlives its request until its deadline: most requests start long before it.
        if len(self._deadlines) > _FEW_DEADLINES + 2 * self._num_requests:
            self._deadlines = [entry for entry in self._deadlines if self._find(*entry[1:]) is not None]
            heapify(self._deadlines)
        return found

    def _find(self, order: int, priority: int, request_id: str) -> Request | None:
        level = self._levels.get(priority)
        request = None if level is None else level.arrived.get(request_id)
        return request if request is not None and request.order == order else None
