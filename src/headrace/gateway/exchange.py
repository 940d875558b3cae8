"""One request on its way: who is asked, what is passed on, and what happens when a replica fails.

::

              ┌────────────── retry, hedge ◄─────────────┐        ┌── continue elsewhere ◄──┐
    start ─► attempt ─► head ─► whole answer ─► reply    │        │                         │
                          └───► first event ─► begin stream ─► events ─► … ─► end    it dies or stalls
                          nothing was given to the client     │  something was
                                                              └──────────────────────────────────────
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from headrace.errors import HeadraceError, InvalidField, ModelNotFound, NoReplica, ReplicaFailed
from headrace.gateway import forwarding
from headrace.gateway.attempt import Attempt
from headrace.gateway.events import EventStream
from headrace.gateway.features import Features, features
from headrace.gateway.http.downstream import Downstream
from headrace.gateway.http.messages import Headers, Request
from headrace.gateway.route import Decision, Router
from headrace.protocol.error_body import error_body

_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})
_ELSEWHERE = frozenset({"engine_dead", "engine_stopped", "engine_unresponsive", "server_draining"})
"""Codes of errors in a stream that are the replica's trouble, not the request's."""

_MOST_PAUSE_S = 60.0
_EXPECTED_OUTPUT_TOKENS = 256
_OUTPUT_FACTOR = 16
"""What an output token takes, in prompt tokens, when it is guessed how long a whole answer may take."""

_ENDS_ITSELF = (b"/v1/chat/completions", b"/v1/completions", b"/v1/messages", b"/v1/responses")


class Exchange:
    """A request and its answer. Made by the gateway, used by one event loop.

    Attributes: attempts: that are under way: one, or two while a hedge is out.
    """

    # What most requests never change; set on the exchange when it is. It saves a tenth of making one.
    _answer: tuple[int, Headers, bytes] | None = None  # that was to be retried
    _can_continue = False
    _events: EventStream | None = None
    _first_event: Mapping[str, Any] = MappingProxyType({})
    _is_over = False
    _num_continuations = 0
    _num_sent = 0
    _own_s = 0.0
    _paused = False
    _route = b""
    _seed = b""
    _winner: Attempt | None = None

    def __init__(self, router: Router, request: Request, client: Downstream, live: set[Exchange]) -> None:
        """Not started yet; it is in `live` from `start` to its end."""
        self._router = router
        self._request = request
        self._client = client
        self._live = live
        self._begun_s = router.clock()
        self._request_id = forwarding.request_id(request, router.new_id)
        self._failed: dict[str, str] = {}  # replica → what happened there
        self.attempts: list[Attempt] = []

    def start(self) -> None:
        """Send the request to the best replica."""
        self._live.add(self)
        self._router.budget.request(self._begun_s)
        request = self._request
        session = request.header(b"x-session-id").decode("latin-1")
        if request.method == b"POST":
            try:
                self._features = features(request.body, request.client, session)
            except InvalidField as error:
                self._refuse(error)
                return
        else:
            self._features = Features("", 0, (), session, request.client)
        self._is_stream = self._features.stream
        self._passes_ids = request.header(forwarding.TOKEN_IDS) == b"1"
        if not self._send("first"):
            self._give_up()

    # ---------------------------------------------------------------- asking

    def _send(self, kind: str) -> bool:
        """Ask the best replica that has not failed; False when there is none."""
        chosen = self._router.choose(self._features, self._failed, self._request_id, kind)
        if chosen is None:
            return False
        replica, decision = chosen
        router = self._router
        now_s = router.clock()
        if kind == "first":
            self._own_s = now_s - self._begun_s
        self._num_sent += 1
        self._route = _route_header(decision)
        router.observer.decided(decision)
        if hashes := self._features.block_hashes:
            router.index.record(hashes, replica.number)
        is_continuation = kind == "continue"
        num_tokens = decision.num_tokens - decision.num_cached_tokens
        attempt = Attempt(self, replica, router.pool(replica), num_tokens, is_continuation, now_s)
        if is_continuation:
            assert self._events is not None
            attempt.events = self._events
            self._events.new_source()
        elif self._is_stream:
            attempt.events = EventStream(self._passes_ids)
        self.attempts.append(attempt)
        body = self._request.body if not is_continuation else self._continuation()
        data = forwarding.outgoing(self._request, body, replica.authority, self._request_id, self._is_stream)
        if self._paused:
            attempt.pause()
        attempt.send(data, self._request.method == b"HEAD", router.settings.connect_timeout_s)
        return True

    def _continuation(self) -> bytes:
        assert self._events is not None
        return forwarding.continuation(self._request.body, self._seed, self._first_event, self._events.choices)

    # ---------------------------------------------------------------- from the attempts

    def attempt_head(self, attempt: Attempt) -> None:
        """Status and headers are there."""
        kind = b""
        for name, value in attempt.headers:
            if name == b"content-type":
                kind = value
            elif name == forwarding.LOAD:
                load = forwarding.load(value)
                attempt.replica.load = load or attempt.replica.load
        attempt.is_stream = attempt.status == 200 and kind.startswith(b"text/event-stream")
        if attempt.is_stream and attempt.events is None:
            attempt.events = EventStream(self._passes_ids)
        if attempt.is_continuation and not attempt.is_stream:
            self._fail(attempt, f"it answered {attempt.status} to a stream that was to go on", "failed")

    def attempt_data(self, attempt: Attempt, data: bytes) -> None:
        """A piece of the body."""
        if attempt.is_stream:
            self._pass_on(attempt, data)
            return
        attempt.body.append(data)
        attempt.num_body_bytes += len(data)
        if attempt.num_body_bytes > self._router.settings.max_answer_bytes:
            self._fail(attempt, f"its answer is longer than {self._router.settings.max_answer_bytes} bytes", "failed")

    def attempt_completed(self, attempt: Attempt) -> None:
        """The answer is whole."""
        if not attempt.is_stream:
            self._whole(attempt)
            return
        assert attempt.events is not None
        if attempt.events.ended or self._request.path not in _ENDS_ITSELF:
            if self._winner is None:  # a stream without an event
                self._win(attempt, b"")
            self._succeed(attempt)
            self._client.end_stream()
            self._over("ok", 200, attempt.events.last_event)
        else:
            self._fail(attempt, "its stream ended before the answer was complete", "failed")

    def attempt_broke(self, attempt: Attempt, reason: str) -> None:
        """It failed before the answer was whole."""
        self._fail(attempt, reason, "failed", is_connection=True)

    # ---------------------------------------------------------------- answers that are no streams

    def _whole(self, attempt: Attempt) -> None:
        parts = attempt.body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        status, headers = attempt.status, attempt.headers
        if status in _RETRYABLE:
            self._answer = (status, headers, body)
            pause_s = _retry_after(headers)
            if pause_s is not None and status in (429, 503):
                attempt.replica.busy_until_s = self._router.clock() + min(pause_s, _MOST_PAUSE_S)
            # 429 says that the replica is well and full; so does 503 with a time to come back at.
            refused = status == 429 or (status == 503 and pause_s is not None)
            self._fail(attempt, f"it answered {status}", "refused" if refused else "failed")
            return
        if len(self.attempts) > 1:
            self._leave_others(attempt)
        if status < 400:
            took_s = self._router.clock() - attempt.sent_s
            self._router.patience(attempt.replica).saw_whole(took_s, self._tokens_of_whole(attempt))
        self._succeed(attempt)
        self._client.reply(status, forwarding.incoming(headers, self._request_id, self._route), body)
        self._over("ok" if status < 400 else "error", status, body)

    def _tokens_of_whole(self, attempt: Attempt) -> int:
        outputs = (self._features.max_tokens or _EXPECTED_OUTPUT_TOKENS) * self._features.num_choices
        return attempt.tokens_before + _OUTPUT_FACTOR * outputs

    # ---------------------------------------------------------------- streams

    def _pass_on(self, attempt: Attempt, data: bytes) -> None:
        stream = attempt.events
        assert stream is not None
        events = stream.push(data)
        if events:
            now_s = self._router.clock()
            patience = self._router.patience(attempt.replica)
            if attempt.last_s is None:
                patience.saw_first(now_s - attempt.sent_s, attempt.tokens_before)
                attempt.prefilled()
            else:
                patience.saw_gap(now_s - attempt.last_s)
            attempt.last_s = now_s
            if self._winner is None:
                self._win(attempt, events)
            else:
                self._client.write(events)
        if stream.failed:
            self._stream_failed(attempt, stream.error)

    def _win(self, attempt: Attempt, events: bytes) -> None:
        self._winner, self._events = attempt, attempt.events
        self._leave_others(attempt)
        headers = dict(attempt.headers)
        self._seed = headers.get(forwarding.SEED, b"")
        self._can_continue = headers.get(forwarding.TOKEN_IDS) == b"1"
        if self._can_continue:
            self._first_event = _identity(events)
        self._client.begin_stream(200, forwarding.incoming(attempt.headers, self._request_id, self._route), events)

    def _stream_failed(self, attempt: Attempt, error: bytes) -> None:
        """An error event: the replica's trouble is no reason to stop, the request's own is."""
        if _error_code(error) in _ELSEWHERE:
            self._fail(attempt, "its engine failed", "failed")
            return
        if self._winner is None:
            self._win(attempt, error)
        else:
            self._client.write(error)
        self._leave(attempt, "ok")  # the replica is well and told the truth
        self._client.end_stream()
        self._over("error", 200, b"")

    def _leave_others(self, winner: Attempt) -> None:
        for attempt in [attempt for attempt in self.attempts if attempt is not winner]:
            self._leave(attempt, "cancelled")

    # ---------------------------------------------------------------- failures

    def _fail(self, attempt: Attempt, reason: str, outcome: str, is_connection: bool = False) -> None:
        """A replica did not do its part: ask another one, or go on at another one."""
        now_s = self._router.clock()
        self._failed[attempt.replica.name] = reason
        if outcome != "refused" and not attempt.is_blamed:
            attempt.replica.breaker.record(False, now_s, is_connection)
        self._leave(attempt, outcome)
        if self._is_over or self.attempts:
            return  # a hedge is still out
        if self._winner is not None:
            self._go_on(now_s)
        elif (
            self._num_sent >= self._router.settings.max_attempts
            or not self._router.budget.take(now_s)
            or not self._send("retry")
        ):
            self._give_up()

    def _go_on(self, now_s: float) -> None:
        """The stream's replica is lost after something was given to the client."""
        stream = self._events
        assert stream is not None
        if self._can_continue and stream.choices:
            finished = all(so_far.finish_reason for so_far in stream.choices.values())
            if finished and stream.told_usage:
                self._client.write(b"data: [DONE]\n\n")
                self._client.end_stream()
                self._over("ok", 200, stream.last_event)
                return
            self._num_continuations += 1
            if self._num_continuations <= self._router.settings.max_continuations and self._send("continue"):
                return
        name, reason = next(reversed(self._failed.items()))
        answer = error_body(ReplicaFailed(f"replica {name} failed in the middle of the answer: {reason}"))
        self._client.write(b"data: " + msgspec.json.encode(answer.body) + b"\n\n")
        self._client.end_stream()
        self._over("cut", 200, stream.last_event)

    def _give_up(self) -> None:
        """Nothing was given to the client, and nobody is left to ask."""
        if self._answer is not None:
            status, headers, body = self._answer
            self._client.reply(status, forwarding.incoming(headers, self._request_id, self._route), body)
            self._over("error", status, b"")
        else:
            self._refuse(self._error())

    def _refuse(self, error: HeadraceError) -> None:
        answer = error_body(error, request_id=self._request_id)
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        headers.append((b"content-type", b"application/json"))
        self._client.reply(answer.status, headers, msgspec.json.encode(answer.body))
        self._over("error", answer.status, b"")

    def _error(self) -> HeadraceError:
        if self._failed:
            tried = "; ".join(f"{name}: {reason}" for name, reason in self._failed.items())
            return ReplicaFailed(f"no replica answered ({tried})")
        fleet = self._router.fleet
        if len(fleet) and not fleet.knows(self._features.model):
            models = sorted({model for replica in fleet for model in replica.models})
            return ModelNotFound(f"no replica serves {self._features.model!r}; there is: {', '.join(models)}")
        now_s = self._router.clock()
        states = ", ".join(f"{replica.name} {replica.condition(now_s)}" for replica in fleet) or "there are none"
        return NoReplica(f"no replica is able to take a request: {states}")

    # ---------------------------------------------------------------- from the gateway

    def replica_is_down(self, name: str, reason: str) -> None:
        """Its health probe failed: who waits for it waits in vain."""
        for attempt in [attempt for attempt in self.attempts if attempt.replica.name == name]:
            attempt.is_blamed = True  # the probe has said it; many requests at once must not say it again
            self._fail(attempt, reason, "failed")

    def watch(self, now_s: float) -> None:
        """Look for attempts that have been silent for too long."""
        for attempt in list(self.attempts):
            if attempt.is_paused or not attempt.is_live:
                continue
            patience = self._router.patience(attempt.replica)
            if attempt is self._winner or attempt.last_s is not None:
                limit_s = patience.gap_limit_s()
                if now_s - (attempt.last_s or attempt.sent_s) > limit_s:
                    self._fail(attempt, f"it was silent for more than {limit_s:.2f} s in the middle", "stalled")
                continue
            limit_s = (
                patience.first_limit_s(attempt.tokens_before)
                if self._is_stream
                else patience.whole_limit_s(self._tokens_of_whole(attempt))
            )
            if now_s - attempt.sent_s > limit_s:
                self._lose_patience(attempt, limit_s, now_s)

    def _lose_patience(self, attempt: Attempt, limit_s: float, now_s: float) -> None:
        if attempt.is_continuation:
            self._fail(attempt, f"nothing came for {limit_s:.2f} s", "stalled")
        elif not attempt.is_blamed:
            attempt.is_blamed = True
            attempt.replica.breaker.record(False, now_s)
            self._failed[attempt.replica.name] = f"nothing came for {limit_s:.2f} s"
            if self._num_sent < self._router.settings.max_attempts and self._router.budget.take(now_s):
                self._send("hedge")

    # ---------------------------------------------------------------- from the client

    def client_left(self) -> None:
        """Nobody waits for the answer any more."""
        for attempt in list(self.attempts):
            self._leave(attempt, "cancelled")
        self._over("cancelled", 499, b"")

    def pause(self) -> None:
        """The client reads more slowly than the answer comes."""
        self._paused = True
        for attempt in self.attempts:
            attempt.pause()

    def resume(self) -> None:
        """It has caught up."""
        self._paused = False
        now_s = self._router.clock()
        for attempt in self.attempts:
            attempt.last_s = now_s if attempt.last_s is not None else None
            attempt.resume()

    # ---------------------------------------------------------------- the end

    def _succeed(self, attempt: Attempt) -> None:
        attempt.replica.breaker.record(True, self._router.clock())
        self._leave(attempt, "ok")

    def _leave(self, attempt: Attempt, outcome: str) -> None:
        attempt.leave()
        self.attempts.remove(attempt)
        self._router.observer.attempt_ended(attempt.replica.name, outcome)

    def _over(self, outcome: str, status: int, answer: bytes) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._winner = None  # it refers to this exchange: without the circle, both are freed at once
        self._live.discard(self)
        took_s = self._router.clock() - self._begun_s
        self._router.observer.finished(outcome, status, took_s, self._own_s, forwarding.usage(answer))


def _route_header(decision: Decision) -> bytes:
    return (
        f"replica={decision.replica}; {decision.kind}; {decision.reason}; cached={decision.num_cached_tokens}/"
        f"{decision.num_tokens}; in_flight={decision.num_in_flight}"
    ).encode("latin-1", "replace")


def _retry_after(headers: Headers) -> float | None:
    for name, value in headers:
        if name == b"retry-after":
            try:
                seconds = float(value)
            except ValueError:
                return None
            return seconds if 0 <= seconds < math.inf else None
    return None


class _Identity(msgspec.Struct):
    id: str = ""
    created: int | None = None
    created_at: int | None = None


class _FirstEvent(_Identity):
    message: _Identity | None = None
    response: _Identity | None = None


def _identity(events: bytes) -> dict[str, Any]:
    """Id and time of an answer, which have to be the same in what follows from another replica."""
    for line in events.split(b"\n"):
        if line.startswith(b"data: {"):
            try:
                found = msgspec.json.decode(line[6:], type=_FirstEvent)
            except msgspec.DecodeError:
                continue
            answer = found.message or found.response or found
            return {"id": answer.id, "created": answer.created_at if answer.created is None else answer.created}
    return {}


class _ErrorDetail(msgspec.Struct):
    code: str | int | None = None


class _ErrorEvent(msgspec.Struct):
    error: _ErrorDetail | None = None


def _error_code(event: bytes) -> str:
    start = event.find(b"{")
    line = event[start:].partition(b"\n")[0] if start >= 0 else b""
    try:
        found = msgspec.json.decode(line, type=_ErrorEvent)
    except msgspec.DecodeError:
        return ""
    return str(found.error.code) if found.error is not None else ""
