"""The engine in this process, behind the same interface: for tests, and for programs that want one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from headrace.engine.client import EngineClient
from headrace.engine.guided_client import GuidedClient
from headrace.engine.intake import Intake, IntakeLimits
from headrace.engine.outputs import EngineOutput
from headrace.engine.remote.building import BuiltEngine
from headrace.engine.remote.calls import run_call
from headrace.engine.remote.ledger import Ledger
from headrace.engine.remote.link import CallName, EngineState, Sink
from headrace.engine.remote.reporting import StatsReporter
from headrace.engine.remote.spec import EngineInfo, EngineStats
from headrace.engine.request import Request
from headrace.errors import EngineStopped, EngineUnresponsive

_STOP_TIMEOUT_S = 10.0


class LocalEngine:
    """An `EngineLink` over an engine of this process. Made and used on one running asyncio loop.

    Args:
        build: makes the engine, in a worker thread: `partial(building.build, spec)`. clock: the engine's.
        on_change: told of every new state.
    """

    def __init__(
        self,
        build: Callable[[], BuiltEngine],
        *,
        clock: Callable[[], float] = time.perf_counter,
        on_change: Callable[[EngineState], None] | None = None,
    ) -> None:
        """Nothing runs yet."""
        self._build, self._clock, self._on_change = build, clock, on_change
        self._state: EngineState = "new"
        self._trouble: str | None = "it was not started"
        self._info: EngineInfo | None = None
        self._intake: Intake | None = None
        self._client: EngineClient | None = None
        self._guided: GuidedClient | None = None
        self._reporter: StatsReporter | None = None
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ledger = Ledger(clock, self.cancel, self._idle.set)
        self._batch: list[EngineOutput] = []  # the dispatcher's alone
        self._stopping = False

    @property
    def state(self) -> EngineState:
        """Where the engine stands."""
        return self._state

    @property
    def trouble(self) -> str | None:
        """Why it is not ready, in words; None when it is."""
        return self._trouble

    @property
    def info(self) -> EngineInfo | None:
        """What the engine is."""
        return self._info

    @property
    def stats(self) -> EngineStats | None:
        """Of this moment; the steps in it are those since the last look."""
        return None if self._reporter is None else self._reporter.stats()

    @property
    def intake(self) -> Intake:
        """Makes the requests of this engine. EngineStopped before it was started."""
        if self._intake is None:
            raise EngineStopped("the engine is not ready yet: its limits are not known")
        return self._intake

    def _become(self, state: EngineState, trouble: str | None = None) -> None:
        self._trouble = trouble
        if state != self._state:
            self._state = state
            if self._on_change is not None:
                self._on_change(state)

    async def start(self) -> EngineInfo:
        """As EngineLink."""
        if self._state != "new":
            raise EngineStopped(f"the engine is {self._state}: it is started once; make a new one")
        self._become("starting", "it is being started")
        try:
            built = await asyncio.to_thread(self._build)
        except BaseException as error:
            self._become("failed", str(error) or type(error).__name__)
            raise
        self._info = built.info
        limits = IntakeLimits(built.info.vocab_size, built.info.max_model_len, frozenset(built.info.eos_token_ids))
        self._intake = Intake(limits, self._clock)
        self._reporter = StatsReporter(built.core, built.read_device)
        self._client = EngineClient(built.core, built.config.max_queue_size, self._hand_over)
        self._guided = GuidedClient(self._client, built.guides)
        self._client.start()
        self._become("ready")
        return built.info

    def submit(self, requests: Sequence[Request], sink: Sink) -> None:
        """As EngineLink; QueueFull too, at once."""
        if self._client is None or self._guided is None or self._stopping:
            state = "stopping" if self._stopping and self._state != "stopped" else self._state
            raise EngineStopped(f"the engine is {state}: it accepts no requests")
        self._ledger.add(requests, sink)
        try:
            self._guided.submit(requests, self._batch.append)
        except BaseException:
            self._ledger.remove(requests)
            raise
        self._idle.clear()

    def cancel(self, request_id: str) -> None:
        """As EngineLink."""
        if self._client is not None:
            self._client.cancel(request_id)

    def _hand_over(self) -> None:
        """On the dispatcher's thread: the outputs of a step cross to the loop in one go."""
        batch = self._batch[:]
        self._batch.clear()
        with suppress(RuntimeError):  # the loop is closed: nobody waits for them
            self._loop.call_soon_threadsafe(self._deliver, batch)

    def _deliver(self, batch: Sequence[EngineOutput]) -> None:
        for output in batch:
            self._ledger.deliver(output)
        if self._client is not None and not self._client.is_running and not self._stopping:
            self._become("failed", f"the engine died: {self._client.cause}")

    async def call(self, name: CallName, timeout_s: float = 10.0, **arguments: Any) -> dict[str, Any]:
        """As EngineLink."""
        client = self._client
        if client is None or not client.is_running:
            raise EngineStopped(f"the engine is {self._state}: there is nobody to ask")
        try:
            return await asyncio.wait_for(asyncio.to_thread(run_call, client, name, arguments), timeout_s)
        except TimeoutError as error:
            raise EngineUnresponsive(f"the engine has not answered {name!r} within {timeout_s:g} s") from error

    async def stop(self, deadline_s: float | None) -> None:
        """As EngineLink."""
        self._stopping = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), deadline_s)
        if self._client is not None:
            await asyncio.to_thread(partial(self._client.stop, timeout_s=_STOP_TIMEOUT_S))
            if self._guided is not None:
                await asyncio.to_thread(self._guided.close)
            await asyncio.sleep(0)  # its last outputs are on their way to this loop
        self._ledger.end_all("cancelled", EngineStopped("the engine was stopped before this request ended"))
        self._become("stopped", "it was stopped")
