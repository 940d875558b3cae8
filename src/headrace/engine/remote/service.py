"""The engine process's inside: takes messages, runs the engine, sends one message per step.

::

    reader thread      messages ─► submit, cancel, stop ─► EngineClient; a thread of its own for each call
    engine thread      steps
    guide threads      requests with guides: compiled, then to the EngineClient
    dispatcher thread  the outputs of a step ─► one message; waits when the parent does not read
    main thread        statistics every half second, whatever the others do; the last words
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence

from headrace.engine.client import EngineClient
from headrace.engine.guided_client import GuidedClient
from headrace.engine.outputs import EngineOutput
from headrace.engine.remote.building import BuiltEngine
from headrace.engine.remote.calls import run_call
from headrace.engine.remote.child_connection import ChildConnection
from headrace.engine.remote.errors_on_wire import last_report, report
from headrace.engine.remote.messages import (
    Call,
    Cancel,
    LastWords,
    Outputs,
    Ready,
    Reply,
    SentOutput,
    Stats,
    Stop,
    Submit,
    received_request,
    sent_output,
    to_child_decoder,
)
from headrace.engine.remote.reporting import StatsReporter
from headrace.engine.request import Request
from headrace.errors import HeadraceError

_log = logging.getLogger(__name__)

_STATS_PERIOD_S = 0.5


class Service:
    """Serves one engine to the parent at the other end of a connection."""

    def __init__(self, connection: ChildConnection, built: BuiltEngine) -> None:
        """Nothing is started."""
        self._connection = connection
        self._built = built
        self._clock = built.core.clock
        self._reporter = StatsReporter(built.core, built.read_device)
        self._client = EngineClient(built.core, built.config.max_queue_size, self._send_outputs)
        self._guided = GuidedClient(self._client, built.guides)
        self._plain: list[tuple[str, tuple[int, ...], int]] = []  # both: the dispatcher's alone
        self._others: list[SentOutput] = []

    def run(self) -> BaseException | None:
        """Serve until the parent says stop, or the engine dies; returns what it died of."""
        self._client.start()
        self._connection.send(Ready(self._built.info))
        self._connection.send(Stats(self._reporter.stats()))
        while not self._client.wait(_STATS_PERIOD_S):
            self._connection.send_unless_full(Stats(self._reporter.stats()))
        self._connection.send(Stats(self._reporter.stats()))
        return self._client.cause

    # ---------------------------------------------------------------- the reader's thread

    def take(self, payload: bytes) -> None:
        """One message of the parent; on the reader's thread, which is held up by nothing."""
        match to_child_decoder.decode(payload):
            case Submit(requests):
                now = self._clock()
                self._accept([received_request(sent, now) for sent in requests])
            case Cancel(request_id):
                self._client.cancel(request_id)
            case Call() as call:
                threading.Thread(target=self._call, args=(call,), name="headrace-call", daemon=True).start()
            case Stop():
                self._client.stop(block=False)

    def _accept(self, requests: Sequence[Request]) -> None:
        """Hand requests to the engine; those with guides by way of the threads that compile them."""
        try:
            self._guided.submit(requests, self._take_output)
        except HeadraceError as error:
            refused = report(error)
            ends = [
                SentOutput(r.request_id, (), (), None, "error", None, refused, 0, r.timing(self._clock()))
                for r in requests
            ]
            self._connection.send(Outputs(self._reporter.load(), [], ends))

    def _call(self, call: Call) -> None:
        try:
            reply = Reply(call.number, run_call(self._client, call.name, call.arguments), None)
        except Exception as error:
            reply = Reply(call.number, {}, last_report(error, f"the engine's {call.name} failed"))
        try:
            self._connection.send(reply)
        except TypeError as error:  # the result holds what cannot be sent
            self._connection.send(Reply(call.number, {}, last_report(error, f"the engine's {call.name} failed")))

    # ---------------------------------------------------------------- the dispatcher's thread

    def _take_output(self, output: EngineOutput) -> None:
        if output.finish_reason is None and not output.new_logprobs:
            self._plain.append((output.request_id, output.new_token_ids, output.num_cached_tokens))
        else:
            self._others.append(sent_output(output))

    def _send_outputs(self) -> None:
        if not self._plain and not self._others:
            return
        try:
            self._connection.send(Outputs(self._reporter.load(), self._plain, self._others))
        except OSError:  # the parent is gone; the reader ends the process
            _log.debug("outputs had nobody to go to")
        self._plain, self._others = [], []


def serve(connection: ChildConnection, build: Callable[[bytes], BuiltEngine]) -> int:
    """Read the spec, build its engine and serve it; returns the exit status. The main thread's whole life.

    Args:
        build: from the payload of the spec.
    """
    payloads = connection.payloads()
    first = next(payloads, None)
    if first is None:
        return 1
    service: list[Service] = []

    def read() -> None:
        for payload in payloads:
            if service:
                service[0].take(payload)
            elif isinstance(to_child_decoder.decode(payload), Stop):
                os._exit(0)  # nothing was started that would have to be ended
        os._exit(1)  # without a parent there is nobody to serve

    threading.Thread(target=read, name="headrace-reader", daemon=True).start()
    doing = "the engine could not be started"
    try:
        service.append(Service(connection, build(first)))
        doing = "the engine died"
        error = service[0].run()
    except BaseException as problem:
        _log.exception("%s", doing)
        error = problem
    connection.send(LastWords(None if error is None else last_report(error, doing)))
    return 0 if error is None else 1
