"""transformers' `generate` on static batches, padded on the left: what most scripts do."""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

_BATCH_SIZE = 16
_PAD = 0


class _FirstToken(transformers.LogitsProcessor):  # type: ignore[misc]
    """Notes when the first token of a batch was computed; changes nothing."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.at = self.at or time.perf_counter()
        return scores


class Engine:
    """Batches of requests in the order of their arrival; every row runs as long as the longest of its batch.

    Only the tokens that were asked for are returned, and so counted.
    """

    version = transformers.__version__

    def __init__(self, job: dict[str, Any]) -> None:
        """Load the model; `job["options"]`: batch_size."""
        torch.set_num_threads(job["threads"])
        transformers.logging.set_verbosity_error()
        options = dict(job["options"])
        self._batch_size = int(options.pop("batch_size", _BATCH_SIZE))
        if options:
            raise ValueError(f"unknown options {', '.join(options)}; there is batch_size")
        dtype = getattr(torch, job["dtype"])
        self._model: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, attn_implementation="sdpa")
        self._model.eval()
        self._model.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=_PAD)
        self._waiting: list[tuple[int, list[int], int]] = []

    def begin(self) -> None:
        """Nothing to start."""

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        """Keep it for the next batch."""
        self._waiting.append((key, prompt, max_tokens))

    def collect(self) -> list[tuple[int, list[int], float | None]]:
        """Generate one batch to its end."""
        batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
        width = max(len(prompt) for _, prompt, _ in batch)
        longest = max(max_tokens for _, _, max_tokens in batch)
        input_ids = torch.full((len(batch), width), _PAD)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for row, (_, prompt, _) in enumerate(batch):
            input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        first = _FirstToken()
        with torch.inference_mode():
            output = self._model.generate(
                input_ids,
                attention_mask=mask,
                max_new_tokens=longest,
                logits_processor=[first],
            )
        tokens = output[:, width:].tolist()
        return [(key, row[:max_tokens], first.at) for (key, _, max_tokens), row in zip(batch, tokens, strict=True)]

    def end(self) -> None:
        """Nothing goes on."""

    def steps(self) -> dict[str, list[float]]:
        """It does not tell."""
        return {}


load = Engine
