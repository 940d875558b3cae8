"""Experts against float64; a token by itself and among others."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.kernels.experts import PackedExperts
from headrace.model.kernels.library import Kernels
from headrace.model.kernels.linear import Activation, PackedLinear

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.int8: 8e-2}


class Case:
    """Random experts, packed and not."""

    def __init__(self, kernels: Kernels, num: int, hidden: int, width: int, dtype: torch.dtype, gated: bool = True):
        generator = torch.Generator().manual_seed(num * hidden + width)
        io_dtype = torch.float32 if dtype == torch.float32 else torch.bfloat16

        def random(*shape: int) -> torch.Tensor:
            return (torch.randn(*shape, generator=generator) / shape[-1] ** 0.5).to(io_dtype)

        self.gated = gated
        self.inner, self.down = random(num, 2 * width if gated else width, hidden), random(num, hidden, width)
        self.biases = random(num, hidden).float()
        pairs = [
            (
                PackedLinear.of(kernels, inner, dtype=dtype, gated=gated),
                PackedLinear.of(kernels, down, bias, dtype=dtype),
            )
            for inner, down, bias in zip(self.inner, self.down, self.biases, strict=True)
        ]
        self.packed = PackedExperts(kernels, pairs, Activation.SILU)

    def expected(self, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Token by token."""
        rows = []
        for token, experts, factors in zip(x.double(), index.tolist(), weights.double(), strict=True):
            terms = []
            for e in experts:
                y = self.inner[e].double() @ token
                half = len(y) // 2
                y = torch.nn.functional.silu(y[:half]) * y[half:] if self.gated else torch.nn.functional.silu(y)
                terms.append(self.down[e].double() @ y + self.biases[e].double())
            rows.append((torch.stack(terms) * factors[:, None]).sum(0))
        return torch.stack(rows)


def tokens(count: int, hidden: int, num: int, k: int, dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, hidden, generator=generator).to(torch.float32 if dtype == torch.float32 else torch.bfloat16)
    index = torch.rand(count, num, generator=generator).argsort(1)[:, :k]
    return x, index, torch.rand(count, k, generator=generator).to(x.dtype)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 40),
    num=st.sampled_from([1, 3, 8, 40]),
    k=st.integers(1, 4),
    hidden=st.sampled_from([16, 50, 130]),
    width=st.sampled_from([7, 32, 65]),
    dtype=st.sampled_from(list(LIMITS)),
    gated=st.booleans(),
)
def test_equals_float64(open_isa, count, num, k, hidden, width, dtype, gated) -> None:
    """Experts that nobody chose, and one that all choose, among them."""
    case = Case(open_isa(2), num, hidden, width, dtype, gated)
    x, index, weights = tokens(count, hidden, num, min(k, num), dtype, seed=count)
    expected = case.expected(x, index, weights)
    got = case.packed(x, index, weights).double()
    assert (got - expected).norm() <= LIMITS[dtype] * expected.norm()


@pytest.mark.parametrize("dtype", list(LIMITS))
def test_alone_and_in_any_batch(open_isa, dtype: torch.dtype) -> None:
    """Bit by bit, also in a batch that goes through in pieces."""
    x, index, weights = tokens(700, 40, 6, 2, dtype, seed=1)
    together = Case(open_isa(3), 6, 40, 24, dtype).packed(x, index, weights)
    case = Case(open_isa(1), 6, 40, 24, dtype)
    for i in (0, 1, 300, 511, 512, 699):
        one = slice(i, i + 1)
        assert torch.equal(case.packed(x[one], index[one], weights[one])[0], together[i])
    order = torch.randperm(700, generator=torch.Generator().manual_seed(2))
    assert torch.equal(case.packed(x[order], index[order], weights[order]), together[order])


def test_an_expert_that_is_not_there(open_isa) -> None:
    """Is refused, not read from beyond the end."""
    case = Case(open_isa(1), 3, 16, 8, torch.float32)
    for e in (-1, 3):
        with pytest.raises(ValueError, match="experts"):
            case.packed(torch.randn(1, 16), torch.tensor([[e]]), torch.ones(1, 1))
