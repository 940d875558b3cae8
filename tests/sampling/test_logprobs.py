"""Log-probabilities are of the raw distribution, with ranks and alternatives."""

from __future__ import annotations

import pytest
import torch

from headrace.engine.runner.logprobs import prompt_logprobs
from headrace.engine.runner.sampler import Sampler
from headrace.errors import NonFiniteLogits
from tests.sampling.reference import row


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num", [0, 1, 5])
def test_prompt(dtype: torch.dtype, num: int) -> None:
    logits = (torch.randn(150, 3000, generator=torch.manual_seed(0)) * 4).to(dtype)
    targets = torch.randint(0, 3000, (150,), generator=torch.manual_seed(1)).tolist()
    expected = logits.float().log_softmax(-1)
    for i, found in enumerate(prompt_logprobs(logits, targets, num)):
        assert found.token_id == targets[i]
        assert found.logprob == pytest.approx(float(expected[i, targets[i]]), abs=1e-4)
        assert found.rank == 1 + int((logits[i] > logits[i, targets[i]]).sum())
        order = expected[i].sort(descending=True, stable=True)
        assert list(found.top.values()) == pytest.approx(order.values[:num].tolist(), abs=1e-4)
        assert [logits[i, t] for t in found.top] == logits[i].sort(descending=True).values[:num].tolist()


def test_more_alternatives_than_tokens() -> None:
    (found,) = prompt_logprobs(torch.tensor([[1.0, 3.0, 2.0]]), [2], 100)
    assert list(found.top) == [1, 2, 0]
    assert found.rank == 2


def test_no_targets() -> None:
    assert prompt_logprobs(torch.zeros(0, 7), [], 3) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_prompt(bad: float) -> None:
    logits = torch.zeros(3, 7)
    logits[1, 4] = bad
    with pytest.raises(NonFiniteLogits):
        prompt_logprobs(logits, [1, 2, 3], 1)


def test_sampled_tokens_are_measured_by_the_raw_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    rows = [
        row(temperature=0.0, logit_bias={2: 9.0}, logprobs=1),
        row(temperature=0.0),
        row(temperature=100.0, top_k=1, logprobs=0),
    ]
    raw = logits[0].log_softmax(-1).tolist()
    biased, plain, drawn = Sampler(3, torch.device("cpu")).sample(logits, rows)
    assert biased.logprobs is not None
    assert (biased.token_id, biased.logprobs.token_id, biased.logprobs.rank) == (2, 2, 3)
    assert biased.logprobs.logprob == pytest.approx(raw[2])
    assert dict(biased.logprobs.top) == pytest.approx({0: raw[0]})
    assert plain.logprobs is None
    assert drawn.logprobs is not None
    assert drawn.logprobs.top == {}
    assert drawn.logprobs.logprob == pytest.approx(raw[0])
