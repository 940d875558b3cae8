"""Linear layers over packed weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headrace.model.kernels.linear import PackedLinear
from headrace.model.surgery.lease import Lease, Part
from headrace.model.surgery.numerics import difference, near_and_far, tolerance
from headrace.model.surgery.watch import Call

_EXACT_BELOW = 256
"""int8 is for matrices that cost time; one with fewer outputs (a router of experts) keeps the model's dtype."""


def transposed(weight: torch.Tensor) -> torch.Tensor:
    """A view of [K, N] as [N, K], and back."""
    return weight.t()


def read_linear(module: nn.Module, call: Call) -> Part | None:
    """The rows of a module that computes x · wᵀ + b, whatever its class; w [N, K], or [K, N] as GPT-2 has it.

    None when it is none: it holds other things, or its result is another one.
    """
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    known = {"weight", "bias"}
    if weight is None or weight.dim() != 2 or module._modules or set(module._parameters) - known:
        return None
    x = call.args[0] if len(call.args) == 1 and not call.kwargs else None
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or not isinstance(call.result, torch.Tensor):
        return None
    if type(module).forward is nn.Linear.forward:
        return Part(weight, bias=bias)
    for part in (Part(weight, bias=bias), Part(weight, transposed, bias)):
        n, k = part.view(weight).shape
        if x.shape[-1] != k or call.result.shape[-1] != n:
            continue
        sample = near_and_far(x)
        if difference(nn.functional.linear(sample, part.view(weight), bias), module(sample)) <= tolerance(weight.dtype):
            return part
    return None


def random_if_float(value: Any) -> Any:
    """Normal numbers for a tensor of hidden states; everything else as it is."""
    is_hidden = isinstance(value, torch.Tensor) and value.is_floating_point()
    return near_and_far(value) if is_hidden else value


class LinearForward:
    """The forward of a linear layer: [..., K] → [..., N].

    Attributes:
        part: what was packed. matrix: what it was packed in.
    """

    def __init__(self, lease: Lease, part: Part) -> None:
        """Pack its weight."""
        self.part = part
        self.matrix = lease.pack([part], exact=len(part.rows) < _EXACT_BELOW)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return multiply(self.matrix, x)


def multiply(matrix: PackedLinear, x: torch.Tensor) -> torch.Tensor:
    """A packed matrix times the last dimension of x [..., K]."""
    out = matrix(rows_of(x))
    return out if x.dim() == 2 else out.view(*x.shape[:-1], matrix.out_features)


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """X [..., K] as [M, K] with dense rows."""
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()
