"""Steps that are under way: planned, and their results not known yet. At most two, in the order of their plans."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from headrace.engine.plan import PlannedRow, StepPlan
from headrace.engine.request import Request


class Flights:
    """Who has rows in which step; the counts that requests keep of it are changed here alone.

    A request that ends while a step has a row of it keeps its blocks until that step is over: the step still writes
    to them. Plans name requests by id, and an id may belong to another request by then, so requests are kept here.
    """

    __slots__ = ("_under_way",)

    def __init__(self) -> None:
        """Nothing is under way."""
        self._under_way: deque[tuple[StepPlan, Sequence[Request]]] = deque()

    def __bool__(self) -> bool:
        """Whether a step is under way."""
        return bool(self._under_way)

    def begin(self, plan: StepPlan, requests: Sequence[Request]) -> None:
        """A step starts; `requests` are those of the plan's rows."""
        for request, row in zip(requests, plan.rows, strict=True):
            request.num_flights += 1
            request.num_scheduled_tokens += len(row.token_ids)
            if row.sampling is not None:
                request.num_pending_tokens += 1
        self._under_way.append((plan, requests))

    def end(self, plan: StepPlan) -> Sequence[Request]:
        """The step that began first is over; returns the requests of its rows. RuntimeError: it is another one."""
        requests = self._first(plan)
        self._under_way.popleft()
        for request, row in zip(requests, plan.rows, strict=True):
            request.num_flights -= 1
            request.num_scheduled_tokens -= len(row.token_ids)
            if row.sampling is not None:
                request.num_pending_tokens -= 1
        return requests

    def replace(self, plan: StepPlan) -> StepPlan:
        """Put in place of a plan under way one to be executed for itself, and return it.

        All steps before it are over, so its PENDING tokens are known. Rows of requests that have ended stay, whatever
        their token: what they hold is released when the step is over.
        """
        requests = self._first(plan)
        self._under_way.popleft()
        rows = [_known(row, request) for row, request in zip(plan.rows, requests, strict=True)]
        known = StepPlan(tuple(rows), plan.blocks_to_zero)
        self._under_way.appendleft((known, requests))
        return known

    def must_end_first(self) -> bool:
        """Whether what is sampled now has to be known to the host before the next step is planned."""
        return any(
            request.num_pending_tokens and request.needs_known_tokens
            for _, requests in self._under_way
            for request in requests
        )

    def _first(self, plan: StepPlan) -> Sequence[Request]:
        if not self._under_way or self._under_way[0][0] is not plan:
            raise RuntimeError("steps are taken in in the order in which they were planned")
        return self._under_way[0][1]


def _known(row: PlannedRow, request: Request) -> PlannedRow:
    if not row.is_pending:
        return row
    is_there = row.start < len(request.token_ids)  # not where the request failed before it had the token
    return row.with_token(request.token_ids[row.start] if is_there else 0)
