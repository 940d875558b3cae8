"""Sampling without the host gives every row the token of `Sampler`, drawn by torch or by the kernel."""

from __future__ import annotations

import random

import pytest
import torch

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.device_draws import DeviceDraws
from headrace.engine.runner.device_sampling import is_special, sample_special
from headrace.engine.runner.draw_settings import DrawSettings
from headrace.engine.runner.sampler import NON_FINITE, NOTHING_LEFT, Sampler, raw_outcomes
from headrace.engine.sampling_params import SamplingParams

V = 700
CPU = torch.device("cpu")
SETTINGS = [
    {"temperature": 0.0},
    {"temperature": 0.0, "logit_bias": {3: 9.0}},
    {"temperature": 0.0, "repetition_penalty": 1.5},
    {"temperature": 0.7},
    {"temperature": 1.0, "top_k": 3},
    {"temperature": 1.0, "top_k": 300},
    {"temperature": 1.3, "top_p": 0.9},
    {"temperature": 5.0, "top_p": 0.999},
    {"temperature": 1.0, "min_p": 0.2, "top_k": 40, "top_p": 0.8},
]


def _rows(count: int) -> list[SamplingRow]:
    rng = random.Random(count)
    rows = []
    for i in range(count):
        params = SamplingParams(**rng.choice(SETTINGS))  # type: ignore[arg-type]
        banned = (5, 6) if i % 4 == 0 else ()
        rows.append(SamplingRow(params, rng.randrange(2**64), 10 + i, [1, 2, 3], [4, 5], banned))
    return rows


def _sampled(logits: torch.Tensor, rows: list[SamplingRow], draws: DeviceDraws | None) -> list[int]:
    outcomes = raw_outcomes(logits)
    at = [i for i, row in enumerate(rows) if is_special(row)]
    some = [rows[i] for i in at]
    if at:
        sample_special(logits, outcomes, at, some, DrawSettings.of(some, V, CPU), draws)
    return outcomes.tolist()


@pytest.mark.parametrize("count", [1, 2, 17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_are_those_of_the_sampler(count: int, dtype: torch.dtype) -> None:
    logits = (4 * torch.randn(count, V, generator=torch.Generator().manual_seed(count))).to(dtype)
    rows = _rows(count)
    assert _sampled(logits, rows, None) == [s.token_id for s in Sampler(V, CPU).sample(logits, rows)]


def test_the_kernel_draws_the_same_in_both_samplers() -> None:
    draws = DeviceDraws()
    logits = 4 * torch.randn(9, V, generator=torch.Generator().manual_seed(0))
    rows = _rows(9)
    waited = [s.token_id for s in Sampler(V, CPU, draws=draws).sample(logits, rows)]
    assert _sampled(logits, rows, draws) == waited
    torch_ways = _sampled(logits, rows, None)
    assert sum(a == b for a, b in zip(waited, torch_ways, strict=True)) >= 8  # but for a rounding of e^x


@pytest.mark.parametrize("kernel", [False, True])
def test_rows_that_cannot_be_sampled_are_marked_and_leave_the_others_alone(kernel: bool) -> None:
    draws = DeviceDraws() if kernel else None
    rows = _rows(6)
    logits = torch.randn(6, V, generator=torch.Generator().manual_seed(1))
    expected = _sampled(logits, rows, draws)
    logits[1, 9] = torch.nan
    logits[4] = -torch.inf
    found = _sampled(logits, rows, draws)
    assert (found[1], found[4]) == (NON_FINITE, NON_FINITE)
    assert [found[i] for i in (0, 2, 3, 5)] == [expected[i] for i in (0, 2, 3, 5)]
    banned = rows[0]._replace(params=SamplingParams(temperature=1.0), banned_token_ids=tuple(range(V)))
    assert _sampled(logits[:1], [banned], draws) == [NOTHING_LEFT]
