"""Drawing from the whole vocabulary: for rows without top-k and top-p, and for those that keep many tokens.

The distribution function is inverted in two levels. The weights of a row are laid out as a matrix of G lines::

    w[0]      w[1]      …  w[n-1]
    w[n]      w[n+1]    …  w[2n-1]       n = V / G columns, zeros at the end when G does not divide V
    …
    ───────────────────────────────
    s[0]      s[1]      …  s[n-1]        a column is drawn by its sum, then a token within the column

Columns are summed by adding the lower half of the lines to the upper half until one line is left: elementwise
additions, whose order no library chooses, over memory in the order in which it lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.draw_settings import DrawSettings, top_k_of
from headrace.engine.runner.draws import draw, fixed_point
from headrace.engine.runner.filtering import relative_weights
from headrace.model.batch import to_device

_LINES = 32  # a power of two

_SORTED_AT_ONCE = 2**19
"""How many logits: the temporary tensors of a sort then stay in a processor's cache."""


def draw_from_full_row(
    logits: torch.Tensor, rows: Sequence[SamplingRow], settings: DrawSettings | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a token of each row among all that its filters leave.

    Args:
        logits: [R, V] float32, after the penalties, before temperature; unchanged.
        rows: none of them greedy. settings: theirs, where they are on the device already.

    Returns:
        Token ids [R] int64 and the rows' largest logits [R].
    """
    vocab_size = logits.shape[-1]
    settings = settings or DrawSettings.of(rows, vocab_size, logits.device)
    peaks = logits.amax(dim=-1, keepdim=True)
    weights = relative_weights(logits, peaks, settings.sharpness)
    cut = [i for i, row in enumerate(rows) if row.params.top_p < 1.0 or top_k_of(row.params, vocab_size) < vocab_size]
    rows_at_once = max(1, _SORTED_AT_ONCE // vocab_size)
    for start in range(0, len(cut), rows_at_once):
        at = to_device(np.array(cut[start : start + rows_at_once]), logits.device)
        weights[at] = weights[at].masked_fill_(cut_off(logits[at], settings.at(at)), 0.0)
    if any(row.params.min_p > 0.0 for row in rows):
        weights.masked_fill_(weights < settings.min_p, 0.0)

    matrix = _matrix(weights)
    column, within = draw(fixed_point(_column_sums(matrix)), settings.uniform)
    members = matrix.gather(-1, column[:, None, :].expand(-1, _LINES, 1))[:, :, 0]
    # Relative to the largest, so that a column of tiny weights keeps its proportions.
    line, _ = draw(fixed_point(members / members.amax(dim=-1, keepdim=True)), within)
    return (line * matrix.shape[-1] + column)[:, 0], peaks[:, 0]


def total_mass(weights: torch.Tensor) -> torch.Tensor:
    """The sum [R, 1] of weights [R, V], in fixed point."""
    return fixed_point(_column_sums(_matrix(weights))).sum(dim=-1, keepdim=True)


def cut_off(logits: torch.Tensor, settings: DrawSettings) -> torch.Tensor:
    """Which tokens fall to top_k and top_p: those below the last one kept, and those of its equals without room.

    The semantics are those of `kept_weights`, found by bisection in the sorted row; min_p, which needs no sort, apart.

    Args:
        logits: [R, V] float32; unchanged.
        settings: of the R rows.

    Returns:
        [R, V] bool; of equals, the first by id are kept.
    """
    negatives = _sorted_negatives(logits)
    kth = negatives.gather(-1, settings.top_k - 1)
    num_by_top_k = torch.searchsorted(negatives, kth, right=True)
    relative = relative_weights(negatives, negatives[:, :1], -settings.sharpness)
    cumulative = fixed_point(relative).cumsum(dim=-1)
    mass = cumulative.gather(-1, num_by_top_k.clamp(min=1) - 1)
    num_by_top_p = torch.searchsorted(cumulative, (settings.top_p * mass.double()).ceil().long()) + 1
    num_kept = torch.where(settings.top_p < 1.0, torch.minimum(num_by_top_k, num_by_top_p), num_by_top_k).clamp_(min=1)

    last = negatives.gather(-1, num_kept - 1)
    num_above = torch.searchsorted(negatives, last)
    num_upto = torch.searchsorted(negatives, last, right=True)
    below = logits < -last
    if logits.device.type != "cpu" or bool((num_kept < num_upto).any()):  # a device would have to be waited for
        equal = logits == -last
        below |= equal & (equal.cumsum(dim=-1) > num_kept - num_above)
    return below


def _matrix(weights: torch.Tensor) -> torch.Tensor:
    """[R, V] as [R, G, n], without a copy when G divides V."""
    rows, vocab_size = weights.shape
    if vocab_size % _LINES:
        weights = torch.nn.functional.pad(weights, (0, -vocab_size % _LINES))
    return weights.view(rows, _LINES, -1)


def _column_sums(matrix: torch.Tensor) -> torch.Tensor:
    """[R, n] from [R, G, n], equal to the last bit in any batch."""
    lines = _LINES
    while lines > 1:
        lines //= 2
        matrix = matrix[:, :lines] + matrix[:, lines:]
    return matrix[:, 0]


def _sorted_negatives(logits: torch.Tensor) -> torch.Tensor:
    """The negated values of each row in ascending order: the most likely first."""
    if logits.device.type != "cpu":
        return logits.neg().sort(dim=-1).values
    # NumPy sorts bare values with vector instructions, ten times faster than torch sorts values with their indices.
    negatives = logits.neg()
    negatives.numpy().sort(axis=-1)
    return negatives
