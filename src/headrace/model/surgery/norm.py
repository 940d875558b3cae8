"""RMS and layer norms, found by their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from headrace.model.surgery.lease import Lease
from headrace.model.surgery.linear import rows_of
from headrace.model.surgery.numerics import difference, random_like, tolerance
from headrace.model.surgery.watch import Call

_EPS = (1e-5, 1e-6)
"""For classes that keep theirs in no attribute."""

_SMALL = 1e-3
"""Scale of a sample whose variance is near every usual eps."""


@dataclass(frozen=True, slots=True)
class Norm:
    """(x - mean if centered) / sqrt(variance + eps) · (weight + offset) + bias over the last dimension, n wide."""

    n: int
    eps: float
    centered: bool
    offset: float
    weight: torch.Tensor | None
    bias: torch.Tensor | None

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        """In float64."""
        wide = x.double()
        wide = wide - wide.mean(-1, keepdim=True) if self.centered else wide
        y = wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        y = y if self.weight is None else y * (self.weight.double() + self.offset)
        return y if self.bias is None else y + self.bias.double()


def read_norm(module: nn.Module, call: Call) -> Norm | None:
    """The norm that a module computes, whatever its class; None when it is none that the kernels do."""
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    x = call.args[0] if len(call.args) == 1 and not call.kwargs else None
    if module._modules or set(module._parameters) - {"weight", "bias"} or not isinstance(x, torch.Tensor):
        return None
    same = isinstance(call.result, torch.Tensor) and call.result.shape == x.shape and call.result.dtype == x.dtype
    held = [parameter for parameter in (weight, bias) if parameter is not None]
    if not same or not x.is_floating_point() or any(p.shape != x.shape[-1:] or p.dtype != x.dtype for p in held):
        return None
    if not held and call.result is x:
        return None
    shifted = random_like(x) + 1  # so that taking off the mean or not makes a difference, however long the row
    samples = [shifted, shifted * _SMALL]
    expected = [module(sample) for sample in samples]

    def error(norm: Norm) -> float:
        return max(difference(y, norm.reference(sample)) for sample, y in zip(samples, expected, strict=True))

    best = min(_candidates(module, x.shape[-1], weight, bias), key=error)
    return best if error(best) <= tolerance(x.dtype) else None


def _candidates(module: nn.Module, n: int, weight: torch.Tensor | None, bias: torch.Tensor | None) -> Iterator[Norm]:
    numbers = [value for value in vars(module).values() if isinstance(value, float) and 0 < value < _SMALL]
    for eps in numbers or _EPS:
        for centered in (False, True):
            for offset in (0.0,) if weight is None else (0.0, 1.0):
                yield Norm(n, eps, centered, offset, weight, bias)


class NormForward:
    """The forward of a norm: [..., n] → [..., n].

    Attributes:
        norm: which.
    """

    def __init__(self, lease: Lease, norm: Norm) -> None:
        """Nothing is packed."""
        self._kit = lease.kit
        self.norm = norm

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize."""
        return self._kit.norm(rows_of(x), self.norm).view(x.shape)
