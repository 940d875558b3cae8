"""Penalties, bias and bans: transformers' and OpenAI's formulas, at the edges of float32 too."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.logits_processing import changes_logits, process_logits
from tests.sampling.reference import row

LARGEST = torch.finfo(torch.float32).max


def processed(logits: list[float], row: SamplingRow) -> list[float]:
    rows = torch.tensor([logits, logits])
    process_logits(rows, [row, SamplingRow(type(row.params)(), 0, 0, [0], [0])])
    assert rows[1].tolist() == pytest.approx(logits)  # the neighbour asked for nothing
    return rows[0].tolist()


@pytest.mark.parametrize("penalty", [0.5, 1.3, 5.0])
def test_repetition_as_transformers(penalty: float) -> None:
    logits = torch.randn(3, 100, generator=torch.manual_seed(0))
    tokens = torch.randint(0, 100, (3, 40), generator=torch.manual_seed(1))
    expected = RepetitionPenaltyLogitsProcessor(penalty)(tokens, logits)
    rows = [row(prompt=t[:25], output=t[25:], repetition_penalty=penalty) for t in tokens.tolist()]
    process_logits(logits, rows)
    assert torch.equal(logits, expected)


def test_frequency_and_presence_are_of_the_output() -> None:
    asked = row(prompt=[3, 3], output=[1, 2, 1], frequency_penalty=0.5, presence_penalty=0.25)
    assert processed([1.0, 1.0, 1.0, 1.0], asked) == [1.0, 1.0 - 1.25, 1.0 - 0.75, 1.0]


def test_order() -> None:
    """Repetition before the subtractions, bias after them, bans at the end."""
    asked = row(
        prompt=[0, 1],
        output=[1, 2],
        banned=[2],
        repetition_penalty=2.0,
        presence_penalty=1.0,
        logit_bias={1: 10.0, 2: 100.0},
    )
    assert processed([4.0, -4.0, 1.0], asked) == [2.0, -8.0 - 1.0 + 10.0, -torch.inf]


def test_nothing_overflows_to_infinity_or_nan() -> None:
    tiny = row(prompt=[0, 1, 2], repetition_penalty=1e-300)
    assert processed([30.0, 0.0, -3.0], tiny)[:2] == [LARGEST, 0.0]
    huge = row(prompt=[0, 1, 2], repetition_penalty=1e300)
    assert processed([3.0, 0.0, -3.0], huge) == [pytest.approx(0.0, abs=1e-30), 0.0, -torch.inf]
    biased = row(logit_bias={0: 1e300, 1: -1e300})
    assert processed([LARGEST, -LARGEST], biased) == [LARGEST, -torch.inf]


def test_a_token_ruled_out_stays_so() -> None:
    asked = row(prompt=[0], output=[0], repetition_penalty=0.5, presence_penalty=-2.0, logit_bias={0: 1e300})
    assert processed([-torch.inf, 1.0], asked) == [-torch.inf, 1.0]


def test_ids_beyond_the_logits_change_nothing() -> None:
    asked = row(prompt=[9], output=[9, 9], repetition_penalty=2.0, frequency_penalty=1.0, banned=[9])
    assert processed([1.0, 2.0], asked) == [1.0, 2.0]


def test_what_changes_logits() -> None:
    assert not changes_logits(row(prompt=[1], output=[2], temperature=0.5, top_k=3))
    for asked in (row(banned=[1]), row(logit_bias={1: 1.0}), row(presence_penalty=0.1), row(repetition_penalty=0.9)):
        assert changes_logits(asked)
