"""Engines side by side: repeats alternate A B A B …, so that a machine that slows down slows all of them down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headrace.bench.cpu_times import CpuTimes
from headrace.bench.engines import EngineSpec
from headrace.bench.engines.process import EngineFailed, EngineProcess
from headrace.bench.results import EngineResult, Measurement
from headrace.bench.workloads import MIN_VOCAB_SIZE, Request, Workload

_NUM_WARM_UP_REQUESTS = 16
_WARM_UP_TOKENS = 4
_SHIFT = 997
"""Prime, so that no two of the first 31,000 variants are alike."""


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine with what it needs to be started.

    Attributes:
        python: interpreter of a peer; None for headrace's own.
        model: folder or file of the model, in the format that the engine is given.
        options: for its adapter.
        variant: tells two contenders of the same engine apart.
    """

    spec: EngineSpec
    model: Path
    python: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""

    @property
    def name(self) -> str:
        """ENGINE or ENGINE:VARIANT."""
        return f"{self.spec.name}:{self.variant}" if self.variant else self.spec.name


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is the same for all engines.

    Attributes:
        levels: how many requests at a time; each level is measured in turn.
        timeout_s: most for loading, and for one run.
        warm_ups: whole runs of each level before the repeats. Some engines compile code for every number of rows.
    """

    workload: Workload
    dtype: str
    threads: int
    levels: tuple[int, ...]
    repeats: int
    timeout_s: float
    warm_ups: int = 0

    def job(self, contender: Contender) -> dict[str, Any]:
        """What an adapter's `load` is given."""
        return {
            "model": str(contender.model),
            "dtype": self.dtype,
            "threads": self.threads,
            "max_model_len": self.workload.max_model_len,
            "num_requests": len(self.workload.requests),
            "num_tokens": self.workload.num_prompt_tokens + self.workload.num_output_tokens,
            "options": dict(contender.options),
        }


def variant(requests: Sequence[Request], index: int) -> list[Request]:
    """The same requests with every token id moved by the same distance; 0 leaves them as they are.

    Lengths and shared prefixes stay, but nothing that a prefix cache kept of one variant helps with the next one.
    """
    shift = index * _SHIFT
    return [
        Request(tuple((token + shift) % MIN_VOCAB_SIZE for token in request.prompt_token_ids), request.max_tokens)
        for request in requests
    ]


def compare(
    contenders: Sequence[Contender], conditions: Conditions, say: Callable[[str], None] = lambda _: None
) -> list[EngineResult]:
    """Load all, warm all up, then measure in turns. An engine that fails is out; the others go on.

    Args:
        contenders: in the order of the turns. conditions: for all.
        say: told what happens, line by line.
    """
    with TemporaryDirectory(prefix="headrace-bench-") as logs:
        entrants = [_Entrant(contender, conditions, Path(logs), say) for contender in contenders]
        try:
            for entrant in entrants:
                entrant.start()
            turns = [level for _ in range(conditions.warm_ups + conditions.repeats) for level in conditions.levels]
            for index, level in enumerate(turns):
                requests = variant(conditions.workload.requests, index)
                for entrant in entrants:
                    entrant.measure(requests, level, counted=index >= conditions.warm_ups * len(conditions.levels))
        finally:
            for entrant in entrants:
                entrant.close()
    return [entrant.result for entrant in entrants]


class _Entrant:
    """One engine in the race, until it fails."""

    def __init__(self, contender: Contender, conditions: Conditions, logs: Path, say: Callable[[str], None]) -> None:
        self.result = EngineResult(contender.name)
        self._contender = contender
        self._conditions = conditions
        self._log = logs / contender.name
        self._say = say
        self._process: EngineProcess | None = None

    def start(self) -> None:
        """Load the model and run a few short requests, of tokens that no measured run has."""
        name, timeout_s = self.result.name, self._conditions.timeout_s
        self._say(f"{name}: loading")
        warm_up = [
            Request(request.prompt_token_ids[::-1], min(request.max_tokens, _WARM_UP_TOKENS))
            for request in self._conditions.workload.requests[:_NUM_WARM_UP_REQUESTS]
        ]
        try:
            job = self._conditions.job(self._contender)
            if self._contender.spec.prepares:
                job["model"] = str(self._prepare(job))
            self._process = EngineProcess(self._contender.spec, self._contender.python, self._log)
            loaded = self._process.load(job, timeout_s)
            self.result.version, self.result.load_s = loaded["version"], loaded["load_s"]
            self._process.run(warm_up, len(warm_up), timeout_s)
        except EngineFailed as error:
            self._fail(error)

    def _prepare(self, job: dict[str, Any]) -> Path:
        """Convert the model in a process that ends: what a converter leaves in memory is no part of the engine."""
        process = EngineProcess(self._contender.spec, self._contender.python, self._log)
        try:
            return process.prepare(job, self._conditions.timeout_s)
        finally:
            process.close()

    def measure(self, requests: Sequence[Request], level: int, counted: bool = True) -> None:
        """One run at one level of concurrency; nothing when the engine has failed before."""
        if self._process is None:
            return
        before = CpuTimes.now(self._process.group_id)
        try:
            answer = self._process.run(requests, level, self._conditions.timeout_s)
        except EngineFailed as error:
            self._fail(error)
            return
        after = CpuTimes.now(self._process.group_id)
        run = Measurement.from_answer(answer, before, after)
        if counted:
            self.result.runs.setdefault(level, []).append(run)
        warm_up = "" if counted else " (warm-up)"
        self._say(f"{self.result.name}: {run.tokens_per_s:,.1f} tok/s, {level} at a time{warm_up}")

    def close(self) -> None:
        """End its process."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _fail(self, error: EngineFailed) -> None:
        self.result.failure = str(error)
        self._say(f"{self.result.name}: failed: {error}")
        self.close()
