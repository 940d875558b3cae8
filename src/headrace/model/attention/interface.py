"""What an attention implementation is, and what it is told of a layer and of a batch.

Shapes: T tokens of the step, B rows (requests), H query heads, K key/value heads, D key size, E value size (equal to D
for most models), N blocks, S block size.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One attention layer, as a probe of the model saw it.

    Query at position p sees the key at position j when j ≤ p, and
    j > p - window (`window` keys, itself included) where there is a window, and
    j ≥ p // chunk * chunk where there is a chunk.

    Attributes:
        index: its place in the order of calls within a forward pass.
        num_heads: H. num_kv_heads: K; H is a multiple of K, query head h reads kv head h // (H // K).
        key_dim: D. value_dim: E.
        window: sliding window in tokens, or None.
        chunk: chunked attention's chunk in tokens, or None.
        scale: multiplies query·key.
        softcap: scores become softcap · tanh(score / softcap), after the scale and before the mask; or None.
        has_sinks: the call passes one logit per query head that joins the softmax's denominator and no value.
        group: index of the cache group that the layer's blocks belong to.
    """

    index: int
    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    scale: float
    window: int | None = None
    chunk: int | None = None
    softcap: float | None = None
    has_sinks: bool = False
    group: int = 0


@dataclass(slots=True)
class AttentionBatch:
    """What one step's attention reads, for the layers of one cache group.

    Rows with one token (decodes) come first: the first `num_decodes` rows hold one token each.
    A row's tokens are the last of its context: row b's queries stand at positions context_lens[b] - query_lens[b] …

    Attributes:
        query_lens: tokens of each row in this step, [B].
        context_lens: tokens of each row in the cache after this step's are written, [B].
        num_decodes: leading rows with exactly one token.
        query_start: int32 [B + 1], prefix sums of query_lens, on the model's device.
        context_len: int32 [B], context_lens on the device.
        slot_mapping: int64 [T], slot = block · S + offset where each token's key and value are written.
        block_table: int32 [B, max blocks], padded with 0; 0 also where a block is out of every window (never read
            unmasked).
        block_size: S.
        prepared: scratch that an implementation may keep per step (index tensors, masks), filled by `prepare`.
    """

    query_lens: list[int]
    context_lens: list[int]
    num_decodes: int
    query_start: torch.Tensor
    context_len: torch.Tensor
    slot_mapping: torch.Tensor
    block_table: torch.Tensor
    block_size: int
    prepared: dict[Any, Any] = field(default_factory=dict)


class CapturableAttention(Protocol):
    """An implementation whose `prepare` and `forward` can be recorded in a graph, for batches of single-token rows.

    At replay the batch's tensors hold other values than when it was recorded; what the host knows of them
    (`context_lens`) is not looked at. Rows of padding have context_len 0 and slot -1.
    """

    def graph_values(self, batch: AttentionBatch) -> Hashable:
        """Every value of the host that the kernels for this batch depend on; None: it cannot be recorded."""
        ...


class AttentionImplementation(Protocol):
    """One way to compute attention over the paged cache. It owns the layout of its cache tensors.

    Attributes:
        name: under which it is chosen. mixes_dtypes: whether the cache may be of another dtype than the queries.
    """

    name: str
    mixes_dtypes: bool

    def refusal(self, layers: Sequence[LayerSpec], dtype: torch.dtype, device: torch.device) -> str | None:
        """Why it cannot serve these layers with weights of `dtype` on `device`; None when it can."""
        ...

    def allocate(
        self, layer: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> Any:
        """Make one layer's zeroed cache of `num_blocks` blocks; MemoryError or RuntimeError when it does not fit."""
        ...

    def zero_blocks(self, cache: Any, blocks: torch.Tensor) -> None:
        """Zero the given blocks (int64 ids) of one layer's cache."""
        ...

    def prepare(self, batch: AttentionBatch, layers: list[LayerSpec]) -> None:
        """Build once per step and group what all `layers` (of this group) share. Called before the forward pass."""
        ...

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        layer: LayerSpec,
        cache: Any,
        batch: AttentionBatch,
    ) -> torch.Tensor:
        """Write key [T, K, D] and value [T, K, E] to the cache, attend with query [T, H, D]; return [T, H, E].

        Inputs may be strided views (transposed heads); the output is contiguous and of the query's dtype.
        """
        ...
