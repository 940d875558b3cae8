"""The kit of CUDA devices: torch's products over merged weights, Triton's kernels for what is between them.

Weights are merged, not packed: the parameters that went in become views of the merged tensor, so there is no second
copy and the modules' own code goes on working. Parts that lie next to each other already (a model with one weight for
queries, keys and values) are taken as they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from headrace.model.kernels.linear import Activation
from headrace.model.kernels.paged import Rotation
from headrace.model.surgery.lease import Lease, Part, Terms
from headrace.model.surgery.norm import Norm
from headrace.model.triton_kernels.operations import OPERATORS
from headrace.model.triton_kernels.paged import PagedCache


class TritonKit:
    """Triton's kernels."""

    attention_name = "triton"
    replaces_single_matrices = False
    runs_programs = False

    def norm(self, x: torch.Tensor, norm: Norm, out: torch.Tensor | None = None) -> torch.Tensor:
        """The norm of rows [M, n]; out may be x."""
        normed: torch.Tensor = OPERATORS.norm(x, norm.weight, norm.bias, norm.eps, norm.centered, norm.offset)
        return normed if out is None else out.copy_(normed)

    def add_norm(self, x: torch.Tensor, residual: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum x + residual [M, n], and its norm."""
        sums, normed = OPERATORS.add_norm(
            x, residual, norm.weight, norm.bias, norm.eps, norm.centered, norm.offset
        )  # fmt: skip
        return sums, normed

    def rotate_and_write(
        self, cache: PagedCache, rotation: Rotation, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
        slots: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Queries in memory of their own."""
        query: torch.Tensor = OPERATORS.rotate_and_write(
            qkv, rotation.query_norm, rotation.key_norm, cos, sin, slots, cache.keys, cache.values,
            rotation.rotary_dim, rotation.interleaved, rotation.angle_step, rotation.norm_eps, rotation.norm_offset,
        )  # fmt: skip
        return query


class MergedMatrix:
    """A weight [N, K] on the device, multiplied by torch; gates are the first half of a gated one."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, gated: bool) -> None:
        """Take them as they are."""
        self.weight = weight
        self._bias = bias
        self._gated = gated

    def __call__(
        self,
        x: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        activation: Activation = Activation.IDENTITY,
    ) -> torch.Tensor:
        """As `PackedLinear`; out may be residual, which then is summed up in place."""
        if residual is not None and not self._gated and self._bias is None and activation == Activation.IDENTITY:
            return torch.addmm(residual, x, self.weight.t(), out=out)
        y = functional.linear(x, self.weight, self._bias)
        if self._gated or activation != Activation.IDENTITY:
            y = OPERATORS.activate(y, int(activation), self._gated)
        y = y if residual is None else y + residual
        return y if out is None else out.copy_(y)


class MergedTerms(Terms):
    """Weights of the model's own dtype, merged where the module's parameters are."""

    def __init__(self, dtype: torch.dtype) -> None:
        """For one engine."""
        super().__init__(None, dtype, frozenset())
        self.kit = TritonKit()

    def lease(self) -> MergedLease:
        """For one module."""
        return MergedLease(self)


class MergedLease(Lease):
    """The weights of one replaced module."""

    def __init__(self, terms: Terms) -> None:
        """Of nothing yet."""
        super().__init__(terms)
        self._merged: list[tuple[nn.Parameter, torch.Tensor]] = []

    def pack(self, parts: Sequence[Part], *, gated: bool = False, exact: bool = False) -> Any:
        """One matrix with the rows of all parts, in order."""
        rows = [part.rows for part in parts]
        merged = _as_they_lie(rows)
        if merged is None:
            merged = torch.cat(rows)
            first = 0
            for part, weights in zip(parts, rows, strict=True):
                if part.is_whole:
                    self._merged.append((part.parameter, merged[first : first + len(weights)]))
                first += len(weights)
        self.num_bytes += merged.nbytes
        bias = None
        if any(part.bias is not None for part in parts):
            bias = torch.cat(
                [r.new_zeros(len(r)) if p.bias is None else p.bias.detach() for p, r in zip(parts, rows, strict=True)]
            )
        return MergedMatrix(merged, bias, gated)

    def settle(self) -> None:
        """Have the parameters be views of what they were merged into."""
        for parameter, view in self._merged:
            parameter.data = view.view(parameter.shape)

    def give_back(self) -> None:
        """Give the parameters memory of their own again; harmless when repeated."""
        for parameter, _ in self._merged:
            parameter.data = parameter.data.clone()
        self._merged = []


def _as_they_lie(rows: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """All rows as one view, where each tensor begins at the end of the one before; a single one always does."""
    first = rows[0]
    if len(rows) == 1:
        return first
    end = first.data_ptr()
    for part in rows:
        if not part.is_contiguous() or part.data_ptr() != end or part.untyped_storage().data_ptr() != (
            first.untyped_storage().data_ptr()
        ):  # fmt: skip
            return None
        end += part.nbytes
    return first.as_strided((sum(map(len, rows)), first.shape[1]), first.stride())
