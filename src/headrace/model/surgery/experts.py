"""Experts whose weights transformers keeps in two stacks: [E, 2I, H] gates and ups, [E, H, I] downs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from headrace.model.kernels.experts import PackedExperts
from headrace.model.kernels.linear import Activation
from headrace.model.surgery.activations import FUNCTIONS, candidates
from headrace.model.surgery.lease import Lease, Part
from headrace.model.surgery.numerics import difference, near_and_far, tolerance
from headrace.model.surgery.watch import Call


@dataclass(frozen=True, slots=True)
class Experts:
    """Sum over a token's experts e of weight[e] · down[e](act(gate[e]) · up[e]).

    Attributes:
        inner: [E, 2I, H]. down: [E, H, I]. gate_half: which half of `inner` is the gates.
    """

    inner: nn.Parameter
    down: nn.Parameter
    gate_half: int
    activation: Activation


def read_experts(module: nn.Module, call: Call) -> Experts | None:
    """How a stack of experts computes, by sending all tokens to one of them; None for other modules."""
    stacks = [parameter for parameter in module._parameters.values() if parameter is not None]
    if len(stacks) != 2 or any(stack.dim() != 3 for stack in stacks) or not _is_routed(call):
        return None
    hidden, index, weights = call.args
    inner, down = stacks
    num_experts, width = inner.shape[0], inner.shape[1] // 2
    if down.shape != (num_experts, inner.shape[2], width) or inner.shape[2] != hidden.shape[-1]:
        return None
    x = near_and_far(hidden)
    last = num_experts - 1
    expected = module(x, torch.full_like(index, last), torch.full_like(weights, 1 / index.shape[-1]))
    halves = functional.linear(x, inner[last]).chunk(2, -1)
    for activation in candidates(module, set()):
        for gate_half in (0, 1):
            y = FUNCTIONS[activation](halves[gate_half]) * halves[1 - gate_half]
            if difference(functional.linear(y, down[last]), expected) <= tolerance(x.dtype):
                return Experts(inner, down, gate_half, activation)
    return None


def _is_routed(call: Call) -> bool:
    """Whether a call passes tokens [T, H], the experts [T, k] of each, and their weights [T, k]."""
    if len(call.args) != 3 or call.kwargs or not all(isinstance(value, torch.Tensor) for value in call.args):
        return False
    hidden, index, weights = call.args
    return bool(hidden.dim() == 2 and index.dim() == 2 and index.dtype == torch.int64 and index.shape == weights.shape)


def _rows(stack: nn.Parameter, expert: int, rows: slice) -> Part:
    return Part(stack, lambda weights: weights[expert, rows])


class ExpertsForward:
    """The forward of experts: tokens [T, H], their experts [T, k] and the weights of these → [T, H]."""

    def __init__(self, lease: Lease, experts: Experts) -> None:
        """Pack every expert."""
        width = experts.inner.shape[1] // 2
        gate = slice(experts.gate_half * width, (experts.gate_half + 1) * width)
        up = slice((1 - experts.gate_half) * width, (2 - experts.gate_half) * width)
        packed = []
        for e in range(experts.inner.shape[0]):
            inner = lease.pack([_rows(experts.inner, e, rows) for rows in (gate, up)], gated=True)
            packed.append((inner, lease.pack([_rows(experts.down, e, slice(None))])))
        self._experts = PackedExperts(lease.kernels, packed, experts.activation)

    def __call__(self, hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """All experts in one call."""
        return self._experts(hidden, index, weights)
