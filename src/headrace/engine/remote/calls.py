"""What may be asked of a running engine beside requests. Runs where the engine runs, on a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.engine.client import EngineClient
from headrace.errors import InvalidParameter

_POLL_S = 0.005
_ANSWER_TIMEOUT_S = 3600.0
"""For the engine's thread to come round; who asks has a limit of its own."""


def run_call(client: EngineClient, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a call by name and wait for its result. InvalidParameter for an unknown name; what the call raises."""
    calls: dict[str, Callable[..., dict[str, Any]]] = {"state": _state, "integrity": _integrity, "profile": _profile}
    if name not in calls:
        raise InvalidParameter("call", name, f"one of {', '.join(calls)}")
    return calls[name](client, **arguments)


def _state(client: EngineClient) -> dict[str, Any]:
    state: dict[str, Any] = client.call(lambda core: core.dump_state(), _ANSWER_TIMEOUT_S)
    return state


def _integrity(client: EngineClient) -> dict[str, Any]:
    return {"problems": client.call(lambda core: core.scheduler.check(), _ANSWER_TIMEOUT_S)}


def _profile(client: EngineClient, folder: str, num_steps: int = 20, max_s: float = 30.0) -> dict[str, Any]:
    """Record `num_steps` steps from now on, or those that come within `max_s` seconds."""
    from headrace.engine.runner.profiling import StepProfiler

    if num_steps < 1:
        raise InvalidParameter("num_steps", num_steps, "at least 1")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"headrace-steps-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 1000:03d}.json"
    profiler = StepProfiler(path)
    first: int = client.call(lambda core: _start(core.scheduler.counters.num_steps, profiler), _ANSWER_TIMEOUT_S)
    deadline = time.monotonic() + max_s
    while client.is_running and time.monotonic() < deadline:
        done: int = client.call(lambda core: core.scheduler.counters.num_steps - first, _ANSWER_TIMEOUT_S)
        if done >= num_steps:
            break
        time.sleep(_POLL_S)
    last: int = client.call(lambda core: _stop(core.scheduler.counters.num_steps, profiler), _ANSWER_TIMEOUT_S)
    return {"path": str(path), "num_steps": last - first}


def _start(num_steps: int, profiler: Any) -> int:
    profiler.start()
    return num_steps


def _stop(num_steps: int, profiler: Any) -> int:
    profiler.stop()
    return num_steps
