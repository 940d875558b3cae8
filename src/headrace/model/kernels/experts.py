"""The experts of a layer over packed weights, all in one call."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, byref

import torch

from headrace.model.kernels.library import DTYPES, Kernels, check
from headrace.model.kernels.linear import Activation, PackedLinear
from headrace.model.kernels.structs import ExpertsStruct, MatrixStruct


class PackedExperts:
    """Σ over a token's experts e of weight[e] · down[e](activation(gate[e]) · up[e]).

    A token's result depends on its own row alone, to the bit: its terms are added in the order of its own choices.
    """

    def __init__(
        self, kernels: Kernels, experts: Sequence[tuple[PackedLinear, PackedLinear]], activation: Activation
    ) -> None:
        """Of every expert the inner matrix, gated or not, and the one down; of a kind, all have one shape and dtype."""
        self._kernels = kernels
        self._experts = list(experts)  # they own the memory
        self._inner = (MatrixStruct * len(experts))(*(inner.struct for inner, _ in experts))
        self._down = (MatrixStruct * len(experts))(*(down.struct for _, down in experts))
        self._activation = activation

    def __call__(self, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Tokens x [T, H], their experts int64 [T, k] and the weights of these [T, k] → [T, H] of x's dtype.

        Raises ValueError for an expert that is not there.
        """
        x, index, weights = x.contiguous(), index.contiguous(), weights.float().contiguous()
        out = torch.empty(len(x), self._experts[0][1].out_features, dtype=x.dtype)
        args = ExpertsStruct(
            addressof(self._inner),
            addressof(self._down),
            x.data_ptr(),
            x.stride(0),
            out.data_ptr(),
            out.stride(0),
            index.data_ptr(),
            weights.data_ptr(),
            len(x),
            len(self._experts),
            index.shape[1],
            DTYPES[x.dtype],
            self._activation,
        )
        check(self._kernels.library.hr_experts(self._kernels.context, byref(args)), "experts")
        return out
