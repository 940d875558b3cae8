"""The kept sets are those of transformers' logits warpers, whichever way they are found."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from headrace.engine.runner.draw_settings import DrawSettings
from headrace.engine.runner.filtering import kept_weights, relative_weights
from headrace.engine.runner.full_row import cut_off, total_mass
from headrace.engine.runner.shortlist import SHORTLIST, UNDECIDED, draw_from_shortlist, most_likely
from tests.sampling.reference import row

ROWS, VOCAB = 16, 2000
SETTINGS: list[dict[str, Any]] = [
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 1500},
    {"top_k": VOCAB + 5},
    {"top_p": 0.05},
    {"top_p": 0.7},
    {"top_p": 0.99, "temperature": 2.0},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"top_k": 60, "top_p": 0.8, "temperature": 0.7},
    {"top_k": 300, "top_p": 0.9, "min_p": 0.05, "temperature": 1.7},
]


def kept_by_transformers(logits: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.get("temperature", 1.0))])
    if "top_k" in params:
        warpers.append(TopKLogitsWarper(params["top_k"]))
    if "top_p" in params:
        warpers.append(TopPLogitsWarper(params["top_p"]))
    if "min_p" in params:
        warpers.append(MinPLogitsWarper(params["min_p"]))
    return torch.isfinite(warpers(torch.zeros(ROWS, 1, dtype=torch.long), logits))


def logits_of(dtype: torch.dtype) -> torch.Tensor:
    """In bfloat16 many logits tie."""
    return (torch.randn(ROWS, VOCAB, generator=torch.manual_seed(3)) * 3).to(dtype).float()


def cases() -> list[Any]:
    """Where tied tokens straddle top_p, transformers keeps those that its unstable sort puts last: not compared."""
    return [
        pytest.param(params, dtype, id=f"{params}-{dtype}")
        for params in SETTINGS
        for dtype in (torch.float32, torch.bfloat16)
        if dtype == torch.float32 or "top_p" not in params
    ]


@pytest.mark.parametrize(("params", "dtype"), cases())
def test_full_row(params: dict[str, Any], dtype: torch.dtype) -> None:
    logits = logits_of(dtype)
    settings = DrawSettings.of([row(**params)] * ROWS, VOCAB, logits.device)
    kept = ~cut_off(logits, settings)
    if "min_p" in params:  # the full row applies it to the weights
        kept &= relative_weights(logits, logits.amax(-1, keepdim=True), settings.sharpness) >= settings.min_p
    assert torch.equal(kept, kept_by_transformers(logits, params))


@pytest.mark.parametrize(("params", "dtype"), cases())
def test_shortlist(params: dict[str, Any], dtype: torch.dtype) -> None:
    logits = logits_of(dtype)
    settings = DrawSettings.of([row(**params)] * ROWS, VOCAB, logits.device)
    values, ids = most_likely(logits, SHORTLIST)
    mass = total_mass(relative_weights(logits, values[:, :1], settings.sharpness))
    weights = kept_weights(values, settings, mass)
    kept = torch.zeros(ROWS, VOCAB, dtype=torch.bool).scatter_(-1, ids, weights > 0)
    expected = kept_by_transformers(logits, params)
    for i in range(ROWS):
        if expected[i].sum() < SHORTLIST:
            assert torch.equal(kept[i], expected[i])


@pytest.mark.parametrize("vocab_size", [5, 16 * SHORTLIST - 1, 16 * SHORTLIST, 5003])
@pytest.mark.parametrize("count", [1, 5, SHORTLIST])
def test_most_likely_is_a_sort(vocab_size: int, count: int) -> None:
    count = min(count, vocab_size)
    logits = torch.randn(6, vocab_size, generator=torch.manual_seed(4))
    logits[0] = torch.arange(vocab_size)  # all in few groups, or spread evenly, …
    logits[1] = -logits[0]
    logits[2, ::3] = -torch.inf
    values, ids = most_likely(logits, count)
    expected = logits.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(values, expected.values[:, :count])
    assert torch.equal(logits.gather(-1, ids), values)
    assert torch.equal(ids[[0, 1, 3]], expected.indices[[0, 1, 3], :count])


def test_top_p_keeps_the_smallest_set_of_equals() -> None:
    """Of four equal tokens half the mass is two of them; under one of half the mass, three quarters are it and one."""
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, math.log(3.0), 0.0]])
    settings = DrawSettings.of([row(top_p=0.5), row(top_p=0.6)], 4, torch.device("cpu"))
    kept = [[True, True, False, False], [True, False, True, False]]
    assert (~cut_off(logits, settings)).tolist() == kept
    values, ids = most_likely(logits, 4)
    weights = kept_weights(values, settings, mass=None)
    assert torch.zeros(2, 4, dtype=torch.bool).scatter_(-1, ids, weights > 0).tolist() == kept


def test_a_shortlist_that_ends_too_early_says_so() -> None:
    """Too flat for top_p; ties with the k-th token; a kept token that ties with some that are not listed."""
    flat = torch.arange(1000, 0, -1) / 1000.0
    tied = torch.cat([torch.full((50,), 9.0), torch.full((200,), 5.0), torch.zeros(750)])
    rows = [row(top_p=0.9), row(top_k=100), row(top_k=50), row(top_p=0.9999), row(top_p=0.1)]
    drawn, _ = draw_from_shortlist(torch.stack([flat, tied, tied, tied, tied]), rows)
    assert (drawn == UNDECIDED).tolist() == [True, True, False, True, False]
