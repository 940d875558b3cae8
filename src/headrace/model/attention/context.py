"""The paged cache's answer to a model's attention calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from headrace.model.attention.interface import AttentionBatch, AttentionImplementation, LayerSpec


class PagedContext:
    """Cache tensors of every layer, and the batch of the step that is under way.

    One engine's thread alone calls it.

    Attributes:
        kept: tokens of the step under way whose logits are wanted, int64 [n]; None for all, in their order.

    Args:
        implementation: computes attention, and owns the cache's layout. layers: every attention layer.
    """

    def __init__(self, implementation: AttentionImplementation, layers: Sequence[LayerSpec]) -> None:
        """Without cache tensors yet."""
        self.implementation = implementation
        self.layers = tuple(layers)
        self.num_groups = 1 + max(layer.group for layer in layers)
        self._caches: list[Any] = []
        self._batches: Sequence[AttentionBatch] = ()
        self.kept: torch.Tensor | None = None

    def allocate(self, num_blocks: Sequence[int], block_size: int, dtype: torch.dtype, device: torch.device) -> None:
        """Make every layer's cache, `num_blocks[group]` blocks each; on failure nothing is kept, and it raises."""
        self._caches = []
        allocate = self.implementation.allocate
        self._caches = [allocate(layer, num_blocks[layer.group], block_size, dtype, device) for layer in self.layers]

    def release(self) -> None:
        """Drop the cache tensors."""
        self._caches = []

    def zero_blocks(self, blocks: Sequence[Sequence[int]], device: torch.device) -> None:
        """Zero blocks, given per group, in every layer."""
        ids = [torch.tensor(list(group), dtype=torch.int64, device=device) for group in blocks]
        for layer, cache in zip(self.layers, self._caches, strict=True):
            if len(ids[layer.group]):
                self.implementation.zero_blocks(cache, ids[layer.group])

    @contextmanager
    def step(self, batches: Sequence[AttentionBatch], kept: torch.Tensor | None = None) -> Iterator[None]:
        """Answer the attention calls of one forward pass over `batches`, one per group."""
        for group, batch in enumerate(batches):
            self.implementation.prepare(batch, [layer for layer in self.layers if layer.group == group])
        self._batches, self.kept = batches, kept
        try:
            yield
        finally:
            self._batches, self.kept = (), None

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None, layer: int
    ) -> torch.Tensor:
        """Answer one layer's call."""
        cache, batch = self.at(layer)
        return self.implementation.forward(query, key, value, sinks, self.layers[layer], cache, batch)

    def at(self, layer: int) -> tuple[Any, AttentionBatch]:
        """A layer's cache, and its view of the step that is under way; for code that attends by itself."""
        return self._caches[layer], self._batches[self.layers[layer].group]
