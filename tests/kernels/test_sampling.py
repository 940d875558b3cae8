"""Draws: the tokens that torch's ways draw, whatever the instruction set; each row by itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sampling.reference import row

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.draw_settings import DrawSettings
from headrace.engine.runner.full_row import draw_from_full_row
from headrace.engine.runner.kernel_draws import KernelDraws
from headrace.engine.runner.sampler import Sampler
from headrace.engine.runner.shortlist import SHORTLIST, UNDECIDED, draw_from_shortlist, may_suffice
from headrace.model.kernels.sampling import MOST_LISTED, draw

INF = float("inf")
CHOICES: dict[str, Sequence[Any]] = {
    "temperature": [1.0, 1.0, 0.3, 2.5, 1e-9, 50.0, 1e9],
    "top_k": [0, 0, 1, 5, 50, 127, 128, 700],
    "top_p": [1.0, 1.0, 0.1, 0.5, 0.9, 0.999],
    "min_p": [0.0, 0.0, 0.05, 1.0],
}


def mixed_rows(count: int, choose: random.Random) -> list[SamplingRow]:
    """Every setting beside every other."""
    return [
        row(choose.randrange(2**63), i, **{name: choose.choice(values) for name, values in CHOICES.items()})
        for i in range(count)
    ]


def by_torch(logits: torch.Tensor, rows: list[SamplingRow]) -> list[int]:
    """Row by row."""
    tokens = []
    for i, asked in enumerate(rows):
        one, drawn = logits[i : i + 1].float(), UNDECIDED
        if may_suffice(asked.params, logits.shape[1]):
            drawn = int(draw_from_shortlist(one, [asked])[0])
        tokens.append(drawn if drawn != UNDECIDED else int(draw_from_full_row(one, [asked])[0]))
    return tokens


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vocab_size=st.sampled_from([1, 5, 31, 97, 130, 1001, 2048, 5003]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    scale=st.sampled_from([0.0, 1.0, 8.0]),
    kind=st.sampled_from(["plain", "ties", "holes", "ascending"]),
    seed=st.integers(0, 10_000),
)
def test_the_tokens_of_torch(open_isa, vocab_size, dtype, scale, kind, seed) -> None:
    """The random number would have to fall within 1e-7 of a boundary for another one."""
    logits = torch.randn(12, vocab_size, generator=torch.Generator().manual_seed(seed)) * scale
    if kind == "ties":
        logits = (2 * logits).round() / 2
    elif kind == "holes":
        logits[:, 1::3] = -INF
    elif kind == "ascending":
        logits = logits.sort(dim=1).values
    logits = logits.to(dtype)
    rows = mixed_rows(12, random.Random(seed))
    assert KernelDraws(open_isa(2)).draw(logits, range(12), rows).tolist() == by_torch(logits, rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alone_and_in_any_batch(open_isa, dtype: torch.dtype) -> None:
    """On any number of threads, in any order, and from a slice of wider logits."""
    wide = (torch.randn(40, 3000, generator=torch.Generator().manual_seed(1)) * 4).to(dtype)
    logits, rows = wide[:, 100:2700], mixed_rows(40, random.Random(1))
    together = KernelDraws(open_isa(3)).draw(logits, range(40), rows).tolist()
    alone = [int(KernelDraws(open_isa(1)).draw(logits[i : i + 1].clone(), [0], [rows[i]])) for i in range(40)]
    assert together == alone
    order = random.Random(2).sample(range(40), 25)
    picked = KernelDraws(open_isa(2)).draw(logits, order, [rows[i] for i in order]).tolist()
    assert picked == [together[i] for i in order]
    assert len(set(together)) > 10


@pytest.mark.parametrize("value", [float("nan"), INF, -INF])
def test_rows_without_a_finite_peak(open_isa, value: float) -> None:
    """They have no token, and the others keep theirs; a NaN beside numbers does no harm."""
    logits, rows = torch.randn(3, 500), mixed_rows(3, random.Random(3))
    draws = KernelDraws(open_isa(2))
    before = draws.draw(logits, range(3), rows).tolist()
    logits[1] = value
    assert draws.draw(logits, range(3), rows).tolist() == [before[0], -1, before[2]]
    logits[1] = 0.0
    logits[1, ::7] = float("nan")
    after = draws.draw(logits, range(3), rows).tolist()
    assert (after[0], after[2]) == (before[0], before[2])
    assert 0 <= after[1] < 500


def test_settings_out_of_range_are_refused(open_isa) -> None:
    """Instead of read as something else."""
    logits, rows = torch.randn(1, 50), [row(top_k=3)]
    asked = DrawSettings.of(rows, 50, logits.device)
    names = {name: getattr(asked, name) for name in ("uniform", "sharpness", "top_k", "top_p", "min_p")}
    for wrong in ({"top_k": torch.tensor([0])}, {"top_k": torch.tensor([51])}, {"sharpness": torch.zeros(1)}):
        with pytest.raises(ValueError, match="draw"):
            draw(open_isa(1), logits, torch.zeros(1, dtype=torch.int64), **{**names, **wrong}, shortlist=SHORTLIST)
    with pytest.raises(ValueError, match="draw"):
        draw(open_isa(1), logits, torch.zeros(1, dtype=torch.int64), **names, shortlist=MOST_LISTED + 1)
    with pytest.raises(ValueError, match="one number per row"):
        draw(open_isa(1), logits, torch.zeros(2, dtype=torch.int64), **names, shortlist=SHORTLIST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sampler_on_kernels_and_without(open_isa, dtype: torch.dtype) -> None:
    """Greedy, drawn, penalised, banned and broken rows beside each other: the same outcomes."""
    logits = (torch.randn(60, 1000, generator=torch.Generator().manual_seed(5)) * 4).round().to(dtype)
    logits[3, 7], logits[4], logits[5, ::2] = float("nan"), -INF, -INF
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {},
        {"top_k": 50},
        {"top_p": 0.9},
        {"top_k": 700, "min_p": 0.01},
        {"temperature": 0.0, "frequency_penalty": 1.0},
        {"repetition_penalty": 1.3},
    ]
    rows = [row(i, i, output=[i, 5], banned=[9] * (i % 2), logprobs=i % 3, **kinds[i % 7]) for i in range(60)]
    with_kernels = Sampler(1000, logits.device, open_isa(2)).sample(logits, rows)
    without = Sampler(1000, logits.device).sample(logits, rows)
    assert [s.token_id for s in with_kernels] == [s.token_id for s in without]
    assert [s.logprobs for s in with_kernels] == [s.logprobs for s in without]
    assert [type(s.error) for s in with_kernels] == [type(s.error) for s in without]
    assert sum(s.error is not None for s in without) == 2
