"""One request on its way: who is asked, what is passed on, and what happens when a replica fails.

::

              ┌────────────── retry, hedge ◄─────────────┐        ┌── continue elsewhere ◄──┐
    start ─► attempt ─► head ─► whole answer ─► reply    │        │                         │
                          └───► first event ─► begin stream ─► events ─► … ─► end    it dies or stalls
                          nothing was given to the client     │  something was
                                                              └──────────────────────────────────────
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.errors import HeadraceError, InvalidField, ReplicaFailed
from headrace.gateway import answers, forwarding
from headrace.gateway.attempt import Attempt
from headrace.gateway.events import EventStream
from headrace.gateway.features import Features, features
from headrace.gateway.http.downstream import Downstream
from headrace.gateway.http.messages import Request, lines_of
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


class Exchange(msgspec.Struct, eq=False):
    """A request and its answer. Made by the gateway, used by one event loop.

    Attributes:
        live: it is there from `start` to its end. attempts: that are under way: one, or two while a hedge is out.
    """

    router: Router
    request: Request
    client: Downstream
    live: set[Exchange]
    attempts: list[Attempt] = []
    _answer: tuple[int, bytes, bytes] | None = None  # that was to be retried
    _begun_s: float = 0.0
    _can_continue: bool = False
    _decision: Decision | None = None  # the last one
    _events: EventStream | None = None
    _failed: dict[str, str] = {}  # replica → what happened there
    _features: Features = Features("", 0, (), "", "")
    _first_event: Mapping[str, Any] = {}
    _id_bytes: bytes = b""
    _is_over: bool = False
    _num_continuations: int = 0
    _num_sent: int = 0
    _own_s: float = 0.0
    _passes_ids: bool = False
    _paused: bool = False
    _request_id: str = ""
    _seed: bytes = b""
    _winner: Attempt | None = None

    def start(self) -> None:
        """Send the request to the best replica."""
        router, request = self.router, self.request
        self._begun_s = router.clock()
        self._request_id = forwarding.request_id(request, router.new_id)
        self._id_bytes = self._request_id.encode()
        self.live.add(self)
        router.budget.request(self._begun_s)
        session = request.fields.get(b"x-session-id", b"").decode("latin-1")
        if request.method == b"POST":
            try:
                self._features = features(request.body, request.client, session)
            except InvalidField as error:
                self._refuse(error)
                return
        else:
            self._features = Features("", 0, (), session, request.client)
        self._passes_ids = request.fields.get(forwarding.TOKEN_IDS) == b"1"
        if not self._send("first"):
            self._give_up()

    # ---------------------------------------------------------------- asking

    def _send(self, kind: str) -> bool:
        """Ask the best replica that has not failed; False when there is none."""
        router, request = self.router, self.request
        chosen = router.choose(self._features, self._failed, self._request_id, kind)
        if chosen is None:
            return False
        replica, decision = chosen
        self._decision = decision
        now_s = router.clock()
        if kind == "first":
            self._own_s = now_s - self._begun_s
        self._num_sent += 1
        router.observer.decided(decision)
        if hashes := self._features.block_hashes:
            router.index.record(hashes, replica.number)
        num_tokens = decision.num_tokens - decision.num_cached_tokens
        attempt = Attempt(
            self, replica, router.pool(replica), router.patience(replica), num_tokens, kind == "continue", now_s
        )
        body = request.body
        if attempt.is_continuation:
            assert self._events is not None
            attempt.events = self._events
            self._events.new_source()
            body = forwarding.continuation(body, self._seed, self._first_event, self._events.choices)
        self.attempts.append(attempt)
        head = forwarding.outgoing(request, len(body), replica.authority, self._id_bytes, self._features.stream)
        if self._paused:
            attempt.pause()
        attempt.send(head, body, request.method == b"HEAD", router.settings)
        return True

    # ---------------------------------------------------------------- from the attempts

    def attempt_head(self, attempt: Attempt) -> None:
        """Status and headers are there: of a stream, or of what was to go on with one."""
        if not attempt.is_stream:
            self._fail(attempt, f"it answered {attempt.status} to a stream that was to go on", "failed")
        elif attempt.events is None:
            attempt.events = EventStream(self._passes_ids)

    def attempt_events(self, attempt: Attempt, data: bytes) -> None:
        """A piece of a stream."""
        stream = attempt.events
        assert stream is not None
        events = stream.push(data)
        if events:
            now_s = self.router.clock()
            if attempt.last_s is None:
                attempt.patience.saw_first(now_s - attempt.sent_s, attempt.tokens_before)
                attempt.prefilled()
            else:
                attempt.patience.saw_gap(now_s - attempt.last_s)
            attempt.last_s = now_s
            if self._winner is None:
                self._win(attempt, events)
            else:
                self.client.write(events)
        if stream.failed:
            self._stream_failed(attempt, stream.error)

    def attempt_completed(self, attempt: Attempt) -> None:
        """The answer is whole."""
        if not attempt.is_stream:
            self._whole(attempt)
            return
        assert attempt.events is not None
        if attempt.events.ended or self.request.path not in _ENDS_ITSELF:
            if self._winner is None:  # a stream without an event
                self._win(attempt, b"")
            attempt.replica.breaker.record(True, self.router.clock())
            self._leave(attempt, "ok")
            self.client.end_stream()
            self._over("ok", 200, attempt.events.last_event)
        else:
            self._fail(attempt, "its stream ended before the answer was complete", "failed")

    def attempt_broke(self, attempt: Attempt, reason: str, is_connection: bool = False) -> None:
        """It failed before the answer was whole."""
        self._fail(attempt, reason, "failed", is_connection)

    # ---------------------------------------------------------------- answers that are no streams

    def _whole(self, attempt: Attempt) -> None:
        parts = attempt.body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        status = attempt.status
        if status in _RETRYABLE:
            self._answer = (status, self._lines(attempt), body)
            pause_s = answers.retry_after(attempt.fields.get(b"retry-after"))
            if pause_s is not None and status in (429, 503):
                attempt.replica.busy_until_s = self.router.clock() + min(pause_s, _MOST_PAUSE_S)
            # 429 says that the replica is well and full; so does 503 with a time to come back at.
            refused = status == 429 or (status == 503 and pause_s is not None)
            self._fail(attempt, f"it answered {status}", "refused" if refused else "failed")
            return
        if len(self.attempts) > 1:
            self._leave_others(attempt)
        now_s = self.router.clock()
        if status < 400:
            attempt.patience.saw_whole(now_s - attempt.sent_s, self._tokens_of_whole(attempt))
        attempt.replica.breaker.record(True, now_s)
        self._leave(attempt, "ok")
        self.client.reply(status, self._lines(attempt), body)
        self._over("ok" if status < 400 else "error", status, body)

    def _lines(self, attempt: Attempt) -> bytes:
        route = self._decision.header if self._decision is not None else b""
        return forwarding.incoming(attempt.headers, attempt.fields, self._id_bytes, route)

    def _tokens_of_whole(self, attempt: Attempt) -> int:
        outputs = (self._features.max_tokens or _EXPECTED_OUTPUT_TOKENS) * self._features.num_choices
        return attempt.tokens_before + _OUTPUT_FACTOR * outputs

    # ---------------------------------------------------------------- streams

    def _win(self, attempt: Attempt, events: bytes) -> None:
        self._winner, self._events = attempt, attempt.events
        self._leave_others(attempt)
        self._seed = attempt.fields.get(forwarding.SEED, b"")
        self._can_continue = attempt.fields.get(forwarding.TOKEN_IDS) == b"1"
        if self._can_continue:
            self._first_event = answers.identity(events)
        self.client.begin_stream(200, self._lines(attempt), events)

    def _stream_failed(self, attempt: Attempt, error: bytes) -> None:
        """An error event: the replica's trouble is no reason to stop, the request's own is."""
        if answers.error_code(error) in _ELSEWHERE:
            self._fail(attempt, "its engine failed", "failed")
            return
        if self._winner is None:
            self._win(attempt, error)
        else:
            self.client.write(error)
        self._leave(attempt, "ok")  # the replica is well and told the truth
        self.client.end_stream()
        self._over("error", 200, b"")

    def _leave_others(self, winner: Attempt) -> None:
        for attempt in [attempt for attempt in self.attempts if attempt is not winner]:
            self._leave(attempt, "cancelled")

    # ---------------------------------------------------------------- failures

    def _fail(self, attempt: Attempt, reason: str, outcome: str, is_connection: bool = False) -> None:
        """A replica did not do its part: ask another one, or go on at another one."""
        now_s = self.router.clock()
        self._failed[attempt.replica.name] = reason
        if outcome != "refused" and not attempt.is_blamed:
            attempt.replica.breaker.record(False, now_s, is_connection)
        self._leave(attempt, outcome)
        if self._is_over or self.attempts:
            return  # a hedge is still out
        if self._winner is not None:
            self._go_on(now_s)
        elif (
            self._num_sent >= self.router.settings.max_attempts
            or not self.router.budget.take(now_s)
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
                self.client.write(b"data: [DONE]\n\n")
                self.client.end_stream()
                self._over("ok", 200, stream.last_event)
                return
            self._num_continuations += 1
            if self._num_continuations <= self.router.settings.max_continuations and self._send("continue"):
                return
        name, reason = next(reversed(self._failed.items()))
        answer = error_body(ReplicaFailed(f"replica {name} failed in the middle of the answer: {reason}"))
        self.client.write(b"data: " + msgspec.json.encode(answer.body) + b"\n\n")
        self.client.end_stream()
        self._over("cut", 200, stream.last_event)

    def _give_up(self) -> None:
        """Nothing was given to the client, and nobody is left to ask."""
        if self._answer is not None:
            status, lines, body = self._answer
            self.client.reply(status, lines, body)
            self._over("error", status, b"")
        else:
            self._refuse(self.router.why_none(self._features, self._failed))

    def _refuse(self, error: HeadraceError) -> None:
        answer = error_body(error, request_id=self._request_id)
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        headers.append((b"content-type", b"application/json"))
        self.client.reply(answer.status, lines_of(headers), msgspec.json.encode(answer.body))
        self._over("error", answer.status, b"")

    # ---------------------------------------------------------------- from the gateway

    def replica_is_down(self, name: str, reason: str) -> None:
        """Its health probe failed: who waits for it waits in vain."""
        for attempt in [attempt for attempt in self.attempts if attempt.replica.name == name]:
            attempt.is_blamed = True  # the probe has said it; many requests at once must not say it again
            self._fail(attempt, reason, "failed")

    def watch(self, now_s: float) -> None:
        """Look for attempts that have been silent for too long."""
        for attempt in list(self.attempts):
            silent_s = now_s - (attempt.last_s or attempt.sent_s)
            if silent_s < self.router.settings.patience.least_s or attempt.is_paused or not attempt.is_live:
                continue
            patience = attempt.patience
            if attempt is self._winner or attempt.last_s is not None:
                limit_s = patience.gap_limit_s()
                if silent_s > limit_s:
                    self._fail(attempt, f"it was silent for more than {limit_s:.2f} s in the middle", "stalled")
                continue
            limit_s = (
                patience.first_limit_s(attempt.tokens_before)
                if self._features.stream
                else patience.whole_limit_s(self._tokens_of_whole(attempt))
            )
            if silent_s > limit_s:
                self._lose_patience(attempt, limit_s, now_s)

    def _lose_patience(self, attempt: Attempt, limit_s: float, now_s: float) -> None:
        if attempt.is_continuation:
            self._fail(attempt, f"nothing came for {limit_s:.2f} s", "stalled")
        elif not attempt.is_blamed:
            attempt.is_blamed = True
            attempt.replica.breaker.record(False, now_s)
            self._failed[attempt.replica.name] = f"nothing came for {limit_s:.2f} s"
            if self._num_sent < self.router.settings.max_attempts and self.router.budget.take(now_s):
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
        now_s = self.router.clock()
        for attempt in self.attempts:
            attempt.last_s = now_s if attempt.last_s is not None else None
            attempt.resume()

    # ---------------------------------------------------------------- the end

    def _leave(self, attempt: Attempt, outcome: str) -> None:
        attempt.leave()
        self.attempts.remove(attempt)
        self.router.observer.attempt_ended(attempt.replica.name, outcome)

    def _over(self, outcome: str, status: int, answer: bytes) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._winner = None  # it refers to this exchange: without the circle, both are freed at once
        self.live.discard(self)
        took_s = self.router.clock() - self._begun_s
        self.router.observer.finished(outcome, status, took_s, self._own_s, forwarding.usage(answer))
