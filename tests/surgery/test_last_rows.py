"""The last layer leaves out the tokens whose logits nobody reads, and only where that changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from headrace.model.paged_model import PagedModel
from headrace.model.surgery import proven
from headrace.model.surgery.operate import operate
from headrace.model.surgery.proven import operate_and_prove
from headrace.model.surgery.watch import Stage
from tests.surgery.conftest import Wire, make_model

MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}


def logits(paged: PagedModel, *, ends_in_kept_rows: bool, tokens: list[int]) -> torch.Tensor:
    """Of these tokens, with or without the others in the last layer."""
    stage, ends = Stage(paged), paged.ends_in_kept_rows
    paged.ends_in_kept_rows = ends_in_kept_rows
    try:
        with stage.open():
            return stage.logits(tokens)
    finally:
        paged.ends_in_kept_rows = ends


def rows_after(paged: PagedModel, tokens: list[int]) -> int:
    """How many rows reach the norm after the last layer."""
    seen: list[int] = []
    norm = paged.loaded.model.model.norm
    hook = norm.register_forward_hook(lambda _module, args, _result: seen.append(args[0].shape[1]))
    try:
        logits(paged, ends_in_kept_rows=paged.ends_in_kept_rows, tokens=tokens)
    finally:
        hook.remove()
    return seen[0]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "overrides"),
    [("llama", {}), ("gemma2", {}), ("olmo2", {}), ("granite", {"residual_multiplier": 0.3}), ("mixtral", MIXTURE)],
)
def test_the_logits_are_the_same_to_the_bit(wire: Wire, kind: str, overrides: Any, dtype: torch.dtype) -> None:
    paged = wire(make_model(kind, dtype, **overrides))
    operate_and_prove(paged)
    assert paged.ends_in_kept_rows
    tokens = [11, 2, 2, 6]
    assert torch.equal(
        logits(paged, ends_in_kept_rows=True, tokens=tokens), logits(paged, ends_in_kept_rows=False, tokens=tokens)
    )
    assert rows_after(paged, tokens) == 4


@pytest.mark.usefixtures("kernels")
def test_a_step_that_wants_all_tokens_takes_none(wire: Wire) -> None:
    paged = wire(make_model("llama"))
    operate_and_prove(paged)
    tokens = list(range(Stage(paged).num_tokens))
    assert rows_after(paged, tokens) == len(tokens)
    every = logits(paged, ends_in_kept_rows=True, tokens=tokens)
    assert torch.equal(every[[5, 0]], logits(paged, ends_in_kept_rows=True, tokens=[5, 0]))


class AcrossTokens(nn.Module):
    """What comes after the last layer looks at all tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(dim=1, keepdim=True)


@pytest.mark.usefixtures("kernels")
def test_a_model_that_reads_all_tokens_afterwards_keeps_them(wire: Wire) -> None:
    model = make_model("llama")
    model.model.norm = AcrossTokens()
    paged = wire(model)
    operate(paged, paged.kernels)
    assert not paged.ends_in_kept_rows
    assert rows_after(paged, [11, 4]) == Stage(paged).num_tokens


@pytest.mark.usefixtures("kernels")
def test_undone_with_the_rest(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that does not stand its surgery ends in all rows again."""

    def spoil(*args: Any, **kwargs: Any) -> Any:
        operation = operate(*args, **kwargs)
        assert paged.ends_in_kept_rows
        paged.loaded.model.model.norm.forward = lambda x: x
        return operation

    paged = wire(make_model("llama"))
    monkeypatch.setattr(proven, "operate", spoil)
    difference, _ = operate_and_prove(paged)
    assert difference < 1e-5
    assert not paged.ends_in_kept_rows
