"""Attention through the package's own CPU kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.kernels.library import Kernels, open_kernels
from headrace.model.kernels.paged import Context, PagedCache, attend
from headrace.model.kernels.program import Step


class CpuAttention:
    """Paged attention in C++, over threads; float32 and bfloat16, even head sizes up to 256."""

    name = "cpu"
    mixes_dtypes = False

    def __init__(self, kernels: Kernels | None = None) -> None:
        """Run on `kernels`, by default on those that the environment and the machine say. Raises ConfigError."""
        self.kernels = kernels or open_kernels()

    def refusal(self, layers: Sequence[LayerSpec], dtype: torch.dtype, device: torch.device) -> str | None:
        """Serves float32 and bfloat16 on the CPU, even head sizes up to 256."""
        if device.type != "cpu":
            return f"it runs on the CPU, not on {device}"
        if dtype not in (torch.float32, torch.bfloat16):
            return f"it does float32 and bfloat16, not {dtype}"
        odd = [d for layer in layers for d in (layer.key_dim, layer.value_dim) if d % 2 or d > 256]
        return f"it does even head sizes up to 256, not {odd[0]}" if odd else None

    def allocate(
        self, layer: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> PagedCache:
        """Make one layer's zeroed cache. Raises ValueError for what the kernels do not do, MemoryError."""
        if device.type != "cpu":
            raise ValueError(f"the cpu attention runs on the CPU, not on {device}")
        try:
            return PagedCache(
                self.kernels,
                num_blocks=num_blocks,
                block_size=block_size,
                num_kv_heads=layer.num_kv_heads,
                key_dim=layer.key_dim,
                value_dim=layer.value_dim,
                dtype=dtype,
            )
        except OSError as error:
            raise MemoryError(f"no memory for {num_blocks} blocks of layer {layer.index}: {error}") from error

    def zero_blocks(self, cache: PagedCache, blocks: torch.Tensor) -> None:
        """Zero the given blocks (int64 ids) of one layer's cache."""
        cache.zero_blocks(blocks)

    def prepare(self, batch: AttentionBatch, layers: list[LayerSpec]) -> None:
        """Fix the views that every layer of the group reads."""
        context = Context(
            batch.query_start.contiguous(), batch.context_len.contiguous(), batch.block_table.contiguous()
        )
        batch.prepared[self.name] = Step(context, batch.slot_mapping)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        layer: LayerSpec,
        cache: PagedCache,
        batch: AttentionBatch,
    ) -> torch.Tensor:
        """Write key [T, K, D] and value [T, K, E] to the cache, attend with query [T, H, D]; return [T, H, E]."""
        cache.write(self.kernels, key, value, batch.slot_mapping)
        return self.attend(query, None if sinks is None else sinks.detach().float().contiguous(), layer, cache, batch)

    def attend(
        self,
        query: torch.Tensor,
        sinks: torch.Tensor | None,
        layer: LayerSpec,
        cache: PagedCache,
        batch: AttentionBatch,
    ) -> torch.Tensor:
        """The same where keys and values are in the cache already; sinks float32 [H]."""
        return attend(
            self.kernels,
            cache,
            query,
            batch.prepared[self.name].context,
            scale=layer.scale,
            window=layer.window,
            chunk=layer.chunk,
            softcap=layer.softcap,
            sinks=sinks,
        )
