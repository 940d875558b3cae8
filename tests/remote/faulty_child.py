"""An engine process whose simulated runner does what a prompt's first token says; for the tests alone.

The prompt is (fault, number of output tokens after which it happens, …). `model` of the spec names a file that is made
when a fault happens: those that happen once look whether it is there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from headrace.engine.core import EngineCore
from headrace.engine.plan import PlannedRow, StepPlan, StepResult
from headrace.engine.remote.building import BuiltEngine, build
from headrace.engine.remote.child import main
from headrace.engine.remote.spec import EngineSpec
from headrace.engine.runner.simulated import SimulatedRunner
from headrace.errors import ModelNotSupported

RAISE, KILL_THREAD, KILL, CRASH, HANG, EXIT, STOP = range(4000, 4007)
ONCE = 10
"""Added to one of them: only if the file is not there."""


class ThreadKiller(BaseException):
    """Not an Exception: no single request is to blame, so the engine's thread dies of it."""


class FaultyRunner:
    """A simulated runner that meets its fate."""

    def __init__(self, inner: SimulatedRunner, marker: Path) -> None:
        self._inner = inner
        self._marker = marker
        self.vocab_size = inner.vocab_size
        self.close = inner.close

    def execute(self, plan: StepPlan) -> StepResult:
        for row in plan.rows:
            fault = self._due(row)
            if fault is not None:
                self._happen(fault)
        return self._inner.execute(plan)

    def _due(self, row: PlannedRow) -> int | None:
        if row.sampling is None or len(row.sampling.prompt_token_ids) < 2:
            return None
        fault, after = row.sampling.prompt_token_ids[:2]
        if fault < RAISE or len(row.sampling.output_token_ids) != after:
            return None
        if fault >= RAISE + ONCE:
            return None if self._marker.exists() else fault - ONCE
        return fault

    def _happen(self, fault: int) -> None:
        if self._marker.name != "simulated":  # the name of no file, but of the model where no test gave another
            self._marker.touch()
        if fault == RAISE:
            raise SystemError("on cue")
        if fault == KILL_THREAD:
            raise ThreadKiller("on cue")
        if fault == CRASH:
            ctypes.string_at(0)
        if fault == HANG:
            time.sleep(3600)
        if fault == EXIT:
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL if fault == KILL else signal.SIGSTOP)


def build_faulty(spec: EngineSpec) -> BuiltEngine:
    """What `build` makes, with the runner; or what the model's name says."""
    if spec.model == "not-supported":
        raise ModelNotSupported("a model of the tests is not supported") from KeyError("its part")
    if spec.model == "raises":
        raise ZeroDivisionError("on cue")
    if spec.model == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.model == "slow":
        print("loading for ever", flush=True)
        time.sleep(3600)
    marker = Path(spec.model)
    if marker.name == "only-once" and marker.exists():
        raise ModelNotSupported("it cannot be loaded a second time")
    built = build(spec)
    core = built.core
    assert isinstance(core.runner, SimulatedRunner)
    faulty = EngineCore(core.scheduler, FaultyRunner(core.runner, marker), core.clock, check_integrity=True)
    return replace(built, core=faulty)


if __name__ == "__main__":
    status = main(sys.argv[1:], build_faulty)
    sys.stderr.flush()
    os._exit(status)
