"""Outcomes of the last seconds, counted in time, not in requests: an hour-old failure says nothing of now."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(slots=True)
class OutcomeWindow:
    """A ring of buckets; the sum over it is what happened in the last `num_buckets · bucket_s` seconds.

    ::

        now ─► [3 ok, 1 bad][5, 0][…]   bucket i counts the outcomes of [i·bucket_s, (i+1)·bucket_s)
    """

    bucket_s: float = 1.0
    num_buckets: int = 10
    _successes: list[int] = field(init=False)
    _failures: list[int] = field(init=False)
    _last: int = field(init=False, default=-1)
    _place: int = field(init=False, default=0)  # of the current bucket
    _until_s: float = field(init=False, default=-math.inf)  # its end

    def __post_init__(self) -> None:
        """Nothing happened yet."""
        self._successes = [0] * self.num_buckets
        self._failures = [0] * self.num_buckets

    def record(self, success: bool, now_s: float) -> None:
        """Count an outcome; time does not go back."""
        if now_s >= self._until_s:
            self._turn(now_s)
        (self._successes if success else self._failures)[self._place] += 1

    def counts(self, now_s: float) -> tuple[int, int]:
        """Successes and failures in the window."""
        self._turn(now_s)
        return sum(self._successes), sum(self._failures)

    def clear(self) -> None:
        """Forget everything."""
        self._successes = [0] * self.num_buckets
        self._failures = [0] * self.num_buckets

    def _turn(self, now_s: float) -> None:
        current = max(int(now_s / self.bucket_s), self._last)
        for bucket in range(max(self._last + 1, current - self.num_buckets + 1), current + 1):
            self._successes[bucket % self.num_buckets] = 0
            self._failures[bucket % self.num_buckets] = 0
        self._last, self._place, self._until_s = current, current % self.num_buckets, (current + 1) * self.bucket_s
