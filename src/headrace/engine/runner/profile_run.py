"""What the largest step takes beside the cache, measured by running it once: on devices no rule of thumb holds."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Protocol

import torch

from headrace.config import EngineConfig
from headrace.engine.plan import PlannedRow, Runner, SamplingRow, StepPlan
from headrace.engine.sampling_params import SamplingParams
from headrace.model.paged_model import PagedModel

_log = logging.getLogger(__name__)

_SAMPLING = SamplingParams(temperature=1.0, top_p=0.9, max_tokens=1, seed=0)  # what takes most memory to sample


class MemoryMeter(Protocol):
    """Watches what is allocated on a device."""

    def begin(self) -> None:
        """Measure from here."""
        ...

    def peak_bytes(self) -> int:
        """Most that was allocated since, beyond what was there at `begin`."""
        ...


class CudaMeter:
    """torch's own counters of one CUDA device."""

    def __init__(self, device: torch.device) -> None:
        """Of that device."""
        self._device = device
        self._before = 0

    def begin(self) -> None:
        """Measure from here."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def peak_bytes(self) -> int:
        """Most that was allocated since, beyond what was there at `begin`."""
        torch.cuda.synchronize(self._device)
        return int(torch.cuda.max_memory_allocated(self._device)) - self._before


class StepMeter:
    """Runs the largest step that settings allow, on a cache that has just the blocks of one of its rows.

    Args:
        paged: the model, without a cache yet. make_runner: the runner that is going to execute steps.
        meter: of the model's device.
    """

    def __init__(
        self, paged: PagedModel, make_runner: Callable[[PagedModel, EngineConfig], Runner], meter: MemoryMeter
    ) -> None:
        """Nothing is measured yet."""
        self._paged = paged
        self._make_runner = make_runner
        self._meter = meter
        self._known: dict[tuple[int, int], int] = {}

    def __call__(self, config: EngineConfig) -> int:
        """Bytes, the runner's own buffers included. Raises torch.OutOfMemoryError when the step alone is too large."""
        assert config.max_num_batched_tokens is not None and config.max_num_seqs is not None
        key = config.max_num_batched_tokens, config.max_num_seqs
        if key not in self._known:
            self._known[key] = self._measure(config, largest_step(config, self._paged.context.num_groups))
            _log.info("a step of %d tokens and %d rows takes %.2f GB", *key, self._known[key] / 1e9)
        return self._known[key]

    def _measure(self, config: EngineConfig, plan: StepPlan) -> int:
        context, loaded = self._paged.context, self._paged.loaded
        blocks = max(len(row.block_tables[0]) for row in plan.rows)
        try:
            context.allocate([blocks] * context.num_groups, config.block_size, loaded.dtype, loaded.device)
            self._meter.begin()
            self._make_runner(self._paged, config).execute(plan)
            return self._meter.peak_bytes()
        finally:
            context.release()
            gc.collect()  # a runner and its graphs know each other


def largest_step(config: EngineConfig, num_groups: int) -> StepPlan:
    """As many rows and tokens as settings allow; all share the blocks of the longest: their content is nobody's."""
    assert config.max_num_batched_tokens and config.max_num_seqs and config.max_model_len
    share, rest = divmod(config.max_num_batched_tokens, config.max_num_seqs)
    lengths = sorted(min(share + (i < rest), config.max_model_len) for i in range(config.max_num_seqs))
    blocks = list(range(-(-lengths[-1] // config.block_size)))
    rows = []
    for i, length in enumerate(lengths):
        sampling = SamplingRow(_SAMPLING, 0, length, [0] * length, [])
        rows.append(PlannedRow(f"profile-{i}", [0] * length, 0, (blocks,) * num_groups, sampling))
    return StepPlan(tuple(rows))
