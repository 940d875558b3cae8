"""An engine core's figures, read from another thread than the engine's."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

from headrace.engine.core import EngineCore, StepTimes
from headrace.engine.remote.building import DeviceFigures
from headrace.engine.remote.spec import EngineStats, Load, StepSample
from headrace.observability import machine

_MOST_STEPS = 1024


class StatsReporter:
    """Makes EngineStats. Used by one thread; only one reporter per core, because it takes the core's newest steps.

    Args:
        core: figures of different moments may stand side by side; each on its own is right.
        read_device: of the accelerator.
    """

    def __init__(self, core: EngineCore, read_device: Callable[[], DeviceFigures] = DeviceFigures) -> None:
        """Steps are collected from now on. The blocks of the largest cache group are reported."""
        self._core = core
        self._steps: deque[StepTimes] = deque(maxlen=_MOST_STEPS)
        core.unreported_steps = self._steps
        self._read_device = read_device
        self._pool = max(core.scheduler.cache.pools, key=lambda pool: pool.num_blocks)

    def load(self) -> Load:
        """Of this moment; cheap enough for every step."""
        scheduler = self._core.scheduler
        return Load(
            scheduler.num_running,
            scheduler.num_waiting,
            scheduler.num_running_tokens,
            scheduler.num_waiting_tokens,
            self._pool.num_used,
        )

    def stats(self) -> EngineStats:
        """Of this moment, with the steps since the last call."""
        core, totals, counters = self._core, self._core.totals, self._core.scheduler.counters
        is_working = core.is_stepping or core.scheduler.has_requests
        device = self._read_device()
        return EngineStats(
            pid=os.getpid(),
            load=self.load(),
            num_blocks=self._pool.num_blocks,
            is_working=is_working,
            last_step_age_s=max(core.clock() - core.progress_s, 0.0) if is_working else 0.0,
            num_steps=counters.num_steps,
            schedule_s=totals.schedule_s,
            execute_s=totals.execute_s,
            update_s=totals.update_s,
            num_decode_rows=totals.num_decode_rows,
            num_prefill_rows=totals.num_rows - totals.num_decode_rows,
            num_prefill_tokens=totals.num_tokens - totals.num_decode_rows,
            num_prompt_tokens=counters.num_prompt_tokens,
            num_cached_tokens=counters.num_cached_tokens,
            num_computed_tokens=counters.num_computed_tokens,
            num_recomputed_tokens=counters.num_recomputed_tokens,
            num_admissions=counters.num_admissions,
            num_preemptions=counters.num_preemptions,
            num_evictions=sum(pool.num_evictions for pool in core.scheduler.cache.pools),
            num_queue_timeouts=counters.num_queue_timeouts,
            steps=tuple(_sample(step) for step in _take_all(self._steps)),
            rss_bytes=machine.process_rss_bytes(),
            cpu_s=time.process_time(),
            device_used_bytes=device.used_bytes,
            device_total_bytes=device.total_bytes,
            device_utilisation_ratio=device.utilisation_ratio,
        )


def _take_all(steps: deque[StepTimes]) -> list[StepTimes]:
    """Empty a deque that another thread appends to."""
    taken = []
    try:
        while True:
            taken.append(steps.popleft())
    except IndexError:
        return taken


def _sample(step: StepTimes) -> StepSample:
    return StepSample(
        step.schedule_s, step.execute_s, step.update_s, step.num_rows, step.num_tokens, step.num_decode_rows
    )
