"""Attention of single-token rows through `embedding_bag`: no padding, no gathered copy of keys or values.

`embedding_bag(index, table, offset, per_sample_weights=w)` is a sum of rows of a table, weighted, one sum per bag; on
x86 it is a vectorised kernel that accumulates in float32 and reads each row where it lies. Both products of
attention are such sums:

::

    keys [N, K, D, S]     a row of the table is one dimension of one block's S keys; a bag is (row, head, block):
                          scores[S] = Σ_d query[d] · keys[block, head, d, :]
    values [N, K, S, E]   a row of the table is one token's value; a bag is (row, head), over all blocks in sight:
                          output[E] = Σ_t weight[t] · values[slot(t), :]

Bags are ordered (row, head, block), so the scores of the first product, exponentiated, are the weights of the second
as they lie in memory. Only blocks that hold a visible key are named, all of them the row's own: a NaN elsewhere in the
cache cannot get here, not even times zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import embedding_bag

from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.attention.visibility import first_visible


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What the single-token rows of one step read; the same for all layers of one shape and window.

    A segment is a (row, head), row · H + head; a bag is a (row, head, block).

    Attributes:
        segment: of each bag, int64 [bags].
        key_index: rows of the table of keys, int32 [bags · D]. key_offset: where each bag's begin, int32 [bags].
        value_index: rows of the table of values, int32 [bags · S]. value_offset: where each segment's begin, [B · H].
        hidden: True for slots of a bag's block that are beyond the context or before the window, bool [bags, S].
    """

    segment: torch.Tensor
    key_index: torch.Tensor
    key_offset: torch.Tensor
    value_index: torch.Tensor
    value_offset: torch.Tensor
    hidden: torch.Tensor


def plan_decodes(batch: AttentionBatch, layer: LayerSpec) -> DecodePlan:
    """Name the blocks in sight of each of the batch's `num_decodes` leading rows."""
    size, device = batch.block_size, batch.block_table.device
    context = torch.tensor(batch.context_lens[: batch.num_decodes])
    first = torch.tensor([first_visible(n - 1, layer) for n in batch.context_lens[: batch.num_decodes]])
    first_block = first // size
    num_blocks = ((context - 1) // size - first_block + 1).repeat_interleave(layer.num_heads)
    segment = torch.arange(len(num_blocks)).repeat_interleave(num_blocks)
    segment_start = num_blocks.cumsum(0) - num_blocks
    row, head = segment // layer.num_heads, segment % layer.num_heads
    block_position = torch.arange(len(segment)) - segment_start[segment] + first_block[row]
    block_begin = block_position * size
    offset = torch.arange(size)
    hidden = (offset >= (context[row] - block_begin)[:, None]) | (offset < (first[row] - block_begin)[:, None])

    kv_head = (head // (layer.num_heads // layer.num_kv_heads)).to(device)
    block = batch.block_table[row.to(device), block_position.to(device)]
    panel = (block * layer.num_kv_heads + kv_head).int()[:, None]
    return DecodePlan(
        segment=segment.to(device),
        key_index=(panel * layer.key_dim + _count(layer.key_dim, device)).flatten(),
        key_offset=_count(len(segment), device) * layer.key_dim,
        value_index=(panel * size + _count(size, device)).flatten(),
        value_offset=(segment_start * size).int().to(device),
        hidden=hidden.to(device),
    )


def _count(stop: int, device: torch.device) -> torch.Tensor:
    return torch.arange(stop, dtype=torch.int32, device=device)


def attend_decodes(
    query: torch.Tensor,
    sinks: torch.Tensor | None,
    layer: LayerSpec,
    keys: torch.Tensor,
    values: torch.Tensor,
    plan: DecodePlan,
) -> torch.Tensor:
    """Attend with one query per row, [B, H, D], over keys [N, K, D, S] and values [N, K, S, E]; return [B, H, E].

    The softmax is computed in float32 (float64 for float64). `embedding_bag` answers in the table's dtype, so in
    bfloat16 and float16 scores are rounded once, as they are in transformers' eager attention.
    """
    num_rows, num_heads, key_dim = query.shape
    block_size, value_dim = values.shape[2:]
    scaled = (query * layer.scale).to(keys.dtype).reshape(num_rows * num_heads, key_dim)
    scores = embedding_bag(
        plan.key_index,
        keys.view(-1, block_size),
        plan.key_offset,
        mode="sum",
        per_sample_weights=scaled.index_select(0, plan.segment).view(-1),
    )
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if layer.softcap is not None:
        scores.div_(layer.softcap).tanh_().mul_(layer.softcap)
    scores.masked_fill_(plan.hidden, -torch.inf)
    weights, total = _softmax_by_segment(scores, plan.segment, num_rows, num_heads, sinks)
    output = embedding_bag(
        plan.value_index,
        values.view(-1, value_dim),
        plan.value_offset,
        mode="sum",
        per_sample_weights=weights.to(values.dtype).view(-1),
    )
    return (output / total[:, None]).to(query.dtype).view(num_rows, num_heads, value_dim)


def _softmax_by_segment(
    scores: torch.Tensor, segment: torch.Tensor, num_rows: int, num_heads: int, sinks: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Numerators [bags, S] (in place of the scores) and denominators [B · H] of the softmax over each segment."""
    peak = scores.new_full((num_rows * num_heads,), -torch.inf).scatter_reduce_(0, segment, scores.amax(-1), "amax")
    weights = scores.sub_(peak.index_select(0, segment)[:, None]).exp_()
    total = torch.zeros_like(peak) if sinks is None else (sinks.to(peak.dtype).repeat(num_rows) - peak).exp_()
    total.index_add_(0, segment, weights.sum(-1))
    return weights, total
