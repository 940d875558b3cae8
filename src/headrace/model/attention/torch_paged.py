"""Paged attention through torch operations alone: on any device, without a compiler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.attention.torch_chunks import Tile, attend_tile, needs_own_softmax, plan_chunks
from headrace.model.attention.torch_decode import DecodePlan, attend_decodes, plan_decodes


@dataclass(frozen=True, slots=True)
class TorchCache:
    """One layer's cache: keys [N, K, D, S], values [N, K, S, E].

    ::

        keys, one block and head         values, one block and head
              token 0 … S-1                     dimension 0 … E-1
        dim 0 ┌────────────┐             token 0 ┌────────────┐
          …   │            │               …     │            │
        D-1   └────────────┘              S-1    └────────────┘

    Keys lie transposed so that both products of attention are weighted sums of rows; see `torch_decode`.
    """

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, slots=True)
class StepIndex:
    """What one step reads, for layers of one shape.

    Attributes:
        decodes: the leading single-token rows; None when there are none.
        tiles: the other rows.
        order: where each token's result lies among those of the decodes and tiles, one after the other; int64 [T].
    """

    decodes: DecodePlan | None
    tiles: list[Tile]
    order: torch.Tensor


class TorchAttention:
    """Single-token rows through `embedding_bag`, the others through padded tiles of `scaled_dot_product_attention`."""

    name = "torch"
    mixes_dtypes = True

    def refusal(self, layers: Sequence[LayerSpec], dtype: torch.dtype, device: torch.device) -> str | None:
        """Serves every layer, on every device."""
        return None

    def allocate(
        self, layer: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> TorchCache:
        """Make one layer's zeroed cache. Raises MemoryError when it is too large for `DecodePlan`'s indices."""
        if num_blocks * layer.num_kv_heads * max(layer.key_dim, block_size) >= 2**31:
            raise MemoryError(f"{num_blocks} blocks of {block_size} tokens are more than int32 can index; take fewer")
        heads = layer.num_kv_heads
        return TorchCache(
            keys=torch.zeros(num_blocks, heads, layer.key_dim, block_size, dtype=dtype, device=device),
            values=torch.zeros(num_blocks, heads, block_size, layer.value_dim, dtype=dtype, device=device),
        )

    def zero_blocks(self, cache: TorchCache, blocks: torch.Tensor) -> None:
        """Zero the given blocks of one layer's cache."""
        cache.keys.index_fill_(0, blocks, 0)
        cache.values.index_fill_(0, blocks, 0)

    def prepare(self, batch: AttentionBatch, layers: list[LayerSpec]) -> None:
        """Build index tensors and masks, once for all layers of the same shape and window."""
        for layer in layers:
            shape = _index_key(layer)
            if shape not in batch.prepared:
                decodes = plan_decodes(batch, layer) if batch.num_decodes else None
                tiles = plan_chunks(batch, layer)
                batch.prepared[shape] = StepIndex(decodes, tiles, _order(batch, tiles))

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        layer: LayerSpec,
        cache: TorchCache,
        batch: AttentionBatch,
    ) -> torch.Tensor:
        """Write the keys and values, then attend; see `AttentionImplementation.forward`."""
        block = torch.div(batch.slot_mapping, batch.block_size, rounding_mode="floor")
        offset = batch.slot_mapping % batch.block_size
        cache.keys.permute(0, 3, 1, 2)[block, offset] = key.to(cache.keys.dtype)
        cache.values.transpose(1, 2)[block, offset] = value.to(cache.values.dtype)

        index: StepIndex = batch.prepared[_index_key(layer)]
        parts = [attend_tile(query, key, value, sinks, layer, cache.keys, cache.values, tile) for tile in index.tiles]
        if index.decodes is None:
            return torch.cat(parts).index_select(0, index.order)
        decoding = query[: batch.num_decodes]
        decoded = attend_decodes(decoding, sinks, layer, cache.keys, cache.values, index.decodes)
        return torch.cat([decoded, *parts]).index_select(0, index.order) if parts else decoded


def _order(batch: AttentionBatch, tiles: list[Tile]) -> torch.Tensor:
    order = torch.arange(sum(batch.query_lens))
    begin = batch.num_decodes
    for tile in tiles:
        order[tile.tokens] = begin + tile.kept
        begin += len(tile.query_index)
    return order.to(batch.slot_mapping.device)


def _index_key(layer: LayerSpec) -> tuple[object, ...]:
    """All of a layer that a `StepIndex` depends on."""
    return (
        layer.num_heads,
        layer.num_kv_heads,
        layer.key_dim,
        layer.value_dim,
        layer.window,
        layer.chunk,
        needs_own_softmax(layer),
    )
