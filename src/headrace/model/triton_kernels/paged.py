"""The paged cache of the Triton kernels, and the launches that write it and attend over it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.triton_kernels.device.attention import decode_kernel, merge_kernel, prefill_kernel, write_kernel
from headrace.model.triton_kernels.launch_plan import BatchShape, LaunchPlan, Tile, power_of_two

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class PagedCache:
    """One layer's keys [N, K, S, D] and values [N, K, S, E]; slot = block · S + offset holds one token."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Of keys and values."""
        return self.keys.dtype


def shape_of(batch: AttentionBatch) -> BatchShape:
    """What launches depend on, read from the shapes of the batch's tensors: nothing is waited for."""
    return BatchShape(
        num_rows=batch.context_len.shape[0],
        num_decodes=batch.num_decodes,
        num_tokens=batch.slot_mapping.shape[0],
        table_stride=batch.block_table.stride(0),
        block_size=batch.block_size,
    )


def write(cache: PagedCache, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
    """Write key [T, K, D] and value [T, K, E] to slots int64 [T]; a negative slot is left out."""
    key, value = _dense(key), _dense(value)
    _, num_kv_heads, block_size, key_dim = cache.keys.shape
    value_dim = cache.values.shape[3]
    write_kernel[(key.shape[0],)](
        key, value, cache.keys, cache.values, slots,
        key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        num_kv_heads, block_size, key_dim, power_of_two(key_dim), value_dim, power_of_two(value_dim),
        power_of_two(num_kv_heads),
    )  # fmt: skip


def attend(
    query: torch.Tensor,
    sinks: torch.Tensor | None,
    layer: LayerSpec,
    cache: PagedCache,
    batch: AttentionBatch,
    plan: LaunchPlan,
) -> torch.Tensor:
    """Attention of query [T, H, D] over the cache, which holds its keys and values already; returns [T, H, E].

    A row whose context_len is 0 gives zeros.
    """
    query = _dense(query)
    out = torch.empty(query.shape[0], layer.num_heads, layer.value_dim, dtype=query.dtype, device=query.device)
    if batch.num_decodes:
        _attend_decodes(query, sinks, layer, cache, batch, plan, out)
    if plan.num_tiles:
        _attend_chunks(query, sinks, layer, cache, batch, plan, out)
    return out


def _attend_decodes(
    query: torch.Tensor, sinks: torch.Tensor | None, layer: LayerSpec, cache: PagedCache, batch: AttentionBatch,
    plan: LaunchPlan, out: torch.Tensor,
) -> None:  # fmt: skip
    rows, splits, tile = batch.num_decodes, plan.num_splits, plan.decode
    partial_out, partial_lse = out, out
    if splits > 1:
        partial_out = torch.empty(
            rows, layer.num_heads, splits, layer.value_dim, dtype=torch.float32, device=query.device
        )
        partial_lse = torch.empty(rows, layer.num_heads, splits, dtype=torch.float32, device=query.device)
    sink = query if sinks is None else sinks
    decode_kernel[(rows, layer.num_kv_heads, splits)](
        query, cache.keys, cache.values, batch.block_table, batch.context_len, sink, out, partial_out, partial_lse,
        query.stride(0), query.stride(1), batch.block_table.stride(0), layer.scale, layer.softcap or 1.0,
        *_features(layer, sinks, cache), tile.rows, tile.tokens, splits, plan.min_split_tokens, **_warps(tile),
    )  # fmt: skip
    if splits > 1:
        merge_kernel[(rows, layer.num_heads)](
            partial_out, partial_lse, batch.context_len, sink, out,
            layer.window or 0, layer.chunk or 0, sinks is not None, layer.num_heads,
            layer.value_dim, power_of_two(layer.value_dim), tile.tokens, splits, plan.min_split_tokens, num_warps=1,
        )  # fmt: skip


def _attend_chunks(
    query: torch.Tensor, sinks: torch.Tensor | None, layer: LayerSpec, cache: PagedCache, batch: AttentionBatch,
    plan: LaunchPlan, out: torch.Tensor,
) -> None:  # fmt: skip
    tile = plan.prefill
    prefill_kernel[(plan.num_tiles, layer.num_kv_heads)](
        query, cache.keys, cache.values, batch.block_table, batch.context_len, batch.query_start,
        query if sinks is None else sinks, out,
        query.stride(0), query.stride(1), batch.block_table.stride(0), batch.num_decodes, batch.context_len.shape[0],
        layer.scale, layer.softcap or 1.0,
        *_features(layer, sinks, cache), tile.rows, tile.tokens, plan.queries_per_tile, **_warps(tile),
    )  # fmt: skip


def _features(layer: LayerSpec, sinks: torch.Tensor | None, cache: PagedCache) -> tuple[int | bool, ...]:
    """The constants that both kernels are compiled for, in the order of their parameters."""
    return (
        layer.window or 0, layer.chunk or 0, layer.softcap is not None, sinks is not None,
        layer.num_kv_heads, layer.num_heads // layer.num_kv_heads, cache.keys.shape[2],
        layer.key_dim, power_of_two(layer.key_dim), layer.value_dim, power_of_two(layer.value_dim),
    )  # fmt: skip


def _warps(tile: Tile) -> dict[str, int]:
    return {"num_warps": tile.num_warps, "num_stages": tile.num_stages}


def _dense(x: torch.Tensor) -> torch.Tensor:
    """With a dense last dimension, which the kernels count on."""
    return x if x.stride(-1) == 1 else x.contiguous()
