"""Weights whose values live in packed matrices while an engine is open.

::

    pack      parameter ─► panels            both hold the values
    settle    parameter = NaN, one element   the panels alone hold them: no second copy
    give_back parameter ◄─ panels            bit by bit as it was
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from headrace.model.kernels.library import Kernels
from headrace.model.kernels.linear import PackedLinear
from headrace.model.kernels.pages import zeroed_pages
from headrace.model.reserve import Reserve
from headrace.model.surgery.kit import CpuKit, Kit

View = Callable[[torch.Tensor], torch.Tensor]


def _whole(weight: torch.Tensor) -> torch.Tensor:
    return weight


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a matrix: a view of a parameter.

    Attributes:
        parameter: of any shape. view: of a tensor of that shape, as [rows, K] or with more leading dimensions.
        bias: one number per row, or None.
    """

    parameter: nn.Parameter
    view: View = _whole
    bias: torch.Tensor | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its rows are the parameter's, in their order."""
        return self.view is _whole

    @property
    def rows(self) -> torch.Tensor:
        """The weights, [rows, K]."""
        viewed = self.view(self.parameter.detach())
        return viewed.reshape(-1, viewed.shape[-1])


@dataclass(frozen=True, slots=True)
class _Packed:
    matrix: PackedLinear
    first_row: int
    part: Part


def is_lent(tensor: torch.Tensor) -> bool:
    """Whether a parameter's values are in panels and no longer in itself."""
    return tensor.numel() > 1 and not any(tensor.stride())


class Terms:
    """On which terms weights are packed.

    Attributes:
        kernels: pack and multiply; None where no CPU kernel does. dtype: of packed weights, the model's or int8.
        kept: ids of parameters that keep their values too, because others read them.
        reserve: where the memory for panels comes from first, if there is one.
    """

    def __init__(
        self, kernels: Kernels | None, dtype: torch.dtype, kept: frozenset[int], reserve: Reserve | None = None
    ) -> None:
        """For one engine."""
        self.kernels = kernels
        if kernels is not None:
            self.kit: Kit = CpuKit(kernels)
        self.dtype = dtype
        self.kept = kept
        self.reserve = reserve

    def lease(self) -> Lease:
        """For one module."""
        return Lease(self)


class Lease:
    """The weights of one replaced module.

    Attributes:
        kit: what the module is to run on. num_bytes: memory of the packed matrices.
    """

    def __init__(self, terms: Terms) -> None:
        """Of nothing yet."""
        self.kit = terms.kit
        self._terms = terms
        self._packed: list[_Packed] = []
        self._lent: dict[nn.Parameter, torch.Size] = {}
        self._shared: set[nn.Parameter] = set()
        self.num_bytes = 0

    @property
    def kernels(self) -> Kernels:
        """The CPU kernels, for modules that run on no others."""
        assert self._terms.kernels is not None
        return self._terms.kernels

    def pack(self, parts: Sequence[Part], *, gated: bool = False, exact: bool = False) -> PackedLinear:
        """One matrix with the rows of all parts, in order; `exact` in the model's dtype, whatever is asked for.

        Raises ValueError or MemoryError when the kernels cannot do it.
        """
        rows = [part.rows for part in parts]
        bias = None
        if any(part.bias is not None for part in parts):
            biases = [r.new_zeros(len(r)) if p.bias is None else p.bias for p, r in zip(parts, rows, strict=True)]
            bias = torch.cat([b.detach().float() for b in biases])
        dtype = rows[0].dtype if exact else self._terms.dtype
        n, k, reserve = sum(map(len, rows)), rows[0].shape[1], self._terms.reserve
        pages = zeroed_pages if reserve is None else reserve.take
        matrix = PackedLinear(self.kernels, n, k, dtype, gated=gated, bias=bias, pages=pages)
        if reserve is not None:
            weakref.finalize(matrix, reserve.give_back, matrix.memory).atexit = False  # type: ignore[misc]
        first = 0
        for part, weights in zip(parts, rows, strict=True):
            matrix.load(weights, first)
            self._packed.append(_Packed(matrix, first, part))
            first += len(weights)
        self.num_bytes += matrix.num_bytes
        return matrix

    def share(self, part: Part, matrix: PackedLinear) -> None:
        """Hold a parameter by a matrix that another lease packed from all of it; it is lent now, whoever kept it."""
        self._packed.append(_Packed(matrix, 0, part))
        self._shared.add(part.parameter)

    def settle(self) -> None:
        """Let go of the parameters' own values. Their shape and dtype stay; whoever reads them reads NaN."""
        for packed in self._packed:
            parameter = packed.part.parameter
            is_kept = id(parameter) in self._terms.kept and parameter not in self._shared
            if not is_kept and parameter not in self._lent:
                self._lent[parameter] = parameter.shape
                parameter.data = torch.full((), float("nan"), dtype=parameter.dtype).expand(parameter.shape)

    def give_back(self) -> None:
        """Fill the parameters with their values again; harmless when repeated.

        Raises ValueError for int8, which has no way back.
        """
        values = {parameter: torch.empty(shape, dtype=parameter.dtype) for parameter, shape in self._lent.items()}
        for packed in self._packed:
            if packed.part.parameter in values:
                target = packed.part.view(values[packed.part.parameter])
                rows = torch.empty(target.numel() // target.shape[-1], target.shape[-1], dtype=target.dtype)
                packed.matrix.unload(rows, packed.first_row)
                target.copy_(rows.view(target.shape))
        for parameter, value in values.items():
            parameter.data = value
        self._lent = {}
