"""Draws on the CPU kernels: the ways of `shortlist` and `full_row`, a row at a time, from logits in their own dtype.

The kernels sum the same integers in the same order, so a token differs from torch's only where the random number falls
within the rounding of e^x (1e-7) of a boundary. A processor that has the kernels always uses them: law 7 holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.draw_settings import DrawSettings
from headrace.engine.runner.shortlist import SHORTLIST
from headrace.model.kernels.library import Kernels
from headrace.model.kernels.rows import argmax
from headrace.model.kernels.sampling import draw

DTYPES = (torch.float32, torch.bfloat16)
"""Logits that need no copy."""


class KernelDraws:
    """Draws tokens of rows that are not greedy."""

    def __init__(self, kernels: Kernels) -> None:
        """On these kernels."""
        self._kernels = kernels

    def __call__(self, logits: torch.Tensor, rows: Sequence[SamplingRow]) -> tuple[torch.Tensor, torch.Tensor]:
        """As `draw_from_full_row`, for any settings; in the place of the largest logits 0, or NaN if not finite."""
        ids = self.draw(logits, range(len(rows)), rows)
        return ids, torch.zeros(len(rows)).masked_fill_(ids < 0, torch.nan)

    def most_likely(self, logits: torch.Tensor, otherwise: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The most likely token of each row of logits [R, V]; `otherwise` is asked about rows with an infinity or NaN.

        Both choose the first of equals, so it does not matter who chose.
        """
        if logits.dtype not in DTYPES or logits.stride(1) != 1:
            return otherwise(logits)
        ids = argmax(self._kernels, logits)
        unsure = (ids < 0).nonzero()[:, 0]
        if len(unsure):
            ids[unsure] = otherwise(logits[unsure])
        return ids

    def draw(self, logits: torch.Tensor, at: Sequence[int], rows: Sequence[SamplingRow]) -> torch.Tensor:
        """Token ids [len(at)] int64 for rows `at` of logits [R, V]; -1 where the largest logit is not finite."""
        settings = DrawSettings.of(rows, logits.shape[-1], logits.device)
        return draw(
            self._kernels,
            logits,
            torch.tensor(at, dtype=torch.int64),
            uniform=settings.uniform,
            sharpness=settings.sharpness,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
            shortlist=SHORTLIST,
        )
