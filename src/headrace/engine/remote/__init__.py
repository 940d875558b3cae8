"""The engine in a process of its own, and the asyncio side that a server talks to. The parent's side needs no torch.

::

    parent (asyncio)                                     child
    EngineProcess ── Connection ══ unix socket pair ══ reader thread ──► EngineClient ──► engine thread
        ▲  Ledger: one end per request                  main thread: statistics              │
        └──────────────── one message per step ◄═══════ dispatcher thread ◄──────────────────┘
"""

from headrace.engine.remote.link import EngineLink, EngineState
from headrace.engine.remote.restart import RestartPolicy, StallLimits
from headrace.engine.remote.spec import EngineInfo, EngineSpec, EngineStats, SimulatedSpec, StepSample

__all__ = [
    "EngineInfo",
    "EngineLink",
    "EngineSpec",
    "EngineState",
    "EngineStats",
    "RestartPolicy",
    "SimulatedSpec",
    "StallLimits",
    "StepSample",
]
