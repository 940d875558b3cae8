"""Tokens come as often as the settings say: chi-square against the reference distribution, with fixed seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headrace.engine.runner.sampler import Sampler
from tests.sampling.reference import distribution, row
from tests.sampling.test_draws import chi_square

N = 8_000
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 7},
    {"top_p": 0.8},
    {"min_p": 0.05},
    {"top_k": 12, "top_p": 0.9, "min_p": 0.02, "temperature": 1.3},
    {"top_k": 150},  # more than the shortlist: the full row is sorted
    {"top_p": 0.97, "temperature": 5.0},  # the shortlist does not suffice
]


@pytest.mark.parametrize("params", SETTINGS, ids=str)
@pytest.mark.parametrize("vocab_size", [50, 333])
def test_frequencies(params: dict[str, Any], vocab_size: int) -> None:
    logits = torch.randn(vocab_size, generator=torch.manual_seed(1)) * 2
    sampler = Sampler(vocab_size, torch.device("cpu"))
    drawn = []
    for start in range(0, N, 2000):
        rows = [row(seed=i % 10, position=i // 10, **params) for i in range(start, start + 2000)]
        drawn += [sample.token_id for sample in sampler.sample(logits.expand(2000, -1), rows)]
    counts = np.bincount(drawn, minlength=vocab_size)
    expected = N * distribution(logits.double().numpy(), rows[0].params)

    assert counts[expected == 0].sum() == 0
    rare = expected < 10
    observed = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    keep = wanted > 0
    assert abs(chi_square(observed[keep], wanted[keep])) < 4
