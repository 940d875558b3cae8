"""What a server sees of an engine, whichever process it runs in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from headrace.engine.intake import Intake
from headrace.engine.outputs import EngineOutput
from headrace.engine.remote.spec import EngineInfo, EngineStats
from headrace.engine.request import Request

EngineState = Literal["new", "starting", "ready", "stalled", "restarting", "failed", "stopped"]
"""::

    new ─► starting ─► ready ◄─► stalled          stalled: silent, or a step takes too long
              │          │           │
              │          └─► restarting ─► ready  the process ended; another is started after a while
              ▼                 ▼
            failed            failed              it cannot be started, or failed too often in a row
    (any of them) ─► stopped                      by `stop`
"""

CallName = Literal["state", "integrity", "profile"]

Sink = Callable[[EngineOutput], None]


class EngineLink(Protocol):
    """An engine as one asyncio loop sees it; every method is called on that loop.

    Every request whose `submit` returned gets exactly one terminal output, whatever happens to the engine (law 1).
    """

    @property
    def state(self) -> EngineState:
        """Where the engine stands."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why it is not ready, in words; None when it is."""
        ...

    @property
    def info(self) -> EngineInfo | None:
        """What the engine is; None until it was ready once."""
        ...

    @property
    def stats(self) -> EngineStats | None:
        """The newest figures, at most half a second old while the engine is ready; None until there are some."""
        ...

    @property
    def intake(self) -> Intake:
        """Makes the requests of this engine. Raises EngineStopped before it was ready once."""
        ...

    async def start(self) -> EngineInfo:
        """Start, and wait until it is ready. Raises what kept it from starting, once; the state is "failed" then."""
        ...

    def submit(self, requests: Sequence[Request], sink: Sink) -> None:
        """Hand over requests, all or none; `sink` gets their outputs, in order, on the loop.

        Raises:
            EngineStopped, EngineDead: nothing is accepted in this state. InvalidRequest: an id is taken.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """End a request with finish_reason "cancelled"; harmless when it has ended already."""
        ...

    async def call(self, name: CallName, timeout_s: float = 10.0, **arguments: Any) -> dict[str, Any]:
        """Ask the engine's thread, between two steps.

        "state": its scheduler and cache. "integrity": {"problems": [...]}, every invariant checked.
        "profile": records `num_steps` steps, or what comes within `max_s` seconds, into a trace in `folder`;
        {"path", "num_steps"}.

        Raises:
            EngineDead, EngineStopped: it ends. EngineUnresponsive: no answer in time.
        """
        ...

    async def stop(self, deadline_s: float | None) -> None:
        """Accept nothing more, let what runs finish for so long (None: as long as it takes), then end the engine."""
        ...
