"""Attention written to be trusted by reading: one query and one head at a time, in float64. What tests compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headrace.model.attention.interface import AttentionBatch, LayerSpec


@dataclass(frozen=True, slots=True)
class ReferenceCache:
    """One layer's cache: slot = block · S + offset holds one token, keys [N·S, K, D], values [N·S, K, E]."""

    keys: torch.Tensor
    values: torch.Tensor
    block_size: int


class ReferenceAttention:
    """The definition of every feature, with no thought for speed. It reads only keys and values that are visible."""

    name = "reference"
    mixes_dtypes = True

    def refusal(self, layers: Sequence[LayerSpec], dtype: torch.dtype, device: torch.device) -> str | None:
        """Serves every layer, on every device."""
        return None

    def allocate(
        self, layer: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> ReferenceCache:
        """Make one layer's zeroed cache."""
        num_slots = num_blocks * block_size
        return ReferenceCache(
            keys=torch.zeros(num_slots, layer.num_kv_heads, layer.key_dim, dtype=dtype, device=device),
            values=torch.zeros(num_slots, layer.num_kv_heads, layer.value_dim, dtype=dtype, device=device),
            block_size=block_size,
        )

    def zero_blocks(self, cache: ReferenceCache, blocks: torch.Tensor) -> None:
        """Zero the given blocks of one layer's cache."""
        for block in blocks.tolist():
            slots = slice(block * cache.block_size, (block + 1) * cache.block_size)
            cache.keys[slots] = 0
            cache.values[slots] = 0

    def prepare(self, batch: AttentionBatch, layers: list[LayerSpec]) -> None:
        """Nothing is shared between layers here."""

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
        """Write the keys and values, then attend token by token; see `AttentionImplementation.forward`."""
        cache.keys[batch.slot_mapping] = key.to(cache.keys.dtype)
        cache.values[batch.slot_mapping] = value.to(cache.values.dtype)
        output = query.new_empty(query.shape[0], layer.num_heads, layer.value_dim)
        token = 0
        for row, (query_len, context_len) in enumerate(zip(batch.query_lens, batch.context_lens, strict=True)):
            block_table = batch.block_table[row].tolist()
            for position in range(context_len - query_len, context_len):
                slots = [
                    block_table[seen // batch.block_size] * batch.block_size + seen % batch.block_size
                    for seen in visible_positions(position, layer)
                ]
                keys, values = cache.keys[slots].double(), cache.values[slots].double()
                for head in range(layer.num_heads):
                    kv_head = head // (layer.num_heads // layer.num_kv_heads)
                    sink = None if sinks is None else sinks[head].double()
                    output[token, head] = attend(
                        query[token, head].double(), keys[:, kv_head], values[:, kv_head], sink, layer
                    )
                token += 1
        return output


def visible_positions(position: int, layer: LayerSpec) -> list[int]:
    """Positions of the keys that the query at `position` sees, as `LayerSpec` states it."""
    return [
        seen
        for seen in range(position + 1)
        if (layer.window is None or seen > position - layer.window)
        and (layer.chunk is None or seen >= position // layer.chunk * layer.chunk)
    ]


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, sink: torch.Tensor | None, layer: LayerSpec
) -> torch.Tensor:
    """One query [D] over its n visible keys [n, D] and values [n, E]: [E]."""
    scores = keys @ query * layer.scale
    if layer.softcap is not None:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    if sink is None:
        return scores.softmax(0) @ values
    weights = torch.cat([scores, sink.reshape(1)]).softmax(0)
    return weights[:-1] @ values
