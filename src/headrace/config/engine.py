"""The settings of one engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.config.nearest import nearest
from headrace.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Settings of one engine; None means: worked out from the model and the machine.

    Attributes:
        dtype: of weights and cache, "auto" (the checkpoint's), "float32", "bfloat16" or "float16".
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", …
        attn_implementation: attention implementation by name, "auto" takes the fastest that runs here.
        compile_mode: torch.compile the decoder layers: "default", "reduce-overhead", "max-autotune" or
            "max-autotune-no-cudagraphs"; None runs them as they are. Compiling takes its time at the start.
        use_cuda_graph: run decodes on captured CUDA graphs, of 1, 2, 4, 8, then every 8 rows, captured while the engine
            is idle; None: where the attention can be captured, and compile_mode does not capture by itself.
        surgery: run the model's modules on headrace's CPU kernels where they do the same (proven at load); not with
            compile_mode.
        quantization: "int8": weights per output channel, activations per row, on the CPU kernels; None: as they are.
        scheduler: policy by name: "fifo" or "prefill_first", or one that was registered.
        block_size: tokens per cache block.
        num_blocks: blocks of the full-attention cache.
        max_num_batched_tokens: token budget of one step.
        max_num_seqs: most requests that run at the same time.
        max_model_len: most tokens, prompt and output, of one request.
        max_memory_percent: share of the free memory (0..1) that the cache may take.
        safety_margin: share of the blocks (0..1) under which no new request is started and only decoding goes on.
        async_scheduling: plan and launch each step while the one before runs; None: on CUDA, where launching a step
            takes a fraction of running it. On a CPU it only makes each token a step late.
        enable_prefix_caching: reuse the KV of shared prefixes.
        max_queue_size: most requests that wait; None is unbounded.
        check_integrity: check the cache's invariants after every step (tests; it costs time).
    """

    dtype: str = "auto"
    device: str = "auto"
    attn_implementation: str = "auto"
    compile_mode: str | None = None
    use_cuda_graph: bool | None = None
    surgery: bool = True
    quantization: str | None = None
    scheduler: str = "fifo"
    block_size: int = 32
    num_blocks: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    max_model_len: int | None = None
    max_memory_percent: float = 0.9
    safety_margin: float = 0.1
    async_scheduling: bool | None = None
    enable_prefix_caching: bool = True
    max_queue_size: int | None = None
    check_integrity: bool = False

    def __post_init__(self) -> None:
        """Check every range; raises ConfigError."""
        dtypes = ("auto", "float32", "bfloat16", "float16")
        if self.dtype not in dtypes:
            raise ConfigError(f"dtype={self.dtype!r} is not one of {', '.join(dtypes)}")
        if self.quantization not in (None, "int8"):
            raise ConfigError(f"quantization={self.quantization!r} is not one of None, int8")
        if self.quantization is not None and (not self.surgery or self.compile_mode is not None):
            raise ConfigError("quantization needs surgery=True and no compile_mode: it is a matter of the CPU kernels")
        if self.block_size < 1 or self.block_size & (self.block_size - 1):
            raise ConfigError(f"block_size={self.block_size} is not a power of two; 16 or 32 works for every model")
        for name in ("num_blocks", "max_num_batched_tokens", "max_num_seqs", "max_model_len", "max_queue_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"{name}={value!r} must be an integer of at least 1, or None to work it out")
        if not 0.0 < self.max_memory_percent <= 1.0:
            raise ConfigError(f"max_memory_percent={self.max_memory_percent} must be more than 0 and at most 1")
        if not 0.0 <= self.safety_margin < 1.0:
            raise ConfigError(f"safety_margin={self.safety_margin} must be at least 0 and less than 1")

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> EngineConfig:
        """Build from keyword settings; an unknown name is an error that says the nearest known one."""
        known = list(cls.__dataclass_fields__)
        for name in settings:
            if name not in known:
                raise ConfigError(f"unknown setting {name!r}; did you mean {nearest(name, known)!r}?")
        return cls(**settings)
