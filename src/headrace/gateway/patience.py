"""How long a replica may be silent before it is taken for stuck, learnt from what it did of late.

A replica that accepts requests and stalls looks healthy to everything but its own past.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_RING = 256
_ENOUGH = 16
_FACTOR = 4.0
_NEW_FACTOR = 2.0
_OFFSET_TOKENS = 256
_OUTPUT_FACTOR = 16
"""What an output token takes, in prompt tokens, when it is guessed how long a whole answer may take."""
_EVERY = 16
_EVERY_LATER = 64
_SAMPLE_S = 0.004
"""So a full ring spans a second and more, however many answers there are in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatienceSettings:
    """Bounds of the limits, in seconds.

    Attributes:
        least_first_s, least_gap_s: no limit is shorter: what a pause of the system takes.
        unknown_first_s, unknown_gap_s, unknown_whole_s: limits while too little is known. most_s: none is longer.
        least_s: the shortest of all: who has been silent for less need not be looked at.
    """

    least_first_s: float = 0.75
    least_gap_s: float = 0.75
    unknown_first_s: float = 30.0
    unknown_gap_s: float = 10.0
    unknown_whole_s: float = 120.0
    most_s: float = 120.0
    least_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Find the shortest of them."""
        limits = (self.least_first_s, self.least_gap_s, self.unknown_first_s, self.unknown_gap_s, self.unknown_whole_s)
        object.__setattr__(self, "least_s", min(*limits, self.most_s))


class _Ring:
    """The last values, and a high quantile of them that is worked out now and then.

    Attributes:
        high: the 99th percentile, a little behind; None while too few are known.
        is_new: whether less is known than it could hold.
    """

    __slots__ = ("_count", "_due", "_next_s", "_values", "high", "is_new")

    def __init__(self) -> None:
        self.high: float | None = None
        self.is_new = True
        self._values = [0.0] * _RING
        self._count = 0
        self._due = _ENOUGH
        self._next_s = -math.inf

    def add(self, value: float, now_s: float) -> None:
        """Those that come at once tell nothing new: when it is full, it takes one in a while."""
        if now_s < self._next_s:
            return
        if not self.is_new:
            self._next_s = now_s + _SAMPLE_S
        self._values[self._count % _RING] = value
        self._count += 1
        if self._count == self._due:
            self._look()

    def _look(self) -> None:
        known = sorted(self._values[: self._count])
        self.high = known[int(0.99 * (len(known) - 1))]
        self.is_new = self._count <= _RING
        self._due += _EVERY if self._count < _RING else _EVERY_LATER


class Patience:
    """With one replica.

    Args:
        fleet: with all replicas together, taught by each of them as long as it is new: until enough is known of this
            one, twice what would be much for the others is too much for it.

    Times to the first token are compared per token that stands before it (those of the prompt, and those that were
    under way at the replica when it was sent), with an offset, so that a long prompt is given its time.
    """

    def __init__(self, settings: PatienceSettings, fleet: Patience | None = None) -> None:
        """Nothing known."""
        self._settings = settings
        self._fleet = fleet
        self._first = _Ring()
        self._gaps = _Ring()
        self._wholes = _Ring()

    def saw_first(self, seconds: float, num_tokens_before: int, now_s: float) -> None:
        """A first token came after so long."""
        self._first.add(seconds / (_OFFSET_TOKENS + num_tokens_before), now_s)
        if self._fleet is not None and self._first.is_new:
            self._fleet.saw_first(seconds, num_tokens_before, now_s)

    def saw_gap(self, seconds: float, now_s: float) -> None:
        """Two pieces of a stream came so long after each other."""
        self._gaps.add(seconds, now_s)
        if self._fleet is not None and self._gaps.is_new:
            self._fleet.saw_gap(seconds, now_s)

    def saw_whole(self, seconds: float, num_tokens_before: int, num_output_tokens: int, now_s: float) -> None:
        """An answer that is no stream, and may have had so many tokens, came after so long."""
        self._wholes.add(seconds / (_OFFSET_TOKENS + num_tokens_before + _OUTPUT_FACTOR * num_output_tokens), now_s)
        if self._wholes.is_new and self._fleet is not None:
            self._fleet.saw_whole(seconds, num_tokens_before, num_output_tokens, now_s)

    def first_limit_s(self, num_tokens_before: int) -> float:
        """How long to wait for a first token."""
        settings, high = self._settings, self._first.high
        if high is None and self._fleet is not None and self._fleet._first.high is not None:
            high = _NEW_FACTOR * self._fleet._first.high
        if high is None:
            return settings.unknown_first_s
        limit_s = _FACTOR * high * (_OFFSET_TOKENS + num_tokens_before)
        return min(max(limit_s, settings.least_first_s), settings.most_s)

    def whole_limit_s(self, num_tokens_before: int, num_output_tokens: int) -> float:
        """How long to wait for an answer that is no stream."""
        settings, high = self._settings, self._wholes.high
        if high is None and self._fleet is not None and self._fleet._wholes.high is not None:
            high = _NEW_FACTOR * self._fleet._wholes.high
        if high is None:
            return settings.unknown_whole_s
        limit_s = _FACTOR * high * (_OFFSET_TOKENS + num_tokens_before + _OUTPUT_FACTOR * num_output_tokens)
        return min(max(limit_s, settings.least_first_s), settings.unknown_whole_s)

    def gap_limit_s(self) -> float:
        """How long to wait for the next piece of a stream."""
        settings, high = self._settings, self._gaps.high
        if high is None and self._fleet is not None and self._fleet._gaps.high is not None:
            high = _NEW_FACTOR * self._fleet._gaps.high
        if high is None:
            return settings.unknown_gap_s
        return min(max(_FACTOR * high, settings.least_gap_s), settings.most_s)
