"""What an engine is to be, and what it says of itself. Sent as it stands between the processes."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.config import EngineConfig


class SimulatedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A cost model in place of a model: for load tests, and for whatever is above the engine.

    Attributes:
        step_s: seconds per step. token_s: per token computed. kv_token_s: per token of context read.
        vocab_size: token ids are 0 … vocab_size - 1; keep it within the tokenizer's.
        max_model_len: most tokens of a request. num_blocks: of the cache.
        eos_token_ids: end of sequence; none by default, so that an answer has the length that was asked for.
    """

    step_s: float = 0.0
    token_s: float = 0.0
    kv_token_s: float = 0.0
    vocab_size: int = 4096
    max_model_len: int = 8192
    num_blocks: int = 4096
    eos_token_ids: tuple[int, ...] = ()


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine process assembles.

    Attributes:
        model: a folder, a hub id or "builtin". config: the engine's settings.
        revision: of a hub id. trust_remote_code: run code that comes with the checkpoint.
        simulated: set: no model is loaded, `model` only names it.
        log_level: of the child's log.
    """

    model: str
    config: EngineConfig = EngineConfig()
    revision: str | None = None
    trust_remote_code: bool = False
    simulated: SimulatedSpec | None = None
    log_level: str = "INFO"


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that is ready.

    Attributes:
        model_name: as it was asked for. model_class: transformers' class. dtype, device: of the weights.
        vocab_size: token ids are 0 … vocab_size - 1. max_model_len: most tokens, prompt and output, of a request.
        eos_token_ids: end of sequence; of the tokenizer where the model names none.
        num_blocks: of the largest cache group. block_size: tokens per block.
        max_num_seqs, max_num_batched_tokens: bounds of a step.
        attn_implementation: attention by name. surgery: what runs on the CPU kernels, in words; None: nothing does.
        load_s: from the start of the process until it was ready. pid: of the process.
        generation_defaults: fields of SamplingParams, as the model's generation config has them.
    """

    model_name: str
    model_class: str
    dtype: str
    device: str
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    num_blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    attn_implementation: str
    surgery: str | None
    load_s: float
    pid: int
    generation_defaults: dict[str, Any]


class Load(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How much an engine has to do, at one moment.

    Attributes:
        num_running, num_waiting: requests with and without blocks.
        num_running_tokens, num_waiting_tokens: their tokens, prompt and output so far.
        num_blocks_used: of the largest cache group.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_running_tokens: int = 0
    num_waiting_tokens: int = 0
    num_blocks_used: int = 0


class StepSample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One step: its time in seconds, and what it held. Rows are requests; a decode row computes one token."""

    schedule_s: float
    execute_s: float
    update_s: float
    num_rows: int
    num_tokens: int
    num_decode_rows: int


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Gauges and counters of an engine. Counters count from the start of the process that `pid` names.

    Attributes:
        load: requests, tokens and blocks, as of the newest message.
        num_blocks: of the largest cache group, for `load.num_blocks_used`.
        is_working: whether there is a request, or a step under way.
        last_step_age_s: since the engine's thread last began or ended a step, while it is working; else 0.
        num_steps: steps so far. schedule_s, execute_s, update_s: where their time went, summed.
        num_decode_rows: rows of one token. num_prefill_rows, num_prefill_tokens: the others.
        num_prompt_tokens: of admitted requests. num_cached_tokens: those of them that the prefix cache had.
        num_computed_tokens: by steps. num_recomputed_tokens: those of them lost to a preemption before.
        num_admissions: requests started, again after a preemption too. num_preemptions: losses of blocks.
        num_evictions: cached blocks given up for others. num_queue_timeouts: requests that waited too long.
        steps: the newest steps since the last statistics, 1,024 at most.
        rss_bytes: resident memory of the process; None where the system does not say. cpu_s: its processor time.
        device_used_bytes, device_total_bytes: of the accelerator's memory; None on a CPU.
        device_utilisation_ratio: 0..1; None where it cannot be read.
    """

    pid: int
    load: Load
    num_blocks: int
    is_working: bool
    last_step_age_s: float
    num_steps: int
    schedule_s: float
    execute_s: float
    update_s: float
    num_decode_rows: int
    num_prefill_rows: int
    num_prefill_tokens: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_computed_tokens: int
    num_recomputed_tokens: int
    num_admissions: int
    num_preemptions: int
    num_evictions: int
    num_queue_timeouts: int
    steps: tuple[StepSample, ...]
    rss_bytes: int | None
    cpu_s: float
    device_used_bytes: int | None = None
    device_total_bytes: int | None = None
    device_utilisation_ratio: float | None = None

    @property
    def num_running(self) -> int:
        """Requests that hold blocks."""
        return self.load.num_running

    @property
    def num_waiting(self) -> int:
        """Requests that wait for blocks."""
        return self.load.num_waiting

    @property
    def num_running_tokens(self) -> int:
        """Tokens, prompt and output so far, of running requests."""
        return self.load.num_running_tokens

    @property
    def num_waiting_tokens(self) -> int:
        """Tokens, prompt and output so far, of waiting requests."""
        return self.load.num_waiting_tokens

    @property
    def num_blocks_used(self) -> int:
        """Blocks that requests hold, of the largest cache group."""
        return self.load.num_blocks_used
