"""Sampling that leaves the tokens on the device: nothing here makes the host wait for it.

The ways are those of `Sampler`, and give a row the same token. Where that one looks whether a shortlist has sufficed,
both ways are taken here and the device chooses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.argmax import argmax
from headrace.engine.runner.device_draws import DeviceDraws
from headrace.engine.runner.draw_settings import DrawSettings
from headrace.engine.runner.full_row import draw_from_full_row
from headrace.engine.runner.logits_processing import changes_logits, process_logits
from headrace.engine.runner.sampler import NON_FINITE, NOTHING_LEFT
from headrace.engine.runner.shortlist import UNDECIDED, draw_from_shortlist, may_suffice
from headrace.model.batch import to_device


def is_special(row: SamplingRow) -> bool:
    """Whether a row's token is another than the most likely one of its raw logits, or may be."""
    return not row.params.greedy or changes_logits(row)


def sample_special(
    logits: torch.Tensor,
    outcomes: torch.Tensor,
    at: Sequence[int],
    rows: Sequence[SamplingRow],
    settings: DrawSettings,
    draws: DeviceDraws | None = None,
) -> None:
    """Put the outcomes of special rows in place of those of the raw argmax.

    Args:
        logits: [R, V] raw, any floating dtype; unchanged. outcomes: int64 [R], in place.
        at: which rows are special; rows: their samplings; settings: their draws, those of greedy ones are not read.
        draws: the kernel that draws; None draws with torch's operations.
    """
    where = to_device(np.array(at), logits.device)
    processed = logits[where].float()
    if any(changes_logits(row) for row in rows):
        process_logits(processed, rows)
    greedy = [j for j, row in enumerate(rows) if row.params.greedy]
    if not greedy:
        found = _draw(processed, rows, settings, draws)
    else:
        token_ids, peaks = argmax(processed)
        found = token_ids.masked_fill(~torch.isfinite(peaks), NOTHING_LEFT)
        drawn = [j for j, row in enumerate(rows) if not row.params.greedy]
        if drawn:
            some = to_device(np.array(drawn), logits.device)
            found[some] = _draw(processed[some], [rows[j] for j in drawn], settings.at(some), draws)
    outcomes[where] = torch.where(outcomes[where] == NON_FINITE, NON_FINITE, found)


def _draw(
    logits: torch.Tensor, rows: Sequence[SamplingRow], settings: DrawSettings, draws: DeviceDraws | None
) -> torch.Tensor:
    """Outcomes [R] of processed float32 logits [R, V], none of them greedy."""
    if draws is not None:
        ids, peaks = draws(logits, rows, settings)
        return ids.masked_fill(~torch.isfinite(peaks), NOTHING_LEFT)
    token_ids, peaks = draw_from_full_row(logits, rows, settings)
    listed = [j for j, row in enumerate(rows) if may_suffice(row.params, logits.shape[-1])]
    if listed:
        some = to_device(np.array(listed), logits.device)
        short, _ = draw_from_shortlist(logits[some], [rows[j] for j in listed], settings.at(some))
        token_ids[some] = torch.where(short == UNDECIDED, token_ids[some], short)
    return token_ids.masked_fill_(~torch.isfinite(peaks), NOTHING_LEFT)
