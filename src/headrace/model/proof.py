"""Proves at load that a model over the paged cache gives the logits of its own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headrace.model.batch import build_inputs
from headrace.model.diagnosis import refusal
from headrace.model.paged_model import PagedModel

_TOLERANCE = {torch.float32: 1e-2, torch.float64: 1e-2}
_BLOCK_SIZE = 16
_HALF_TOLERANCE = 0.5
"""Largest ‖difference‖ / ‖logits‖. A wrong mask or position gives 1 and more; half precision with experts that are
routed by a hair gives up to a few tenths on random weights."""


@dataclass(frozen=True, slots=True)
class _Row:
    token_ids: Sequence[int]
    start: int
    block_tables: tuple[Sequence[int], ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """The model's own logits [T, V] of two sequences, each alone."""

    first: Sequence[int]
    second: Sequence[int]
    first_logits: torch.Tensor
    second_logits: torch.Tensor


def expect(model: PagedModel) -> Expectation:
    """Run the model's own code; before anything of it is replaced."""
    first = [(7 * i + 3) % model.vocab_size for i in range(9)]
    second = [(5 * i + 1) % model.vocab_size for i in range(6)]
    return Expectation(first, second, model.own_logits(first), model.own_logits(second))


def prove(model: PagedModel, expectation: Expectation, *, quantized: bool = False) -> float:
    """Compare packed, chunked and decoded tokens of two sequences with the model's own forward of each alone.

    Allocates a cache of a few blocks for itself, and releases it.

    Returns:
        The largest relative difference, ‖ours - own‖ / ‖own‖ over a row of logits.

    Raises:
        ModelNotSupported: it is beyond the tolerance of the dtype.
    """
    loaded, groups = model.loaded, model.context.num_groups
    first, second = expectation.first, expectation.second
    own = [expectation.second_logits, expectation.first_logits]
    a, b = ([0],) * groups, ([1],) * groups
    steps = (
        [_Row(second[:5], 0, b), _Row(first[:6], 0, a)],
        [_Row(second[5:], 5, b), _Row(first[6:], 6, a)],
    )
    worst = 0.0
    model.context.allocate([2] * groups, _BLOCK_SIZE, loaded.dtype, loaded.device)
    try:
        for rows in steps:
            inputs = build_inputs(rows, groups, _BLOCK_SIZE, loaded.device)
            logits = model.forward(inputs, inputs.last_tokens)
            for row, got, expected in zip(rows, logits, own, strict=True):
                worst = max(worst, _difference(got, expected[row.start + len(row.token_ids) - 1]))
    finally:
        model.context.release()
    tolerance = _HALF_TOLERANCE if quantized else _TOLERANCE.get(loaded.dtype, _HALF_TOLERANCE)
    if worst > tolerance:
        raise refusal(
            loaded.model,
            f"over the paged cache it gives other logits than by itself: they differ by {worst:.2g} of their norm, "
            f"{tolerance:g} is allowed",
        )
    return worst


def _difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    """‖got - expected‖ / ‖expected‖; infinite where it is no number."""
    difference = (got.float() - expected.float()).norm() / expected.float().norm().clamp_min(1e-6)
    return float(difference.nan_to_num(float("inf")))
