"""When two results count as the same formula."""

from __future__ import annotations

import torch

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.int8: 6e-2}
"""Largest ‖difference‖ / ‖expected‖ of one replaced module. A wrong formula is off by some tenths at least; bfloat16
rounds in other places (2⁻⁸ each), int8 quantizes weights and activations."""


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative difference of a replacement whose weights have `dtype`."""
    return _TOLERANCE[dtype]


def difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    """‖got - expected‖ / ‖expected‖; infinite for another shape or where it is no number."""
    if got.shape != expected.shape:
        return float("inf")
    exact = expected.double()
    relative = (got.double() - exact).norm() / exact.norm().clamp_min(1e-12)
    return float(relative.nan_to_num(float("inf")))
