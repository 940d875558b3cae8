"""Which tokens top-k, top-p and min-p leave, given the most likely ones in descending order."""

from __future__ import annotations

import torch

from headrace.engine.runner.draw_settings import DrawSettings
from headrace.engine.runner.draws import fixed_point


def relative_weights(logits: torch.Tensor, peaks: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
    """exp((logit - peak) / temperature) in [0, 1], 1 for the most likely token; [R, N] from [R, N], [R, 1], [R, 1].

    Only elementwise operations, each of which rounds alike in any batch: law 7 starts here.
    """
    return (logits - peaks).mul_(sharpness).exp_()


def kept_weights(values: torch.Tensor, settings: DrawSettings, mass: torch.Tensor | None) -> torch.Tensor:
    """Weights of the tokens that survive every filter, 0 for the others.

    The semantics are those of transformers' TopKLogitsWarper (a tie with the k-th token is kept), TopPLogitsWarper (a
    token is kept while those before it have less than top_p of what top_k left; of tied tokens the first in `values`)
    and MinPLogitsWarper (relative to the most likely token), in this order.

    Args:
        values: [R, C] float32, the C largest logits of each row, in descending order.
        settings: of the R rows.
        mass: [R, 1] int64, the fixed-point weight of the whole vocabulary; read where top_k is off. None when
            `values` are the whole vocabulary.

    Returns:
        [R, C] int64.
    """
    width = values.shape[-1]
    relative = relative_weights(values, values[:, :1], settings.sharpness)
    kth = values.gather(-1, settings.top_k.clamp(max=width) - 1)
    by_top_k = (values >= kth) | (settings.top_k > width)
    weights = fixed_point(relative) * by_top_k

    cumulative = weights.cumsum(dim=-1)
    of_mass = cumulative[:, -1:]
    if mass is not None:
        of_mass = torch.where(settings.top_k > width, mass, of_mass)
    before = (cumulative - weights).double()
    by_top_p = (before < settings.top_p * of_mass.double()) | (settings.top_p >= 1.0)
    return weights * (by_top_p & (relative >= settings.min_p))
