"""Modules that keep their own code, over a weight in panels: routers of experts, embeddings tied to the last product.

Their code wants a tensor; what it gets answers `functional.linear` or `functional.embedding` in the tensor's place, and
nothing else. A router's product is then summed in one fixed order whatever the batch, as every other product is, and a
tied embedding needs no second copy of the weight.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from headrace.model.kernels.library import Kernels
from headrace.model.kernels.linear import PackedLinear
from headrace.model.surgery.lease import Lease, Part
from headrace.model.surgery.linear import multiply
from headrace.model.surgery.watch import Call

Answer = Callable[..., torch.Tensor]


class StandIn:
    """Stands where a module's code reads its weight.

    Attributes:
        dtype, shape, device: the weight's.
    """

    def __init__(self, dtype: torch.dtype, shape: torch.Size, answers: dict[Any, Answer]) -> None:
        """Answer the functions of torch that `answers` has; each is called as the function is."""
        self.dtype = dtype
        self.shape = shape
        self.device = torch.device("cpu")
        self._answers = answers

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> torch.Tensor:
        """Torch calls this for a function that has one of these among its arguments; ValueError for most functions."""
        stand_in = next(value for value in (*args, *(kwargs or {}).values()) if isinstance(value, cls))
        if function not in stand_in._answers:
            raise ValueError(f"its code passes its weight to {getattr(function, '__name__', function)}")
        return stand_in._answers[function](*args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        """Everything else that a tensor has is missing, and that is said."""
        raise ValueError(f"its code asks its weight for {name!r}")


def _with(module: nn.Module, name: str, stand_in: StandIn) -> Callable[..., Any]:
    """The module's own forward, reading `stand_in` where the parameter is; the module itself is not touched."""
    shadow = copy.copy(module)
    shadow.__dict__[name] = stand_in  # found before the parameter is
    return shadow.forward


def own_product(module: nn.Module, call: Call) -> str | None:
    """The name of the one matrix of a module that has no others inside and gets hidden states; None for others."""
    matrices = [name for name, p in module._parameters.items() if p is not None and p.dim() == 2]
    takes_numbers = any(isinstance(value, torch.Tensor) and value.is_floating_point() for value in call.args)
    return matrices[0] if len(matrices) == 1 and not module._modules and takes_numbers else None


class OwnProductForward:
    """The forward of a module that multiplies by its own matrix and goes on from there, as routers of experts do.

    The matrix is packed beside the parameter: it is small, and its code may ask for it in float32.
    """

    def __init__(self, lease: Lease, module: nn.Module, name: str) -> None:
        """Nothing is packed before the first call."""
        weight = module._parameters[name]
        assert weight is not None
        self._forward = _with(module, name, _Product(lease.kernels, weight.detach(), weight.dtype))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own code."""
        return self._forward(*args, **kwargs)


class _Product(StandIn):
    """A matrix for `functional.linear`, in its dtype or in float32."""

    def __init__(self, kernels: Kernels, weight: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__(dtype, weight.shape, {functional.linear: self._linear})
        self._kernels = kernels
        self._weight = weight
        self._packed: dict[int, PackedLinear] = {}

    def float(self) -> _Product:
        """The same in float32."""
        return self.to(torch.float32)

    def to(self, dtype: torch.dtype) -> _Product:
        """The same in another dtype."""
        return _Product(self._kernels, self._weight, dtype)

    type = to

    def _linear(self, x: torch.Tensor, weight: Any, bias: torch.Tensor | None = None) -> torch.Tensor:
        key = id(bias)
        if key not in self._packed:
            self._packed[key] = PackedLinear.of(self._kernels, self._weight.to(self.dtype), bias)
        return multiply(self._packed[key], x)


class TiedEmbeddingForward:
    """The forward of an embedding whose weight is also the last product's, and packed for that."""

    def __init__(self, lease: Lease, module: nn.Module, name: str, part: Part, matrix: PackedLinear) -> None:
        """`matrix` holds all rows of the weight, in their order."""
        lease.share(part, matrix)
        weight = part.parameter
        answers: dict[Any, Answer] = {functional.embedding: self._embedding}
        self._matrix = matrix
        self._forward = _with(module, name, StandIn(weight.dtype, weight.shape, answers))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own code."""
        return self._forward(*args, **kwargs)

    def _embedding(
        self, ids: torch.Tensor, weight: Any, padding_idx: Any = None, max_norm: Any = None, *rest: Any, **more: Any
    ) -> torch.Tensor:
        if max_norm is not None:
            raise ValueError("its code changes its weight")
        return self._matrix.lookup(ids.reshape(-1)).view(*ids.shape, -1)
