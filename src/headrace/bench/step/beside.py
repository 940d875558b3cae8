"""The decode step of transformers' own continuous batching, from the moments at which it gave its tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any

from headrace.bench.step.measure import StepShape
from headrace.bench.workloads import MIN_VOCAB_SIZE
from headrace.errors import HeadraceError

_NO_TOKEN = -1


def transformers_step_s(model: Any, shape: StepShape, timeout_s: float = 120.0) -> float:
    """Median seconds of a decode step of `shape` in `generate_batch`'s manager, on the model where it is.

    Raises:
        HeadraceError: it died, did not end in time, or no two steps had all of the rows.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    count = shape.steps + 1
    generation = GenerationConfig(do_sample=False, eos_token_id=_NO_TOKEN, pad_token_id=0, max_new_tokens=count)
    manager: Any = model.init_continuous_batching(
        generation_config=generation,
        continuous_batching_config=ContinuousBatchingConfig(auto_switch_to_flash=False),
    )
    random = Random(0)
    manager.start()
    try:
        for _ in range(shape.batch):
            prompt = [random.randrange(MIN_VOCAB_SIZE) for _ in range(shape.num_prompt_tokens)]
            manager.add_request(prompt, max_new_tokens=2 * count, record_timestamps=True)
        return steady_step_s(_timestamps(manager, shape.batch, time.monotonic() + timeout_s))
    finally:
        manager.stop(block=True)
        manager.destroy()


def _timestamps(manager: Any, count: int, deadline: float) -> list[list[float]]:
    found: list[list[float]] = []
    while len(found) < count:
        if time.monotonic() > deadline:
            raise HeadraceError(f"{len(found)} of {count} requests of transformers' generate_batch ended in time")
        result = manager.get_result(timeout=1)
        if result is None and not manager.is_running():
            raise HeadraceError("the thread of transformers' continuous batching has died")
        if result is not None and result.error:
            raise HeadraceError(f"transformers' generate_batch: {result.error}")
        if result is not None and result.is_finished():
            found.append(list(result.timestamps or ()))
    return found


def steady_step_s(timestamps: Sequence[Sequence[float]]) -> float:
    """The median time from a token to the next while every request gave tokens. HeadraceError: there was no such."""
    if not all(timestamps):
        raise HeadraceError("this transformers does not tell when tokens came")
    begin = max(times[0] for times in timestamps)
    end = min(times[-1] for times in timestamps)
    gaps = [b - a for times in timestamps for a, b in pairwise(times) if a >= begin and b <= end]
    if not gaps:
        raise HeadraceError("the first request had ended before the last one had its first token")
    return median(gaps)
