"""One token for every row of a step, each by its own settings.

::

    raw logits ──argmax──► plain greedy rows: done           (and NaN or infinity is found on the way)
        │
        └─ float32 ─penalties, bias, guides─┬─ greedy ──► argmax
                                            ├─ top-k or top-p ──► draw from the shortlist ─┐ not sure
                                            └─ neither ──► draw from the full row ◄────────┘

Where the CPU kernels run, they draw, and rows whose logits nobody changes are drawn from the raw logits as they lie.
Which way a row takes depends on the row alone, and each way gives a row the same token in any batch (law 7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from headrace.engine.outputs import TokenLogprobs
from headrace.engine.plan import SamplingRow
from headrace.engine.runner.argmax import argmax
from headrace.engine.runner.device_draws import DeviceDraws
from headrace.engine.runner.full_row import draw_from_full_row
from headrace.engine.runner.kernel_draws import DTYPES, KernelDraws
from headrace.engine.runner.logits_processing import changes_logits, process_logits
from headrace.engine.runner.logprobs import token_logprobs
from headrace.engine.runner.masking import apply_masks
from headrace.engine.runner.shortlist import UNDECIDED, draw_from_shortlist, may_suffice
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import GuideFailed, HeadraceError, NonFiniteLogits
from headrace.model.kernels.library import Kernels

# In the place of a token id, beside UNDECIDED.
NOTHING_LEFT = -2
NON_FINITE = -3


class RowSample(NamedTuple):
    """What came of one row: a token, with log-probabilities where they were asked for, or an error of its own."""

    token_id: int | None
    logprobs: TokenLogprobs | None = None
    error: HeadraceError | None = None


class Sampler:
    """Chooses tokens. Stateless: what it depends on is in its arguments."""

    def __init__(
        self,
        vocab_size: int,
        device: torch.device,
        kernels: Kernels | None = None,
        draws: DeviceDraws | None = None,
    ) -> None:
        """Sample logits of `vocab_size` columns that lie on `device`; `kernels` only where that is a CPU."""
        self.vocab_size = vocab_size
        self.device = device
        self._draws: KernelDraws | DeviceDraws | None = draws if kernels is None else KernelDraws(kernels)

    @torch.inference_mode()
    def sample(
        self,
        logits: torch.Tensor,
        rows: Sequence[SamplingRow],
        masks: Mapping[int, npt.NDArray[np.uint32]] = MappingProxyType({}),
    ) -> list[RowSample]:
        """Choose a token for each row.

        The device is waited for once; once more when a shortlist did not suffice, and for log-probabilities.

        Args:
            logits: [R, V] raw logits of the model, any floating dtype; unchanged.
            rows: one for each row of logits.
            masks: by row, for the guided ones: bits [ceil(V / 32)] of the tokens that may be chosen.

        Returns:
            One result per row, in order. A row whose logits hold NaN or +inf, or nothing but -inf, before or after
            its bans and mask, has an error, and no influence on the others.
        """
        if logits.shape != (len(rows), self.vocab_size):
            raise ValueError(f"logits are {tuple(logits.shape)}, expected {(len(rows), self.vocab_size)}")
        if not rows:
            return []
        outcomes = raw_outcomes(logits) if self._draws is None else self._draws.most_likely(logits, raw_outcomes)
        special = [i for i, row in enumerate(rows) if not row.params.greedy or changes_logits(row) or i in masks]
        if self._draws is not None and logits.dtype in DTYPES:
            special = self._draw_unchanged(self._draws, logits, rows, special, outcomes, masks)
        if special:
            chosen = self._choose_special(logits, rows, special, outcomes, masks)
        else:
            chosen = outcomes.tolist()
        logprobs = _logprobs(logits, rows, chosen)
        return [
            RowSample(outcome, logprobs.get(i))
            if outcome >= 0
            else RowSample(None, error=outcome_error(outcome, rows[i]))
            for i, outcome in enumerate(chosen)
        ]

    @staticmethod
    def _draw_unchanged(
        draws: KernelDraws | DeviceDraws,
        logits: torch.Tensor,
        rows: Sequence[SamplingRow],
        special: Sequence[int],
        outcomes: torch.Tensor,
        masks: Mapping[int, npt.NDArray[np.uint32]],
    ) -> list[int]:
        """Put in their place the outcomes of the rows that are drawn from raw logits; returns the other ones."""
        changed = [i for i in special if i in masks or changes_logits(rows[i])]
        drawn = [i for i in special if i not in set(changed)] if changed else special
        if drawn:
            at = torch.tensor(drawn, device=logits.device)
            ids = draws.draw(logits, drawn, [rows[i] for i in drawn])
            outcomes[at] = torch.where(outcomes[at] == NON_FINITE, NON_FINITE, ids)
        return changed

    def _choose_special(
        self,
        logits: torch.Tensor,
        rows: Sequence[SamplingRow],
        special: Sequence[int],
        outcomes: torch.Tensor,
        masks: Mapping[int, npt.NDArray[np.uint32]],
    ) -> list[int]:
        """Put the outcomes of the `special` rows in place of those of the raw argmax; give all to the host."""
        special_rows = [rows[i] for i in special]
        changed = any(changes_logits(row) for row in special_rows)
        at = torch.tensor(special, device=self.device)
        if len(special) == len(rows):
            processed = logits.to(torch.float32, copy=changed or bool(masks))
        else:
            processed = logits[at].float()
        if changed:
            process_logits(processed, special_rows)
        apply_masks(processed, {j: masks[i] for j, i in enumerate(special) if i in masks})
        found = _choose(processed, special_rows, self._draws)
        outcomes[at] = torch.where(outcomes[at] == NON_FINITE, NON_FINITE, found)
        chosen: list[int] = outcomes.tolist()

        undecided = [j for j, i in enumerate(special) if chosen[i] == UNDECIDED]
        if undecided:
            again = processed[torch.tensor(undecided, device=self.device)]
            drawn, _ = draw_from_full_row(again, [special_rows[j] for j in undecided])
            for j, token_id in zip(undecided, drawn.tolist(), strict=True):
                chosen[special[j]] = token_id
        return chosen


def raw_outcomes(logits: torch.Tensor) -> torch.Tensor:
    """The most likely token of each row [R], or that it has none."""
    token_ids, peaks = argmax(logits)
    return token_ids.masked_fill_(~torch.isfinite(peaks), NON_FINITE)


_Way = Callable[[torch.Tensor, Sequence[SamplingRow]], tuple[torch.Tensor, torch.Tensor]]


def _greedy(logits: torch.Tensor, _rows: Sequence[SamplingRow]) -> tuple[torch.Tensor, torch.Tensor]:
    return argmax(logits)


def _way(params: SamplingParams, vocab_size: int, draws: _Way | None) -> _Way:
    if params.greedy:
        return _greedy
    if draws is not None:
        return draws
    return draw_from_shortlist if may_suffice(params, vocab_size) else draw_from_full_row


def _choose(logits: torch.Tensor, rows: Sequence[SamplingRow], draws: _Way | None = None) -> torch.Tensor:
    """Outcomes [R] of processed float32 logits [R, V], each row by its way."""
    rows_of_way: dict[_Way, list[int]] = {}
    for i, row in enumerate(rows):
        rows_of_way.setdefault(_way(row.params, logits.shape[-1], draws), []).append(i)
    outcomes = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    for way, members in rows_of_way.items():
        at = torch.tensor(members, device=logits.device)
        token_ids, peaks = way(logits if len(members) == len(rows) else logits[at], [rows[i] for i in members])
        outcomes[at] = token_ids.masked_fill_(~torch.isfinite(peaks), NOTHING_LEFT)
    return outcomes


def _logprobs(logits: torch.Tensor, rows: Sequence[SamplingRow], chosen: Sequence[int]) -> dict[int, TokenLogprobs]:
    """By row, for those that have a token and asked."""
    nums = {i: num for i, row in enumerate(rows) if (num := row.params.logprobs) is not None and chosen[i] >= 0}
    if not nums:
        return {}
    asked = logits if len(nums) == len(rows) else logits[torch.tensor(list(nums), device=logits.device)]
    return dict(zip(nums, token_logprobs(asked, [chosen[i] for i in nums], list(nums.values())), strict=True))


def outcome_error(outcome: int, row: SamplingRow) -> HeadraceError:
    """What went wrong with a row, by what stands in the place of its token."""
    if outcome == NON_FINITE:
        return NonFiniteLogits(f"the model gave NaN or infinity in the logits for position {row.position}")
    if row.guide is not None:
        return GuideFailed(f"the guide, penalties, bias and bans leave no token to choose for position {row.position}")
    return NonFiniteLogits(f"penalties, bias and bans leave no token to choose for position {row.position}")
