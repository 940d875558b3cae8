"""Operations that are written down once and run at every step in one call: hr_run of csrc/headrace.h."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, addressof, byref, c_int64, c_void_p
from typing import Any

import torch

from headrace.model.kernels.library import DTYPES, Kernels, check
from headrace.model.kernels.linear import Activation, PackedLinear
from headrace.model.kernels.paged import Context, PagedCache, Rotation
from headrace.model.kernels.structs import (
    AttentionStruct,
    NormStruct,
    OperationStruct,
    ProgramStruct,
    RopeStruct,
    StepStruct,
)

LINEAR, NORM, ROTATE, ATTEND, ADD, TAKE = range(6)
"""hr_op."""


def pointer(tensor: torch.Tensor | None) -> int | None:
    """Where a tensor's numbers begin."""
    return None if tensor is None else tensor.data_ptr()


class Step:
    """What the programs of a step read, beside their rows.

    Attributes:
        context: where the rows stand. struct: hr_step.
    """

    def __init__(self, context: Context, slots: torch.Tensor) -> None:
        """slots: of the step's tokens, int64 [T]."""
        self.context = context
        self._slots = slots
        self._angles: Sequence[torch.Tensor] = ()
        self._read: tuple[torch.Tensor, ...] = ()
        self.struct = StepStruct(
            slots=slots.data_ptr(),
            query_start=context.query_start.data_ptr(),
            context_len=context.context_len.data_ptr(),
            block_table=context.block_table.data_ptr(),
            block_table_stride=context.block_table.stride(0),
            num_tokens=len(slots),
            num_rows=len(context.context_len),
        )

    def turn_by(self, angles: Sequence[torch.Tensor], dtype: torch.dtype) -> None:
        """Have what follows turn by cos and sin [1, T, R], equal strides; layers after one another share them."""
        if angles is not self._angles:
            self._angles, (cos, sin) = angles, (angle.to(dtype) for angle in angles)
            self._read = (cos, sin)
            self.struct.cos, self.struct.sin, self.struct.angle_stride = cos.data_ptr(), sin.data_ptr(), cos.stride(1)


class Program:
    """One operation after the other over values: rows of one step, all of `dtype`, each value so many numbers wide.

    A value is a number. Those that `outside` gives are the caller's tensors, the others live in the kernels' memory.

    Attributes:
        operations: as the kernels read them.
    """

    def __init__(self, kernels: Kernels, dtype: torch.dtype, outside: Sequence[int]) -> None:
        """Of nothing yet; values 0 … are the caller's, of these widths."""
        self.dtype = dtype
        self.operations: list[OperationStruct] = []
        self._kernels = kernels
        self._widths = list(outside)
        self._num_outside = len(outside)
        self._places = c_void_p * len(outside)
        self._held: list[Any] = []  # what the operations point to
        self._struct: ProgramStruct | None = None
        self._is_taken = False

    def value(self, width: int) -> int:
        """A new value."""
        self._widths.append(width)
        return len(self._widths) - 1

    def linear(
        self,
        matrix: PackedLinear,
        x: int,
        y: int,
        residual: int | None = None,
        activation: Activation = Activation.IDENTITY,
    ) -> None:
        """Y = activation(x · wᵀ + bias) + residual; see `PackedLinear`."""
        self._held.append(matrix)
        self._add(LINEAR, x, y, matrix.struct, residual, activation=activation)

    def norm(
        self, x: int, y: int, n: int, weight: torch.Tensor | None, eps: float, *, bias: torch.Tensor | None = None,
        centered: bool = False, offset: float = 0.0, column: int = 0,
    ) -> None:  # fmt: skip
        """Columns column … column + n of y = the norm of these columns of x; see `rows.norm`."""
        struct = NormStruct(
            n=n, weight=self._copy(weight), bias=self._copy(bias), eps=eps, centered=centered, offset=offset
        )  # fmt: skip
        self._add(NORM, x, y, struct, column=column)

    def rotate(self, qkv: int, num_heads: int, rotation: Rotation) -> None:
        """Normalize and rotate heads in place, write keys and values to the cache; see `rotate_and_write`."""
        struct = RopeStruct(
            query_norm=self._copy(rotation.query_norm),
            key_norm=self._copy(rotation.key_norm),
            num_heads=num_heads,
            angle_step=rotation.angle_step,
            rotary_dim=rotation.rotary_dim,
            interleaved=rotation.interleaved,
            norm_eps=rotation.norm_eps,
            norm_offset=rotation.norm_offset,
        )
        self._add(ROTATE, qkv, qkv, struct)

    def attend(
        self, qkv: int, y: int, num_heads: int, *, scale: float, window: int | None = None, chunk: int | None = None,
        softcap: float | None = None, sinks: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        """Y [T, H · E] = attention of the queries in front of qkv; see `paged.attend`."""
        struct = AttentionStruct(
            sinks=self._copy(sinks),
            num_heads=num_heads,
            window=window or 0,
            chunk=chunk or 0,
            scale=scale,
            softcap=softcap or 0.0,
        )
        self._add(ATTEND, qkv, y, struct)

    def add(self, x: int, residual: int, y: int, scale: float = 1.0) -> None:
        """Y = residual + scale · x."""
        self._add(ADD, x, y, None, residual, scale=scale)

    def take(self, values: Sequence[int]) -> list[int]:
        """The rows of these values that are kept; what is written down from here on works on such rows."""
        taken = [self.value(self._widths[value]) for value in values]
        for x, y in zip(values, taken, strict=True):
            self._add(TAKE, x, y, None)
        self._is_taken = True
        return taken

    def _copy(self, weights: torch.Tensor | None) -> int | None:
        """Where a copy of these few numbers is; a parameter's own memory may move."""
        if weights is None:
            return None
        self._held.append(weights.detach().clone(memory_format=torch.contiguous_format))
        return pointer(self._held[-1])

    def _add(self, op: int, x: int, y: int, args: Structure | None, residual: int | None = None, **more: Any) -> None:
        self._held.append(args)
        address = None if args is None else addressof(args)
        placed = -1 if residual is None else residual
        self.operations.append(OperationStruct(op, x, y, placed, address, is_taken=self._is_taken, **more))

    def run(
        self,
        step: Step,
        cache: PagedCache,
        outside: Sequence[torch.Tensor],
        kept: torch.Tensor | None = None,
    ) -> None:
        """Run all operations.

        Args:
            cache: of the layer. kept: tokens that `take` takes, int64 [n].
            outside: the caller's values, dense rows of the program's dtype: T, or n of what is written after `take`.
        """
        if cache.dtype != self.dtype:
            raise ValueError(f"the program is of {self.dtype}, the cache is of {cache.dtype}")
        struct = step.struct
        struct.cache = addressof(cache.struct)
        if kept is not None:
            struct.kept, struct.num_kept = kept.data_ptr(), len(kept)
        places = self._places(*[tensor.data_ptr() for tensor in outside])
        kernels, program = self._kernels, self._struct or self._seal()
        done = kernels.library.hr_run(kernels.context, byref(program), byref(struct), places, 0, len(self.operations))
        check(done, "layer")

    def _seal(self) -> ProgramStruct:
        """Lay the operations out as the kernels read them; what they say does not change any more."""
        operations = (OperationStruct * len(self.operations))(*self.operations)
        widths = (c_int64 * len(self._widths))(*self._widths)
        sizes = (len(operations), len(widths), self._num_outside)
        self._struct = ProgramStruct(operations, widths, *sizes, DTYPES[self.dtype])
        return self._struct
