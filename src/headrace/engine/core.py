"""The step loop: schedule, execute, update; one step after the other, or one ahead of the other (`run_ahead`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.engine.outputs import EngineOutput
from headrace.engine.plan import AheadRunner, Runner, StepPlan
from headrace.engine.resilience import execute_in_halves
from headrace.engine.run_ahead import RunAhead
from headrace.engine.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Where one step's time went, in seconds, and what it held."""

    schedule_s: float
    execute_s: float
    update_s: float
    num_rows: int
    num_tokens: int
    num_decode_rows: int


@dataclass(slots=True)
class StepTotals:
    """The same, summed over all steps."""

    schedule_s: float = 0.0
    execute_s: float = 0.0
    update_s: float = 0.0
    num_rows: int = 0
    num_tokens: int = 0
    num_decode_rows: int = 0

    def add(self, step: StepTimes) -> None:
        """One more step."""
        self.schedule_s += step.schedule_s
        self.execute_s += step.execute_s
        self.update_s += step.update_s
        self.num_rows += step.num_rows
        self.num_tokens += step.num_tokens
        self.num_decode_rows += step.num_decode_rows


class EngineCore:
    """Scheduler and runner of one engine. Used by one thread at a time.

    Args:
        scheduler: holds the requests. runner: executes plans. clock: seconds, monotonic.
        check_integrity: check every invariant after every step, and raise on the first that is broken.
        ahead: the runner again, where it launches steps: each is planned and launched while the one before runs.

    Attributes:
        recent_steps: times of the last 4,096 steps. totals: of all steps. clock: the engine's.
        unreported_steps: None, or what who reports statistics has put here to have every step appended to.
        progress_s: clock when the engine's thread last began or ended a step, or took a command after it had waited.
        is_stepping: whether a step is under way. Both are for who watches from another thread.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        clock: Callable[[], float],
        check_integrity: bool = False,
        ahead: AheadRunner | None = None,
    ) -> None:
        """Nothing to do yet."""
        self.scheduler = scheduler
        self.runner = runner
        self.recent_steps: deque[StepTimes] = deque(maxlen=4096)
        self.unreported_steps: deque[StepTimes] | None = None
        self.totals = StepTotals()
        self.clock = clock
        self.progress_s = clock()
        self.is_stepping = False
        self._check = check_integrity
        self._ahead = None if ahead is None else RunAhead(scheduler, ahead, clock)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self.scheduler.has_requests or (self._ahead is not None and self._ahead.is_under_way)

    def step(self) -> list[EngineOutput]:
        """Run one step; returns what there is to say of its requests.

        It runs whenever there are requests, so that those that wait too long are ended in time: requests wait only
        while others run.
        """
        self.progress_s = self.clock()
        self.is_stepping = True
        outputs = self._step(self.progress_s) if self._ahead is None else self._step_ahead(self._ahead)
        self.is_stepping = False
        self.progress_s = self.clock()
        return outputs

    def _step(self, begin: float) -> list[EngineOutput]:
        expired = self.scheduler.expire()
        plan = self.scheduler.schedule()
        if not plan.rows:
            if self.scheduler.has_requests:
                raise RuntimeError(f"nothing can be scheduled, with {self.scheduler.dump_state()}")
            return expired
        planned = self.clock()
        result = execute_in_halves(self.runner, plan)
        executed = self.clock()
        outputs = self.scheduler.update(plan, result)
        if self._check:
            self.raise_if_broken()
        end = self.clock()
        self._record(plan, planned - begin, executed - planned, end - executed)
        return expired + outputs if expired else outputs

    def _step_ahead(self, ahead: RunAhead) -> list[EngineOutput]:
        outputs = self.scheduler.expire()
        was_under_way = ahead.is_under_way
        landings = ahead.advance()
        for landing in landings:
            outputs += landing.outputs
            self._record(landing.plan, landing.schedule_s, landing.execute_s, landing.update_s)
        if self.scheduler.has_requests and not (was_under_way or ahead.is_under_way or landings):
            raise RuntimeError(f"nothing can be scheduled, with {self.scheduler.dump_state()}")
        if self._check:
            self.raise_if_broken()
        return outputs

    def prepare(self) -> bool:
        """Do a piece of what makes later steps faster, where there is nothing else to do; whether there may be more."""
        prepare = getattr(self.runner, "prepare", None)
        return prepare is not None and not self.has_work and bool(prepare())

    def settle(self) -> None:
        """Take in what is under way when nobody waits for it any more, so that nothing is held."""
        if self._ahead is not None and not self.scheduler.has_requests:
            for landing in self._ahead.land():
                self._record(landing.plan, landing.schedule_s, landing.execute_s, landing.update_s)

    def _record(self, plan: StepPlan, schedule_s: float, execute_s: float, update_s: float) -> None:
        step = StepTimes(schedule_s, execute_s, update_s, len(plan.rows), plan.num_tokens, plan.num_decode_rows)
        self.recent_steps.append(step)
        if self.unreported_steps is not None:
            self.unreported_steps.append(step)
        self.totals.add(step)

    def raise_if_broken(self) -> None:
        """Check the queues, the tables, the pools and the prefix tree (law 10); RuntimeError names what is wrong."""
        problems = self.scheduler.check()
        if problems:
            raise RuntimeError("the engine's state is inconsistent: " + "; ".join(problems))

    def dump_state(self) -> dict[str, Any]:
        """Scheduler, cache and the last step's times, as plain data."""
        state = self.scheduler.dump_state()
        if self.recent_steps:
            last = self.recent_steps[-1]
            state["last_step"] = {name: getattr(last, name) for name in StepTimes.__slots__}
        return state
