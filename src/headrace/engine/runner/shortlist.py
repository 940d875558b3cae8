"""Drawing from the most likely tokens alone: for rows whose top-k or top-p leaves a few, without sorting the rest.

The largest C of V logits are found through groups: with the V logits dealt out to groups, every one of the largest C
lies in one of the C groups with the largest maxima (an element elsewhere is at most its group's maximum, and so at
most each of those C maxima). So one pass for the maxima, and two searches over a sixteenth of the row or so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.draw_settings import DrawSettings, top_k_of
from headrace.engine.runner.draws import draw
from headrace.engine.runner.filtering import kept_weights, relative_weights
from headrace.engine.runner.full_row import total_mass
from headrace.engine.sampling_params import SamplingParams
from headrace.model.batch import to_device

SHORTLIST = 128
"""How many of the most likely tokens are looked at before the whole row is sorted."""

UNDECIDED = -1
"""In the place of a token id: the shortlist does not suffice, the whole row must be looked at."""

_GROUP = 16


def most_likely(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest logits of each row and their ids, descending, equals by ascending id.

    Args:
        logits: [R, V].
        count: how many, at most V. Of tokens that tie with the last one, any may be the ones left out.

    Returns:
        values [R, count] and ids [R, count].
    """
    rows, vocab_size = logits.shape
    if vocab_size >= _GROUP * count:
        logits = torch.nn.functional.pad(logits, (0, -vocab_size % _GROUP), value=-torch.inf)
        stride = logits.shape[-1] // _GROUP
        maxima = logits.view(rows, _GROUP, stride).amax(dim=1)
        groups = maxima.topk(count, dim=-1, sorted=False).indices
        deal = torch.arange(0, logits.shape[-1], stride, device=logits.device)
        members = (groups[:, None, :] + deal[:, None]).flatten(1)
        values, where = logits.gather(-1, members).topk(count, dim=-1, sorted=False)
        ids = members.gather(-1, where)
    else:
        values, ids = logits.topk(count, dim=-1, sorted=False)
    ids, order = ids.sort(dim=-1)
    values, order = values.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)


def may_suffice(params: SamplingParams, vocab_size: int) -> bool:
    """Whether a draw with these settings is tried on the shortlist first; of a row's own settings alone (law 7)."""
    top_k = top_k_of(params, vocab_size)
    return top_k < SHORTLIST or (top_k == vocab_size and params.top_p < 1.0)


def draw_from_shortlist(
    logits: torch.Tensor, rows: Sequence[SamplingRow], settings: DrawSettings | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a token of each row among its `SHORTLIST` most likely ones.

    Args:
        logits: [R, V] float32, after the penalties, before temperature; unchanged.
        rows: none of them greedy. settings: theirs, where they are on the device already.

    Returns:
        Token ids [R] int64, `UNDECIDED` where the filters may keep a token that is not on the list; and the rows'
        largest logits [R].
    """
    vocab_size = logits.shape[-1]
    settings = settings or DrawSettings.of(rows, vocab_size, logits.device)
    width = min(SHORTLIST, vocab_size)
    values, ids = most_likely(logits, width)
    mass = None if width == vocab_size else _mass_for_top_p(logits, values[:, :1], rows, settings)
    weights = kept_weights(values, settings, mass)
    index, _ = draw(weights, settings.uniform)
    drawn = ids.gather(-1, index)[:, 0]
    if width < vocab_size:
        # A kept token that ties with the last one listed may have equals that are not listed.
        reaches_end = ((weights > 0) & (values == values[:, -1:])).any(dim=-1)
        drawn = drawn.masked_fill_(reaches_end, UNDECIDED)
    return drawn, values[:, 0]


def _mass_for_top_p(
    logits: torch.Tensor, peaks: torch.Tensor, rows: Sequence[SamplingRow], settings: DrawSettings
) -> torch.Tensor | None:
    """The whole vocabulary's fixed-point weight [R, 1], for the rows without top_k; None when there are none."""
    vocab_size = logits.shape[-1]
    needed = [i for i, row in enumerate(rows) if top_k_of(row.params, vocab_size) == vocab_size]
    if not needed:
        return None
    if len(needed) == len(rows):
        return total_mass(relative_weights(logits, peaks, settings.sharpness))
    at = to_device(np.array(needed), logits.device)
    mass = torch.zeros_like(settings.top_k)
    mass[at] = total_mass(relative_weights(logits[at], peaks[at], settings.sharpness[at]))
    return mass
