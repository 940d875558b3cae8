"""Masks on logits: what is not allowed is never chosen, and the others' tokens stay as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.plan import RowGuide
from headrace.engine.runner.masking import apply_masks
from headrace.engine.runner.sampler import Sampler
from headrace.errors import GuideFailed, NonFiniteLogits
from tests.sampling.reference import row

CPU = torch.device("cpu")


def bits_of(allowed: set[int], vocab_size: int) -> np.ndarray:
    dense = np.zeros(-(-vocab_size // 32) * 32, dtype=np.uint8)
    dense[list(allowed)] = 1
    return np.packbits(dense, bitorder="little").view(np.uint32)


@given(st.integers(1, 200), st.data())
def test_what_is_not_allowed_becomes_minus_infinity(vocab_size, data):
    masks = data.draw(st.dictionaries(st.integers(0, 3), st.sets(st.integers(0, vocab_size - 1)), max_size=4))
    logits = torch.arange(4 * vocab_size, dtype=torch.float32).view(4, -1)
    expected = logits.clone()
    for i, allowed in masks.items():
        for token in range(vocab_size):
            if token not in allowed:
                expected[i, token] = -torch.inf
    apply_masks(logits, {i: bits_of(allowed, vocab_size) for i, allowed in masks.items()})
    assert torch.equal(logits, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("vocab_size", [31, 32, 1000])
def test_a_device_masks_as_the_cpu_does(vocab_size):
    rng = np.random.default_rng(0)
    logits = torch.randn(5, vocab_size)
    masks = {i: bits_of(set(rng.integers(0, vocab_size, 9).tolist()), vocab_size) for i in (0, 2, 4)}
    on_device = logits.cuda()
    apply_masks(on_device, masks)
    apply_masks(logits, masks)
    assert torch.equal(on_device.cpu(), logits)


SETTINGS = [
    {"temperature": 0.0},
    {"temperature": 0.0, "logit_bias": {3: 100.0}},
    {"temperature": 1.0},
    {"temperature": 3.0, "top_k": 5},
    {"temperature": 2.0, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 1.0, "top_k": 400, "top_p": 0.99},
    {"temperature": 5.0, "repetition_penalty": 2.0, "frequency_penalty": -2.0},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [300, 5000])
@pytest.mark.parametrize("num_allowed", [1, 3, 60])
def test_only_allowed_tokens_are_chosen_whatever_the_settings(vocab_size, num_allowed, dtype):
    rng = np.random.default_rng(num_allowed)
    logits = (4 * torch.randn(len(SETTINGS), vocab_size, generator=torch.Generator().manual_seed(1))).to(dtype)
    sampler = Sampler(vocab_size, CPU)
    for seed in range(10):
        allowed = [set(rng.choice(vocab_size, num_allowed, replace=False).tolist()) for _ in SETTINGS]
        rows = [row(seed=seed, position=3, prompt=[1, 2], output=[3], **settings) for settings in SETTINGS]
        results = sampler.sample(logits, rows, {i: bits_of(a, vocab_size) for i, a in enumerate(allowed)})
        for result, tokens in zip(results, allowed, strict=True):
            assert result.token_id in tokens


def test_rows_without_a_mask_choose_what_they_choose_without_neighbours():
    logits = torch.randn(len(SETTINGS) * 2, 500, generator=torch.Generator().manual_seed(2))
    rows = [row(seed=7, position=i, **settings) for i, settings in enumerate(SETTINGS * 2)]
    sampler = Sampler(500, CPU)
    plain = [result.token_id for result in sampler.sample(logits, rows)]
    masks = {i: bits_of({1, 2, 3}, 500) for i in range(0, len(rows), 2)}
    mixed = [result.token_id for result in sampler.sample(logits, rows, masks)]
    assert mixed[1::2] == plain[1::2]
    assert set(mixed[::2]) <= {1, 2, 3}
    for i in range(0, len(rows), 2):  # and alone, as in the batch
        assert sampler.sample(logits[i : i + 1], rows[i : i + 1], {0: masks[i]})[0].token_id == mixed[i]


def test_logprobs_are_of_the_raw_distribution():
    logits = torch.zeros(1, 100)
    result = Sampler(100, CPU).sample(logits, [row(logprobs=0)], {0: bits_of({5}, 100)})[0]
    assert result.token_id == 5
    assert result.logprobs is not None
    assert result.logprobs.logprob == pytest.approx(-np.log(100))
    assert torch.equal(logits, torch.zeros(1, 100))


def test_a_model_that_rules_out_what_the_guide_allows_fails_that_row():
    logits = torch.zeros(3, 100)
    logits[0, 5] = -torch.inf
    logits[1, 7] = torch.nan
    guide = RowGuide(None, (), ())  # type: ignore[arg-type]
    rows = [row(temperature=t)._replace(guide=guide) for t in (0.0, 0.0, 1.0)]
    results = Sampler(100, CPU).sample(logits, rows, {i: bits_of({5}, 100) for i in range(3)})
    assert isinstance(results[0].error, GuideFailed)
    assert isinstance(results[1].error, NonFiniteLogits)
    assert results[2].token_id == 5
