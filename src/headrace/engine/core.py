"""The step loop: schedule, execute, update."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.engine.outputs import EngineOutput
from headrace.engine.plan import Runner
from headrace.engine.resilience import execute_in_halves
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

    Attributes:
        recent_steps: times of the last 4,096 steps. totals: of all steps. clock: the engine's.
        unreported_steps: None, or what who reports statistics has put here to have every step appended to.
        progress_s: clock when the engine's thread last began or ended a step, or took a command after it had waited.
        is_stepping: whether a step is under way. Both are for who watches from another thread.
    """

    def __init__(
        self, scheduler: Scheduler, runner: Runner, clock: Callable[[], float], check_integrity: bool = False
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

    def step(self) -> list[EngineOutput]:
        """Run one step; returns what there is to say of its requests.

        It runs whenever there are requests, so that those that wait too long are ended in time: requests wait only
        while others run.
        """
        self.progress_s = self.clock()
        self.is_stepping = True
        outputs = self._step(self.progress_s)
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
        num_rows, num_tokens, num_decode_rows = len(plan.rows), plan.num_tokens, plan.num_decode_rows
        self._record(
            StepTimes(planned - begin, executed - planned, end - executed, num_rows, num_tokens, num_decode_rows)
        )
        return expired + outputs if expired else outputs

    def _record(self, step: StepTimes) -> None:
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
