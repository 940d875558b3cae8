"""Which activation a function is, found by its values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from headrace.model.kernels.linear import Activation
from headrace.model.surgery.numerics import difference

FUNCTIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    Activation.SILU: functional.silu,
    Activation.GELU: functional.gelu,
    Activation.GELU_TANH: partial(functional.gelu, approximate="tanh"),
    Activation.RELU: functional.relu,
}
"""What the kernels compute, in torch's words."""

_SAME = 1e-6
"""The two gelus differ by 2e-4 of their norm, which bfloat16 cannot tell; so activations are asked in float32."""


def identify(function: Callable[[torch.Tensor], torch.Tensor]) -> Activation | None:
    """The kernels' activation that gives the function's values; IDENTITY for one that does nothing, None for others."""
    x = torch.stack((torch.linspace(-8.0, 8.0, 513), torch.linspace(-512.0, 512.0, 513)))  # near, and beyond clamps
    try:
        y = function(x.clone())
    except (RuntimeError, TypeError, ValueError):
        return None
    known = {Activation.IDENTITY: x, **{activation: f(x) for activation, f in FUNCTIONS.items()}}
    return next((activation for activation, expected in known.items() if difference(y, expected) < _SAME), None)


def candidates(module: nn.Module, linears: set[nn.Module]) -> list[Activation]:
    """The activations that a block may apply between its linear layers: its activation child's, or all without one.

    Empty when it has a child that is neither linear nor a known activation nor nothing (dropout).
    """
    others = [identify(child) for child in module.children() if child not in linears]
    if None in others:
        return []
    named = [activation for activation in others if activation not in (None, Activation.IDENTITY)]
    return [activation for activation in named if activation is not None] or list(FUNCTIONS)
