"""What was measured: one run, and all runs of one engine. Seconds and tokens, no formatting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from headrace.bench.cpu_times import CpuTimes, other_cores


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of a figure over the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of a workload through one engine.

    Attributes:
        seconds: from the first submission to the last token.
        token_ids: generated, by request.
        ttft_s: by request, as far as the engine tells. e2e_s: by request.
        cpu_s: processor time that the engine took; None where the system does not tell.
        other_cores: how many cores were busy with something else, on average.
        steps: seconds of each step, by part of a step; empty where the engine does not tell.
    """

    seconds: float
    token_ids: tuple[tuple[int, ...], ...]
    ttft_s: tuple[float, ...]
    e2e_s: tuple[float, ...]
    cpu_s: float | None = None
    other_cores: float | None = None
    steps: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], before: CpuTimes | None, after: CpuTimes | None) -> Measurement:
        """From a host's answer to "run", and the clocks around it."""
        seconds, requests = answer["seconds"], answer["requests"]
        cpu_s = after.group_s - before.group_s if before and after else None
        return cls(
            seconds,
            tuple(tuple(request["token_ids"]) for request in requests),
            tuple(request["ttft_s"] for request in requests if request["ttft_s"] is not None),
            tuple(request["e2e_s"] for request in requests),
            cpu_s,
            other_cores(before, after),
            answer["steps"],
        )

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens per second."""
        return sum(map(len, self.token_ids)) / self.seconds


@dataclass(slots=True)
class EngineResult:
    """All that was learnt of one engine.

    Attributes:
        runs: by concurrency, in the order of the repeats.
        failure: why it was not measured, or not to the end.
    """

    name: str
    version: str | None = None
    load_s: float | None = None
    runs: dict[int, list[Measurement]] = field(default_factory=dict)
    failure: str | None = None

    def rate(self, concurrency: int) -> Spread | None:
        """Tokens per second."""
        runs = self.runs.get(concurrency)
        return Spread.of([run.tokens_per_s for run in runs]) if runs else None

    def latency(self, concurrency: int, kind: str) -> float | None:
        """Median over requests and repeats, in seconds; kind is "ttft_s" or "e2e_s"."""
        values = [value for run in self.runs.get(concurrency, ()) for value in getattr(run, kind)]
        return median(values) if values else None

    def ratio(self, other: EngineResult, concurrency: int) -> Spread | None:
        """How many times as fast as the other, repeat by repeat: a disturbance hits both sides of a pair alike."""
        pairs = list(zip(self.runs.get(concurrency, ()), other.runs.get(concurrency, ()), strict=False))
        return Spread.of([mine.tokens_per_s / its.tokens_per_s for mine, its in pairs]) if pairs else None

    def agreement(self, other: EngineResult, concurrency: int) -> float | None:
        """Share of the requests whose tokens are the other's."""
        pairs = zip(self.runs.get(concurrency, ()), other.runs.get(concurrency, ()), strict=False)
        same = [a == b for mine, its in pairs for a, b in zip(mine.token_ids, its.token_ids, strict=True)]
        return sum(same) / len(same) if same else None

    def step_parts(self, concurrency: int) -> dict[str, tuple[float, float]]:
        """Median and 99th percentile of each part of a step, in seconds."""
        parts: dict[str, list[float]] = {}
        for run in self.runs.get(concurrency, ()):
            for name, values in run.steps.items():
                parts.setdefault(name, []).extend(values)
        return {name: (median(v), quantiles(v, n=100)[98]) for name, v in parts.items() if len(v) > 1}
