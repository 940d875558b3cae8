"""Linear layers: recognised by what they compute, their weights lent to panels and given back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headrace.model.kernels.library import Kernels
from headrace.model.surgery.lease import Lease, Part, Terms
from headrace.model.surgery.linear import read_linear, transposed
from headrace.model.surgery.watch import Call

X = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(0))


def call_of(module: nn.Module, x: torch.Tensor = X) -> Call:
    return Call((x,), {}, module(x))


class Transposed(nn.Module):
    """As GPT-2 keeps its weights."""

    def __init__(self, k: int, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(k, n))
        self.bias = nn.Parameter(torch.randn(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


class Scaled(nn.Linear):
    """Looks like a linear layer, and is none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 1.01


class TwoArguments(nn.Linear):
    def forward(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        return super().forward(x) * scale


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_recognises_linear_layers(bias: bool) -> None:
    linear = nn.Linear(24, 40, bias=bias)
    part = read_linear(linear, call_of(linear))
    assert part is not None
    assert part.parameter is linear.weight
    assert (part.bias is not None) == bias


@torch.no_grad()
@pytest.mark.parametrize("n", [40, 24])
def test_recognises_which_way_round_a_weight_is(n: int) -> None:
    module = Transposed(24, n)
    part = read_linear(module, call_of(module))
    assert part is not None
    assert torch.equal(part.rows, module.weight.t())


@torch.no_grad()
def test_leaves_what_is_no_linear_layer() -> None:
    scaled = Scaled(24, 40)
    assert read_linear(scaled, call_of(scaled)) is None
    two = TwoArguments(24, 40)
    assert read_linear(two, Call((X, 2.0), {}, two(X, 2.0))) is None
    embedding = nn.Embedding(24, 24)
    ids = torch.arange(5)[None]
    assert read_linear(embedding, Call((ids,), {}, embedding(ids))) is None
    norm = nn.LayerNorm(24)
    assert read_linear(norm, call_of(norm)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_to_the_bit(kernels: Kernels, dtype: torch.dtype) -> None:
    whole = nn.Parameter(torch.randn(33, 24, dtype=dtype))
    turned = nn.Parameter(torch.randn(24, 7, dtype=dtype))
    stacked = nn.Parameter(torch.randn(3, 10, 24, dtype=dtype))
    before = [parameter.detach().clone() for parameter in (whole, turned, stacked)]
    lease = Lease(Terms(kernels, dtype, frozenset()))
    lease.pack([Part(whole), Part(turned, transposed)])
    for expert in range(3):
        lease.pack([Part(stacked, lambda w, expert=expert: w[expert])])
    lease.settle()
    for parameter, value in zip((whole, turned, stacked), before, strict=True):
        assert parameter.shape == value.shape
        assert parameter.untyped_storage().nbytes() == dtype.itemsize
        assert parameter.isnan().all()
    lease.give_back()
    assert all(torch.equal(p, value) for p, value in zip((whole, turned, stacked), before, strict=True))
    assert whole.requires_grad
    lease.give_back()
    assert torch.equal(whole, before[0])


def test_a_shared_weight_stays_where_it_is(kernels: Kernels) -> None:
    shared = nn.Parameter(torch.randn(8, 24))
    storage = shared.data_ptr()
    lease = Lease(Terms(kernels, torch.float32, frozenset({id(shared)})))
    lease.pack([Part(shared)])
    lease.settle()
    lease.give_back()
    assert shared.data_ptr() == storage
