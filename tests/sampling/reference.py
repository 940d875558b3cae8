"""Sampling written down once more, one row at a time in float64, as plainly as possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.engine.plan import SamplingRow
from headrace.engine.sampling_params import SamplingParams

Row = npt.NDArray[np.float64]


def row(
    seed: int = 0,
    position: int = 0,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    banned: Sequence[int] = (),
    **params: Any,
) -> SamplingRow:
    """A row by its settings."""
    return SamplingRow(SamplingParams(**params), seed, position, prompt, output, banned)


def processed(logits: Row, row: SamplingRow) -> Row:
    """Penalties, bias and bans."""
    params, logits = row.params, logits.copy()
    for token in set(row.prompt_token_ids) | set(row.output_token_ids):
        factor = params.repetition_penalty
        logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
    for token, count in Counter(row.output_token_ids).items():
        logits[token] -= count * params.frequency_penalty + params.presence_penalty
    for token, bias in params.logit_bias.items():
        logits[token] += bias
    for token in row.banned_token_ids:
        logits[token] = -np.inf
    return logits


def distribution(logits: Row, params: SamplingParams, slack: float = 1.0) -> Row:
    """Probabilities after temperature and filters; `slack` moves the limits of top_p and min_p a little."""
    with np.errstate(over="ignore"):
        weights = np.exp((logits - logits.max()) / params.temperature)
    if params.top_k:
        kth = np.sort(logits)[::-1][min(params.top_k, len(logits)) - 1]
        weights[logits < kth] = 0.0
    if params.top_p < 1.0:
        order = np.argsort(-logits, kind="stable")
        share = weights[order] / weights.sum()
        weights[order[share.cumsum() - share >= params.top_p * slack]] = 0.0
    weights[weights < params.min_p * min(slack, 1.0)] = 0.0  # relative to the most likely, of weight 1
    return weights / weights.sum()


def token_at(uniform: float, probabilities: Row, order: npt.NDArray[np.int64], token: int) -> bool:
    """Whether the distribution function over the tokens in this order steps over `uniform` at `token`."""
    place = int(np.flatnonzero(order == token)[0])
    upto = probabilities[order].cumsum()
    below = upto[place] - probabilities[token]
    return bool(probabilities[token] > 0 and below - 1e-5 <= uniform <= upto[place] + 1e-5)
