"""Every metric, once: its name, what it means, and where its value comes from. docs/metrics.md is made of this table.

Further names are vLLM's where the meaning is equal, so that dashboards and routers made for it work as they are.
All have the label `model` (under vLLM's names: `model_name`), which is not repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from headrace.observability.readings import EngineLimits, EngineReading

Kind = Literal["counter", "gauge", "histogram"]

_POWERS = tuple(float(2**n) for n in range(18))
_WAIT_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
           20.0, 40.0, 80.0, 160.0)  # fmt: skip
_TOKEN_S = (0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5,
            0.75, 1.0, 2.5, 5.0, 10.0)  # fmt: skip
_WHOLE_S = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 120.0,
            240.0, 480.0, 960.0)  # fmt: skip
_ROWS = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: with its unit, a counter's with _total. help: what it means, one sentence.
        labels: besides `model`. buckets: of a histogram, upper bounds.
        engine: reads it, or its value for each value of its one label, off an engine; None where it has none.
        limit: reads it off what the engine settled on. vllm: its names in vLLM.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    engine: Callable[[EngineReading], float | Mapping[str, float] | None] | None = None
    limit: Callable[[EngineLimits], float] | None = None
    vllm: tuple[str, ...] = ()


_REQUESTS = (
    Metric("headrace_requests_running", "gauge", "Requests that hold cache blocks.",
           engine=lambda e: e.num_running, vllm=("vllm:num_requests_running",)),
    Metric("headrace_requests_waiting", "gauge", "Requests that wait in the engine.",
           engine=lambda e: e.num_waiting, vllm=("vllm:num_requests_waiting",)),
    Metric("headrace_running_tokens", "gauge", "Tokens, prompt and output so far, of running requests.",
           engine=lambda e: e.num_running_tokens),
    Metric("headrace_waiting_tokens", "gauge", "Tokens of waiting requests.", engine=lambda e: e.num_waiting_tokens),
    Metric("headrace_requests_received_total", "counter", "Requests whose body was read, by route.", ("endpoint",)),
    Metric("headrace_requests_finished_total", "counter",
           "Answers that ended, by reason; a request with n=2 has two.", ("reason",),
           vllm=("vllm:request_success_total",)),
    Metric("headrace_requests_rejected_total", "counter",
           "Requests that were not begun, by the code of the error they got.", ("reason",)),
    Metric("headrace_http_responses_total", "counter", "Responses, by route and HTTP status.", ("endpoint", "status")),
    Metric("headrace_ignored_fields_total", "counter", "Unknown fields of requests that were accepted all the same."),
    Metric("headrace_streams_open", "gauge", "Answers that are being streamed."),
)  # fmt: skip

_TOKENS = (
    Metric("headrace_prompt_tokens_total", "counter", "Prompt tokens of requests that began.",
           engine=lambda e: e.num_prompt_tokens, vllm=("vllm:prompt_tokens_total", "vllm:prefix_cache_queries_total")),
    Metric("headrace_cached_prompt_tokens_total", "counter", "Those of them that the prefix cache had.",
           engine=lambda e: e.num_cached_tokens, vllm=("vllm:prefix_cache_hits_total",)),
    Metric("headrace_output_tokens_total", "counter", "Generated tokens.", vllm=("vllm:generation_tokens_total",)),
)  # fmt: skip

_TIMES = (
    Metric("headrace_time_to_first_token_seconds", "histogram", "From a request's arrival until its first token.",
           buckets=_WAIT_S, vllm=("vllm:time_to_first_token_seconds",)),
    Metric("headrace_inter_token_latency_seconds", "histogram", "Between two pieces of an answer, one token as a rule.",
           buckets=_TOKEN_S, vllm=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")),
    Metric("headrace_time_per_output_token_seconds", "histogram",
           "Of a finished request: (duration - time to first token) / (output tokens - 1).",
           buckets=_TOKEN_S, vllm=("vllm:request_time_per_output_token_seconds",)),
    Metric("headrace_request_duration_seconds", "histogram", "From a request's arrival until its end.",
           buckets=_WHOLE_S, vllm=("vllm:e2e_request_latency_seconds",)),
    Metric("headrace_request_queue_seconds", "histogram", "From a request's arrival until its first step.",
           buckets=_WAIT_S, vllm=("vllm:request_queue_time_seconds",)),
    Metric("headrace_request_prefill_seconds", "histogram", "From a request's first step until its prompt is computed.",
           buckets=_WAIT_S, vllm=("vllm:request_prefill_time_seconds",)),
    Metric("headrace_request_decode_seconds", "histogram", "From a request's first token until its end.",
           buckets=_WHOLE_S, vllm=("vllm:request_decode_time_seconds",)),
    Metric("headrace_request_prompt_tokens", "histogram", "Prompt tokens of a finished request.",
           buckets=_POWERS, vllm=("vllm:request_prompt_tokens",)),
    Metric("headrace_request_output_tokens", "histogram", "Generated tokens of a finished request.",
           buckets=_POWERS, vllm=("vllm:request_generation_tokens",)),
)  # fmt: skip

_CACHE = (
    Metric("headrace_cache_blocks", "gauge", "Blocks of the KV cache.", limit=lambda i: i.num_blocks),
    Metric("headrace_cache_block_size_tokens", "gauge", "Tokens per block.", limit=lambda i: i.block_size),
    Metric("headrace_cache_blocks_used", "gauge", "Blocks that running requests hold.",
           engine=lambda e: e.num_blocks_used),
    Metric("headrace_cache_usage_ratio", "gauge", "Share of the blocks that running requests hold, 0 to 1.",
           engine=lambda e: e.num_blocks_used / e.num_blocks if e.num_blocks else None,
           vllm=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
    Metric("headrace_cache_evictions_total", "counter", "Cached blocks that were given up for others.",
           engine=lambda e: e.num_evictions),
    Metric("headrace_preemptions_total", "counter", "Times that a running request lost its blocks.",
           engine=lambda e: e.num_preemptions, vllm=("vllm:num_preemptions_total",)),
    Metric("headrace_recomputed_tokens_total", "counter", "Tokens that were computed again because of it.",
           engine=lambda e: e.num_recomputed_tokens),
)  # fmt: skip

_STEPS = (
    Metric("headrace_steps_total", "counter", "Steps of the engine.", engine=lambda e: e.num_steps),
    Metric("headrace_step_phase_seconds_total", "counter", "Where the time of steps went.", ("phase",),
           engine=lambda e: {"schedule": e.schedule_s, "execute": e.execute_s, "update": e.update_s}),
    Metric("headrace_computed_tokens_total", "counter", "Tokens that steps computed, for decoding and for prefill.",
           ("phase",), engine=lambda e: {"decode": e.num_decode_rows, "prefill": e.num_prefill_tokens}),
    Metric("headrace_step_duration_seconds", "histogram", "A step's time.", buckets=_TOKEN_S),
    Metric("headrace_step_rows", "histogram", "Requests in a step: the batch size.", buckets=_ROWS),
    Metric("headrace_step_tokens", "histogram", "Tokens in a step.", buckets=_POWERS,
           vllm=("vllm:iteration_tokens_total",)),
    Metric("headrace_max_running_requests", "gauge", "Most requests in a step.", limit=lambda i: i.max_num_seqs),
    Metric("headrace_step_max_tokens", "gauge", "Most tokens in a step.", limit=lambda i: i.max_num_batched_tokens),
    Metric("headrace_engine_ready", "gauge", "1 while the engine answers and makes steps, else 0."),
    Metric("headrace_engine_starts_total", "counter", "Times that the engine became ready; more than 1: restarts."),
    Metric("headrace_engine_last_step_age_seconds", "gauge", "Since the engine began or ended a step, if it works.",
           engine=lambda e: e.last_step_age_s),
)  # fmt: skip

_MACHINE = (
    Metric("headrace_engine_resident_memory_bytes", "gauge", "Resident memory of the engine's process.",
           engine=lambda e: e.rss_bytes),
    Metric("headrace_engine_cpu_seconds_total", "counter", "Processor time of the engine's process.",
           engine=lambda e: e.cpu_s),
    Metric("headrace_gpu_memory_used_bytes", "gauge", "Used memory of the GPU; absent on a CPU.",
           engine=lambda e: e.device_used_bytes),
    Metric("headrace_gpu_memory_size_bytes", "gauge", "Memory of the GPU; absent on a CPU.",
           engine=lambda e: e.device_total_bytes),
    Metric("headrace_gpu_utilization_ratio", "gauge", "Utilization of the GPU, 0 to 1; absent where it cannot be read.",
           engine=lambda e: e.device_utilisation_ratio),
    Metric("headrace_build_info", "gauge", "Always 1; the version.", ("version",)),
    Metric("vllm:cache_config_info", "gauge", "Always 1; the cache's size in the form that routers read.",
           ("block_size", "num_gpu_blocks")),
)  # fmt: skip

METRICS: tuple[Metric, ...] = (*_REQUESTS, *_TOKENS, *_TIMES, *_CACHE, *_STEPS, *_MACHINE)
