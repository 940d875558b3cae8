"""Weights into panels and rows out of them, by number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.kernels.linear import PackedLinear

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])


def weights(n: int, k: int, dtype: torch.dtype) -> torch.Tensor:
    """Bit patterns of all kinds, NaN and infinity among them."""
    w = torch.randn(n, k, generator=torch.Generator().manual_seed(n * k)).to(dtype)
    w[:: max(n // 3, 1), 0] = float("nan")
    w[0, -1] = float("-inf")
    return w


@FEW
@given(n=st.integers(1, 90).map(lambda v: 2 * v), k=st.integers(1, 200), dtype=DTYPES, gated=st.booleans(),
       threads=st.integers(1, 3), data=st.data())  # fmt: skip
def test_rows_are_those_that_were_packed(open_isa, n: int, k: int, dtype: torch.dtype, gated: bool, threads: int,
                                         data: st.DataObject) -> None:  # fmt: skip
    """Whatever pieces the weight came in, of whatever row stride, and however often a row is asked for."""
    w = weights(n, k, dtype)
    packed = PackedLinear(open_isa(threads), n, k, dtype, gated=gated)
    cut = data.draw(st.integers(0, n))
    padded = torch.zeros(n, k + 5, dtype=dtype)
    padded[:, :k] = w
    packed.load(padded[cut:, :k], cut)
    packed.load(w[:cut], 0)
    ids = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), max_size=20)), dtype=torch.int64)
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(packed.lookup(ids).view(bits), w[ids].view(bits))


def test_rows_that_are_not_there_and_quantized_ones_are_refused(open_isa) -> None:
    """Before anything is written."""
    packed = PackedLinear.of(open_isa(1), torch.randn(8, 4))
    for row in (-1, 8):
        with pytest.raises(ValueError, match="lookup"):
            packed.lookup(torch.tensor([0, row]))
    with pytest.raises(ValueError, match="lookup"):
        PackedLinear.of(open_isa(1), torch.randn(8, 4), dtype=torch.int8).lookup(torch.tensor([0]))
