"""What a client saw of one request, and what all of them come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, pstdev
from typing import Literal

Outcome = Literal["ok", "error", "rejected", "cancelled"]


@dataclass(slots=True)
class Record:
    """One request; times in seconds since the begin of the run.

    Attributes:
        due_s: when it was to be sent: what latencies are counted from. sent_s: when it was.
        event_s: arrival of each piece of the answer. end_s: of the answer's end.
        num_prompt_tokens, num_cached_tokens, num_output_tokens: as the server counted.
        token_ids: where the server tells them (`return_token_ids`).
        outcome: "rejected": 429 or 503 before the first piece. error: what went wrong.
    """

    due_s: float
    sent_s: float
    event_s: list[float] = field(default_factory=list)
    end_s: float = math.nan
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    outcome: Outcome = "error"
    error: str = ""

    @property
    def ttft_s(self) -> float:
        """Time to the first token; NaN when none came."""
        return self.event_s[0] - self.due_s if self.event_s else math.nan

    @property
    def e2e_s(self) -> float:
        """Time to the end of the answer."""
        return self.end_s - self.due_s

    @property
    def tpot_s(self) -> float:
        """Time per output token after the first; NaN for a single one."""
        if self.num_output_tokens < 2 or not self.event_s:
            return math.nan
        return (self.event_s[-1] - self.event_s[0]) / (self.num_output_tokens - 1)

    @property
    def itl_s(self) -> list[float]:
        """Times between pieces of the answer."""
        return [after - before for before, after in zip(self.event_s, self.event_s[1:], strict=False)]


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, median, deviation and percentiles of a latency, in milliseconds."""

    mean_ms: float
    median_ms: float
    std_ms: float
    percentiles_ms: Mapping[int, float]


PERCENTILES = (50, 90, 95, 99)
METRICS = ("ttft", "tpot", "itl", "e2el")
"""The names of vLLM's benchmark."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What all records come to.

    Attributes: duration_s: from the begin of the run to the last answer's end. num_good: within every limit.
    """

    records: tuple[Record, ...]
    duration_s: float
    spreads: Mapping[str, Spread]
    num_good: int | None

    def count(self, outcome: Outcome) -> int:
        """How many requests ended so."""
        return sum(record.outcome == outcome for record in self.records)

    @property
    def num_prompt_tokens(self) -> int:
        """Of the requests that were answered, as the server counted."""
        return sum(record.num_prompt_tokens for record in self.records if record.outcome == "ok")

    @property
    def num_cached_tokens(self) -> int:
        """Of those, from the server's prefix cache."""
        return sum(record.num_cached_tokens for record in self.records if record.outcome == "ok")

    @property
    def num_output_tokens(self) -> int:
        """Of all answers, cancelled ones included."""
        return sum(record.num_output_tokens for record in self.records)


def summarize(records: Sequence[Record], limits_ms: Mapping[str, float]) -> Summary:
    """Spreads over the answered requests, and how many kept to the limits on ttft, tpot and e2el (milliseconds)."""
    answered = [record for record in records if record.outcome == "ok"]
    values = {
        "ttft": [record.ttft_s for record in answered],
        "tpot": [record.tpot_s for record in answered],
        "itl": [gap for record in answered for gap in record.itl_s],
        "e2el": [record.e2e_s for record in answered],
    }
    ends = [record.end_s for record in records if not math.isnan(record.end_s)]
    good = sum(_within(record, limits_ms) for record in answered) if limits_ms else None
    return Summary(tuple(records), max(ends, default=0.0), {name: spread(values[name]) for name in METRICS}, good)


def _within(record: Record, limits_ms: Mapping[str, float]) -> bool:
    have = {"ttft": record.ttft_s, "tpot": record.tpot_s, "e2el": record.e2e_s}
    return all(math.isnan(have[name]) or have[name] * 1e3 <= limit for name, limit in limits_ms.items())


def spread(values_s: Sequence[float]) -> Spread:
    """Of the values that are not NaN; zeros when there are none."""
    known = sorted(value * 1e3 for value in values_s if not math.isnan(value))
    if not known:
        return Spread(0.0, 0.0, 0.0, dict.fromkeys(PERCENTILES, 0.0))
    percentiles = {p: _percentile(known, p) for p in PERCENTILES}
    return Spread(fmean(known), median(known), pstdev(known), percentiles)


def _percentile(ordered: Sequence[float], percent: float) -> float:
    """By linear interpolation between the closest ranks, as numpy does."""
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
