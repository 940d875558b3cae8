"""When to say no: the queue is bounded in requests, in tokens and in time. Pure decisions; the time is passed in.

What a refusal is worth depends on its being early and right. A request that waits for a minute and is then refused has
cost its client a minute; so the wait is foretold from the rate at which requests left the queue while there was one.
At twice the load that can be carried, half of the requests are told so at once, and the others are served in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from headrace.errors import InvalidRequest, QueueFull

_MEMORY_S = 30.0
_MIN_STARTS = 8
_MIN_RETRY_S, _MAX_RETRY_S = 1, 120


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of the queue; None is unbounded.

    Attributes:
        max_requests: sequences that wait. max_tokens: prompt tokens that wait.
        max_wait_s: longest wait that is accepted when it can be foreseen.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    max_wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class EngineRoom:
    """What the engine can start at once, and what it says that waits.

    Attributes:
        max_num_seqs: most sequences that run. num_free_tokens: room in its cache.
        num_waiting: sequences that wait there, by its newest message. num_tokens: of its whole cache.
    """

    max_num_seqs: int
    num_free_tokens: int
    num_waiting: int
    num_tokens: int


class DrainRate:
    """How many sequences leave the queue per second, measured only while there is a queue.

    At low load requests leave as they arrive, which says nothing of how many could. The average forgets: what was
    measured `memory_s` of backlog ago counts 1/e.
    """

    def __init__(self, memory_s: float = _MEMORY_S) -> None:
        """Nothing measured yet."""
        self._memory_s = memory_s
        self._num_starts = 0.0
        self._backlog_s = 0.0
        self._num_seen = 0
        self._since_s: float | None = None  # when the time up to now was last accounted for, if there is a backlog

    def observe(self, now_s: float, backlogged: bool) -> None:
        """Account for the time since the last call; `backlogged` says whether there is a queue from now on."""
        if self._since_s is not None:
            kept = math.exp(-max(now_s - self._since_s, 0.0) / self._memory_s)
            self._num_starts *= kept
            self._backlog_s = self._backlog_s * kept + self._memory_s * (1.0 - kept)
        self._since_s = now_s if backlogged else None

    def start(self) -> None:
        """A sequence left the queue for the engine; it counts if there was a backlog."""
        if self._since_s is not None:
            self._num_starts += 1.0
            self._num_seen += 1

    @property
    def per_second(self) -> float | None:
        """Sequences per second; None until there are enough to tell."""
        if self._num_seen < _MIN_STARTS or self._backlog_s <= 0.0:
            return None
        return self._num_starts / self._backlog_s


class WaitingLine:
    """Who waits for a first token, and who is let in.

    ::

        admit ─► pending ─► start ─► running ─► end
                    └──────────────────────────► end (cancelled, failed, timed out)

    A pending sequence waits for a place, or is being prefilled: those beyond the free places are the queue.
    """

    def __init__(self, limits: QueueLimits, rate: DrainRate | None = None) -> None:
        """Empty."""
        self.limits = limits
        self.rate = DrainRate() if rate is None else rate
        self.num_pending = 0
        self.num_pending_tokens = 0
        self.num_running = 0

    def num_queued(self, room: EngineRoom) -> int:
        """Sequences that wait for a place."""
        beyond = self.num_pending - max(room.max_num_seqs - self.num_running, 0)
        return max(beyond, min(room.num_waiting, self.num_pending), 0)

    def num_queued_tokens(self, room: EngineRoom) -> int:
        """Prompt tokens that wait for a place."""
        return max(self.num_pending_tokens - room.num_free_tokens, 0)

    def admit(self, num_sequences: int, num_tokens: int, room: EngineRoom, now_s: float) -> None:
        """Let a request of so many sequences and prompt tokens in, as pending.

        Raises:
            QueueFull: with the numbers, and when to try again. InvalidRequest: it could never be let in.
        """
        self.observe(room, now_s)
        self.check_size(num_sequences, room)
        if self.num_pending:  # what meets an empty queue is never refused
            self._refuse_if_full(num_sequences, num_tokens, room)
        self.num_pending += num_sequences
        self.num_pending_tokens += num_tokens
        self.observe(room, now_s)

    def check_size(self, num_sequences: int, room: EngineRoom) -> None:
        """Raises InvalidRequest for a request of more sequences than can ever be let in; before work goes into it."""
        most = self.limits.max_requests
        if most is not None and num_sequences > most + room.max_num_seqs:
            raise InvalidRequest(
                f"the request asks for {num_sequences} answers at once; {most + room.max_num_seqs} are the most that "
                "this server takes (max_queue_size + max_num_seqs)"
            )

    def _refuse_if_full(self, num_sequences: int, num_tokens: int, room: EngineRoom) -> None:
        queued, queued_tokens = self.num_queued(room), self.num_queued_tokens(room)
        free = max(room.max_num_seqs - self.num_running - self.num_pending, 0)
        waiting = queued + max(num_sequences - free, 0)
        rate = self.rate.per_second
        most, most_tokens, most_s = self.limits.max_requests, self.limits.max_tokens, self.limits.max_wait_s
        if most is not None and queued and waiting > most:
            raise QueueFull(
                f"{queued} requests wait, {num_sequences} more would be over max_queue_size={most}",
                self._retry_after_s(waiting - most, rate),
            )
        waiting_tokens = queued_tokens + num_tokens
        if most_tokens is not None and queued_tokens and waiting_tokens > most_tokens:
            share = (waiting_tokens - most_tokens) / queued_tokens
            raise QueueFull(
                f"{queued_tokens} prompt tokens wait, {num_tokens} more would be over max_queue_tokens={most_tokens}",
                self._retry_after_s(max(share * queued, 1.0), rate),
            )
        if most_s is not None and rate is not None and queued and waiting > rate * most_s:
            expected = "for ever" if rate <= 0.0 else f"{waiting / rate:.0f} s"
            raise QueueFull(
                f"{queued} requests wait and {rate:.2g} leave per second: this one would wait {expected}, over the "
                f"limit of {most_s:g} s (queue_timeout_s)",
                self._retry_after_s(waiting - rate * most_s, rate),
            )

    @staticmethod
    def _retry_after_s(excess: float, rate: float | None) -> float:
        """When so many sequences will have left the queue; a second where nothing is known."""
        if rate is None:
            return _MIN_RETRY_S
        if rate * _MAX_RETRY_S <= excess:
            return _MAX_RETRY_S
        return max(math.ceil(excess / rate), _MIN_RETRY_S)

    def start(self, num_tokens: int, room: EngineRoom, now_s: float) -> None:
        """A pending sequence has its first token."""
        self.rate.start()
        self.num_pending -= 1
        self.num_pending_tokens -= num_tokens
        self.num_running += 1
        self.observe(room, now_s)

    def end_running(self) -> None:
        """A sequence that had a token has ended."""
        self.num_running -= 1

    def end_pending(self, num_tokens: int) -> None:
        """A sequence ended before it had a token."""
        self.num_pending -= 1
        self.num_pending_tokens -= num_tokens

    def observe(self, room: EngineRoom, now_s: float) -> None:
        """Let the measurement of the rate know whether there is a queue now."""
        self.rate.observe(now_s, self.num_queued(room) > 0)
