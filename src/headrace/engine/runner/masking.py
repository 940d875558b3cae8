"""Takes from rows of logits what their guides do not allow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch


def apply_masks(logits: torch.Tensor, masks: Mapping[int, npt.NDArray[np.uint32]]) -> None:
    """Set to -inf, in place, what is not in a row's mask.

    Args:
        logits: [R, V], any floating dtype.
        masks: by row, bits [ceil(V / 32)] of the tokens that stay.
    """
    if logits.device.type == "cpu":
        for row, bits in masks.items():
            banned = np.unpackbits(~bits.view(np.uint8), count=logits.shape[-1], bitorder="little")
            logits[row].masked_fill_(torch.from_numpy(banned).view(torch.bool), -torch.inf)
    elif masks:
        rows = torch.tensor(list(masks), device=logits.device)
        packed = torch.from_numpy(np.stack(list(masks.values())).view(np.int32)).to(logits.device, non_blocking=True)
        places = torch.arange(32, dtype=torch.int32, device=logits.device)
        kept = ((packed[:, :, None] >> places) & 1).bool().flatten(1)[:, : logits.shape[-1]]
        logits[rows] = logits[rows].masked_fill_(~kept, -torch.inf)
