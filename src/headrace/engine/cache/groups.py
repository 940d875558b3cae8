"""Cache groups: layers that see the same part of the past share block tables.

A group's rule is one question: which is the first position that a query at position p, or any later one, can see?
Blocks before it are given back while the request runs; that is what bounds a sliding window's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """Layers of one attention type.

    Attributes:
        layers: indices of its attention layers (LayerSpec.index).
        block_bytes: bytes of one block over all its layers.
        window: tokens that a query sees, itself included; None sees all.
        chunk: attention stays within chunks of so many tokens; None does not.
    """

    layers: tuple[int, ...]
    block_bytes: int
    window: int | None = None
    chunk: int | None = None

    @property
    def bounded(self) -> bool:
        """Whether a request's blocks stop growing at some length."""
        return self.window is not None or self.chunk is not None

    def first_visible(self, position: int) -> int:
        """First position that a query at `position` sees. Never falls as `position` grows."""
        first = 0
        if self.window is not None:
            first = max(first, position - self.window + 1)
        if self.chunk is not None:
            first = max(first, position // self.chunk * self.chunk)
        return first

    def max_blocks(self, num_tokens: int, step_tokens: int, block_size: int) -> int:
        """Most blocks that one request of `num_tokens` ever holds, computing up to `step_tokens` in a step."""
        blocks = -(-num_tokens // block_size)
        reach = min((r for r in (self.window, self.chunk) if r is not None), default=None)
        if reach is None:
            return blocks
        # The past that the step's first token sees (reach - 1) and the step itself, at the worst alignment to blocks.
        return min(blocks, -(-(reach - 1 + step_tokens) // block_size) + 1)


def describe(groups: Sequence[CacheGroup]) -> str:
    """The groups in words, for logs and `headrace doctor`."""
    parts = []
    for group in groups:
        kind = "full"
        if group.window is not None:
            kind = f"sliding window of {group.window}"
        elif group.chunk is not None:
            kind = f"chunks of {group.chunk}"
        parts.append(f"{len(group.layers)} layers {kind}")
    return ", ".join(parts)
