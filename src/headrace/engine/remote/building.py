"""From a spec to an engine core that can be started. Runs where the engine runs; a model brings torch with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from headrace import assets
from headrace.config import EngineConfig
from headrace.engine.cache.groups import CacheGroup
from headrace.engine.cache.kv_cache import KVCache
from headrace.engine.core import EngineCore
from headrace.engine.remote.spec import EngineInfo, EngineSpec, SimulatedSpec
from headrace.engine.runner.simulated import CostModel, SimulatedRunner
from headrace.engine.sampling_params import SamplingParams
from headrace.engine.scheduler import Scheduler, SchedulerLimits, get_policy
from headrace.errors import ModelNotSupported
from headrace.text import Tokenizer
from headrace.text.guides import GuideCompiler

_SIMULATED_STEP_TOKENS = 2048
_SIMULATED_SEQS = 256


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """Of the accelerator; None where they cannot be read."""

    used_bytes: int | None = None
    total_bytes: int | None = None
    utilisation_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine core, and what is to be said of it.

    Attributes:
        core: not started. info: of it; `load_s` is the time that `build` took.
        config: with every None worked out. read_device: figures of the accelerator.
        guides: compiles for it; its tokenizer is loaded with the first one.
    """

    core: EngineCore
    info: EngineInfo
    config: EngineConfig
    read_device: Callable[[], DeviceFigures] = field(default=DeviceFigures)
    guides: GuideCompiler | None = None


def build(spec: EngineSpec, clock: Callable[[], float] = time.perf_counter) -> BuiltEngine:
    """Assemble the engine of a spec.

    Raises:
        ModelNotSupported, ConfigError: as `assemble`; and what torch raises.
    """
    if spec.simulated is not None:
        return _simulated(spec, spec.simulated, clock)
    return _with_model(spec, clock)


def _with_model(spec: EngineSpec, clock: Callable[[], float]) -> BuiltEngine:
    from headrace.engine.assembly import assemble
    from headrace.engine.generation_config import default_params
    from headrace.engine.runner.device_figures import device_figures

    begin = clock()
    engine = assemble(
        spec.model, spec.config, revision=spec.revision, trust_remote_code=spec.trust_remote_code, clock=clock
    )
    loaded, config = engine.loaded, engine.config
    assert config.max_model_len and config.max_num_seqs and config.max_num_batched_tokens
    info = EngineInfo(
        model_name=spec.model,
        model_class=type(loaded.model).__name__,
        dtype=str(loaded.dtype).removeprefix("torch."),
        device=str(loaded.device),
        vocab_size=engine.core.runner.vocab_size,
        max_model_len=config.max_model_len,
        eos_token_ids=tuple(sorted(loaded.eos_token_ids or _eos_of_tokenizer(spec, loaded.source))),
        num_blocks=max(pool.num_blocks for pool in engine.core.scheduler.cache.pools),
        block_size=config.block_size,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        attn_implementation=config.attn_implementation,
        surgery=None if engine.surgery is None else str(engine.surgery),
        load_s=clock() - begin,
        pid=os.getpid(),
        generation_defaults=_changed_fields(default_params(loaded.model.generation_config)),
    )
    read = partial(device_figures, loaded.device)
    guides = _guide_compiler(spec, loaded.source or spec.model, info.vocab_size)
    return BuiltEngine(engine.core, info, config, lambda: DeviceFigures(*read()), guides)


def _eos_of_tokenizer(spec: EngineSpec, source: str | None) -> tuple[int, ...]:
    if source is None:
        return ()
    try:
        tokenizer = Tokenizer(source, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    except ModelNotSupported:
        return ()
    return tuple(tokenizer.eos_token_ids)


def _changed_fields(params: SamplingParams) -> dict[str, Any]:
    """The fields that are not as in SamplingParams()."""
    plain = SamplingParams()
    names = [each.name for each in fields(SamplingParams)]
    return {name: getattr(params, name) for name in names if getattr(params, name) != getattr(plain, name)}


def _simulated(spec: EngineSpec, simulated: SimulatedSpec, clock: Callable[[], float]) -> BuiltEngine:
    config = spec.config
    tokens = config.max_num_batched_tokens or _SIMULATED_STEP_TOKENS
    seqs = config.max_num_seqs or min(_SIMULATED_SEQS, tokens)
    num_blocks = config.num_blocks or simulated.num_blocks
    length = min(config.max_model_len or simulated.max_model_len, num_blocks * config.block_size)
    cache = KVCache([CacheGroup((0,), 1)], [num_blocks], config.block_size, config.enable_prefix_caching)
    policy = get_policy(config.scheduler, config.safety_margin)
    cost = CostModel(simulated.step_s, simulated.token_s, simulated.kv_token_s)
    has_cost = bool(cost.step_s or cost.token_s or cost.kv_token_s)
    runner = SimulatedRunner(simulated.vocab_size, cost, time.sleep if has_cost else None)
    core = EngineCore(
        Scheduler(cache, policy, SchedulerLimits(tokens, seqs), clock), runner, clock, config.check_integrity
    )
    info = EngineInfo(
        model_name=spec.model,
        model_class="SimulatedRunner",
        dtype="none",
        device="none",
        vocab_size=simulated.vocab_size,
        max_model_len=length,
        eos_token_ids=simulated.eos_token_ids,
        num_blocks=num_blocks,
        block_size=config.block_size,
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        attn_implementation="none",
        surgery=None,
        load_s=0.0,
        pid=os.getpid(),
        generation_defaults={},
    )
    return BuiltEngine(core, info, config, guides=_guide_compiler(spec, _source(spec.model), simulated.vocab_size))


def _guide_compiler(spec: EngineSpec, source: str, vocab_size: int) -> GuideCompiler:
    load = partial(Tokenizer, source, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    return GuideCompiler(load, vocab_size)


def _source(model: str) -> str:
    """Where the tokenizer of a model that is not loaded comes from."""
    return str(assets.path(model)) if model in assets.names() else model
