"""The engine behind a thread: submit and cancel from anywhere, outputs through a handler per request.

::

    caller ── submit/cancel ──► inbox ──► engine thread: EngineCore.step() ──► outbox ──► dispatcher thread: handlers

The engine thread never runs a handler, so nothing that a client does can make it wait (law 8); the dispatcher takes all
outputs of a step in one go.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Literal

from headrace.engine.core import EngineCore
from headrace.engine.dispatcher import Dispatcher, Handler
from headrace.engine.outputs import EngineOutput, FinishReason
from headrace.engine.request import Request
from headrace.errors import EngineDead, EngineStopped, HeadraceError, InvalidRequest, QueueFull, RequestCancelled

_log = logging.getLogger(__name__)

_Command = Callable[[], None]

_EXIT_TIMEOUT_S = 10.0
"""How long a program that ends without closing its engine waits for the step under way."""


class EngineClient:
    """Runs an engine core in a thread of its own. All methods may be called from any thread.

    Every request whose `submit` returned gets exactly one terminal output, also when the engine is stopped or dies
    (law 1). A handler that raises has its request cancelled and is not called again.

    Args:
        core: used by the engine thread alone from `start` on. max_queue_size: most requests that wait; None for any.
        after_batch: called on the dispatcher's thread when all outputs of a step were handed over; must not raise.
    """

    def __init__(
        self,
        core: EngineCore,
        max_queue_size: int | None = None,
        after_batch: Callable[[], None] = lambda: None,
    ) -> None:
        """Not started yet."""
        self._core = core
        self._max_queue_size = max_queue_size
        self._inbox: SimpleQueue[_Command] = SimpleQueue()
        self._lock = threading.Lock()  # guards _state, _handlers and _reserved, and puts to the inbox against their end
        self._dispatcher = Dispatcher(self._lock, self.cancel, after_batch)
        self._handlers, self._outbox = self._dispatcher.handlers, self._dispatcher.outbox
        self._reserved: set[str] = set()  # of _handlers, those that the scheduler does not know yet
        self._state: Literal["new", "running", "stopping", "stopped", "dead"] = "new"
        self._cause: BaseException | None = None
        self._engine_thread = threading.Thread(target=self._run, name="headrace-engine", daemon=True)

    # ---------------------------------------------------------------- any thread

    def start(self) -> None:
        """Start the threads; EngineStopped when it ran before."""
        with self._lock:
            if self._state != "new":
                raise EngineStopped("an engine is started once; make a new one")
            self._state = "running"
            self._engine_thread.start()  # under the lock: who stops it joins threads that were started
            self._dispatcher.thread.start()
        # At exit: a thread that is in native code when the interpreter goes away takes the process down with it.
        weakref.finalize(self, _stop, weakref.ref(self))

    @property
    def is_running(self) -> bool:
        """Whether requests are accepted."""
        return self._state == "running"

    def submit(self, requests: Sequence[Request], handler: Handler) -> None:
        """Hand over requests, all or none; `handler` gets their outputs, in order, on the dispatcher's thread.

        Raises:
            EngineStopped, EngineDead: at once. QueueFull: with the queue's length. InvalidRequest: an id is taken, or
            a request with a guide has none that is compiled (see GuidedClient).
        """
        if any(request.guide is None and request.params.guide is not None for request in requests):
            raise InvalidRequest("a request with a guide has to come with the compiled guide")
        with self._lock:
            self._accept(requests, handler)
            for request in requests:
                self._inbox.put(partial(self._core.scheduler.add, request))

    def reserve(self, requests: Sequence[Request], handler: Handler) -> None:
        """Accept requests as `submit` does, for which something has to be made ready: `admit` or `fail` follows.

        They have their terminal output to come from now on: they can be cancelled, and end when the engine does.
        """
        with self._lock:
            self._accept(requests, handler)
            self._reserved.update(request.request_id for request in requests)

    def admit(self, requests: Sequence[Request]) -> None:
        """Hand over requests that were reserved, but for those that have ended meanwhile."""
        with self._lock:
            for request in requests:
                if request.request_id in self._reserved:
                    self._reserved.remove(request.request_id)
                    self._inbox.put(partial(self._core.scheduler.add, request))

    def fail(self, requests: Sequence[Request], error: HeadraceError) -> None:
        """End requests that were reserved with an error, but for those that have ended meanwhile."""
        with self._lock:
            self._refuse([request.request_id for request in requests], "error", error)

    def is_reserved(self, request_id: str) -> bool:
        """Whether it is still to be admitted."""
        return request_id in self._reserved

    def cancel(self, request_id: str) -> None:
        """End a request with finish_reason "cancelled"; harmless when it has ended already."""
        error = RequestCancelled(f"request {request_id} was cancelled")
        with self._lock:
            if self._refuse([request_id], "cancelled", error):
                return
        self._command(lambda: self._cancel(request_id, error))

    def call(self, function: Callable[[EngineCore], Any], timeout_s: float = 60.0) -> Any:
        """Run a function on the engine thread between two steps; directly when that has ended. Returns its result."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(self._core))
            except BaseException as error:
                future.set_exception(error)

        if not self._command(run):
            if self._engine_thread.ident is not None:
                self._engine_thread.join(timeout_s)  # the last step may be under way
            return function(self._core)
        return future.result(timeout_s)

    def stop(self, block: bool = True, timeout_s: float | None = None) -> bool:
        """Stop after the step that is under way; live requests end with finish_reason "cancelled".

        Returns whether the threads have ended.
        """
        with self._lock:
            if self._state == "new":
                self._state = "stopped"
                self._core.runner.close()
                return True
            if self._state == "running":
                self._state = "stopping"
                self._inbox.put(lambda: None)  # wakes a thread that waits for work
        threads = (self._engine_thread, self._dispatcher.thread)
        if block and threading.current_thread() not in threads:
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            for thread in threads:
                thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in threads)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every request has its terminal output and both threads are about to end; False: not in time."""
        self._dispatcher.thread.join(timeout_s)
        return not self._dispatcher.thread.is_alive()

    @property
    def cause(self) -> BaseException | None:
        """What the engine thread died of; None while it lives, or when it was stopped."""
        return self._cause

    def _accept(self, requests: Sequence[Request], handler: Handler) -> None:
        """All or none; under the lock."""
        self._raise_unless_running()
        taken = [request.request_id for request in requests if request.request_id in self._handlers]
        if taken:
            raise InvalidRequest(f"request id {taken[0]!r} is taken by a request that is still live")
        waiting = self._core.scheduler.num_waiting + self._inbox.qsize() + len(self._reserved)
        if self._max_queue_size is not None and waiting + len(requests) > self._max_queue_size:
            raise QueueFull(
                f"{waiting} requests wait, {len(requests)} more would be over max_queue_size="
                f"{self._max_queue_size}: try again later"
            )
        for request in requests:
            self._handlers[request.request_id] = handler

    def _refuse(self, request_ids: Sequence[str], reason: FinishReason, error: HeadraceError) -> bool:
        """End those of the requests that are reserved; under the lock. Whether there was one."""
        outputs = [
            EngineOutput(name, finish_reason=reason, error=error) for name in request_ids if name in self._reserved
        ]
        self._reserved.difference_update(request_ids)
        if outputs:
            self._outbox.put(outputs)
        return bool(outputs)

    def _raise_unless_running(self) -> None:
        if self._state == "dead":
            raise EngineDead(f"the engine died: {type(self._cause).__name__}: {self._cause}") from self._cause
        if self._state != "running":
            raise EngineStopped(f"the engine is {self._state}; it accepts requests only while it runs")

    def _command(self, command: _Command) -> bool:
        """Put a command into the inbox; False when no thread will take it."""
        with self._lock:
            if self._state != "running":
                return False
            self._inbox.put(command)
            return True

    # ---------------------------------------------------------------- the engine's thread

    def _run(self) -> None:
        cause: BaseException | None = None
        try:
            while self._state == "running":
                self._take_commands(block=not self._core.has_work and not self._core.prepare())
                outputs = self._core.step()
                if outputs:
                    self._outbox.put(outputs)
        except BaseException as error:
            _log.exception("the engine died")
            cause = error
        self._shut_down(cause)

    def _take_commands(self, block: bool) -> None:
        try:
            while True:
                command = self._inbox.get(block)
                if block:
                    self._core.progress_s = self._core.clock()  # it was idle, and is not any more
                    block = False
                command()
        except Empty:
            return

    def _shut_down(self, cause: BaseException | None) -> None:
        with self._lock:
            self._state = "stopped" if cause is None else "dead"
            self._cause = cause
        error: HeadraceError = EngineStopped("the engine was stopped before this request ended")
        if cause is not None:
            error = EngineDead(f"the engine died: {type(cause).__name__}: {cause}")
            error.__cause__ = cause
        reason: FinishReason = "cancelled" if cause is None else "error"
        self._take_last_commands()
        try:
            self._end(self._core.scheduler.live_request_ids(), reason, error)
            if cause is None:
                self._core.settle()
        except Exception:
            _log.exception("the scheduler could not be emptied")
        self._dispatcher.close(reason, error)
        try:
            self._core.runner.close()
        except Exception:
            _log.exception("the runner could not be closed")

    def _take_last_commands(self) -> None:
        """Each of them, also when the scheduler is broken: somebody may wait for its result."""
        while not self._inbox.empty():
            try:
                self._take_commands(block=False)
            except Exception:
                _log.exception("a command to an engine that ended was lost")

    def _end(self, request_ids: list[str], reason: FinishReason, error: HeadraceError) -> None:
        outputs = [self._core.scheduler.end(request_id, reason, error) for request_id in request_ids]
        self._outbox.put([output for output in outputs if output is not None])

    def _cancel(self, request_id: str, error: HeadraceError) -> None:
        self._end([request_id], "cancelled", error)
        self._core.settle()  # if nobody else is live, the step under way is nobody's


def _stop(reference: weakref.ref[EngineClient]) -> None:
    client = reference()
    if client is not None:
        client.stop(timeout_s=_EXIT_TIMEOUT_S)
