"""Works out the settings that were left open, from the model and from the memory that is there.

When the memory turns out not to be there, it steps down: a smaller step, then fewer blocks, then (where steps are
measured) fewer requests at a time, then a half-precision cache; each step is logged, and the last error carries the
numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from headrace.config import EngineConfig
from headrace.engine.cache.groups import CacheGroup
from headrace.engine.cache.sizing import MAX_CPU_CACHE_BYTES, CacheSize, size_cache
from headrace.errors import ConfigError
from headrace.model.loader import LoadedModel
from headrace.model.memory import available_bytes
from headrace.model.paged_model import PagedModel

_log = logging.getLogger(__name__)

_STEP_TOKENS = {"cpu": 512, "cuda": 8192}
_NUM_SEQS = {"cpu": 64, "cuda": 256}
_SMALLEST_STEP_TOKENS = 64


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What to try: the settings, and the cache that fits the budget, or one of `divisor` times fewer bytes."""

    config: EngineConfig
    budget_bytes: int
    cache_dtype: torch.dtype
    divisor: int = 1


def with_defaults(config: EngineConfig, loaded: LoadedModel) -> EngineConfig:
    """Fill in what does not depend on memory; raises ConfigError when settings contradict each other or the model."""
    kind = loaded.device.type
    if config.use_cuda_graph and kind != "cuda":
        raise ConfigError(f"use_cuda_graph=True needs a CUDA device, and the model is on {loaded.device}: leave it out")
    tokens = config.max_num_batched_tokens or max(_STEP_TOKENS.get(kind, 512), config.max_num_seqs or 0)
    seqs = config.max_num_seqs or min(_NUM_SEQS.get(kind, 64), tokens)
    if seqs > tokens:
        raise ConfigError(
            f"max_num_seqs={seqs} with max_num_batched_tokens={tokens}: each running request needs a token in every "
            f"step, so max_num_seqs may be at most {tokens}"
        )
    length = config.max_model_len or loaded.max_model_len
    if length > loaded.max_model_len:
        raise ConfigError(f"max_model_len={length}, but the model was made for {loaded.max_model_len} positions")
    return replace(config, max_num_batched_tokens=tokens, max_num_seqs=seqs, max_model_len=length)


def cache_groups(paged: PagedModel, block_size: int, dtype: torch.dtype) -> tuple[CacheGroup, ...]:
    """The model's cache groups, in the order of LayerSpec.group."""
    groups = []
    for g in range(paged.context.num_groups):
        layers = [layer for layer in paged.layers if layer.group == g]
        token_bytes = sum(layer.num_kv_heads * (layer.key_dim + layer.value_dim) for layer in layers) * dtype.itemsize
        indices = tuple(layer.index for layer in layers)
        groups.append(CacheGroup(indices, token_bytes * block_size, layers[0].window, layers[0].chunk))
    return tuple(groups)


StepBytes = Callable[[EngineConfig], int]
"""Measures what the largest step takes beside the cache. Raises what an allocation raises."""


def allocate_cache(
    paged: PagedModel, config: EngineConfig, measure: StepBytes | None = None
) -> tuple[EngineConfig, tuple[CacheGroup, ...], CacheSize]:
    """Size and allocate the cache of a model; `config` comes from `with_defaults`.

    Args:
        measure: of steps on the model's device; None goes by a rule of thumb.

    Returns the settings that fitted in the end, the groups and the size.

    Raises:
        ConfigError: nothing fits; says why the first attempt did not, with the numbers.
    """
    first: Exception | None = None
    for attempt in _attempts(config, paged, measure is not None):
        config, dtype = attempt.config, attempt.cache_dtype
        groups = cache_groups(paged, config.block_size, dtype)
        assert config.max_model_len and config.max_num_seqs and config.max_num_batched_tokens
        try:
            step_bytes = _activation_bytes(config, paged) if measure is None else measure(config)
            size = _size(config, groups, attempt.budget_bytes - step_bytes)
            if attempt.divisor > 1:
                size = _size(config, groups, size.num_bytes // attempt.divisor)
            paged.context.allocate(size.num_blocks, config.block_size, dtype, paged.loaded.device)
        except (MemoryError, RuntimeError, ConfigError) as error:
            _log.warning(
                "1/%d of a cache in %.2f GB with steps of %d tokens in %s does not fit: %s",
                attempt.divisor, attempt.budget_bytes / 1e9, config.max_num_batched_tokens, dtype, error,
            )  # fmt: skip
            first = first or error
            continue
        if size.max_model_len < config.max_model_len:
            _log.warning(
                "requests of up to %d tokens fit the cache, instead of %d: more memory or max_memory_percent helps",
                size.max_model_len, config.max_model_len,
            )  # fmt: skip
        return replace(config, max_model_len=size.max_model_len, num_blocks=max(size.num_blocks)), groups, size
    raise ConfigError(f"no cache fits: {first}") from first


def _size(config: EngineConfig, groups: tuple[CacheGroup, ...], budget_bytes: int) -> CacheSize:
    assert config.max_model_len and config.max_num_seqs and config.max_num_batched_tokens
    return size_cache(
        groups,
        block_size=config.block_size,
        budget_bytes=budget_bytes,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        step_tokens=config.max_num_batched_tokens,
        num_blocks=config.num_blocks,
    )


def _attempts(config: EngineConfig, paged: PagedModel, is_measured: bool) -> Iterator[_Attempt]:
    """What to try, in order. The step's token budget is a bound, so it may fall; num_blocks stays where it is given."""
    device, dtype = paged.loaded.device, paged.loaded.dtype
    budget = int(available_bytes(device) * config.max_memory_percent)
    if device.type == "cpu":
        budget = min(budget, MAX_CPU_CACHE_BYTES)
    yield _Attempt(config, budget, dtype)
    assert config.max_num_batched_tokens is not None and config.max_num_seqs is not None
    step, seqs = config.max_num_batched_tokens, config.max_num_seqs
    while step // 2 >= max(_SMALLEST_STEP_TOKENS, seqs):
        step //= 2
        config = replace(config, max_num_batched_tokens=step)
        yield _Attempt(config, budget, dtype)
    if config.num_blocks is None:
        for divisor in (2, 4, 8):
            yield _Attempt(config, budget, dtype, divisor)
    while is_measured and seqs > 1:
        seqs //= 2
        step = max(seqs, step // 2)
        config = replace(config, max_num_seqs=seqs, max_num_batched_tokens=step)
        yield _Attempt(config, budget, dtype)
    if dtype.itemsize > 2 and paged.context.implementation.mixes_dtypes:
        yield _Attempt(config, budget, torch.bfloat16)


def _activation_bytes(config: EngineConfig, paged: PagedModel) -> int:
    """What a step needs beside the cache, by a rule of thumb: 16 hidden vectors a token, logits twice in float32."""
    text = paged.loaded.model.config.get_text_config(decoder=True)
    assert config.max_num_batched_tokens and config.max_num_seqs
    hidden = config.max_num_batched_tokens * int(text.hidden_size) * 16 * paged.loaded.dtype.itemsize
    return hidden + config.max_num_seqs * paged.vocab_size * 8
