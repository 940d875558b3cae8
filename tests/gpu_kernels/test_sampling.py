"""Draws by threshold search give the tokens of the sampler, which sorts; and read nothing back to the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.draw_settings import DrawSettings
from headrace.engine.runner.sampler import Sampler
from headrace.model.triton_kernels.sampling import draw
from tests.sampling.reference import distribution, row, token_at

BLOCK = 1024
CPU = torch.device("cpu")


def drawn(logits: torch.Tensor, rows: Sequence[SamplingRow], device: str, **options: int) -> list[int]:
    columns = DrawSettings.of(rows, logits.shape[-1], torch.device(device))
    named = {name: getattr(columns, name) for name in ("uniform", "sharpness", "top_k", "top_p", "min_p")}
    ids = draw(logits.to(device), **named, **{"block": BLOCK, **options})
    assert ids.dtype == torch.int64
    return ids.tolist()


def expected(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[int | None]:
    return [sample.token_id for sample in Sampler(logits.shape[-1], CPU).sample(logits, rows)]


def assert_same(logits: torch.Tensor, rows: Sequence[SamplingRow], device: str) -> None:
    """The same tokens, but where e^x is rounded otherwise and the random number falls between."""
    got, wanted = drawn(logits, rows, device), expected(logits, rows)
    for i, (token, other) in enumerate(zip(got, wanted, strict=True)):
        assert token == other or is_on_a_boundary(logits[i], rows[i], token, other)


def is_on_a_boundary(logits: torch.Tensor, row: SamplingRow, token: int, other: int | None) -> bool:
    values = logits.double().numpy()
    spread = distribution(values, row.params)
    uniform = float(DrawSettings.of([row], len(values), CPU).uniform)
    n = -(-len(values) // 32)
    orders = (
        np.argsort(-values, kind="stable"),
        np.array([i for i in (np.arange(32 * n).reshape(32, n).T.flatten()) if i < len(values)]),
    )
    return other is not None and any(
        token_at(uniform, spread, order, token) and token_at(uniform, spread, order, other) for order in orders
    )


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.1, 0.7, 1.0, 5.0]),
        "top_k": st.sampled_from([1, 5, 127, 128, 400, 5000]),
        "top_p": st.sampled_from([0.01, 0.5, 0.9, 0.999]),
        "min_p": st.sampled_from([0.02, 0.5, 1.0]),
    },
)


def logits_of(vocab_size: int, num_rows: int, seed: int, scale: float, dtype: torch.dtype) -> torch.Tensor:
    values = torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed)) * scale
    values[:, ::7] = -torch.inf if vocab_size > 20 else 0.0
    return values.to(dtype)


@settings(max_examples=3)
@given(
    st.sampled_from([1, 40, 129, 1500]),
    st.lists(SETTINGS, min_size=2, max_size=2),
    st.integers(0, 2**31),
    st.sampled_from([0.1, 3.0]),
)
def test_tokens_of_the_sampler(device, vocab_size, params, seed, scale):
    rows = [row(seed=seed + i, position=i, **p) for i, p in enumerate(params)]
    assert_same(logits_of(vocab_size, len(rows), seed, scale, torch.float32), rows, device)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.sampled_from([1, 31, 128, 129, 1000, 3000]),
    st.lists(SETTINGS, min_size=6, max_size=6),
    st.integers(0, 2**31),
    st.sampled_from([0.1, 1.0, 3.0, 30.0]),
)
def test_tokens_of_the_sampler_for_many(device, vocab_size, params, seed, scale):
    rows = [row(seed=seed + i, position=i, **p) for i, p in enumerate(params)]
    assert_same(logits_of(vocab_size, len(rows), seed, scale, torch.float32), rows, device)


ONE_FILTER: list[dict[str, Any]] = [{}, {"top_k": 40}, {"top_k": 300}, {"top_p": 0.6}, {"min_p": 0.2}]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_where_many_logits_tie(dtype, device):
    rows = [row(seed=i, position=i, **params) for i, params in enumerate(ONE_FILTER)]
    assert_same(logits_of(700, len(rows), 5, 1.0, dtype), rows, device)


def test_equals_are_kept_by_id(device):
    """Of four equal tokens half the mass is the first two; both zeros are one value."""
    logits = torch.tensor([[0.0, -0.0, 0.0, -0.0]]).repeat(8, 1)
    rows = [row(seed=i, top_p=0.5) for i in range(8)]
    assert set(drawn(logits, rows, device)) == {0, 1}
    assert drawn(logits, rows, device) == expected(logits, rows)


def test_rows_without_a_finite_peak_have_no_token(device):
    logits = torch.randn(4, 50)
    logits[0, 30] = torch.nan
    logits[1, 3] = torch.inf
    logits[2] = -torch.inf
    rows = [row(seed=i, top_p=0.9) for i in range(4)]
    assert drawn(logits, rows, device)[:3] == [-1, -1, -1]
    assert drawn(logits, rows, device)[3] == expected(logits[3:], rows[3:])[0]


@pytest.mark.slow
def test_a_row_is_the_same_alone_and_beside_others(device):
    logits = logits_of(900, 3, 1, 3.0, torch.float32)
    rows = [row(seed=i, position=3, **p) for i, p in enumerate(({"top_p": 0.9}, {"top_k": 200}, {}))]
    together = drawn(logits, rows, device)
    assert [drawn(logits[i : i + 1], rows[i : i + 1], device)[0] for i in range(3)] == together


@pytest.mark.slow
def test_rows_with_a_stride_and_blocks_of_any_size(device):
    wide = logits_of(600, 3, 2, 3.0, torch.float32)
    rows = [row(seed=i, **p) for i, p in enumerate(({"top_p": 0.9}, {"top_k": 20}, {"temperature": 2.0}))]
    wanted = expected(wide[:, :500].contiguous(), rows)
    for block in (128, 1024):
        assert drawn(wide.to(device)[:, :500], rows, device, block=block) == wanted


def test_a_setting_that_is_not_one_number_per_row_is_refused(device):
    columns = DrawSettings.of([row(), row()], 50, torch.device(device))
    named = {name: getattr(columns, name) for name in ("uniform", "sharpness", "top_k", "top_p", "min_p")}
    with pytest.raises(ValueError, match="one number per row"):
        draw(torch.randn(3, 50, device=device), **named)


def test_transposed_logits_are_refused(device):
    with pytest.raises(ValueError, match="dense"):
        drawn(torch.randn(50, 2).t(), [row(), row()], device)
