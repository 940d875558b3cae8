"""Log-probabilities of the model's raw distribution: of a token, its rank, and the most likely alternatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from headrace.engine.outputs import TokenLogprobs
from headrace.engine.runner.argmax import argmax
from headrace.engine.runner.shortlist import most_likely
from headrace.errors import NonFiniteLogits

_ROWS_AT_ONCE = 64
"""A float32 copy of the logits is made of so many rows: 40 MB for a vocabulary of 150,000."""


_PIECE = 256


@torch.inference_mode()
def prompt_logprobs(logits: torch.Tensor, targets: Sequence[int], num: int) -> list[TokenLogprobs]:
    """Log-probabilities of the prompt's tokens.

    Args:
        logits: [P, V], any floating dtype; unchanged. Row i is the model's answer to all tokens before targets[i].
        targets: the P tokens that the prompt goes on with.
        num: alternatives with each.

    Raises:
        NonFiniteLogits: a row holds NaN or +inf, or nothing but -inf.
    """
    if not torch.isfinite(argmax(logits)[1]).all():
        raise NonFiniteLogits("the model gave NaN or infinity in the logits of the prompt")
    return token_logprobs(logits, targets, [num] * len(targets))


def token_logprobs(logits: torch.Tensor, token_ids: Sequence[int], nums: Sequence[int]) -> list[TokenLogprobs]:
    """Log-softmax in float32, read at one token per row and at the `nums[i]` most likely ones (equals by id).

    Args:
        logits: [P, V] raw, any floating dtype, finite in the sense of `argmax`; unchanged.
        token_ids: one per row.
        nums: alternatives, per row.
    """
    found: list[TokenLogprobs] = []
    for start in range(0, len(token_ids), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        found += _some_token_logprobs(logits[part].float(), token_ids[part], nums[part])
    return found


def _row_sums(values: torch.Tensor) -> torch.Tensor:
    """Sums [P, 1] of rows [P, V], each added up in the same order whatever P is.

    One sum of a long row alone torch shares out over its threads, which changes its last bits; many short ones it does
    not.
    """
    padded = torch.nn.functional.pad(values, (0, -values.shape[-1] % _PIECE))
    return padded.view(len(values), -1, _PIECE).sum(dim=-1).sum(dim=-1, keepdim=True)


def _some_token_logprobs(logits: torch.Tensor, token_ids: Sequence[int], nums: Sequence[int]) -> list[TokenLogprobs]:
    targets = torch.tensor(token_ids, device=logits.device)[:, None]
    peaks = logits.amax(dim=-1, keepdim=True)
    log_mass = _row_sums((logits - peaks).exp_()).log_() + peaks
    values = logits.gather(-1, targets)
    ranks = (logits > values).sum(dim=-1) + 1
    top_values, top_ids = most_likely(logits, min(max(nums), logits.shape[-1]))
    return [
        TokenLogprobs(token_id, logprob, rank, dict(zip(ids[:num], logprobs[:num], strict=True)))
        for token_id, logprob, rank, ids, logprobs, num in zip(
            token_ids,
            (values - log_mass)[:, 0].tolist(),
            ranks.tolist(),
            top_ids.tolist(),
            (top_values - log_mass).tolist(),
            nums,
            strict=True,
        )
    ]
