"""Which keys a query sees: causal, within the sliding window, within the chunk of chunked attention."""

from __future__ import annotations

import torch

from headrace.model.attention.interface import LayerSpec


def first_visible(position: int, layer: LayerSpec) -> int:
    """Position of the earliest key that the query at `position` sees. It never decreases with the position."""
    first = 0
    if layer.window is not None:
        first = max(first, position - layer.window + 1)
    if layer.chunk is not None:
        first = max(first, position // layer.chunk * layer.chunk)
    return first


def visible(query_position: torch.Tensor, key_position: torch.Tensor, layer: LayerSpec) -> torch.Tensor:
    """Boolean mask of the broadcast shape of the two integer tensors; True where the query sees the key."""
    seen = key_position <= query_position
    if layer.window is not None:
        seen = seen & (key_position > query_position - layer.window)
    if layer.chunk is not None:
        seen = seen & (key_position >= query_position // layer.chunk * layer.chunk)
    return seen
