"""One request on its way: who is asked, what is passed on, and what happens when a replica fails.

::

              ┌────────────── retry, hedge ◄─────────────┐        ┌── continue elsewhere ◄──┐
    start ─► attempt ─► head ─► whole answer ─► reply    │        │                         │
                          └───► first event ─► begin stream ─► events ─► … ─► end    it dies or stalls
                          nothing was given to the client     │  something was
                                                              └──────────────────────────────────────
"""

from __future__ import annotations

import msgspec

from headrace.errors import HeadraceError, InvalidField, ReplicaFailed
from headrace.gateway import answers, forwarding
from headrace.gateway.attempt import Attempt
from headrace.gateway.events import EventStream
from headrace.gateway.features import Features
from headrace.gateway.features import features as features_of
from headrace.gateway.given import Given
from headrace.gateway.http.downstream import Downstream
from headrace.gateway.http.messages import Request
from headrace.gateway.route import Router

_ENDS_ITSELF = (b"/v1/chat/completions", b"/v1/completions", b"/v1/messages", b"/v1/responses")


class Exchange(msgspec.Struct, eq=False):
    """A request and its answer. Made by the gateway, used by one event loop.

    Attributes:
        live: it is there from `start` to its end. attempts: that are under way: one, or two while a hedge is out.
        features: of the request.
    """

    router: Router
    request: Request
    client: Downstream
    live: set[Exchange]
    attempts: list[Attempt] = []
    features: Features = Features("", 0, (), "", "")
    _answer: tuple[int, bytes, bytes] | None = None  # that was to be retried
    _begun_s: float = 0.0
    _failed: dict[str, str] = {}  # replica → what happened there
    _given: Given | None = None  # something of a stream
    _id_bytes: bytes = b""
    _is_over: bool = False
    _num_sent: int = 0
    _own_s: float = 0.0
    _paused: bool = False
    _request_id: str = ""

    def start(self) -> None:
        """Send the request to the best replica."""
        router, request = self.router, self.request
        self._begun_s = now_s = router.clock()
        fields = request.fields
        given = forwarding.request_id(fields[forwarding.REQUEST_ID]) if forwarding.REQUEST_ID in fields else None
        self._request_id = request_id = given or router.new_id()
        self._id_bytes = request_id.encode()
        self.live.add(self)
        router.budget.request(now_s)
        session = fields[b"x-session-id"].decode("latin-1") if b"x-session-id" in fields else ""
        if request.method == b"POST":
            try:
                self.features = features_of(request.body, request.client, session)
            except InvalidField as error:
                self._refuse(error)
                return
        else:
            self.features = Features("", 0, (), session, request.client)
        if not self._send("first"):
            self._give_up()

    # ---------------------------------------------------------------- asking

    def _send(self, kind: str) -> bool:
        """Ask the best replica that has not failed; False when there is none."""
        router, request, asked = self.router, self.request, self.features
        chosen = router.choose(asked, self._failed, self._request_id, kind)
        if chosen is None:
            return False
        replica, decision = chosen
        now_s = router.clock()
        if kind == "first":
            self._own_s = now_s - self._begun_s
        self._num_sent += 1
        router.observer.decided(decision)
        if asked.block_hashes:
            router.index.record(asked.block_hashes, replica.number)
        body, events = request.body, None
        if kind == "continue":
            assert self._given is not None
            body, events = self._given.continuation(body), self._given.events
        head = forwarding.outgoing(request, len(body), replica.authority, self._id_bytes, asked.stream)
        num_tokens = decision.num_tokens - decision.num_cached_tokens
        attempt = Attempt(
            self, replica, router.way(replica), router.settings, decision, num_tokens, now_s, head, body,
            request.method == b"HEAD", events, events is not None,
        )  # fmt: skip
        self.attempts.append(attempt)
        if self._paused:
            attempt.pause()
        attempt.send()
        return True

    # ---------------------------------------------------------------- from the attempts

    def attempt_head(self, attempt: Attempt) -> None:
        """Status and headers are there: of a stream, or of what was to go on with one."""
        if not attempt.is_stream:
            self.attempt_failed(attempt, f"it answered {attempt.status} to a stream that was to go on")
        elif attempt.events is None:
            attempt.events = EventStream(self.request.fields.get(forwarding.TOKEN_IDS) == b"1")

    def attempt_events(self, attempt: Attempt, data: bytes) -> None:
        """A piece of a stream."""
        stream = attempt.events
        assert stream is not None
        events = stream.push(data)
        if events:
            now_s = self.router.clock()
            if attempt.last_s is None:
                attempt.way.patience.saw_first(now_s - attempt.sent_s, attempt.tokens_before, now_s)
                attempt.prefilled()
            else:
                attempt.way.patience.saw_gap(now_s - attempt.last_s, now_s)
            attempt.last_s = now_s
            self._give(attempt, events)
        if stream.failed:
            self._stream_failed(attempt, stream.error)

    def attempt_ended(self, attempt: Attempt) -> None:
        """The stream is whole."""
        assert attempt.events is not None
        if attempt.events.ended or self.request.path not in _ENDS_ITSELF:
            if self._given is None:  # a stream without an event
                self._give(attempt, b"")
            now_s = self.router.clock()
            attempt.replica.breaker.record(True, now_s)
            self._leave(attempt, "ok")
            self.client.end_stream()
            self._over("ok", 200, attempt.events.last_event, now_s)
        else:
            self.attempt_failed(attempt, "its stream ended before the answer was complete")

    def attempt_whole(self, attempt: Attempt, body: bytes) -> None:
        """An answer that is no stream."""
        status = attempt.status
        if status in answers.RETRYABLE:
            self._not_now(attempt, body)
            return
        if len(self.attempts) > 1:
            self._leave_others(attempt)
        now_s = self.router.clock()
        attempt.replica.breaker.record(True, now_s)
        if status < 400:
            num_output_tokens = self.features.num_output_tokens
            attempt.way.patience.saw_whole(now_s - attempt.sent_s, attempt.tokens_before, num_output_tokens, now_s)
        self._leave(attempt, "ok")
        self.client.reply(status, self._lines(attempt), body)
        self._over("ok" if status < 400 else "error", status, body, now_s)

    def _lines(self, attempt: Attempt) -> bytes:
        return forwarding.incoming(attempt.headers, attempt.fields, self._id_bytes, attempt.decision.header)

    # ---------------------------------------------------------------- streams

    def _give(self, attempt: Attempt, events: bytes) -> None:
        """Pass events on; the first ones decide who answers."""
        if self._given is not None:
            self.client.write(events)
            return
        assert attempt.events is not None
        self._given = Given.first(attempt.events, attempt.fields, events)
        self._leave_others(attempt)
        self.client.begin_stream(200, self._lines(attempt), events)

    def _stream_failed(self, attempt: Attempt, error: bytes) -> None:
        """An error event: the replica's trouble is no reason to stop, the request's own is."""
        if answers.is_replicas_trouble(error):
            self.attempt_failed(attempt, "its engine failed")
            return
        self._give(attempt, error)
        self._leave(attempt, "ok")  # the replica is well and told the truth
        self.client.end_stream()
        self._over("error", 200, b"")

    def _leave_others(self, winner: Attempt) -> None:
        for attempt in [attempt for attempt in self.attempts if attempt is not winner]:
            self._leave(attempt, "cancelled")

    # ---------------------------------------------------------------- failures

    def hedge(self, attempt: Attempt, reason: str, now_s: float) -> None:
        """Ask another replica beside a silent one; who answers first is heard."""
        attempt.is_blamed = True
        attempt.replica.breaker.record(False, now_s)
        self._failed[attempt.replica.name] = reason
        if self._num_sent < self.router.settings.max_attempts and self.router.budget.take(now_s):
            self._send("hedge")

    def _not_now(self, attempt: Attempt, body: bytes) -> None:
        """An answer that is another one elsewhere, or later."""
        status = attempt.status
        self._answer = (status, self._lines(attempt), body)
        pause_s = answers.pause_s(status, attempt.fields)
        if pause_s is not None:
            attempt.replica.busy_until_s = self.router.clock() + pause_s
        # 429 says that the replica is well and full; so does 503 with a time to come back at.
        is_full = status == 429 or pause_s is not None
        self.attempt_failed(attempt, f"it answered {status}", "refused" if is_full else "failed")

    def attempt_failed(
        self, attempt: Attempt, reason: str, outcome: str = "failed", is_connection: bool = False
    ) -> None:
        """A replica did not do its part: ask another one, or go on at another one."""
        now_s = self.router.clock()
        self._failed[attempt.replica.name] = reason
        if outcome != "refused" and not attempt.is_blamed:
            attempt.replica.breaker.record(False, now_s, is_connection)
        self._leave(attempt, outcome)
        if self._is_over or self.attempts:
            return  # a hedge is still out
        if self._given is not None:
            self._go_on(self._given)
        elif (
            self._num_sent >= self.router.settings.max_attempts
            or not self.router.budget.take(now_s)
            or not self._send("retry")
        ):
            self._give_up()

    def _go_on(self, given: Given) -> None:
        """The stream's replica is lost after something was given to the client."""
        last_event = given.events.last_event
        if given.can_continue and given.events.choices:
            if given.lacks_only_the_end:
                self.client.write(b"data: [DONE]\n\n")
                self.client.end_stream()
                self._over("ok", 200, last_event)
                return
            given.num_continuations += 1
            if given.num_continuations <= self.router.settings.max_continuations and self._send("continue"):
                return
        name, reason = next(reversed(self._failed.items()))
        self.client.write(answers.error_event(ReplicaFailed(f"replica {name} failed in the middle: {reason}")))
        self.client.end_stream()
        self._over("cut", 200, last_event)

    def _give_up(self) -> None:
        """Nothing was given to the client, and nobody is left to ask."""
        if self._answer is not None:
            self.client.reply(*self._answer)
            self._over("error", self._answer[0], b"")
        else:
            self._refuse(self.router.why_none(self.features, self._failed))

    def _refuse(self, error: HeadraceError) -> None:
        status, lines, body = answers.refusal(error, self._request_id)
        self.client.reply(status, lines, body)
        self._over("error", status, b"")

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
        for attempt in self.attempts:
            attempt.resume(self.router.clock())

    # ---------------------------------------------------------------- the end

    def _leave(self, attempt: Attempt, outcome: str) -> None:
        attempt.leave()
        self.attempts.remove(attempt)
        self.router.observer.attempt_ended(attempt.replica.name, outcome)

    def _over(self, outcome: str, status: int, answer: bytes, now_s: float | None = None) -> None:
        """Count it; `answer`: where the usage is looked for. `now_s`: when the clock was just read."""
        if self._is_over:
            return
        self._is_over = True
        self.live.discard(self)
        took_s = (self.router.clock() if now_s is None else now_s) - self._begun_s
        self.router.observer.finished(outcome, status, took_s, self._own_s, forwarding.usage(answer))
