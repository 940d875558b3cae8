"""What the rows of one step ask of a draw, as columns beside their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.draws import uniforms
from headrace.engine.sampling_params import SamplingParams
from headrace.model.batch import to_device

_MOST_SHARPNESS = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """Columns [R, 1] on the logits' device.

    Attributes:
        uniform: float64 in [0, 1), the row's random number.
        sharpness: float32, 1 / temperature.
        top_k: int64 in 1..V; V keeps all.
        top_p: float64; 1 keeps all.
        min_p: float32; 0 keeps all.
    """

    uniform: torch.Tensor
    sharpness: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor

    @classmethod
    def of(cls, rows: Sequence[SamplingRow], vocab_size: int, device: torch.device) -> DrawSettings:
        """Gather the settings of rows, and move them at once; what is said of greedy ones has no meaning."""
        params = [row.params for row in rows]
        table = np.empty((5, len(rows), 1))
        table[0, :, 0] = uniforms([row.seed for row in rows], [row.position for row in rows])
        table[1, :, 0] = [min(1.0 / (p.temperature or 1.0), _MOST_SHARPNESS) for p in params]
        table[2, :, 0] = [top_k_of(p, vocab_size) for p in params]
        table[3, :, 0] = [p.top_p for p in params]
        table[4, :, 0] = [p.min_p for p in params]
        return cls.from_table(table, device)

    @classmethod
    def from_table(cls, table: NDArray[np.float64], device: torch.device) -> DrawSettings:
        """Of float64 [5, R, 1], in the order of the attributes; moved at once."""
        uniform, sharpness, top_k, top_p, min_p = to_device(table, device)
        return cls(uniform, sharpness.float(), top_k.long(), top_p, min_p.float())

    def at(self, rows: torch.Tensor) -> DrawSettings:
        """Those of the given rows."""
        return DrawSettings(
            self.uniform[rows], self.sharpness[rows], self.top_k[rows], self.top_p[rows], self.min_p[rows]
        )


def top_k_of(params: SamplingParams, vocab_size: int) -> int:
    """How many tokens top_k leaves: all of the vocabulary when it is off."""
    return min(params.top_k, vocab_size) or vocab_size
