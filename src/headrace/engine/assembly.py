"""Puts an engine together: model, attention, memory, cache, scheduler, runner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headrace.config import EngineConfig
from headrace.engine.cache.groups import CacheGroup, describe
from headrace.engine.cache.kv_cache import KVCache
from headrace.engine.core import EngineCore
from headrace.engine.garbage import collections_paused
from headrace.engine.scheduler import Policy, Scheduler, SchedulerLimits, get_policy
from headrace.model.reserve import reserve_for

if TYPE_CHECKING:
    from headrace.engine.runner.startup import StepBytes
    from headrace.engine.runner.torch_runner import TorchRunner
    from headrace.model.loader import LoadedModel
    from headrace.model.paged_model import PagedModel
    from headrace.model.surgery.report import SurgeryReport

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is ready to be started.

    Attributes:
        core: scheduler and runner. loaded: the model. groups: its cache groups.
        config: with every None worked out. surgery: what of the model runs on headrace's kernels; None: nothing does.
    """

    core: EngineCore
    loaded: LoadedModel
    groups: tuple[CacheGroup, ...]
    config: EngineConfig
    surgery: SurgeryReport | None = None


def runs_ahead(wanted: bool | None, device_type: str) -> bool:
    """Whether each step is launched while the one before runs: as wanted, by default where there is a device apart."""
    return device_type == "cuda" if wanted is None else wanted


def make_runner(paged: PagedModel, config: EngineConfig) -> TorchRunner:
    """The runner for a model's device."""
    from headrace.engine.runner.torch_runner import TorchRunner

    if paged.loaded.device.type != "cuda":
        return TorchRunner(paged, config.block_size)
    from headrace.engine.runner.cuda_graph import CudaGraphFactory
    from headrace.engine.runner.device_runner import DeviceRunner

    assert config.max_num_seqs is not None and config.max_model_len is not None
    graphs = CudaGraphFactory(paged.loaded.device) if uses_graphs(config) else None
    return DeviceRunner(paged, config.block_size, config.max_num_seqs, config.max_model_len, graphs)


def step_meter(paged: PagedModel) -> StepBytes | None:
    """What measures steps on the model's device; None on the CPU, whose memory others allocate too."""
    if paged.loaded.device.type != "cuda":
        return None
    from headrace.engine.runner.profile_run import CudaMeter, StepMeter

    return StepMeter(paged, make_runner, CudaMeter(paged.loaded.device))


def uses_graphs(config: EngineConfig) -> bool:
    """Whether decodes are captured: as wanted, by default unless compiled code captures itself."""
    if config.use_cuda_graph is None:
        return config.compile_mode not in ("reduce-overhead", "max-autotune")
    return config.use_cuda_graph


def assemble(
    model: Any,
    config: EngineConfig,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Engine:
    """Load, wire, prove and size an engine.

    Raises:
        ModelNotSupported: with the class and the reason. ConfigError: a setting, or the memory, with the numbers.
    """
    policy = get_policy(config.scheduler, config.safety_margin)
    with collections_paused():
        paged = _load(model, config, revision, trust_remote_code)
        try:
            engine, difference = _assemble(paged, config, policy, clock)
        except BaseException:
            paged.close()
            raise
    loaded, config = engine.loaded, engine.config
    pools = engine.core.scheduler.cache.pools
    num_bytes = sum(pool.num_blocks * group.block_bytes for pool, group in zip(pools, engine.groups, strict=True))
    _log.info(
        "%s, %s on %s: %s; %s blocks of %d tokens in %.2f GB; %d tokens and %d requests a step; requests of up to %d "
        "tokens; logits within %.1e of the model's own",
        type(loaded.model).__name__, loaded.dtype, loaded.device, describe(engine.groups),
        tuple(pool.num_blocks for pool in pools), config.block_size, num_bytes / 1e9, config.max_num_batched_tokens,
        config.max_num_seqs, config.max_model_len, difference,
    )  # fmt: skip
    if engine.surgery is not None:
        _log.info("on headrace's kernels: %s", engine.surgery)
    return engine


def _load(model: Any, config: EngineConfig, revision: str | None, trust_remote_code: bool) -> PagedModel:
    """The model, wired; memory for its weights is taken while torch and transformers are imported."""
    reserve = reserve_for(model, config, revision)
    from headrace.model.loader import load
    from headrace.model.paged_model import PagedModel

    loaded = load(
        model,
        dtype=config.dtype,
        device=config.device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        reserve=reserve,
    )
    return PagedModel(loaded, config.attn_implementation)


def _assemble(
    paged: PagedModel, config: EngineConfig, policy: Policy, clock: Callable[[], float]
) -> tuple[Engine, float]:
    """Rewritten, proven and sized, with the largest difference of its logits from the model's own."""
    from headrace.engine.runner.startup import allocate_cache, with_defaults
    from headrace.model.surgery.proven import operate_and_prove

    if config.compile_mode is not None:
        paged.compile(config.compile_mode)
    surgery = config.surgery and config.compile_mode is None  # compiled code cannot look into our kernels
    difference, report = operate_and_prove(paged, surgery=surgery, quantization=config.quantization)
    config, groups, size = allocate_cache(paged, with_defaults(config, paged.loaded), step_meter(paged))
    config = replace(
        config,
        attn_implementation=paged.context.implementation.name,
        async_scheduling=runs_ahead(config.async_scheduling, paged.loaded.device.type),
    )
    cache = KVCache(groups, size.num_blocks, config.block_size, config.enable_prefix_caching)
    assert config.max_num_batched_tokens is not None and config.max_num_seqs is not None
    limits = SchedulerLimits(config.max_num_batched_tokens, config.max_num_seqs)
    runner = make_runner(paged, config)
    ahead = runner if config.async_scheduling else None
    core = EngineCore(Scheduler(cache, policy, limits, clock), runner, clock, config.check_integrity, ahead)
    return Engine(core, paged.loaded, groups, config, report), difference
