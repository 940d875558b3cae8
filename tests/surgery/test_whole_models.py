"""Whole models after surgery: their logits, their weights, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from headrace.errors import ConfigError
from headrace.model.surgery import operate as module_operate
from headrace.model.surgery import proven
from headrace.model.surgery.operate import operate
from headrace.model.surgery.proven import operate_and_prove
from tests.surgery.conftest import Wire, make_model


def forwards(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if "forward" in module.__dict__]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_gives_the_models_logits(wire: Wire, kind: str, dtype: torch.dtype, most: float) -> None:
    paged = wire(make_model(kind, dtype))
    difference, report = operate_and_prove(paged)
    assert difference < most
    assert report is not None
    assert report.fused
    assert not report.dropped
    assert forwards(paged.loaded.model)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("quantization", [None, "int8"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_a_model_that_was_handed_in_comes_back_as_it_was(wire: Wire, kind: str, quantization: str | None) -> None:
    model = make_model(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    paged = wire(model)
    operate_and_prove(paged, quantization=quantization)
    paged.close()
    assert not forwards(model)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    ids = torch.tensor([[3, 4, 5]])
    assert model(input_ids=ids).logits.requires_grad


@pytest.mark.usefixtures("kernels")
def test_there_is_no_second_copy_of_the_weights(wire: Wire) -> None:
    model = make_model("llama", hidden_size=256, intermediate_size=512, head_dim=64)
    num_bytes = sum(parameter.nbytes for parameter in model.parameters())
    _, report = operate_and_prove(wire(model))
    assert report is not None
    left = sum(parameter.untyped_storage().nbytes() for parameter in model.parameters())
    assert left + report.packed_bytes <= 1.1 * num_bytes


@pytest.mark.usefixtures("kernels")
def test_int8_is_near(wire: Wire) -> None:
    paged = wire(make_model("llama", hidden_size=256, intermediate_size=512, head_dim=64))
    difference, _ = operate_and_prove(paged, quantization="int8")
    assert 1e-3 < difference < 0.2


@pytest.mark.usefixtures("kernels")
def test_a_model_that_does_not_stand_it_runs_as_it_is(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(*args: Any, **kwargs: Any) -> Any:
        operation = operate(*args, **kwargs)
        next(module for module in forwards(paged.loaded.model)).forward = lambda x: x
        return operation

    paged = wire(make_model("llama"))
    monkeypatch.setattr(proven, "operate", spoil)
    difference, report = operate_and_prove(paged)
    assert difference < 1e-5
    assert report is not None
    assert not report.fused
    assert [kind for kind, _, _ in report.dropped] == ["model"]
    assert not forwards(paged.loaded.model)


@pytest.mark.usefixtures("kernels")
def test_a_surgery_that_fails_half_way_is_taken_back(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        assert forwards(paged.loaded.model)
        raise KeyError("half way")

    paged = wire(make_model("llama"))
    monkeypatch.setattr(module_operate, "_replace_norms", fail)
    difference, report = operate_and_prove(paged)
    assert difference < 1e-5
    assert report is not None
    assert "half way" in str(report)
    assert not forwards(paged.loaded.model)


@pytest.mark.usefixtures("kernels")
def test_hooks_are_still_called(wire: Wire) -> None:
    model = make_model("llama")
    called: list[str] = []
    model.model.layers[1].mlp.down_proj.register_forward_hook(lambda *_: called.append("down"))
    model.model.layers[0].register_forward_pre_hook(lambda *_: called.append("layer"))
    _, report = operate_and_prove(wire(model))
    assert report is not None
    assert {kind: count for (kind, _), count in report.fused.items() if kind in ("mlp", "layer")} == {
        "mlp": 1,
        "layer": 1,
    }
    assert called[-2:] == ["layer", "down"]


def test_without_kernels_only_the_proof(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven, "load_library", lambda: None)
    paged = wire(make_model("llama"))
    difference, report = operate_and_prove(paged)
    assert difference < 1e-5
    assert report is None
    with pytest.raises(ConfigError, match="int8"):
        operate_and_prove(paged, quantization="int8")
