"""When two results count as the same formula."""

from __future__ import annotations

import math

import torch

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2, torch.int8: 0.12}
"""Largest ‖difference‖ / ‖expected‖ of a row of one replaced module. A wrong formula is off by some tenths at least;
bfloat16 rounds in other places (2⁻⁸ each; float16 2⁻¹¹), int8 quantizes weights and activations."""

FAR = 32.0
"""Factor on hidden states that drives products beyond every clamp in use."""


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative difference of a replacement whose weights have `dtype`."""
    return _TOLERANCE[dtype]


def difference(got: torch.Tensor, expected: torch.Tensor, share: float = 1.0) -> float:
    """The largest ‖got - expected‖ / ‖expected‖ among the best `share` of the rows.

    Infinite for another shape, or where it is no number.
    """
    if got.shape != expected.shape:
        return float("inf")
    exact = expected.detach().double()
    relative = (got.detach().double() - exact).norm(dim=-1) / exact.norm(dim=-1).clamp_min(1e-12)
    return float(relative.nan_to_num(float("inf")).flatten().sort().values[math.ceil(share * relative.numel()) - 1])


def random_like(x: torch.Tensor) -> torch.Tensor:
    """Normal numbers, always the same for one shape."""
    generator = torch.Generator().manual_seed(x.shape[-1])
    return torch.randn(x.shape, generator=generator).to(x.device, x.dtype)


def near_and_far(x: torch.Tensor) -> torch.Tensor:
    """Normal numbers, every second row `FAR` times as large: clamps that ordinary numbers never meet show there."""
    sample = random_like(x)
    sample.view(-1, x.shape[-1])[1::2] *= FAR
    return sample


def same(a: object, b: object) -> bool:
    """Whether two tensors hold the same rows."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.numel() != b.numel():
        return False
    return torch.equal(a.reshape(-1), b.reshape(-1))
