"""transformers' own continuous batching: `generate_batch`, with a number of tokens per request."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

_PAGE_SIZE = 256
_NO_TOKEN = -1


class Engine:
    """The manager behind `generate_batch`; there the output length can be set per request.

    Its attention takes one dense mask over all of the cache that a step reads. So the cache is made just large enough
    for the workload: that is its best setting on a CPU. On a GPU it decides by itself.
    """

    version = transformers.__version__

    def __init__(self, job: dict[str, Any]) -> None:
        """Load the model; `job["options"]` are fields of ContinuousBatchingConfig."""
        torch.set_num_threads(job["threads"])
        transformers.logging.set_verbosity_error()
        dtype = getattr(torch, job["dtype"])
        self._model: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, attn_implementation="sdpa")
        self._model.eval()
        settings: dict[str, Any] = {}
        if torch.cuda.is_available():
            self._model.to("cuda")
        else:
            pages = -(-job["max_model_len"] // _PAGE_SIZE)
            num_blocks = pages * min(job["num_requests"], 64) + 1
            settings = {"page_size": _PAGE_SIZE, "num_blocks": num_blocks, "auto_switch_to_flash": False}
        self._config = ContinuousBatchingConfig(**(settings | job["options"]))
        self._generation = GenerationConfig(do_sample=False, eos_token_id=_NO_TOKEN, pad_token_id=0, max_new_tokens=1)
        self._manager: Any = None
        self._running: dict[str, int] = {}

    def begin(self) -> None:
        """Start its thread; it spins while there is nothing to do, so it lives for one session."""
        self._manager = self._model.init_continuous_batching(
            generation_config=self._generation, continuous_batching_config=self._config
        )
        self._manager.start()

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        """Start a request."""
        request_id = self._manager.add_request(list(prompt), max_new_tokens=max_tokens, record_timestamps=True)
        self._running[request_id] = key

    def collect(self) -> list[tuple[int, list[int], float | None]]:
        """Wait a moment for a request to end."""
        result = self._manager.get_result(timeout=1)
        if result is None:
            if not self._manager.is_running():
                raise RuntimeError("the thread of transformers' continuous batching has died")
            return []
        if result.error:
            raise RuntimeError(result.error)
        if not result.is_finished():
            return []
        first_at = result.timestamps[0] if result.timestamps else None
        return [(self._running.pop(result.request_id), list(result.generated_tokens), first_at)]

    def end(self) -> None:
        """Stop its thread and drop its cache."""
        self._manager.stop(block=True)
        self._manager.destroy()

    def steps(self) -> dict[str, list[float]]:
        """It does not tell."""
        return {}


load = Engine
