"""Step N + 1 is planned and launched while step N runs (law 9): between two launches nobody waits for the device.

::

    host      plan 1  launch 1  plan 2  launch 2  collect 1  update 1  plan 3  launch 3  collect 2  update 2 …
    device            ╰──── step 1 ──────────────╯╰──── step 2 ──────────────────────╯╰──── step 3 ────

What step N samples is read by step N + 1 where it lies; the host sees it one step later. So

- a request that turns out to have ended (an end-of-sequence token, a stop string, a cancellation) has a row too much in
  the step that follows: its token is dropped, and its blocks are given back when that step is over. Where the length
  ends it, that was known before, and there is no such row;
- requests whose next token depends on the text of the one before (guides, penalties) make the next step wait for it,
  and so does a preemption: `Scheduler.schedule_ahead` gives None;
- a step that raises is executed for itself, in halves, when the one before is over (law 4); so is the one after it,
  which may have read tokens that never were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.engine.outputs import EngineOutput
from headrace.engine.plan import AheadRunner, StepPlan, StepResult
from headrace.engine.resilience import execute_in_halves
from headrace.engine.scheduler import Scheduler

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Flight:
    """A step under way; without a handle it is to be executed for itself when its turn comes."""

    plan: StepPlan
    handle: Any | None
    schedule_s: float
    launch_s: float


@dataclass(frozen=True, slots=True)
class Landing:
    """A step that is over: what was planned, what there is to say, and where the host's time went, in seconds."""

    plan: StepPlan
    outputs: list[EngineOutput]
    schedule_s: float
    execute_s: float
    update_s: float


class RunAhead:
    """The steps under way of one engine, two at most while a step is taken, one between steps.

    Args:
        scheduler: plans. runner: launches. clock: seconds, monotonic.
    """

    def __init__(self, scheduler: Scheduler, runner: AheadRunner, clock: Callable[[], float]) -> None:
        """Nothing is under way."""
        self._scheduler = scheduler
        self._runner = runner
        self._clock = clock
        self._flight: _Flight | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a step is."""
        return self._flight is not None

    def advance(self) -> list[Landing]:
        """Launch the next step, if there is one, and take in the one before: none, one or two that are over."""
        landings = []
        begin = self._clock()
        plan = self._scheduler.schedule_ahead() if self._flight is not None else self._scheduler.schedule()
        if plan is None:
            landings += self.land()
            begin = self._clock()
            plan = self._scheduler.schedule()
        before, self._flight = self._flight, self._launch(plan, begin) if plan.rows else None
        if before is not None:
            landings.append(self._land(before))
        failed = self._flight is not None and self._flight.handle is None
        if failed or not self._scheduler.has_requests:  # nobody comes back for what nobody waits for
            landings += self.land()
        return landings

    def land(self) -> list[Landing]:
        """Wait for what is under way, and take it in."""
        if self._flight is None:
            return []
        flight, self._flight = self._flight, None
        return [self._land(flight)]

    def _launch(self, plan: StepPlan, begin: float) -> _Flight:
        planned = self._clock()
        handle = None
        try:
            handle = self._runner.launch(plan)
        except Exception as error:
            _log.warning(
                "a step of %d rows and %d tokens raised when it was launched, it is run again when the one before is "
                "over: %s: %s",
                len(plan.rows), plan.num_tokens, type(error).__name__, error,
            )  # fmt: skip
        return _Flight(plan, handle, planned - begin, self._clock() - planned)

    def _land(self, flight: _Flight) -> Landing:
        begin = self._clock()
        plan, result = self._collect(flight)
        executed = self._clock()
        outputs = self._scheduler.update(plan, result)
        execute_s = flight.launch_s + executed - begin
        return Landing(plan, outputs, flight.schedule_s, execute_s, self._clock() - executed)

    def _collect(self, flight: _Flight) -> tuple[StepPlan, StepResult]:
        if flight.handle is not None:
            try:
                return flight.plan, self._runner.collect(flight.handle)
            except Exception as error:
                _log.warning("a step raised while it ran, it is run again: %s: %s", type(error).__name__, error)
        self._recall()
        plan = self._scheduler.replan(flight.plan)
        return plan, execute_in_halves(self._runner, plan)

    def _recall(self) -> None:
        """What was launched since has read tokens that are not there: wait until it is over, and run it again too."""
        if self._flight is None or self._flight.handle is None:
            return
        handle, self._flight.handle = self._flight.handle, None
        try:
            self._runner.collect(handle)
        except Exception as error:
            _log.debug("the step after it raised too: %s: %s", type(error).__name__, error)
