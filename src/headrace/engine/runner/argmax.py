"""The most likely token of every row, and at no further cost whether the row's logits are usable.

Torch's argmax on a CPU reads a row at a fraction of the memory's speed (bfloat16 slowest of all), and starts threads
that cost more than the work. NumPy's is vectorised for float32 and for integers, so 16-bit floats are compared by
their bits: among floats of positive sign the bits, read as an integer, have the floats' order.
"""

from __future__ import annotations

import numpy as np
import torch

_INFINITY_BITS = {torch.bfloat16: 0x7F80, torch.float16: 0x7C00}
_SIGN_BIT = 0x8000


def argmax(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Position (the first of equals, as torch.argmax) and value of the maximum of each row.

    Args:
        logits: [R, V], any floating dtype; unchanged.

    Returns:
        ids [R] int64 and peaks [R] float32. A row's peak is NaN where the row holds one, so a peak is finite exactly
        when the row holds no NaN, no +inf, and anything but -inf.
    """
    if logits.device.type != "cpu":
        peaks, ids = logits.max(dim=-1)
        return ids, peaks.float()
    if logits.dtype in _INFINITY_BITS:
        return _argmax_of_16_bits(logits)
    values = logits.float().numpy()
    ids = values.argmax(axis=-1)
    return torch.from_numpy(ids), torch.from_numpy(np.take_along_axis(values, ids[:, None], axis=-1)[:, 0])


def _argmax_of_16_bits(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compare bits; rows where bits do not tell (no positive value, or a NaN) are compared as float32."""
    signed = logits.view(torch.int16).numpy()
    unsigned = signed.view(np.uint16)
    best = signed.argmax(axis=-1)
    ids = torch.from_numpy(best)
    peaks = logits.gather(-1, ids[:, None])[:, 0].float()

    positive = np.take_along_axis(signed, best[:, None], axis=-1)[:, 0] > 0
    without_negative_nan = unsigned.max(axis=-1) <= (_SIGN_BIT | _INFINITY_BITS[logits.dtype])
    unsure = torch.from_numpy(np.flatnonzero(~(positive & without_negative_nan)))
    if len(unsure):
        ids[unsure], peaks[unsure] = argmax(logits.index_select(0, unsure).float())
    return ids, peaks
