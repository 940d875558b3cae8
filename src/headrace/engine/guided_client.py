"""Requests with guides on their way to the engine: compiled by workers, so that the engine never waits for a grammar.

::

    submit ─┬─ without a guide ─────────────────────────────► EngineClient
            └─ reserved ─► workers: compile ─┬─ admitted ───►
                                             └─ failed: the terminal output has the error
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from queue import SimpleQueue

from headrace.engine.client import EngineClient
from headrace.engine.dispatcher import Handler
from headrace.engine.request import Request
from headrace.errors import HeadraceError, InvalidParameter, RequestFailed
from headrace.text.guides import GuideCompiler

_log = logging.getLogger(__name__)

_NUM_WORKERS = 2
"""So that one grammar that takes its full time does not hold up all the others."""


class GuidedClient:
    """Stands before an engine client, and takes requests with guides too. All methods may be called from any thread.

    Args:
        client: of the engine. compiler: for its model; None where there is no tokenizer: guides are refused.
    """

    def __init__(self, client: EngineClient, compiler: GuideCompiler | None) -> None:
        """No worker is started before there is something to compile."""
        self._client = client
        self._compiler = compiler
        self._queue: SimpleQueue[Sequence[Request] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._closed = False

    def submit(self, requests: Sequence[Request], handler: Handler) -> None:
        """Hand over requests, all or none, as `EngineClient.submit`; returns before a guide is compiled.

        Raises:
            What `EngineClient.submit` raises. InvalidParameter: a guide, without a tokenizer. A guide that does not
            compile is not raised: it is the error of the terminal outputs.
        """
        unready = [request.params.guide.kind for request in requests if request.params.guide and not request.guide]
        if not unready:
            self._client.submit(requests, handler)
            return
        if self._compiler is None:
            raise InvalidParameter("guide", unready[0], "guides need a tokenizer, and there is none")
        self._start_workers()
        self._client.reserve(requests, handler)
        self._queue.put(requests)

    def cancel(self, request_id: str) -> None:
        """End a request with finish_reason "cancelled", wherever it is; harmless when it has ended."""
        self._client.cancel(request_id)

    def close(self) -> None:
        """End the workers, each after the guide that it works on. Harmless when repeated."""
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, []
        for _ in workers:
            self._queue.put(None)
        for worker in workers:
            worker.join()

    def _start_workers(self) -> None:
        with self._lock:
            if self._workers or self._closed:
                return
            self._workers = [
                threading.Thread(target=self._work, name=f"headrace-guides-{i}", daemon=True)
                for i in range(_NUM_WORKERS)
            ]
            for worker in self._workers:
                worker.start()

    def _work(self) -> None:
        while (requests := self._queue.get()) is not None:
            try:
                self._prepare(requests)
            except HeadraceError as error:
                self._client.fail(requests, error)
            except Exception as error:
                _log.exception("the guide of request %s could not be made", requests[0].request_id)
                self._client.fail(requests, RequestFailed(f"its guide could not be made: {error}"))

    def _prepare(self, requests: Sequence[Request]) -> None:
        assert self._compiler is not None
        for request in requests:
            spec = request.params.guide
            if spec is not None and self._client.is_reserved(request.request_id):
                # Nobody else knows the request yet; from `admit` on it is the scheduler's.
                request.guide = self._compiler.compile(spec)
        self._client.admit(requests)
