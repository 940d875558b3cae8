"""An attention that takes lengths from the device alone, and graphs that record a function by keeping it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

import torch

from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.attention.reference import ReferenceAttention, ReferenceCache


class CapturableReference(ReferenceAttention):
    """The reference, for batches whose tensors say more than the host knows; padding is left out."""

    name = "capturable"

    def graph_values(self, batch: AttentionBatch) -> Hashable:
        return len(batch.query_lens)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        layer: LayerSpec,
        cache: ReferenceCache,
        batch: AttentionBatch,
    ) -> torch.Tensor:
        lens = batch.context_len.tolist()
        real = sum(n > 0 for n in lens)
        assert all(n > 0 for n in lens[:real]), "padding comes last"
        assert (batch.slot_mapping >= 0).sum() == sum(batch.query_lens[:real])
        count = sum(batch.query_lens[:real])
        some = replace(
            batch, query_lens=batch.query_lens[:real], context_lens=lens[:real], slot_mapping=batch.slot_mapping[:count]
        )
        out = query.new_zeros(len(query), layer.num_heads, layer.value_dim)
        if count:
            out[:count] = super().forward(query[:count], key[:count], value[:count], sinks, layer, cache, some)
        return out


class Recorded:
    """A graph: the function, called again."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.num_replays = 0
        function()

    def replay(self) -> None:
        self.num_replays += 1
        self.function()
