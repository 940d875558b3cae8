"""A reading of an engine for tests, with numbers that are all different."""

from __future__ import annotations

from typing import Any

from headrace.engine.remote.spec import EngineStats, Load, StepSample

STEPS = (StepSample(0.001, 0.02, 0.002, 3, 70, 2), StepSample(0.001, 0.01, 0.001, 2, 2, 2))


def reading(**changes: Any) -> EngineStats:
    values: dict[str, Any] = {
        "pid": 1,
        "load": Load(num_running=2, num_waiting=5, num_running_tokens=300, num_waiting_tokens=700, num_blocks_used=25),
        "num_blocks": 100,
        "is_working": True,
        "last_step_age_s": 0.25,
        "num_steps": 11,
        "schedule_s": 0.5,
        "execute_s": 9.0,
        "update_s": 0.75,
        "num_decode_rows": 40,
        "num_prefill_rows": 6,
        "num_prefill_tokens": 90,
        "num_prompt_tokens": 120,
        "num_cached_tokens": 30,
        "num_computed_tokens": 130,
        "num_recomputed_tokens": 8,
        "num_admissions": 7,
        "num_preemptions": 1,
        "num_evictions": 13,
        "num_queue_timeouts": 0,
        "steps": STEPS,
        "rss_bytes": 1 << 30,
        "cpu_s": 12.5,
    }
    return EngineStats(**{**values, **changes})
