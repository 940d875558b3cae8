"""The engine in a process of its own, as a server sees it: supervised, started again, and true to every request.

What becomes of the live requests when the process ends: those that have given out a token end with EngineDead, the
others are submitted again to the next process, where the same seed gives the same draws.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from headrace.engine.intake import Intake, IntakeLimits
from headrace.engine.outputs import EngineOutput
from headrace.engine.remote.errors_on_wire import rebuilt
from headrace.engine.remote.ledger import Entry, Ledger
from headrace.engine.remote.link import CallName, EngineState, Sink
from headrace.engine.remote.messages import (
    Call,
    Cancel,
    FromChild,
    Outputs,
    Reply,
    Stats,
    Submit,
    received_output,
    sent_request,
)
from headrace.engine.remote.restart import RestartPolicy, StallLimits
from headrace.engine.remote.spec import EngineInfo, EngineSpec, EngineStats, Load
from headrace.engine.remote.supervisor import Supervisor
from headrace.engine.request import Request
from headrace.engine.scheduler.endings import waited_too_long
from headrace.errors import EngineDead, EngineStopped, EngineUnresponsive, HeadraceError, RequestCancelled

CHILD_COMMAND = (sys.executable, "-m", "headrace.engine.remote.child")


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
        self._clock, self._policy = clock, restart
        self._told_change, self._told_stats = on_change, on_stats
        self._supervisor = Supervisor(spec, command, clock, restart, stall, self)
        self._info: EngineInfo | None = None
        self._intake: Intake | None = None
        self._stats: EngineStats | None = None
        self._load: Load | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_stopping = False
        self._ending: asyncio.Task[None] | None = None
        self._ledger = Ledger(clock, self.cancel, self._idle.set)
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count()

    # ---------------------------------------------------------------- what it is

    @property
    def state(self) -> EngineState:
        """Where the engine stands."""
        return self._supervisor.state

    @property
    def trouble(self) -> str | None:
        """Why it is not ready, in words; None when it is."""
        return self._supervisor.trouble

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

    # ---------------------------------------------------------------- requests

    def submit(self, requests: Sequence[Request], sink: Sink) -> None:
        """As EngineLink. While the process is restarted, requests wait for the next one."""
        if self.state == "failed":
            raise EngineDead(f"the engine has failed: {self.trouble}")
        if self._is_stopping or self.state in ("new", "starting"):
            state = "stopping" if self._is_stopping and self.state != "stopped" else self.state
            raise EngineStopped(f"the engine is {state}: it accepts no requests")
        entries = self._ledger.add(requests, sink)
        if entries:
            self._idle.clear()
            self._send(entries)

    def _send(self, entries: Sequence[Entry]) -> None:
        child, now = self._supervisor.child, self._clock()
        if child is None:
            return
        for entry in entries:
            entry.num_submissions += 1
        child.send(Submit([sent_request(entry.request, now) for entry in entries]))

    def cancel(self, request_id: str) -> None:
        """As EngineLink."""
        entry, child = self._ledger.get(request_id), self._supervisor.child
        if entry is None:
            return
        entry.is_cancelled = True
        if child is None:
            self._ledger.end(entry, "cancelled", RequestCancelled(f"request {request_id} was cancelled"))
        else:
            child.send(Cancel(request_id))

    async def call(self, name: CallName, timeout_s: float = 10.0, **arguments: Any) -> dict[str, Any]:
        """As EngineLink."""
        child = self._supervisor.child
        if child is None:
            raise EngineStopped(f"the engine is {self.state}: there is nobody to ask")
        number = next(self._numbers)
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        child.send(Call(number, name, arguments))
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError as error:
            raise EngineUnresponsive(f"the engine has not answered {name!r} within {timeout_s:g} s") from error
        finally:
            self._calls.pop(number, None)

    # ---------------------------------------------------------------- what the supervisor tells

    def take(self, message: FromChild) -> None:
        """One message of the child."""
        match message:
            case Outputs(load, plain, others):
                self._load = load
                deliver = self._ledger.deliver
                for request_id, token_ids, num_cached in plain:
                    deliver(EngineOutput(request_id, token_ids, (), None, None, None, None, num_cached))
                for sent in others:
                    if sent.error is None or sent.error.kind != EngineDead.__name__:
                        deliver(received_output(sent))
                    # else the process is about to end, and on_lost ends or repeats its requests
            case Stats(stats):
                self._stats, self._load = stats, None
                if self._told_stats is not None:
                    self._told_stats(stats)
            case Reply(number, result, error):
                future = self._calls.get(number)
                if future is not None and not future.done():
                    future.set_result(result) if error is None else future.set_exception(rebuilt(error))

    def on_ready(self, info: EngineInfo) -> None:
        """A process is ready: it gets all that waits."""
        self._info = info
        limits = IntakeLimits(info.vocab_size, info.max_model_len, frozenset(info.eos_token_ids))
        if self._intake is None:
            self._intake = Intake(limits, self._clock)
        self._intake.limits = limits
        if len(self._ledger):
            self._send(list(self._ledger))

    def on_lost(self, error: HeadraceError) -> None:
        """A process has ended. With it end the requests that have given out a token, and the questions."""
        self._stats = self._load = None
        for future in self._calls.values():
            if not future.done():
                future.set_exception(_dead(error))
        for entry in self._ledger:
            if entry.is_cancelled:
                cancelled = RequestCancelled(f"request {entry.request.request_id} was cancelled")
                self._ledger.end(entry, "cancelled", cancelled)
            elif entry.has_tokens or entry.num_submissions > self._policy.max_resubmissions:
                self._ledger.end(entry, "error", _dead(error))

    def on_given_up(self, error: HeadraceError) -> None:
        """There will be no process for those that wait."""
        self._ledger.end_all("error", _dead(error))

    def on_change(self, state: EngineState) -> None:
        """There is a new state."""
        if self._told_change is not None:
            self._told_change(state)

    def on_watch(self, now_s: float) -> float:
        """End those that wait too long, while no scheduler does it; returns the age of the step under way."""
        if self.state != "ready":
            self._expire(now_s)
        return 0.0 if self._stats is None else self._stats.last_step_age_s

    def _expire(self, now_s: float) -> None:
        for entry in self._ledger:
            request, child = entry.request, self._supervisor.child
            limit = request.queue_timeout_s
            if limit is None or entry.has_tokens or now_s - request.arrival_s <= limit:
                continue
            if child is not None:
                child.send(Cancel(request.request_id))
            self._ledger.end(entry, "error", waited_too_long(request, now_s))

    # ---------------------------------------------------------------- life

    async def start(self) -> EngineInfo:
        """As EngineLink; raises the child's own error. EngineStopped when it ran before."""
        if self.state != "new":
            raise EngineStopped(f"the engine is {self.state}: a process is started once; make a new one")
        await self._supervisor.start()
        assert self._info is not None
        return self._info

    async def stop(self, deadline_s: float | None) -> None:
        """As EngineLink. Harmless when repeated: the earliest of the deadlines counts."""
        self._is_stopping = self._supervisor.is_stopping = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), deadline_s)
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        await self._supervisor.end()
        self._ledger.end_all("cancelled", EngineStopped("the engine was stopped before this request ended"))
        self._supervisor.stopped()


def _dead(error: HeadraceError) -> EngineDead:
    """An EngineDead for each who asks: what a process died of may be of any class."""
    dead = EngineDead(str(error) if isinstance(error, EngineDead) else f"the engine died: {error}")
    dead.__cause__ = error.__cause__ or error
    return dead
