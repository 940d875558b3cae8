"""Draws of tokens on the device: no sort of the vocabulary, and nothing that the host waits for."""

from __future__ import annotations

import torch

from headrace.model.triton_kernels.device.sampling import draw_kernel

SHORTLIST = 128
"""Fewer kept tokens than this are drawn in the order of their logits, more of them by columns: as on the CPU."""

_BLOCK = 4096
_NUM_WARPS = 16  # both to be confirmed on a GPU


def draw(
    logits: torch.Tensor,
    *,
    uniform: torch.Tensor,
    sharpness: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    block: int = _BLOCK,
    num_warps: int = _NUM_WARPS,
) -> torch.Tensor:
    """A token of each row, a function of its own logits and settings alone.

    A token differs from the CPU's only where the random number falls within the rounding of e^x (1e-6) of a boundary.

    Args:
        logits: [R, V], any of float32, bfloat16, float16, dense rows; unchanged.
        uniform: float64 [R] or [R, 1] in [0, 1), as all that follow. sharpness: float32, 1 / temperature.
        top_k: int64, 1..V, V for all. top_p: float64, 1 for all. min_p: float32, 0 for all.
        block: logits at a time. num_warps: of the program of a row.

    Returns:
        int64 [R], -1 where the row's highest logit is not finite.

    Raises:
        ValueError: the rows are not dense, or the settings are not one number per row.
    """
    if logits.stride(1) != 1:
        raise ValueError(f"the rows of logits must be dense, not of strides {logits.stride()}")
    for column in (uniform, sharpness, top_k, top_p, min_p):
        if column.numel() != logits.shape[0] or not column.is_contiguous():
            raise ValueError(f"a setting of {logits.shape[0]} rows has one number per row, dense; not {column.shape}")
    out = torch.empty(logits.shape[0], dtype=torch.int64, device=logits.device)
    draw_kernel[(logits.shape[0],)](
        logits, uniform, sharpness, top_k, top_p, min_p, out, logits.stride(0), logits.shape[1],
        SHORTLIST, block, num_warps=num_warps,
    )  # fmt: skip
    return out
