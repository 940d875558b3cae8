"""Whole decode steps at several batch sizes, beside the least that reading their bytes takes, and beside transformers.

A step is everything from one to the next: scheduling, the model, sampling and bookkeeping, by the clock, as an engine
runs that is never out of work. Where steps run ahead of each other, so they do here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from headrace.bench.report import grid
from headrace.bench.step import measure
from headrace.bench.step.measure import StepShape
from headrace.config import EngineConfig
from headrace.engine.assembly import Engine, assemble

_READ_BYTES = 1 << 30
_ROUNDS = 7
_PASSES = 8


@dataclass(frozen=True, slots=True)
class Rung:
    """One batch size.

    Attributes:
        step_s: median by the clock. limit_s: weights once and the rows' keys and values, at the memory's speed.
        beside_s: the same step in transformers' `generate_batch`; None where it was not asked for or does not tell.
        error: what was raised instead.
    """

    batch: int
    step_s: float | None
    limit_s: float
    beside_s: float | None = None
    error: str | None = None


def open_engine(model: Any, dtype: str, shapes: Sequence[StepShape], settings: Mapping[str, Any]) -> Engine:
    """An engine with room for every one of the shapes. Raises what `assemble` does, and ConfigError for a shape."""
    for shape in shapes:
        shape.check()
    own = {
        "dtype": dtype,
        "max_num_seqs": max(shape.batch for shape in shapes),
        "max_num_batched_tokens": max(shape.step_tokens for shape in shapes),
        "max_model_len": max(shape.num_prompt_tokens + shape.num_output_tokens for shape in shapes),
        "safety_margin": 0.0,
        "enable_prefix_caching": False,
    }
    return assemble(model, EngineConfig.from_settings({**own, **settings}))


def climb(
    engine: Engine,
    shapes: Sequence[StepShape],
    bytes_per_s: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Rung]:
    """Measure decode steps of each shape on one engine; what raises is a rung with an error."""
    rungs = []
    for shape in shapes:
        limit_s = step_bytes(engine, shape) / bytes_per_s
        try:
            rungs.append(Rung(shape.batch, _step_s(engine, shape, clock), limit_s))
            say(f"batch {shape.batch}: {rungs[-1].step_s or 0.0:.6f} s, limit {limit_s:.6f} s")
        except Exception as error:
            rungs.append(Rung(shape.batch, None, limit_s, error=f"{type(error).__name__}: {error}"))
            say(f"batch {shape.batch}: {rungs[-1].error}")
            measure.end_all(engine)
    return rungs


def _step_s(engine: Engine, shape: StepShape, clock: Callable[[], float]) -> float:
    short = replace(shape, steps=1)
    for _ in measure.decode_steps(engine, short):
        pass
    engine.core.prepare()  # the graph of this size, which was just missed
    times = [clock() for _ in measure.decode_steps(engine, shape)]
    return median(after - before for before, after in pairwise(times))


def step_bytes(engine: Engine, shape: StepShape) -> float:
    """What a decode has to read at least: every weight but rows of an embedding of its own, and keys and values."""
    model = engine.loaded.model
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    if embedding is not None and head is not None and embedding.weight is not head.weight:
        weights -= embedding.weight.numel() * embedding.weight.element_size()
    attention = measure.attention_cost(measure.layers_of(engine), shape, measure.itemsize_of(engine))
    return float(weights + attention.num_bytes)


def device_bytes_per_s(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """The speed of a device's memory: the better of reading and of copying a gibibyte, the best of several rounds."""
    source = torch.ones(_READ_BYTES // 4, device=device)
    target = torch.empty_like(source)
    reading = _READ_BYTES / _best_s(source.sum, device, clock)
    copying = 2 * _READ_BYTES / _best_s(lambda: target.copy_(source), device, clock)
    return max(reading, copying)


def _best_s(call: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    call()
    best = float("inf")
    for _ in range(_ROUNDS):
        wait()
        start = clock()
        for _ in range(_PASSES):
            call()
        wait()
        best = min(best, (clock() - start) / _PASSES)
    return best


def to_text(title: str, context: int, bytes_per_s: float, rungs: Sequence[Rung]) -> str:
    """A table for people."""
    header = ["batch", "step ms", "limit ms", "× limit", "tokens/s", "generate_batch ms"]
    lines = [_cells(rung) for rung in rungs]
    errors = [f"batch {rung.batch}: {rung.error}" for rung in rungs if rung.error is not None]
    head = (
        f"{title}: decodes at {context} tokens of context; memory {bytes_per_s / 1e9:,.0f} GB/s, measured on the spot"
    )
    return "\n".join([head, "", grid([header, *lines]), *errors])


def _cells(rung: Rung) -> list[str]:
    limit = f"{rung.limit_s * 1e3:.3f}"
    beside = "" if rung.beside_s is None else f"{rung.beside_s * 1e3:.3f}"
    if rung.step_s is None:
        return [str(rung.batch), "", limit, "", "", beside]
    step = rung.step_s
    return [
        str(rung.batch),
        f"{step * 1e3:.3f}",
        limit,
        f"{step / rung.limit_s:.2f}",
        f"{rung.batch / step:,.0f}",
        beside,
    ]


def beside_transformers(
    folder: str, dtype: str, device: torch.device, shapes: Sequence[StepShape], rungs: Sequence[Rung]
) -> list[Rung]:
    """The rungs with what `generate_batch` takes for the same steps; where it raises, that is its error."""
    from transformers import AutoModelForCausalLM

    from headrace.bench.step.beside import transformers_step_s

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    model = model.to(device).eval()
    found = []
    for shape, rung in zip(shapes, rungs, strict=True):
        try:
            found.append(replace(rung, beside_s=transformers_step_s(model, shape)))
        except Exception as error:
            found.append(replace(rung, error=rung.error or f"generate_batch: {type(error).__name__}: {error}"))
    return found


def to_json(title: str, context: int, bytes_per_s: float, rungs: Sequence[Rung], command: list[str]) -> dict[str, Any]:
    """Everything, in seconds and bytes."""
    return {
        "command": command,
        "model": title,
        "context": context,
        "bytes_per_s": bytes_per_s,
        "batches": [asdict(rung) for rung in rungs],
    }
