"""What transformers itself says of the tiny model."""

from __future__ import annotations

import random
from typing import Any

import torch

from headrace import SamplingParams

_RNG = random.Random(1)
PROMPTS = [[_RNG.randrange(3, 420) for _ in range(length)] for length in (5, 1, 17, 8, 30, 2)]


def greedy(max_tokens: int, **params: Any) -> SamplingParams:
    """Greedy, and never the end of sequence's business."""
    return SamplingParams(**{"temperature": 0.0, "ignore_eos": True, "max_tokens": max_tokens, **params})


def own_tokens(model: Any, prompt: list[int], count: int) -> tuple[int, ...]:
    """Greedy tokens by the model's own `generate`."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=None,
        pad_token_id=0,
    )
    return tuple(out[0, len(prompt) :].tolist())


def logprobs_of(model: Any, token_ids: list[int]) -> torch.Tensor:
    """Log-probabilities [T, V] after each token."""
    with torch.inference_mode():
        return model(torch.tensor([token_ids])).logits[0].log_softmax(-1)
