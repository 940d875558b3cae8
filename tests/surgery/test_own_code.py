"""Modules that keep their own code over a packed weight: routers, tied embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from headrace.model.kernels.library import Kernels
from headrace.model.surgery.lease import Lease, Terms
from headrace.model.surgery.numerics import difference
from headrace.model.surgery.own_code import OwnProductForward, own_product
from headrace.model.surgery.proven import operate_and_prove
from headrace.model.surgery.watch import Call
from tests.surgery.conftest import Wire, make_model

X = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))


class Router(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 64).to(dtype))
        self.bias = nn.Parameter(torch.randn(6).to(dtype))

    def forward(self, x: torch.Tensor) -> Any:
        logits = functional.linear(x, self.weight, self.bias)
        return logits, logits.softmax(-1).topk(2, dim=-1)


class InFloat32(Router):
    def forward(self, x: torch.Tensor) -> Any:
        return functional.linear(x.float(), self.weight.float(), None), self.weight.type(torch.float32).shape


class Transposed(Router):
    def forward(self, x: torch.Tensor) -> Any:
        return x @ self.weight.t()


class Multiplied(Router):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.matmul(x[:, :6], self.weight)


def lease(kernels: Kernels) -> Lease:
    return Lease(Terms(kernels, torch.float32, frozenset()))


def replaced(kernels: Kernels, module: nn.Module, x: torch.Tensor = X) -> OwnProductForward:
    name = own_product(module, Call((x,), {}, None))
    assert name == "weight"
    return OwnProductForward(lease(kernels), module, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Router, InFloat32])
def test_a_router_runs_its_own_code_on_the_kernels(kernels: Kernels, kind: type[Router], dtype: torch.dtype) -> None:
    module, x = kind(dtype), X.to(dtype)
    forward = replaced(kernels, module, x)
    logits, rest = forward(x)
    expected, expected_rest = module(x)
    assert logits.dtype == expected.dtype
    assert difference(logits, expected) < (1e-5 if logits.dtype == torch.float32 else 0.02)
    assert type(rest) is type(expected_rest)
    for row in range(len(x)):
        assert torch.equal(forward(x[row : row + 1])[0][0], logits[row])
    assert isinstance(module.weight, nn.Parameter)  # itself untouched


@pytest.mark.parametrize("kind", [Transposed, Multiplied])
def test_code_that_uses_its_weight_otherwise_is_refused(kernels: Kernels, kind: type[Router]) -> None:
    with pytest.raises(ValueError, match="weight"):
        replaced(kernels, kind())(X)


def test_modules_with_other_modules_or_matrices_are_none() -> None:
    call = Call((X,), {}, None)
    nested, two = Router(), Router()
    nested.act = nn.SiLU()
    two.other = nn.Parameter(torch.randn(2, 2))
    assert own_product(nested, call) is None
    assert own_product(two, call) is None
    assert own_product(nn.Embedding(4, 4), Call((torch.tensor([1]),), {}, None)) is None


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_a_tied_embedding_has_one_copy(wire: Wire, kind: str, dtype: torch.dtype) -> None:
    """Also one that scales what it looked up; and it is tied again afterwards."""
    model = make_model(kind, dtype, vocab_size=2000, tie_word_embeddings=True)
    weight = model.get_input_embeddings().weight
    before = weight.detach().clone()
    paged = wire(model)
    _, report = operate_and_prove(paged)
    assert report is not None
    assert [count for (kind, _), count in report.fused.items() if kind == "embedding"] == [1]
    assert weight.untyped_storage().nbytes() == weight.itemsize
    num_bytes = sum(parameter.nbytes for parameter in model.parameters())
    left = sum(parameter.untyped_storage().nbytes() for parameter in model.parameters())
    assert left + report.packed_bytes <= 1.1 * num_bytes + 5 * 64 * 1024  # tiny panels are padded
    paged.close()
    assert model.get_input_embeddings().weight is weight is model.get_output_embeddings().weight
    assert torch.equal(weight, before)


@pytest.mark.usefixtures("kernels")
def test_int8_leaves_a_tied_embedding_its_values(wire: Wire) -> None:
    """The last product is quantized, what is looked up is not."""
    model = make_model("llama", vocab_size=2000, tie_word_embeddings=True)
    before = model.get_input_embeddings().weight.detach().clone()
    _, report = operate_and_prove(wire(model), quantization="int8")
    assert report is not None
    assert "embedding" not in {kind for kind, _ in report.fused}
    assert torch.equal(model.get_input_embeddings().weight, before)


@pytest.mark.usefixtures("kernels")
def test_an_embedding_that_three_modules_hold_is_left(wire: Wire) -> None:
    model = make_model("llama", tie_word_embeddings=True)
    model.reader = nn.Linear(64, 300, bias=False)
    model.reader.weight = model.get_input_embeddings().weight
    before = model.reader.weight.detach().clone()
    _, report = operate_and_prove(wire(model))
    assert report is not None
    assert "embedding" not in {kind for kind, _ in report.fused}
    assert torch.equal(model.reader.weight, before)
