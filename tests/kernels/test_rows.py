"""Norms, activations and argmax against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.kernels.linear import Activation
from headrace.model.kernels.rows import activate, argmax, norm

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
LIMITS = {torch.float32: 2e-6, torch.bfloat16: 8e-3}


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Normal values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@FEW
@given(
    m=st.integers(1, 30),
    n=st.integers(1, 300),
    dtype=DTYPES,
    centered=st.booleans(),
    with_bias=st.booleans(),
    with_residual=st.booleans(),
    offset=st.sampled_from([0.0, 1.0]),
)
def test_norm_equals_float64(open_isa, m, n, dtype, centered, with_bias, with_residual, offset) -> None:
    """RMS and layer norms with all that they can carry; the residual is updated as torch would."""
    x, weight = random((m, n), 1, dtype), random((n,), 2, dtype)
    bias = random((n,), 3, dtype) if with_bias else None
    residual = random((m, n), 4, dtype) if with_residual else None
    summed = x if residual is None else x + residual
    v = summed.double().numpy()
    v = v - v.mean(axis=1, keepdims=True) if centered else v
    v = v / np.sqrt((v**2).mean(axis=1, keepdims=True) + 1e-5) * (weight.double().numpy() + offset)
    v = v if bias is None else v + bias.double().numpy()
    out = norm(open_isa(2), x, weight, 1e-5, bias=bias, residual=residual, centered=centered, offset=offset)
    assert residual is None or torch.equal(residual, summed)
    assert np.abs(out.double().numpy() - v).max() < LIMITS[dtype] * max(1.0, np.abs(v).max())


@FEW
@given(m=st.integers(1, 9), n=st.integers(1, 100), dtype=DTYPES, gated=st.booleans())
@pytest.mark.parametrize("activation", list(Activation))
def test_activation_equals_torch(open_isa, m: int, n: int, dtype: torch.dtype, gated: bool, activation) -> None:
    """Of both halves of one tensor, from far below zero to far above."""
    both = random((m, 2 * n), 1, dtype) * 30
    gate, up = both[:, :n], both[:, n:]
    functions = {
        Activation.IDENTITY: lambda v: v,
        Activation.SILU: torch.nn.functional.silu,
        Activation.GELU: torch.nn.functional.gelu,
        Activation.GELU_TANH: lambda v: torch.nn.functional.gelu(v, approximate="tanh"),
        Activation.RELU: torch.relu,
    }
    expected = functions[activation](gate.double()) * (up.double() if gated else 1)
    out = activate(open_isa(2), gate, up if gated else None, activation)
    torch.testing.assert_close(out.double(), expected, rtol=LIMITS[dtype], atol=3e-6 * 100)


@FEW
@given(m=st.integers(1, 5), n=st.integers(1, 500), dtype=DTYPES, seed=st.integers(0, 99))
def test_argmax_is_the_lowest_of_the_highest(open_isa, m: int, n: int, dtype: torch.dtype, seed: int) -> None:
    """Also where several are equal."""
    x = torch.randint(-3, 4, (m, n), generator=torch.Generator().manual_seed(seed)).to(dtype)
    expected = [row.tolist().index(max(row.tolist())) for row in x]
    assert argmax(open_isa(2), x).tolist() == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [0, 15, 16, 63, 64])
def test_argmax_says_which_rows_are_not_finite(open_isa, value: float, column: int) -> None:
    """Those rows alone."""
    for dtype in (torch.float32, torch.bfloat16):
        x = random((3, 65), 0, dtype)
        expected = argmax(open_isa(1), x).tolist()
        x[1, column] = value
        assert argmax(open_isa(1), x).tolist() == [expected[0], -1, expected[2]]
