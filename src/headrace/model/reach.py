"""How far back a mask lets a query see, found by asking the mask itself.

transformers describes every mask by a function of (batch, head, query position, key position). Asking it far out
finds sliding windows and chunks exactly, whatever the model's config calls them, also those that a model never
mentions to its attention function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

MaskFunction = Callable[[Any, Any, Any, Any], Any]

_FAR = 1 << 20
"""A position beyond every window in use; a window that reaches further counts as full attention."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A query sees `window` keys, itself included, or its own chunk of `chunk` positions; None is no bound."""

    window: int | None = None
    chunk: int | None = None


def reach_of(mask: MaskFunction) -> Reach | None:
    """The reach of a mask function; None when it is not causal. Raises what the function raises."""

    def sees(query: int, key: int) -> bool:
        zero = torch.tensor(0)
        return bool(mask(zero, zero, torch.tensor(query), torch.tensor(key)))

    if not sees(_FAR, _FAR) or sees(_FAR - 1, _FAR):
        return None
    if sees(_FAR, 0):
        return Reach()
    first = _boundary(0, _FAR, lambda key: sees(_FAR, key))
    next_first = _boundary(0, _FAR + 1, lambda key: sees(_FAR + 1, key))
    if next_first - first == 1:
        return Reach(window=_FAR - first + 1)
    # A chunk's first position stays in sight until the chunk ends.
    start = next_first
    end = _boundary(_FAR + 1, start + 2 * _FAR, lambda query: not sees(query, start))
    return Reach(chunk=end - start)


def _boundary(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Smallest value in (low, high] for which `holds`, which is false up to there and true from there on."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
