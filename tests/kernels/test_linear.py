"""The packed product against float64, and what it promises about bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.kernels.linear import Activation, PackedLinear

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
SIZES = {torch.float32: 3e-6, torch.bfloat16: 6e-3}


def activated(x: np.ndarray, activation: Activation) -> np.ndarray:
    """The activation in float64."""
    t = torch.from_numpy(x)
    functions = {
        Activation.IDENTITY: lambda v: v,
        Activation.SILU: torch.nn.functional.silu,
        Activation.GELU: torch.nn.functional.gelu,
        Activation.GELU_TANH: lambda v: torch.nn.functional.gelu(v, approximate="tanh"),
        Activation.RELU: torch.relu,
    }
    return functions[activation](t).numpy()


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Normal values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@FEW
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 70).map(lambda v: 2 * v),
    k=st.integers(1, 600),
    dtype=DTYPES,
    out_dtype=DTYPES,
    gated=st.booleans(),
    with_bias=st.booleans(),
    with_residual=st.booleans(),
    activation=st.sampled_from(list(Activation)),
    threads=st.integers(1, 3),
)
def test_equals_float64(
    open_isa, m, n, k, dtype, out_dtype, gated, with_bias, with_residual, activation, threads
) -> None:
    """Any shape, dtype, epilogue and number of threads."""
    x, w = random((m, k), 1, dtype), random((n, k), 2, dtype) / k**0.5
    w = w.to(dtype)
    bias = random((n,), 3, torch.float32) if with_bias else None
    width = n // 2 if gated else n
    residual = random((m, width), 4, out_dtype) if with_residual else None
    packed = PackedLinear.of(open_isa(threads), w, bias, gated=gated)
    out = torch.full((m, width), float("nan"), dtype=out_dtype)
    assert packed(x, out=out, residual=residual, activation=activation) is out

    y = x.double().numpy() @ w.double().numpy().T
    if bias is not None:
        y = y + bias.double().numpy()
    y = activated(y[:, :width], activation) * y[:, width:] if gated else activated(y, activation)
    if residual is not None:
        y = y + residual.double().numpy()
    error = np.abs(out.double().numpy() - y).max() / max(1.0, np.abs(y).max())
    assert error < max(SIZES[out_dtype], SIZES[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("n", "k"), [(96, 640), (33, 77), (1, 1)])
def test_a_row_is_the_same_alone_and_in_any_batch(open_isa, dtype: torch.dtype, n: int, k: int) -> None:
    """To the bit: whatever M, the place in the batch, the neighbours and the threads."""
    io_dtype = torch.float32 if dtype == torch.int8 else dtype
    w, x = random((n, k), 1, io_dtype), random((61, k), 2, io_dtype)
    packed = {threads: PackedLinear.of(open_isa(threads), w, dtype=dtype) for threads in (1, 2, 3)}
    alone = torch.cat([packed[1](x[i : i + 1]) for i in range(len(x))])
    for m in (1, 2, 3, 5, 7, 11, 12, 13, 14, 24, 25, 37, 61):
        for threads, linear in packed.items():
            start = (7 * m) % (62 - m)
            assert torch.equal(linear(x[start : start + m]), alone[start : start + m]), (m, threads)


def test_a_row_is_the_same_in_more_rows_than_one_slab(open_isa) -> None:
    """Beyond 512 rows x is packed in parts."""
    w, x = random((40, 130), 1, torch.float32), random((1100, 130), 2, torch.float32)
    linear = PackedLinear.of(open_isa(2), w)
    whole = linear(x)
    assert torch.equal(whole[505:520], linear(x[505:520]))
    assert torch.equal(whole[1090:], linear(x[1090:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_nan_and_infinity_stay_in_their_row(open_isa, dtype: torch.dtype) -> None:
    """A row that is not finite gives nothing finite, and the others what they gave."""
    io_dtype = torch.float32 if dtype == torch.int8 else dtype
    w, x = random((40, 70), 1, io_dtype), random((9, 70), 2, io_dtype)
    linear = PackedLinear.of(open_isa(2), w, dtype=dtype)
    clean = linear(x)
    x[3, 5] = float("nan")
    x[6, 1] = float("inf")
    y = linear(x)
    others = [0, 1, 2, 4, 5, 7, 8]
    assert torch.equal(y[others], clean[others])
    assert y[3].isnan().all()
    assert not y[6].isfinite().any()


def quantized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows to integers in [-127, 127] and their scales, in float32 as the kernels do."""
    highest = np.abs(x).max(axis=1, keepdims=True)
    inverse = np.divide(np.float32(127), highest, out=np.zeros_like(highest), where=highest > 0)
    return np.rint(x * inverse).astype(np.int64), highest.astype(np.float64) / 127


@FEW
@given(m=st.integers(1, 20), n=st.integers(1, 90), k=st.integers(1, 700), io_dtype=DTYPES)
def test_int8_equals_integer_arithmetic(open_isa, m: int, n: int, k: int, io_dtype: torch.dtype) -> None:
    """Rows and channels quantized as documented and multiplied in integers: every instruction set gives the same."""
    x, w = random((m, k), 1, io_dtype), random((n, k), 2, torch.float32)
    y = PackedLinear.of(open_isa(2), w, dtype=torch.int8)(x, out=torch.empty(m, n))
    (xq, x_scale), (wq, w_scale) = quantized(x.float().numpy()), quantized(w.numpy())
    np.testing.assert_allclose(y.numpy(), (xq @ wq.T) * x_scale * w_scale.T, rtol=2e-6, atol=1e-30)


def test_merged_weights_equal_their_parts_and_come_back(open_isa) -> None:
    """Rows loaded from several tensors, strided ones too, multiply like each alone and unload bit by bit."""
    for dtype in (torch.float32, torch.bfloat16):
        parts = [random((rows, 2 * 51), rows, dtype)[:, ::2] for rows in (40, 17, 33)]
        x = random((5, 51), 9, dtype)
        merged = PackedLinear(open_isa(2), 90, 51, dtype)
        for first, part in zip((0, 40, 57), parts, strict=True):
            merged.load(part, first)
        expected = torch.cat([PackedLinear.of(open_isa(1), part)(x) for part in parts], dim=1)
        assert torch.equal(merged(x), expected)
        for first, part in zip((0, 40, 57), parts, strict=True):
            back = torch.empty(part.shape, dtype=dtype)
            merged.unload(back, first)
            assert torch.equal(back, part)


def test_rows_outside_the_matrix_are_refused(open_isa) -> None:
    """Instead of written somewhere."""
    linear = PackedLinear(open_isa(1), 10, 8, torch.float32)
    with pytest.raises(ValueError, match="pack"):
        linear.load(torch.zeros(4, 8), first_row=7)
