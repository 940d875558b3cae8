"""Penalties, bias and bans: changes to a row's logits that come before greedy choice and draw alike.

Only the tokens that a change is about are read and written, through flat indices that the host builds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

from headrace.engine.plan import SamplingRow
from headrace.model.batch import to_device

_FLOAT32 = np.finfo(np.float32)
_LARGEST = float(_FLOAT32.max)


def changes_logits(row: SamplingRow) -> bool:
    """Whether `process_logits` does anything to the row."""
    params = row.params
    return params.has_penalties or bool(params.logit_bias) or len(row.banned_token_ids) > 0


def process_logits(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> None:
    """Apply, in place and in this order: repetition, frequency and presence penalty, logit bias, bans.

    A result beyond float32's range becomes its largest number, or -inf. Token ids that the logits do not reach (an
    embedding may be larger than the output layer) have nothing to change.

    Args:
        logits: [R, V] float32, contiguous.
        rows: one for each row of logits.
    """
    flat = logits.view(-1)
    vocab_size = logits.shape[-1]
    _penalise_repetition(flat, rows, vocab_size)
    _penalise_output(flat, rows, vocab_size)
    _add_bias(flat, rows, vocab_size)
    banned = _flat_ids((row.banned_token_ids for row in rows), vocab_size)
    if len(banned):
        flat[_moved(banned, flat)] = -torch.inf


def _penalise_repetition(flat: torch.Tensor, rows: Sequence[SamplingRow], vocab_size: int) -> None:
    """As transformers' RepetitionPenaltyLogitsProcessor: divide positive logits, multiply the others, once a token."""
    penalties = np.array([row.params.repetition_penalty for row in rows]).clip(_FLOAT32.tiny, _LARGEST)
    seen = _flat_ids(
        (chain(r.prompt_token_ids, r.output_token_ids) if r.params.repetition_penalty != 1.0 else () for r in rows),
        vocab_size,
    )
    if len(seen):
        at = _moved(seen, flat)
        penalty = _moved(penalties[seen // vocab_size].astype(np.float32), flat)
        values = flat[at]
        # A token that occurred twice is written twice, with the same value.
        flat[at] = torch.where(values < 0, values * penalty, values / penalty).clamp_(max=_LARGEST)


def _penalise_output(flat: torch.Tensor, rows: Sequence[SamplingRow], vocab_size: int) -> None:
    """OpenAI's formula, as vLLM's: logit − count · frequency_penalty − (count > 0) · presence_penalty."""
    frequency = np.array([row.params.frequency_penalty for row in rows])
    presence = np.array([row.params.presence_penalty for row in rows])
    asked = (frequency != 0.0) | (presence != 0.0)
    generated = _flat_ids((row.output_token_ids if a else () for row, a in zip(rows, asked, strict=True)), vocab_size)
    if len(generated):
        seen, counts = np.unique(generated, return_counts=True)
        of_row = seen // vocab_size
        change = counts * frequency[of_row] + presence[of_row]
        at = _moved(seen, flat)
        flat[at] -= _moved(change.astype(np.float32), flat)


def _add_bias(flat: torch.Tensor, rows: Sequence[SamplingRow], vocab_size: int) -> None:
    biased = _flat_ids((row.params.logit_bias for row in rows), vocab_size)
    if len(biased):
        bias = [value for row in rows for token, value in row.params.logit_bias.items() if token < vocab_size]
        at = _moved(biased, flat)
        change = _moved(np.clip(bias, -_LARGEST, _LARGEST).astype(np.float32), flat)
        flat[at] = (flat[at] + change).clamp_(max=_LARGEST)


def _flat_ids(ids_of_rows: Iterable[Iterable[int]], vocab_size: int) -> npt.NDArray[np.int64]:
    """Where the token ids of each row lie in the flattened logits; row by row, in the order of the ids."""
    flat = [np.empty(0, dtype=np.int64)]
    for row, token_ids in enumerate(ids_of_rows):
        ids = np.fromiter(token_ids, dtype=np.int64)
        flat.append(ids[ids < vocab_size] + row * vocab_size)
    return np.concatenate(flat)


def _moved(array: npt.NDArray[np.generic], like: torch.Tensor) -> torch.Tensor:
    return to_device(array, like.device)
