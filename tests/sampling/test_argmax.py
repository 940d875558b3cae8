"""The argmax that reads floats as integers is torch's argmax, and its peak is finite when the row can be used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.runner.argmax import argmax

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
INF = float("inf")


def check(logits: torch.Tensor) -> None:
    ids, peaks = argmax(logits)
    wide = logits.float()
    usable = ~(wide.isnan() | (wide == INF)).any(-1) & (wide > -INF).any(-1)
    assert torch.equal(torch.isfinite(peaks), usable)
    assert torch.equal(ids[usable], torch.from_numpy(wide.numpy().argmax(-1))[usable])
    assert torch.equal(peaks[usable], wide.amax(-1)[usable])


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=12), st.sampled_from([torch.bfloat16, torch.float16]))
@settings(max_examples=500, deadline=None)
def test_any_bits_of_16(bits: list[int], dtype: torch.dtype) -> None:
    check(torch.from_numpy(np.array([bits], dtype=np.uint16).view(np.int16)).view(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_of_equals(dtype: torch.dtype) -> None:
    rows = torch.tensor([[1, 3, 3, 2], [-3, -1, -2, -1], [-1, -0.0, 0.0, -1], [5, 5, 5, 5]], dtype=dtype)
    assert argmax(rows)[0].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("low", [-INF, "min"])
def test_single_tokens_may_be_ruled_out(dtype: torch.dtype, low: float | str) -> None:
    low = torch.finfo(dtype).min if low == "min" else low
    ids, peaks = argmax(torch.tensor([[low, -2.0, low], [low, 4.0, 1.0]], dtype=dtype))
    assert ids.tolist() == [1, 1]
    assert peaks.tolist() == [-2.0, 4.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("others", [1.0, -1.0])
def test_unusable_rows_are_seen(dtype: torch.dtype, others: float) -> None:
    rows = torch.full((5, 8), others, dtype=dtype)
    rows[0, 3] = float("nan")
    rows[1, 3] = -torch.tensor(float("nan"))  # what x86 makes of 0 · ∞
    rows[2, 3] = INF
    rows[3] = -INF
    assert torch.isfinite(argmax(rows)[1]).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_a_wider_tensor(dtype: torch.dtype) -> None:
    check(torch.randn(9, 100).to(dtype)[::2, :77])
