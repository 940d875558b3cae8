"""The dispatcher's thread: hands outputs to the handlers of their requests, so that the engine's thread never does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from headrace.engine.outputs import EngineOutput, FinishReason
from headrace.errors import EngineStopped, HeadraceError

_log = logging.getLogger(__name__)

Handler = Callable[[EngineOutput], None]


class Dispatcher:
    """Takes all outputs of a step in one go. A handler that raises has its request cancelled, and is not called again.

    Args:
        lock: guards `handlers`. cancel: ends a request; called without the lock.
        after_batch: called when all outputs of a step were handed over; must not raise.

    Attributes:
        handlers: by request id, of those that have their terminal output to come.
        outbox: outputs of a step, from any thread.
    """

    def __init__(self, lock: threading.Lock, cancel: Callable[[str], None], after_batch: Callable[[], None]) -> None:
        """Not started yet."""
        self.handlers: dict[str, Handler] = {}
        self.outbox: SimpleQueue[list[EngineOutput] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._dispatch, name="headrace-outputs", daemon=True)
        self._lock = lock
        self._cancel = cancel
        self._after_batch = after_batch
        self._last_words: tuple[FinishReason, HeadraceError] = ("cancelled", EngineStopped("the engine was stopped"))

    def close(self, reason: FinishReason, error: HeadraceError) -> None:
        """No more outputs come; whoever still waits for a terminal one gets this."""
        self._last_words = (reason, error)
        self.outbox.put(None)

    def _dispatch(self) -> None:
        while (outputs := self.outbox.get()) is not None:
            for output in outputs:
                self._hand_over(output)
            self._after_batch()
        reason, error = self._last_words
        with self._lock:
            lost = list(self.handlers)
        for request_id in lost:  # even the scheduler no longer knows them; law 1 holds all the same
            self._hand_over(EngineOutput(request_id, finish_reason=reason, error=error))
        self._after_batch()

    def _hand_over(self, output: EngineOutput) -> None:
        with self._lock:
            handler = self.handlers.get(output.request_id)
            if output.finished:
                self.handlers.pop(output.request_id, None)
        if handler is None:
            return
        try:
            handler(output)
        except BaseException:  # SystemExit too: whatever a handler raises, the others' outputs go on
            _log.exception("the handler of request %s raised; the request is cancelled", output.request_id)
            with self._lock:
                if output.request_id in self.handlers:
                    self.handlers[output.request_id] = _ignore  # the id stays taken until the request has ended
            self._cancel(output.request_id)


def _ignore(output: EngineOutput) -> None:
    """The handler of a request whose own handler raised."""
