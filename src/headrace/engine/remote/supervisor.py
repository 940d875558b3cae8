"""Keeps an engine process running: starts it, sees that it gives signs of life, starts it again when it has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from headrace.engine.remote.child_process import ChildProcess
from headrace.engine.remote.link import EngineState
from headrace.engine.remote.messages import FromChild, Stop
from headrace.engine.remote.restart import RestartPolicy, StallLimits, failures_in_a_row
from headrace.engine.remote.spec import EngineInfo, EngineSpec
from headrace.errors import EngineDead, EngineStopped, HeadraceError

_log = logging.getLogger(__name__)

_WATCH_PERIOD_S = 0.25
_STOP_TIMEOUT_S = 10.0
"""For a process that was told to stop, until it is killed: the step under way may take its time."""


class Watcher(Protocol):
    """Who is told of what happens. None of it may raise."""

    def take(self, message: FromChild) -> None:
        """The process says something."""
        ...

    def on_ready(self, info: EngineInfo) -> None:
        """A process is ready; `Supervisor.child` is it."""
        ...

    def on_lost(self, error: HeadraceError) -> None:
        """The process has ended, all that it said was taken."""
        ...

    def on_given_up(self, error: HeadraceError) -> None:
        """There will be no other."""
        ...

    def on_change(self, state: EngineState) -> None:
        """There is a new state."""
        ...

    def on_watch(self, now_s: float) -> float:
        """Every quarter of a second; returns for how long the step under way has run, in seconds."""
        ...


class Supervisor:
    """One engine process after the other.

    Args:
        spec: what each assembles. command: starts one. clock: seconds, monotonic. policy, limits: when what is done.

    Attributes:
        state: as EngineLink. trouble: as EngineLink.
        child: the process that takes requests; None while there is none.
        is_stopping: set: no process is started in place of one that ends.
    """

    def __init__(
        self,
        spec: EngineSpec,
        command: Sequence[str],
        clock: Callable[[], float],
        policy: RestartPolicy,
        limits: StallLimits,
        watcher: Watcher,
    ) -> None:
        """Nothing runs yet."""
        self._spec, self._command, self._clock, self._policy, self._limits = spec, command, clock, policy, limits
        self._watcher = watcher
        self.state: EngineState = "new"
        self.trouble: str | None = "it was not started"
        self.child: ChildProcess | None = None
        self.is_stopping = False
        self._is_ending = False
        self._launching: ChildProcess | None = None
        self._ready_s: float | None = None
        self._stalled_s: float | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _become(self, state: EngineState, trouble: str | None = None) -> None:
        self.trouble = trouble
        if state == self.state:
            return
        level = logging.WARNING if state in ("stalled", "restarting", "failed") else logging.INFO
        _log.log(level, "the engine is %s%s", state, f": {trouble}" if trouble else "")
        self.state = state
        self._watcher.on_change(state)

    async def start(self) -> None:
        """Start the first process and wait until it is ready. Raises what kept it from that."""
        self._become("starting", "it is being started")
        try:
            child = await self._launch()
        except BaseException as error:
            if self._is_ending and isinstance(error, Exception):
                raise EngineStopped("the engine was stopped while it was being started") from error
            self._become("failed", str(error) or type(error).__name__)
            raise
        self._tasks = [asyncio.create_task(self._supervise(child)), asyncio.create_task(self._watch())]

    async def _launch(self) -> ChildProcess:
        """A process that is ready."""
        begin = self._clock()
        child = self._launching = ChildProcess(self._command, self._clock, self._watcher.take)
        try:
            await child.start(self._spec)
            await asyncio.wait((child.ready, child.ended), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            child.kill()
            if child.pid:
                await child.ended
            raise
        finally:
            self._launching = None
        if child.ended.done():
            raise child.ended.result() or EngineDead("the engine process ended before it was ready")
        self._ready_s, self._stalled_s = self._clock(), None
        self.child = child
        self._become("ready")
        self._watcher.on_ready(msgspec.structs.replace(child.ready.result(), load_s=self._ready_s - begin))
        return child

    async def _supervise(self, child: ChildProcess) -> None:
        """Wait for the end of each process, and start the next one, until stopped or given up."""
        num_failures = 0
        while True:
            error = await child.ended
            self.child = None
            if self._is_ending:
                return  # it was told to, or helped; what is still live, EngineProcess ends
            error = error or EngineDead("the engine process ended without being told to")
            _log.error("the engine process has ended: %s%s", error, _trace_of(error))
            self._watcher.on_lost(error)
            ready_for = None if self._ready_s is None else self._clock() - self._ready_s
            num_failures = failures_in_a_row(num_failures, ready_for, self._policy.calm_s)
            following = await self._next(error, num_failures)
            while isinstance(following, HeadraceError):
                num_failures += 1
                following = await self._next(following, num_failures)
            if following is None:
                return
            child = following

    async def _next(self, error: HeadraceError, num_failures: int) -> ChildProcess | HeadraceError | None:
        """The next process, after a while; its own error when it did not start; None: there will be none."""
        delay = None if self.is_stopping else self._policy.delay_s(num_failures)
        if delay is None:
            if not self.is_stopping:
                self._become("failed", f"{error} ({num_failures} failures in a row: it is given up)")
            self._watcher.on_given_up(error)
            return None
        self._become("restarting", f"{error}; it is started again in {delay:g} s")
        await asyncio.sleep(delay)
        try:
            return await self._launch()
        except HeadraceError as failure:
            return failure
        except OSError as failure:
            return EngineDead(f"no engine process can be made: {failure}")

    async def _watch(self) -> None:
        """Look every now and then whether the process still gives signs of life."""
        while True:
            await asyncio.sleep(_WATCH_PERIOD_S)
            now = self._clock()
            step_age = self._watcher.on_watch(now)
            if self.child is not None:
                self._look_at(self.child, now, step_age)

    def _look_at(self, child: ChildProcess, now: float, step_age: float) -> None:
        reason = self._limits.reason(now - child.last_message_s, step_age)
        if reason is None:
            self._stalled_s = None
            self._become("ready")
            return
        self._stalled_s = now if self._stalled_s is None else self._stalled_s
        self._become("stalled", reason)
        if self._limits.hang_s is not None and now - self._stalled_s > self._limits.hang_s:
            _log.error("the engine process has been stalled for %.0f s, and is killed", now - self._stalled_s)
            child.kill()

    async def end(self) -> None:
        """Tell the process to stop, and see that it does; no other is started."""
        self.is_stopping = self._is_ending = True
        child = self.child
        try:
            if self._launching is not None:
                self._launching.kill()
                await self._launching.ended
            if child is not None:
                child.send(Stop())
                await asyncio.wait((child.ended,), timeout=0.0 if self.state == "stalled" else _STOP_TIMEOUT_S)
        finally:
            if child is not None:
                child.kill()
                await child.ended
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.child = None

    def stopped(self) -> None:
        """All is over."""
        self._become("stopped", "it was stopped")


def _trace_of(error: HeadraceError) -> str:
    traceback = getattr(error.__cause__, "traceback", None)
    return f"\n{traceback}" if traceback else ""
