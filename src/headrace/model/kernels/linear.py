"""Linear layers over packed weights: y = activation(x · wᵀ + bias) + residual, or activation(gate) · up + residual."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref
from enum import IntEnum

import torch

from headrace.model.kernels.library import DTYPES, Kernels, check
from headrace.model.kernels.pages import zeroed_pages
from headrace.model.kernels.structs import MatrixStruct


class Activation(IntEnum):
    """hr_activation."""

    IDENTITY = 0
    SILU = 1
    GELU = 2
    GELU_TANH = 3
    RELU = 4


class PackedLinear:
    """A weight [N, K] in panels for one instruction set, filled from one tensor or from several that merge.

    A row of the result depends on its row of x alone, to the bit: neither on the other rows nor on the threads.

    Attributes:
        dtype: of the packed weight: float32, bfloat16, or int8 (per output channel; x is quantized per row).
        gated: rows 0 … N/2 - 1 are gates of the other half, and the result is N/2 wide.
        out_features: columns of the result.
    """

    def __init__(
        self,
        kernels: Kernels,
        n: int,
        k: int,
        dtype: torch.dtype,
        *,
        gated: bool = False,
        bias: torch.Tensor | None = None,
        pages: Callable[[int], torch.Tensor] = zeroed_pages,
    ) -> None:
        """Take the memory from `pages`; `load` fills it."""
        self.kernels = kernels
        self.dtype = dtype
        self.gated = gated
        self.out_features = n // 2 if gated else n
        self._bias = None if bias is None else bias.detach().float().contiguous()
        bias_pointer = None if self._bias is None else self._bias.data_ptr()
        self._struct = MatrixStruct(None, bias_pointer, n, k, DTYPES[dtype], gated)
        self._memory = pages(kernels.library.hr_packed_bytes(kernels.context, byref(self._struct)))
        self._struct.data = self._memory.data_ptr()
        self._reference = byref(self._struct)

    @classmethod
    def of(
        cls,
        kernels: Kernels,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        dtype: torch.dtype | None = None,
        gated: bool = False,
    ) -> PackedLinear:
        """Pack a whole weight [N, K], by default in its own dtype."""
        packed = cls(kernels, weight.shape[0], weight.shape[1], dtype or weight.dtype, gated=gated, bias=bias)
        packed.load(weight)
        return packed

    @property
    def struct(self) -> MatrixStruct:
        """hr_matrix; it points to memory that this object owns."""
        return self._struct

    @property
    def memory(self) -> torch.Tensor:
        """The panels, uint8."""
        return self._memory

    @property
    def num_bytes(self) -> int:
        """Memory of the packed weight."""
        return self._memory.numel()

    def load(self, weight: torch.Tensor, first_row: int = 0) -> None:
        """Pack weight [rows, K], float32 or bfloat16, as rows first_row … of this one."""
        weight = weight.detach()
        weight = weight if weight.stride(1) == 1 else weight.contiguous()
        library, (rows, _) = self.kernels.library, weight.shape
        kind, stride = DTYPES[weight.dtype], weight.stride(0)
        done = library.hr_pack(self.kernels.context, self._reference, weight.data_ptr(), stride, kind, first_row, rows)
        check(done, "pack")

    def unload(self, out: torch.Tensor, first_row: int = 0) -> None:
        """Write rows first_row … back to out [rows, K] (this dtype, dense rows), bit by bit as they were loaded."""
        if out.dtype != self.dtype or out.stride(1) != 1:
            raise ValueError(f"out must be {self.dtype} with dense rows, not {out.dtype} of strides {out.stride()}")
        library = self.kernels.library
        done = library.hr_unpack(
            self.kernels.context, self._reference, out.data_ptr(), out.stride(0), first_row, out.shape[0]
        )
        check(done, "unpack")

    def lookup(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers (int64 [n]) as they were loaded, [n, K]; ValueError for one that is not there."""
        out = torch.empty(len(rows), self._struct.k, dtype=self.dtype)
        done = self.kernels.library.hr_lookup(
            self.kernels.context, self._reference, rows.data_ptr(), len(rows), out.data_ptr(), self._struct.k
        )
        check(done, "lookup")
        return out

    def __call__(
        self,
        x: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        activation: Activation = Activation.IDENTITY,
    ) -> torch.Tensor:
        """Multiply x [M, K] (float32 or bfloat16, dense rows); the result is out, or a new tensor of x's dtype.

        residual [M, out_features] is of the result's dtype and may be `out`.
        """
        if out is None:
            out = torch.empty(x.shape[0], self.out_features, dtype=x.dtype)
        done = self.kernels.library.hr_linear(
            self.kernels.context,
            self._reference,
            x.data_ptr(),
            x.stride(0),
            DTYPES[x.dtype],
            out.data_ptr(),
            out.stride(0),
            DTYPES[out.dtype],
            None if residual is None else residual.data_ptr(),
            0 if residual is None else residual.stride(0),
            x.shape[0],
            activation,
        )
        check(done, "linear")
        return out
