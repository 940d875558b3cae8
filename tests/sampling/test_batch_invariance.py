"""Law 7: a row gets the same token alone and in any batch, whatever the others ask."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.full_row import draw_from_full_row
from headrace.engine.runner.sampler import Sampler
from tests.sampling.reference import row

CPU = torch.device("cpu")


def mixed_rows(count: int, vocab_size: int, seed: int) -> list[SamplingRow]:
    choose = random.Random(seed)
    rows = []
    for i in range(count):
        params: dict[str, Any] = {
            "temperature": choose.choice([0.0, 0.3, 1.0, 1.0, 2.5]),
            "top_k": choose.choice([0, 0, 1, 5, 50, 127, 128, 700, vocab_size]),
            "top_p": choose.choice([1.0, 1.0, 0.1, 0.9, 0.999]),
            "min_p": choose.choice([0.0, 0.0, 0.05]),
            "repetition_penalty": choose.choice([1.0, 1.0, 1.2]),
            "frequency_penalty": choose.choice([0.0, 0.0, 0.7]),
            "logit_bias": choose.choice([{}, {}, {3: 2.0, 4: -2.0}]),
            "logprobs": choose.choice([None, None, 0, 4]),
        }
        tokens = [choose.randrange(vocab_size) for _ in range(20)]
        rows.append(row(choose.randrange(2**64), i * 37, tokens[:10], tokens[10:], tokens[:1] * (i % 2), **params))
    return rows


@pytest.mark.parametrize("vocab_size", [97, 1001, 32_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alone_and_among_64(vocab_size: int, dtype: torch.dtype) -> None:
    generator = torch.manual_seed(vocab_size)
    logits = (torch.randn(64, vocab_size, generator=generator) * 3).to(dtype)
    rows = mixed_rows(64, vocab_size, seed=vocab_size)
    sampler = Sampler(vocab_size, CPU)
    untouched = logits.clone()
    together = sampler.sample(logits, rows)
    assert torch.equal(logits, untouched)
    alone = [sampler.sample(logits[i : i + 1].clone(), rows[i : i + 1])[0] for i in range(64)]
    assert [s.token_id for s in together] == [s.token_id for s in alone]
    assert len({s.token_id for s in together}) > 32

    order = torch.randperm(64, generator=generator).tolist()
    shuffled = sampler.sample(logits[order], [rows[i] for i in order])
    assert [s.token_id for s in shuffled] == [together[i].token_id for i in order]


def test_threads_do_not_matter() -> None:
    logits = torch.randn(64, 5003, generator=torch.manual_seed(0)) * 3
    rows = mixed_rows(64, 5003, seed=1)
    sampler = Sampler(5003, CPU)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = sampler.sample(logits, rows)
        torch.set_num_threads(3)
        three = sampler.sample(logits, rows)
    finally:
        torch.set_num_threads(threads)
    assert [s.token_id for s in one] == [s.token_id for s in three]


def test_the_distribution_function_is_the_same_to_the_last_bit() -> None:
    """Many draws from equal rows at once and one by one: a token that flips at a boundary would show."""
    count = 500
    logits = torch.randn(1, 1003, generator=torch.manual_seed(0))
    rows = [row(seed=5, position=i) for i in range(count)]
    together, _ = draw_from_full_row(logits.expand(count, -1), rows)
    alone = torch.cat([draw_from_full_row(logits, [r])[0] for r in rows])
    assert torch.equal(together, alone)
