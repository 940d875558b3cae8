"""Draws of tokens from rows of logits."""

from __future__ import annotations

from ctypes import byref

import torch

from headrace.model.kernels.library import DTYPES, Kernels, check
from headrace.model.kernels.structs import DrawStruct

MOST_LISTED = 256
"""The longest shortlist."""


def draw(
    kernels: Kernels,
    logits: torch.Tensor,
    rows: torch.Tensor,
    *,
    uniform: torch.Tensor,
    sharpness: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    shortlist: int,
) -> torch.Tensor:
    """A token of each of m rows, a function of its own logits and settings alone.

    Args:
        logits: [R, V] float32 or bfloat16, dense rows. rows: int64 [m], which of them.
        uniform: float64 [m] in [0, 1). sharpness: float32 [m], 1 / temperature. top_k: int64 [m], 1..V.
        top_p: float64 [m], 1 for all. min_p: float32 [m], 0 for all.
        shortlist: how many of the most likely tokens are looked at before the whole row, at most `MOST_LISTED`.

    Returns:
        int64 [m], -1 where the row's highest logit is not finite.

    Raises ValueError for a setting out of its range.
    """
    columns = (rows, uniform, sharpness, top_k, top_p, min_p)
    if any(column.numel() != len(rows) or not column.is_contiguous() for column in columns) or logits.stride(1) != 1:
        raise ValueError("every setting has one number per row, dense, and so do the logits' rows")
    out = torch.empty(len(rows), dtype=torch.int64)
    args = DrawStruct(
        logits.data_ptr(),
        logits.stride(0),
        logits.shape[1],
        len(rows),
        *(column.data_ptr() for column in columns),
        out.data_ptr(),
        DTYPES[logits.dtype],
        shortlist,
    )
    check(kernels.library.hr_draw(kernels.context, byref(args)), "draw")
    return out
