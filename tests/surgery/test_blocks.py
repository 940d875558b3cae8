"""Feed-forward blocks and experts: recognised by what they compute, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from headrace.model.kernels.library import Kernels
from headrace.model.kernels.linear import Activation
from headrace.model.surgery.activations import identify
from headrace.model.surgery.experts import ExpertsForward, read_experts
from headrace.model.surgery.lease import Lease, Terms
from headrace.model.surgery.linear import read_linear
from headrace.model.surgery.mlp import Mlp, MlpForward, read_mlp
from headrace.model.surgery.norm import read_norm
from headrace.model.surgery.numerics import difference
from headrace.model.surgery.watch import Call, Watched

X = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Three linear layers and a formula over them."""

    def __init__(self, formula: Callable[..., torch.Tensor], act: nn.Module | None = None) -> None:
        super().__init__()
        self.formula = formula
        self.one = nn.Linear(32, 48)
        self.two = nn.Linear(32, 48)
        self.three = nn.Linear(48, 32, bias=False)
        if act is not None:
            self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.formula(self, x)


class Merged(nn.Module):
    def __init__(self, gate_half: int) -> None:
        super().__init__()
        self.gate_half = gate_half
        self.both = nn.Linear(32, 96)
        self.out = nn.Linear(48, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        halves = self.both(x).chunk(2, -1)
        return self.out(functional.silu(halves[self.gate_half]) * halves[1 - self.gate_half])


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(32, 48)
        self.two = nn.Linear(48, 32)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.two(functional.gelu(self.one(x), approximate="tanh")))


def read(module: nn.Module) -> Mlp | None:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    watched = Watched()

    def note(module: nn.Module, args: tuple[torch.Tensor], result: torch.Tensor) -> None:
        watched.calls[module] = Call(args, {}, result)
        watched.num_calls[module] += 1

    for part in module.eval().modules():
        part.register_forward_hook(note)
    module(X)
    linears = {m: part for m, call in watched.calls.items() if (part := read_linear(m, call)) is not None}
    return read_mlp(module, watched, linears)


FOUND = {
    "gate first": Block(lambda m, x: m.three(functional.silu(m.one(x)) * m.two(x))),
    "gate second": Block(lambda m, x: m.three(m.one(x) * functional.gelu(m.two(x)))),
    "called in the other order": Block(lambda m, x: m.three(functional.relu(m.two(x)) * m.one(x))),
    "activation module": Block(lambda m, x: m.three(m.act(m.one(x)) * m.two(x)), nn.GELU("tanh")),
    "merged": Merged(0),
    "merged, gate second": Merged(1),
    "plain": Plain(),
}
LEFT = {
    "scaled": Block(lambda m, x: m.three(functional.silu(m.one(x)) * m.two(x)) * 2),
    "scaled within": Block(lambda m, x: m.three(functional.silu(m.one(x)) * m.two(x) * 2)),
    "residual": Block(lambda m, x: x + m.three(functional.silu(m.one(x)) * m.two(x))),
    "sum": Block(lambda m, x: m.three(functional.silu(m.one(x)) + m.two(x))),
    "two activations": Block(lambda m, x: m.three(functional.silu(m.one(x)) * functional.silu(m.two(x)))),
    "unknown activation": Block(lambda m, x: m.three(m.act(m.one(x)) * m.two(x)), nn.Tanh()),
    "called twice": Block(lambda m, x: m.three(functional.silu(m.one(m.three(m.two(x)))) * m.two(x))),
}


@torch.no_grad()
@pytest.mark.parametrize("name", FOUND)
def test_a_block_is_replaced_by_what_it_computes(kernels: Kernels, name: str) -> None:
    block = FOUND[name]
    mlp = read(block)
    assert mlp is not None
    x = torch.randn(3, 32)
    forward = MlpForward(Lease(Terms(kernels, torch.float32, frozenset())), mlp)
    assert difference(forward(x), block(x)) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("name", LEFT)
def test_other_blocks_are_left(name: str) -> None:
    assert read(LEFT[name]) is None


def test_activations_are_told_apart() -> None:
    assert identify(nn.GELU()) == Activation.GELU
    assert identify(nn.GELU("tanh")) == Activation.GELU_TANH
    assert identify(nn.SiLU()) == Activation.SILU
    assert identify(nn.ReLU()) == Activation.RELU
    assert identify(nn.Dropout(0.5).eval()) == Activation.IDENTITY
    assert identify(nn.Tanh()) is None
    assert identify(nn.LayerNorm(7)) is None


class Experts(nn.Module):
    """One product per token and expert."""

    def __init__(self, gate_half: int, scale: float = 1.0) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.randn(4, 48, 32) / 4)
        self.out = nn.Parameter(torch.randn(4, 32, 24) / 4)
        self.gate_half, self.scale = gate_half, scale

    def forward(self, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        halves = torch.einsum("th,tkih->tki", x, self.inner[index]).chunk(2, -1)
        y = functional.silu(halves[self.gate_half]) * halves[1 - self.gate_half] * self.scale
        return torch.einsum("tki,tkhi,tk->th", y, self.out[index], weights)


def routed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    index = torch.tensor([[0, 2], [2, 3], [3, 0], [2, 0], [0, 3]])  # nobody goes to expert 1
    return torch.randn(5, 32), index, torch.rand(5, 2)


@torch.no_grad()
@pytest.mark.parametrize("gate_half", [0, 1])
def test_experts(kernels: Kernels, gate_half: int) -> None:
    torch.manual_seed(0)
    module, arguments = Experts(gate_half), routed()
    experts = read_experts(module, Call(arguments, {}, module(*arguments)))
    assert experts is not None
    forward = ExpertsForward(Lease(Terms(kernels, torch.float32, frozenset())), experts)
    whole = forward(*arguments)
    assert difference(whole, module(*arguments)) < 1e-6
    alone = torch.cat([forward(*(a[t : t + 1] for a in arguments)) for t in range(5)])
    assert torch.equal(whole, alone)


@torch.no_grad()
def test_other_experts_are_left() -> None:
    module, arguments = Experts(0, scale=2.0), routed()
    assert read_experts(module, Call(arguments, {}, module(*arguments))) is None


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [64, 4096])
def test_norms_are_told_apart_however_long_the_row(n: int, dtype: torch.dtype) -> None:
    x = torch.randn(1, 4, n, dtype=dtype)
    layer_norm, rms = nn.LayerNorm(n, eps=1e-6).to(dtype), nn.RMSNorm(n, eps=1e-5).to(dtype)
    found = [read_norm(norm, Call((x,), {}, norm(x))) for norm in (layer_norm, rms)]
    assert [(norm.centered, norm.eps, norm.offset) for norm in found if norm] == [(True, 1e-6, 0.0), (False, 1e-5, 0.0)]
