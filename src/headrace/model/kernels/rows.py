"""Operations on the rows of [M, n], float32 or bfloat16 with dense rows: norms, activation · gate, argmax."""

from __future__ import annotations

from ctypes import byref

import torch

from headrace.model.kernels.library import DTYPES, Kernels, check
from headrace.model.kernels.linear import Activation
from headrace.model.kernels.structs import NormStruct


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def norm(
    kernels: Kernels,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    eps: float,
    *,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    centered: bool = False,
    offset: float = 0.0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """RMS norm of each row, or with `centered` a layer norm, times weight + offset, plus bias.

    With residual [M, n]: x is added to it in place first, and the sum is what is normalized. out may be x.
    """
    out = torch.empty_like(x) if out is None else out
    args = NormStruct(
        x.data_ptr(),
        x.stride(0),
        _pointer(residual),
        0 if residual is None else residual.stride(0),
        out.data_ptr(),
        out.stride(0),
        _pointer(weight),
        _pointer(bias),
        x.shape[0],
        x.shape[1],
        DTYPES[x.dtype],
        centered,
        eps,
        offset,
    )
    check(kernels.library.hr_norm(kernels.context, byref(args)), "norm")
    return out


def activate(kernels: Kernels, gate: torch.Tensor, up: torch.Tensor | None, activation: Activation) -> torch.Tensor:
    """activation(gate) · up, or without up activation(gate); [M, n] each, which may be views of one [M, 2n]."""
    out = torch.empty(gate.shape, dtype=gate.dtype)
    done = kernels.library.hr_activate(
        kernels.context,
        gate.data_ptr(),
        gate.stride(0),
        _pointer(up),
        0 if up is None else up.stride(0),
        out.data_ptr(),
        out.stride(0),
        gate.shape[0],
        gate.shape[1],
        DTYPES[gate.dtype],
        activation,
    )
    check(done, "activate")
    return out


def argmax(kernels: Kernels, x: torch.Tensor) -> torch.Tensor:
    """The lowest index of each row's highest value, int64 [M]; -1 where the row holds a NaN or an infinity."""
    out = torch.empty(x.shape[0], dtype=torch.int64)
    done = kernels.library.hr_argmax(
        kernels.context, x.data_ptr(), x.stride(0), x.shape[0], x.shape[1], DTYPES[x.dtype], out.data_ptr()
    )
    check(done, "argmax")
    return out
