"""When requests arrive: open loop, so a slow server does not slow the load down."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from headrace.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Arrivals at a rate that goes from `rate` to `end_rate` (requests per second) in the course of the run.

    Attributes:
        rate: at the begin; infinity sends everything at once. end_rate: at the end; None: the same.
        burstiness: shape of the gamma distribution of the intervals: 1 is a Poisson process, less comes in bursts,
            more is more regular, infinity is a constant interval.
    """

    rate: float = math.inf
    end_rate: float | None = None
    burstiness: float = 1.0

    @classmethod
    def parse(cls, rate: str, burstiness: float) -> Arrivals:
        """From "8" (constant rate), "2:20" (a ramp) or "inf". Raises ConfigError."""
        try:
            ends = [float(end) for end in rate.split(":")]
        except ValueError:
            ends = []
        if len(ends) not in (1, 2) or not all(end > 0 for end in ends) or (len(ends) == 2 and math.inf in ends):
            raise ConfigError(f"--rate {rate!r} is not a number above 0 (8), a ramp (2:20) or inf")
        if not burstiness > 0:
            raise ConfigError(f"--burstiness {burstiness} must be more than 0; 1 is a Poisson process")
        return cls(ends[0], ends[1] if len(ends) == 2 else None, burstiness)

    def times(self, count: int, random: Random) -> Iterator[float]:
        """Seconds from the begin of the run, `count` of them, ascending.

        Intervals of mean 1 are drawn in a time where the rate is 1, and mapped through the inverse of the integrated
        rate (Lewis and Shedler's time transformation), so a ramp is a ramp for every burstiness.
        """
        expected = 0.0
        for _ in range(count):
            expected += self._interval(random)
            yield self._when(expected, count)

    def _interval(self, random: Random) -> float:
        if math.isinf(self.burstiness):
            return 1.0
        return random.gammavariate(self.burstiness, 1.0 / self.burstiness)

    def _when(self, expected: float, count: int) -> float:
        """The time by which `expected` requests are to be there."""
        if math.isinf(self.rate):
            return 0.0
        if self.end_rate is None or self.end_rate == self.rate:
            return expected / self.rate
        duration = 2 * count / (self.rate + self.end_rate)
        slope = (self.end_rate - self.rate) / duration
        inside = self.rate**2 + 2 * slope * expected
        if slope < 0 and inside <= self.end_rate**2:  # past the end of a falling ramp: at its last rate
            return duration + (expected - count) / self.end_rate
        return (math.sqrt(inside) - self.rate) / slope
