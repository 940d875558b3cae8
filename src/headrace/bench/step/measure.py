"""Runs real steps of a real engine under a stopwatch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch

from headrace.bench.cpu_times import CpuTimes, other_cores
from headrace.bench.step import instrument
from headrace.bench.step.roofline import Roofline
from headrace.bench.step.roofline import measure as measure_roofline
from headrace.bench.step.stopwatch import Cost, Part, Stopwatch
from headrace.bench.workloads import MIN_VOCAB_SIZE
from headrace.config import EngineConfig
from headrace.engine.assembly import Engine, assemble
from headrace.engine.intake import Intake, IntakeLimits
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import ConfigError, RequestCancelled
from headrace.model.attention.interface import LayerSpec

_WARM_UP_STEPS = 4
_PREFILL_TOKENS = 2048
"""Budget of the steps that bring decodes to their context; rows that are there first go on meanwhile."""


@dataclass(frozen=True, slots=True)
class StepShape:
    """What each measured step computes.

    Attributes:
        batch: rows. context: tokens of each, in the middle of the measurement. steps: how many are measured.
        prefill: a step computes whole prompts of `context` tokens; else one token after so many.
    """

    batch: int
    context: int
    steps: int
    prefill: bool = False

    @property
    def num_tokens(self) -> int:
        """Tokens of one step."""
        return self.batch * self.context if self.prefill else self.batch

    @property
    def step_tokens(self) -> int:
        """Budget of the engine's steps."""
        return self.num_tokens if self.prefill else _PREFILL_TOKENS + self.batch

    @property
    def num_prompt_tokens(self) -> int:
        """Of each row: so that its context is in the middle when half of the steps are done."""
        if self.prefill:
            return self.context
        return self.context - self.steps // 2 - _WARM_UP_STEPS - self._prefill_steps // 2

    @property
    def num_output_tokens(self) -> int:
        """Of each row: enough that none ends before the last step."""
        return 1 if self.prefill else self.steps + 2 * _WARM_UP_STEPS + self._prefill_steps

    @property
    def _prefill_steps(self) -> int:
        return -(-self.batch * self.context // _PREFILL_TOKENS) + 1

    def check(self) -> None:
        """Raise ConfigError when the context is too short for the steps around it."""
        if self.num_prompt_tokens < 1:
            least = self.context + 1 - self.num_prompt_tokens
            raise ConfigError(f"context {self.context} is too short for {self.steps} steps around it: at least {least}")


@dataclass(frozen=True, slots=True)
class StepSplit:
    """Medians over the steps.

    Attributes:
        parts: by name. total_s: of a step. plain_s: the same without the stopwatch, which costs a little itself.
        attention, surgery: what ran.
        other_cores: how many cores were busy with something else, on average; None where the system does not tell.
    """

    shape: StepShape
    roofline: Roofline
    parts: Mapping[str, Part]
    total_s: float
    plain_s: float
    attention: str
    surgery: str
    other_cores: float | None = None


def split_step(model: Path, dtype: str, shape: StepShape, settings: Mapping[str, Any]) -> StepSplit:
    """Load a model, run steps, and take the engine down again.

    Args:
        model: folder. dtype: of weights and cache. settings: of the engine, beside those that the shape gives.
    """
    shape.check()
    quantized = settings.get("quantization") == "int8"
    roofline = measure_roofline(torch.int8 if quantized else getattr(torch, dtype))
    stopwatch = Stopwatch(time.perf_counter, roofline.limit_s)
    own = {
        "dtype": dtype,
        "max_num_seqs": shape.batch,
        "max_num_batched_tokens": shape.step_tokens,
        "max_model_len": shape.num_prompt_tokens + shape.num_output_tokens,
        "safety_margin": 0.0,  # nobody else comes: all rows shall run
        "enable_prefix_caching": False,
    }
    with instrument.instrumented(stopwatch):
        engine = assemble(str(model), EngineConfig.from_settings({**own, **settings}))
        try:
            before = CpuTimes.now(os.getpgrp())
            split = _measure(engine, shape, roofline, stopwatch)
            return replace(split, other_cores=other_cores(before, CpuTimes.now(os.getpgrp())))
        finally:
            engine.core.runner.close()


def _measure(engine: Engine, shape: StepShape, roofline: Roofline, stopwatch: Stopwatch) -> StepSplit:
    plain = [_seconds(engine) for _ in decode_steps(engine, shape)]
    steps: list[dict[str, Part]] = []
    cost = attention_cost(layers_of(engine), shape, itemsize_of(engine))

    def note() -> None:
        last = engine.core.recent_steps[-1]
        stopwatch.charge(instrument.SCHEDULE, last.schedule_s)
        stopwatch.charge(instrument.UPDATE, last.update_s)
        stopwatch.charge(instrument.ATTENTION, 0.0, cost)
        steps.append(stopwatch.take())

    totals = []
    with instrument.instrumented_engine(stopwatch, engine):
        for _ in decode_steps(engine, shape, stopwatch):
            note()
            totals.append(_seconds(engine))
    report = "off" if engine.surgery is None else str(engine.surgery)
    attention = _paged(engine).context.implementation.name
    return StepSplit(shape, roofline, _medians(steps), median(totals), median(plain), attention, report)


def decode_steps(engine: Engine, shape: StepShape, stopwatch: Stopwatch | None = None) -> Iterator[None]:
    """Run the engine, and stop after each step that is to be measured; those before and after are not."""
    submit = _submitter(engine, shape)
    if not shape.prefill:
        submit()
    for index in range(-_WARM_UP_STEPS, shape.steps):
        if shape.prefill:
            submit()
        if stopwatch is not None:
            stopwatch.running = index >= 0
        while not _run_step(engine, shape):
            if stopwatch is not None:
                stopwatch.take()
        if stopwatch is not None:
            stopwatch.running = False
        if index >= 0:
            yield
    end_all(engine)


def end_all(engine: Engine) -> None:
    """Leave nothing live, and nothing under way."""
    core = engine.core
    for request_id in core.scheduler.live_request_ids():
        core.scheduler.end(request_id, "cancelled", RequestCancelled("it was measured"))
    core.settle()


def _run_step(engine: Engine, shape: StepShape) -> bool:
    """Whether the step that was run is one to be measured. Raises ConfigError when none will come."""
    engine.core.step()
    if not engine.core.recent_steps:  # the first step is under way
        return False
    last = engine.core.recent_steps[-1]
    if (last.num_rows, last.num_tokens) == (shape.batch, shape.num_tokens):
        return True
    if shape.prefill or engine.core.scheduler.num_running == 0:
        raise ConfigError(
            f"a step took {last.num_rows} rows and {last.num_tokens} tokens, not {shape.batch} and "
            f"{shape.num_tokens}: the cache holds no more; a smaller batch or context fits"
        )
    return False


def _submitter(engine: Engine, shape: StepShape) -> Callable[[], None]:
    """A function that submits a batch of requests of random tokens."""
    length = engine.config.max_model_len
    assert length is not None
    intake = Intake(IntakeLimits(engine.core.runner.vocab_size, length, frozenset()), engine.core.clock)
    random, vocab_size = Random(0), min(MIN_VOCAB_SIZE, engine.core.runner.vocab_size)

    params = SamplingParams(temperature=0.0, max_tokens=shape.num_output_tokens, ignore_eos=True)

    def submit() -> None:
        for _ in range(shape.batch):
            prompt = [random.randrange(vocab_size) for _ in range(shape.num_prompt_tokens)]
            for request in intake.requests(prompt, params, intake.new_request_id()):
                engine.core.scheduler.add(request)

    return submit


def attention_cost(layers: tuple[LayerSpec, ...], shape: StepShape, itemsize: int) -> Cost:
    """Keys and values once, queries and results, and the two products, of all layers."""
    total = Cost()
    for layer in layers:
        reach = min(shape.context, layer.window or layer.chunk or shape.context)
        if shape.prefill:
            seen = reach * (reach + 1) / 2 + (shape.context - reach) * reach
            kept = shape.context
        else:
            seen = kept = reach
        heads = layer.num_heads * (layer.key_dim + layer.value_dim)
        kv = layer.num_kv_heads * (layer.key_dim + layer.value_dim)
        num_bytes = (shape.batch * kept * kv + shape.num_tokens * heads) * itemsize
        total += Cost(num_bytes, 2.0 * shape.batch * seen * heads)
    return total


def _medians(steps: list[dict[str, Part]]) -> dict[str, Part]:
    """The median time of each part; what it costs is the same in every step but for a few tokens of context."""
    parts = {}
    for name in instrument.PARTS:
        found = [step.get(name, Part()) for step in steps]
        if any(part.seconds for part in found):
            one = found[len(found) // 2]
            parts[name] = Part(median(part.seconds for part in found), one.calls, one.cost, one.limit_s)
    return parts


def _paged(engine: Engine) -> Any:
    runner: Any = engine.core.runner
    return runner._model


def layers_of(engine: Engine) -> tuple[LayerSpec, ...]:
    """The attention layers of an engine's model."""
    return tuple(_paged(engine).layers)


def itemsize_of(engine: Engine) -> int:
    """Bytes of a value in its cache."""
    return int(engine.loaded.dtype.itemsize)


def _seconds(engine: Engine) -> float:
    last = engine.core.recent_steps[-1]
    return last.schedule_s + last.execute_s + last.update_s
