"""The engine in a process of its own, as a server sees it: supervised, started again, and true to every request.

What becomes of the live requests when the process ends: those that have given out a token end with EngineDead, the
others are submitted again to the next process, where the same seed gives the same draws.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from headrace.engine.intake import Intake, IntakeLimits
from headrace.engine.outputs import EngineOutput
from headrace.engine.remote.child_process import ChildProcess
from headrace.engine.remote.errors_on_wire import rebuilt
from headrace.engine.remote.ledger import Entry, Ledger
from headrace.engine.remote.link import CallName, EngineState, Sink
from headrace.engine.remote.messages import (
    Call,
    Cancel,
    FromChild,
    Outputs,
    Reply,
    SentOutput,
    Stats,
    Stop,
    Submit,
    received_output,
    sent_request,
)
from headrace.engine.remote.restart import RestartPolicy, StallLimits, failures_in_a_row
from headrace.engine.remote.spec import EngineInfo, EngineSpec, EngineStats, Load
from headrace.engine.request import Request
from headrace.engine.scheduler.endings import waited_too_long
from headrace.errors import EngineDead, EngineStopped, EngineUnresponsive, HeadraceError, RequestCancelled

_log = logging.getLogger(__name__)

CHILD_COMMAND = (sys.executable, "-m", "headrace.engine.remote.child")

_WATCH_PERIOD_S = 0.25
_STOP_TIMEOUT_S = 10.0
"""For a process that was told to stop, until it is killed: the step under way may take its time."""


class EngineProcess:
    """An `EngineLink` to a child process. Made and used on one running asyncio loop.

    Args:
        spec: what the child assembles. clock: seconds, monotonic. restart, stall: the limits.
        on_change: told of every new state. on_stats: told of every EngineStats, so of every step once.
        command: starts a child.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        clock: Callable[[], float] = time.monotonic,
        restart: RestartPolicy = RestartPolicy(),  # noqa: B008 - frozen
        stall: StallLimits = StallLimits(),  # noqa: B008 - frozen
        on_change: Callable[[EngineState], None] | None = None,
        on_stats: Callable[[EngineStats], None] | None = None,
        command: Sequence[str] = CHILD_COMMAND,
    ) -> None:
        """Nothing runs yet."""
        self._spec, self._clock, self._policy, self._stall = spec, clock, restart, stall
        self._on_change, self._on_stats, self._command = on_change, on_stats, command
        self._state: EngineState = "new"
        self._trouble: str | None = "it was not started"
        self._info: EngineInfo | None = None
        self._intake: Intake | None = None
        self._stats: EngineStats | None = None
        self._load: Load | None = None
        self._child: ChildProcess | None = None  # only while it is ready for requests
        self._ready_s: float | None = None
        self._stalled_s: float | None = None
        self._stopping = False
        self._stopped = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ledger = Ledger(clock, self.cancel, self._idle.set)
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []

    # ---------------------------------------------------------------- what it is

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
        """What the engine is, of the newest process that was ready."""
        return self._info

    @property
    def stats(self) -> EngineStats | None:
        """The newest statistics, with the load of the newest message."""
        if self._stats is None or self._load is None:
            return self._stats
        return msgspec.structs.replace(self._stats, load=self._load)

    @property
    def num_live(self) -> int:
        """Requests without a terminal output."""
        return len(self._ledger)

    @property
    def intake(self) -> Intake:
        """Makes requests within the limits of the newest process. EngineStopped before there was one."""
        if self._intake is None:
            raise EngineStopped("the engine is not ready yet: its limits are not known")
        return self._intake

    def _become(self, state: EngineState, trouble: str | None = None) -> None:
        self._trouble = trouble
        if state == self._state:
            return
        level = logging.WARNING if state in ("stalled", "restarting", "failed") else logging.INFO
        _log.log(level, "the engine is %s%s", state, f": {trouble}" if trouble else "")
        self._state = state
        if self._on_change is not None:
            self._on_change(state)

    # ---------------------------------------------------------------- requests

    def submit(self, requests: Sequence[Request], sink: Sink) -> None:
        """As EngineLink. While the process is restarted, requests wait for the next one."""
        if self._stopping or self._state in ("new", "starting", "stopped"):
            raise EngineStopped(
                f"the engine is {'stopping' if self._stopping else self._state}: it accepts no requests"
            )
        if self._state == "failed":
            raise EngineDead(f"the engine has failed: {self._trouble}")
        entries = self._ledger.add(requests, sink)
        self._idle.clear()
        self._send(entries)

    def _send(self, entries: Sequence[Entry]) -> None:
        if self._child is None or not entries:
            return
        now = self._clock()
        for entry in entries:
            entry.num_submissions += 1
        self._child.send(Submit([sent_request(entry.request, now) for entry in entries]))

    def cancel(self, request_id: str) -> None:
        """As EngineLink."""
        entry = self._ledger.get(request_id)
        if entry is None:
            return
        entry.is_cancelled = True
        if self._child is None:
            self._ledger.end(entry, "cancelled", RequestCancelled(f"request {request_id} was cancelled"))
        else:
            self._child.send(Cancel(request_id))

    async def call(self, name: CallName, timeout_s: float = 10.0, **arguments: Any) -> dict[str, Any]:
        """As EngineLink."""
        if self._child is None:
            raise EngineStopped(f"the engine is {self._state}: there is nobody to ask")
        number = next(self._numbers)
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        self._child.send(Call(number, name, arguments))
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError as error:
            raise EngineUnresponsive(f"the engine has not answered {name!r} within {timeout_s:g} s") from error
        finally:
            self._calls.pop(number, None)

    # ---------------------------------------------------------------- what the child says

    def _take(self, message: FromChild) -> None:
        match message:
            case Outputs(load, plain, others):
                self._load = load
                deliver = self._ledger.deliver
                for request_id, token_ids, num_cached in plain:
                    deliver(EngineOutput(request_id, token_ids, (), None, None, None, None, num_cached))
                for sent in others:
                    if not self._can_be_repeated(sent):
                        deliver(received_output(sent))
            case Stats(stats):
                self._stats, self._load = stats, None
                if self._on_stats is not None:
                    self._on_stats(stats)
            case Reply(number, result, error):
                future = self._calls.get(number)
                if future is not None and not future.done():
                    future.set_result(result) if error is None else future.set_exception(rebuilt(error))

    def _can_be_repeated(self, sent: SentOutput) -> bool:
        """Whether it is the end of a request that the engine took with it, and that nobody has seen a token of."""
        if sent.error is None or sent.error.kind != EngineDead.__name__ or sent.new_token_ids:
            return False
        entry = self._ledger.get(sent.request_id)
        return entry is not None and not entry.has_tokens

    # ---------------------------------------------------------------- life

    async def start(self) -> EngineInfo:
        """As EngineLink; raises the child's own error. EngineStopped when it ran before."""
        if self._state != "new":
            raise EngineStopped(f"the engine is {self._state}: a process is started once; make a new one")
        self._become("starting", "it is being started")
        try:
            child = await self._launch()
        except BaseException as error:
            self._become("failed", str(error) or type(error).__name__)
            raise
        assert self._info is not None
        self._tasks = [asyncio.create_task(self._supervise(child)), asyncio.create_task(self._watch())]
        return self._info

    async def _launch(self) -> ChildProcess:
        """A process that is ready, with all that waits submitted to it."""
        begin = self._clock()
        child = ChildProcess(self._command, self._clock, self._take)
        try:
            await child.start(self._spec)
            await asyncio.wait((child.ready, child.ended), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            child.kill()
            if child.pid:
                await child.ended
            raise
        if child.ended.done():
            raise child.ended.result() or EngineDead("the engine process ended before it was ready")
        self._ready_s = self._clock()
        info = self._info = msgspec.structs.replace(child.ready.result(), load_s=self._ready_s - begin)
        limits = IntakeLimits(info.vocab_size, info.max_model_len, frozenset(info.eos_token_ids))
        if self._intake is None:
            self._intake = Intake(limits, self._clock)
        self._intake.limits = limits
        self._child, self._stats, self._load, self._stalled_s = child, None, None, None
        self._become("ready")
        self._send(list(self._ledger))
        return child

    async def _supervise(self, child: ChildProcess) -> None:
        """Wait for the end of each process, and start the next one, until stopped or given up."""
        num_failures = 0
        while True:
            error = await child.ended
            self._child = None
            if error is None and self._stopping:
                return  # it was told to; what it did not end, `stop` does
            error = error or EngineDead("the engine process ended without being told to")
            ready_for = None if self._ready_s is None else self._clock() - self._ready_s
            num_failures = failures_in_a_row(num_failures, ready_for, self._policy.calm_s)
            self._bury(error)
            next_child = await self._next(error, num_failures)
            while isinstance(next_child, HeadraceError):
                num_failures += 1
                next_child = await self._next(next_child, num_failures)
            if next_child is None:
                return
            child = next_child

    async def _next(self, error: HeadraceError, num_failures: int) -> ChildProcess | HeadraceError | None:
        """The next process, after a while; its own error when it did not start; None: there will be none."""
        delay = None if self._stopping else self._policy.delay_s(num_failures)
        if delay is None:
            if not self._stopping:
                self._become("failed", f"{error} ({num_failures} failures in a row: it is given up)")
            self._ledger.end_all("error", _dead(error))
            return None
        self._become("restarting", f"{error}; it is started again in {delay:g} s")
        await asyncio.sleep(delay)
        try:
            return await self._launch()
        except (HeadraceError, OSError) as failure:
            return failure if isinstance(failure, HeadraceError) else EngineDead(f"no process can be made: {failure}")

    def _bury(self, error: HeadraceError) -> None:
        """End what died with a process: requests that have given out a token, and questions."""
        _log.error("the engine process has ended: %s%s", error, _trace_of(error))
        for future in self._calls.values():
            if not future.done():
                future.set_exception(_dead(error))
        for entry in self._ledger:
            if entry.is_cancelled:
                cancelled = RequestCancelled(f"request {entry.request.request_id} was cancelled")
                self._ledger.end(entry, "cancelled", cancelled)
            elif entry.has_tokens or entry.num_submissions > self._policy.max_resubmissions:
                self._ledger.end(entry, "error", _dead(error))

    async def _watch(self) -> None:
        """Look every now and then whether the process still gives signs of life."""
        while True:
            await asyncio.sleep(_WATCH_PERIOD_S)
            now = self._clock()
            if self._child is not None:
                self._look_at(self._child, now)
            if self._state != "ready":
                self._expire(now)

    def _look_at(self, child: ChildProcess, now: float) -> None:
        step_age = 0.0 if self._stats is None else self._stats.last_step_age_s
        reason = self._stall.reason(now - child.last_message_s, step_age)
        if reason is None:
            self._stalled_s = None
            self._become("ready")
            return
        self._stalled_s = now if self._stalled_s is None else self._stalled_s
        self._become("stalled", reason)
        if self._stall.hang_s is not None and now - self._stalled_s > self._stall.hang_s:
            _log.error("the engine process has been stalled for %.0f s, and is killed", now - self._stalled_s)
            child.kill()

    def _expire(self, now: float) -> None:
        """What the engine's own scheduler does while there is one that runs."""
        for entry in self._ledger:
            limit = entry.request.queue_timeout_s
            if limit is None or entry.has_tokens or now - entry.request.arrival_s <= limit:
                continue
            if self._child is not None:
                self._child.send(Cancel(entry.request.request_id))
            self._ledger.end(entry, "error", waited_too_long(entry.request, now))

    async def stop(self, deadline_s: float | None) -> None:
        """As EngineLink. Harmless when repeated; who comes second waits for the first."""
        if self._stopping:
            await self._stopped.wait()
            return
        self._stopping = True
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), deadline_s)
        finally:
            await self._end()

    async def _end(self) -> None:
        child = self._child
        try:
            if child is not None:
                child.send(Stop())
                timeout = 0.0 if self._state == "stalled" else _STOP_TIMEOUT_S
                await asyncio.wait((child.ended,), timeout=timeout)
                child.kill()
                await child.ended
        finally:
            if child is not None:
                child.kill()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._child = None
            self._ledger.end_all("cancelled", EngineStopped("the engine was stopped before this request ended"))
            self._become("stopped", "it was stopped")
            self._stopped.set()


def _dead(error: HeadraceError) -> EngineDead:
    """An EngineDead for each who asks: what a process died of may be of any class."""
    dead = EngineDead(str(error) if isinstance(error, EngineDead) else f"the engine died: {error}")
    dead.__cause__ = error.__cause__ or error
    return dead


def _trace_of(error: HeadraceError) -> str:
    traceback = getattr(error.__cause__, "traceback", None)
    return f"\n{traceback}" if traceback else ""
