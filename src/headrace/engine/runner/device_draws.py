"""Draws by the Triton kernel: any settings in one launch, without a sort, and nothing for the host to look at.

The same interface as `KernelDraws`, so that a row has the same token where its step waits for the host (`Sampler`) and
where it does not (`device_sampling`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.draw_settings import DrawSettings
from headrace.model.batch import to_device


class DeviceDraws:
    """Draws tokens of rows that are not greedy. Raises ImportError where triton is not installed."""

    def __init__(self) -> None:
        """Ready."""
        from headrace.model.triton_kernels.sampling import draw

        self._kernel = draw

    @classmethod
    def where_there_are(cls, device: torch.device) -> Self | None:
        """On CUDA devices with triton; None elsewhere: torch operations draw there."""
        if device.type != "cuda":
            return None
        try:
            return cls()
        except ImportError:
            return None

    def __call__(
        self, logits: torch.Tensor, rows: Sequence[SamplingRow], settings: DrawSettings | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `draw_from_full_row`, for any settings; in the place of the largest logits 0, or NaN if not finite."""
        settings = settings or DrawSettings.of(rows, logits.shape[-1], logits.device)
        ids = self._kernel(
            logits,
            uniform=settings.uniform,
            sharpness=settings.sharpness,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
        )
        return ids, torch.zeros_like(ids, dtype=torch.float32).masked_fill_(ids < 0, torch.nan)

    def most_likely(self, logits: torch.Tensor, otherwise: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The most likely token of each row of logits [R, V]: what torch says."""
        return otherwise(logits)

    def draw(self, logits: torch.Tensor, at: Sequence[int], rows: Sequence[SamplingRow]) -> torch.Tensor:
        """Token ids [len(at)] int64 for rows `at` of logits [R, V]; -1 where the largest logit is not finite."""
        return self(logits[to_device(np.array(at), logits.device)], rows)[0]
