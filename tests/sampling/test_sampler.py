"""The sampler as a whole: against the plain reference, and with logits that cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.plan import SamplingRow
from headrace.engine.runner import shortlist
from headrace.engine.runner.draws import uniforms
from headrace.engine.runner.full_row import draw_from_full_row
from headrace.engine.runner.sampler import Sampler
from headrace.errors import NonFiniteLogits
from tests.sampling.reference import distribution, processed, row, token_at

CPU = torch.device("cpu")
VOCAB = 45
INF = float("inf")

token_ids = st.lists(st.integers(0, VOCAB - 1), max_size=6)
# Quarters tie often, and are exact in every dtype.
logits_rows = st.lists(
    st.one_of(st.integers(-40, 40).map(lambda i: i / 4), st.just(-INF)), min_size=VOCAB, max_size=VOCAB
).filter(lambda values: max(values) > -INF)
sampling_rows = st.builds(
    row,
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**31),
    prompt=token_ids,
    output=token_ids,
    banned=st.lists(st.integers(0, VOCAB - 1), max_size=2),
    temperature=st.sampled_from([0.0, 1e-9, 0.2, 0.7, 1.0, 3.0, 1e9]),
    top_k=st.sampled_from([0, 0, 1, 3, 17, 44, 45, 1000]),
    top_p=st.sampled_from([1.0, 1.0, 0.03, 0.41, 0.87, 0.999]),
    min_p=st.sampled_from([0.0, 0.0, 0.013, 0.4, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 0.7, 1.6]),
    presence_penalty=st.sampled_from([0.0, -0.5, 1.3]),
    frequency_penalty=st.sampled_from([0.0, -0.5, 0.9]),
    logit_bias=st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-9, 9), max_size=3),
)


def is_right(token: int | None, row: SamplingRow, logits: list[float], sorted_order: bool) -> bool:
    """Whether the reference allows the token: at a tie, and at the very limit of a filter, more than one may be."""
    wide = processed(np.array(logits), row)
    if wide.max() == -INF:
        return token is None
    if token is None:
        return False
    if row.params.greedy:
        return bool(wide[token] >= wide.max() - 1e-5)
    uniform = float(uniforms([row.seed], [row.position])[0])
    single = wide.astype(np.float32).astype(np.float64)  # values that tie as float32 are ordered by id
    columns = -(-VOCAB // 32)
    ids = np.arange(VOCAB)
    order = np.argsort(-single, kind="stable") if sorted_order else np.lexsort((ids // columns, ids % columns))
    variants = [
        distribution(values, row.params, slack) for values in (wide, single) for slack in (1.0, 1 - 1e-6, 1 + 1e-6)
    ]
    return any(token_at(uniform, probabilities, order, token) for probabilities in variants)


@given(st.lists(st.tuples(logits_rows, sampling_rows), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_every_row_as_the_reference(batch: list[tuple[list[float], SamplingRow]]) -> None:
    logits, rows = [values for values, _ in batch], [row for _, row in batch]
    for sample, values, asked in zip(Sampler(VOCAB, CPU).sample(torch.tensor(logits), rows), logits, rows, strict=True):
        on_shortlist = not asked.params.greedy and shortlist.may_suffice(asked.params, VOCAB)
        assert is_right(sample.token_id, asked, values, on_shortlist), sample


@given(logits_rows, sampling_rows)
@settings(max_examples=100, deadline=None)
def test_a_short_shortlist_gives_up_or_is_right(values: list[float], asked: SamplingRow) -> None:
    """With a shortlist of 8 most draws must fall back to the whole row, and no wrong one may be taken."""
    wide = torch.from_numpy(processed(np.array(values), asked)).float()[None]
    if asked.params.greedy or not torch.isfinite(wide.max()):
        return
    original, shortlist.SHORTLIST = shortlist.SHORTLIST, 8
    try:
        if not shortlist.may_suffice(asked.params, VOCAB):
            return
        token = int(shortlist.draw_from_shortlist(wide, [asked])[0])
    finally:
        shortlist.SHORTLIST = original
    if token == shortlist.UNDECIDED:
        token = int(draw_from_full_row(wide, [asked])[0])
        assert is_right(token, asked, values, sorted_order=False)
    else:
        assert is_right(token, asked, values, sorted_order=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("params", [{"temperature": 0.0}, {}, {"top_k": 5}, {"top_p": 0.9}, {"top_k": 300}], ids=str)
def test_a_bad_row_fails_alone(dtype: torch.dtype, params: dict[str, Any]) -> None:
    logits = torch.randn(7, 1000, generator=torch.manual_seed(0)).to(dtype)
    rows = [row(seed=i, logprobs=2, repetition_penalty=1.0 + i % 2, output=[4], **params) for i in range(7)]
    sampler = Sampler(1000, CPU)
    before = sampler.sample(logits, rows)
    logits[1, 5] = float("nan")
    logits[3, 5] = INF
    logits[4] = -INF
    logits[6] = float("nan")
    after = sampler.sample(logits, rows)
    for i in (0, 2, 5):
        assert after[i] == before[i]
    for i in (1, 3, 4, 6):
        assert isinstance(after[i].error, NonFiniteLogits)
        assert after[i].token_id is None
        assert after[i].logprobs is None


@pytest.mark.parametrize("bad", [float("nan"), INF])
@pytest.mark.parametrize("params", [{"temperature": 0.0}, {}, {"top_k": 1}], ids=str)
def test_a_ban_does_not_hide_a_bad_logit(bad: float, params: dict[str, Any]) -> None:
    (failed,) = Sampler(3, CPU).sample(torch.tensor([[bad, 1.0, 2.0]]), [row(banned=[0], **params)])
    assert "NaN or infinity" in str(failed.error)


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {}, {"top_k": 2}, {"top_k": 1, "top_p": 0.5}], ids=str)
def test_no_token_left(params: dict[str, Any]) -> None:
    logits = torch.tensor([[-INF, 1.0, 2.0]] * 2)
    failed, chosen = Sampler(3, CPU).sample(logits, [row(banned=[1, 2], **params), row(banned=[1], **params)])
    assert isinstance(failed.error, NonFiniteLogits)
    assert "bans" in str(failed.error)
    assert chosen.token_id == 2


def test_no_rows() -> None:
    assert Sampler(3, CPU).sample(torch.zeros(0, 3), []) == []


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="expected"):
        Sampler(3, CPU).sample(torch.zeros(2, 3), [row()])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_alone_and_together() -> None:
    cuda = torch.device("cuda")
    logits = torch.randn(64, 32_000, generator=torch.manual_seed(0)).mul_(3).to(cuda, torch.bfloat16)
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {},
        {"top_k": 50},
        {"top_p": 0.9},
        {"top_k": 900, "min_p": 0.01},
    ]
    rows = [
        row(seed=i, position=i, output=[i], logprobs=i % 3, frequency_penalty=i % 2, **kinds[i % 5]) for i in range(64)
    ]
    sampler = Sampler(32_000, cuda)
    together = [s.token_id for s in sampler.sample(logits, rows)]
    assert together == [sampler.sample(logits[i : i + 1], rows[i : i + 1])[0].token_id for i in range(64)]
