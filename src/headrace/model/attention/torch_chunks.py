"""Attention of rows with several tokens (chunks of prompts): rows are cut into pieces, like pieces run as one tile.

::

    row       positions 0 … start ......... context      the queries are the last of the context
    piece             [keys in sight      ]              some of the queries, and the range of keys that they see
                                [queries  ]
    tile      pieces of about the same size, padded to the largest: one batched attention

A piece whose row begins in this step reads the keys that were just computed, not the cache; when every query also
sees all before it, the tile needs no mask. Padding repeats the piece's own tokens or blocks and is masked, so a row
never reads what belongs to another, and a NaN stays in its row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.attention.visibility import first_visible, visible

MAX_SCORES = 2**25
"""Most scores (queries × keys, × heads where they are all in memory at once) of one piece: bounds the memory."""

MAX_PIECE_TOKENS = 512
"""Most queries of a masked piece: shorter pieces compute less of what causality and windows mask anyway."""

CALL_COST_SCORES = 1024
"""What a tile of its own costs, in scores per head: padding below that is cheaper than another round of calls."""


class Piece(NamedTuple):
    """Queries at positions [query_begin, query_end) of a row and the keys [key_begin, query_end) that they see."""

    row: int
    query_begin: int
    query_end: int
    key_begin: int
    fresh: bool
    causal: bool

    @property
    def num_queries(self) -> int:
        """Tokens that attend."""
        return self.query_end - self.query_begin

    @property
    def num_keys(self) -> int:
        """Tokens that are attended to."""
        return self.query_end - self.key_begin


@dataclass(frozen=True, slots=True)
class Tile:
    """P pieces padded to Q queries and L keys each; tensors on the model's device but where it is said.

    Attributes:
        num_pieces: P.
        query_index: tokens of the step, int64 [P · Q]; padding repeats a piece's last.
        kept: which of the P · Q results are no padding, [n]. tokens: whose they are, [n]. Both int64, on the CPU.
        key_index: tokens of the step, int64 [P · L], or None: the keys are in the cache.
        blocks: cache blocks, int64 [P · L / S], or None.
        mask: bool [P, 1, Q, L], or None: plainly causal.
    """

    num_pieces: int
    query_index: torch.Tensor
    kept: torch.Tensor
    tokens: torch.Tensor
    key_index: torch.Tensor | None
    blocks: torch.Tensor | None
    mask: torch.Tensor | None


def needs_own_softmax(layer: LayerSpec) -> bool:
    """Whether torch's fused attention cannot do this layer (for D ≠ E it would hold all scores in memory at once)."""
    return layer.softcap is not None or layer.has_sinks or layer.key_dim != layer.value_dim


def plan_chunks(batch: AttentionBatch, layer: LayerSpec) -> list[Tile]:
    """Cut the rows after the leading decodes into pieces and pack them into tiles."""
    pieces = [
        piece
        for row in range(batch.num_decodes, len(batch.query_lens))
        for piece in _cut(row, batch.query_lens[row], batch.context_lens[row], layer)
    ]
    starts = [0]
    for query_len in batch.query_lens:
        starts.append(starts[-1] + query_len)
    origin = [starts[row] - (batch.context_lens[row] - batch.query_lens[row]) for row in range(len(batch.query_lens))]
    return [_tile(group, origin, batch, layer) for group in _pack(pieces, layer)]


def _max_scores(layer: LayerSpec) -> int:
    """Most queries × keys at a time: the fused attention holds a mask of all heads, ours the scores of each head."""
    return MAX_SCORES // (layer.num_heads if needs_own_softmax(layer) else 1)


def _cut(row: int, query_len: int, context_len: int, layer: LayerSpec) -> Iterator[Piece]:
    start = context_len - query_len
    if start == 0 and not needs_own_softmax(layer) and first_visible(context_len - 1, layer) == 0:
        yield Piece(row, 0, context_len, 0, fresh=True, causal=True)
        return
    longest = min(MAX_PIECE_TOKENS, _max_scores(layer) // (context_len - first_visible(start, layer)))
    for begin in range(start, context_len, max(1, longest)):
        end = min(begin + max(1, longest), context_len)
        yield Piece(row, begin, end, first_visible(begin, layer), fresh=start == 0, causal=False)


def _pack(pieces: list[Piece], layer: LayerSpec) -> Iterator[list[Piece]]:
    """Group pieces of one kind while padding to the largest wastes little."""
    group: list[Piece] = []
    worth = most_queries = 0
    for piece in sorted(pieces, key=lambda p: (p.fresh, p.causal, p.num_keys, p.num_queries)):
        cost_alone = piece.num_queries * piece.num_keys + CALL_COST_SCORES
        most_queries = max(most_queries, piece.num_queries)
        padded = (len(group) + 1) * most_queries * piece.num_keys
        limit = min(1.25 * (worth + cost_alone), _max_scores(layer))
        if group and (padded > limit or (piece.fresh, piece.causal) != (group[0].fresh, group[0].causal)):
            yield group
            group, worth, most_queries = [], 0, piece.num_queries
        group.append(piece)
        worth += cost_alone
    if group:
        yield group


def _tile(pieces: list[Piece], origin: list[int], batch: AttentionBatch, layer: LayerSpec) -> Tile:
    """Build a tile's tensors; `origin[row]` + position is the index of a row's token in the step."""
    device, size = batch.block_table.device, batch.block_size
    fresh, causal = pieces[0].fresh, pieces[0].causal
    row, query_begin, query_end, key_begin = torch.tensor([piece[:4] for piece in pieces])[:, :, None].unbind(1)
    shift = torch.tensor([origin[piece.row] for piece in pieces])[:, None]
    num_queries = max(piece.num_queries for piece in pieces)
    query_position = query_begin + torch.arange(num_queries)
    kept = (query_position < query_end).flatten().nonzero()[:, 0]
    query_position = query_position.minimum(query_end - 1)
    query_index = (query_position + shift).flatten()

    key_index, blocks = None, None
    if fresh:
        key_position = key_begin + torch.arange(max(piece.num_keys for piece in pieces))
        key_index = (key_position.minimum(query_end - 1) + shift).flatten().to(device)
    else:
        first_block, last_block = key_begin // size, (query_end - 1) // size
        block = first_block + torch.arange(int((last_block - first_block).max()) + 1)
        key_position = (block[:, :, None] * size + torch.arange(size)).flatten(1)
        own = block.minimum(last_block)
        blocks = batch.block_table[row.expand_as(own).to(device), own.to(device)].long().flatten()
    mask = None
    if not causal:
        mask = visible(query_position[:, None, :, None].to(device), key_position[:, None, None].to(device), layer)
    return Tile(
        num_pieces=len(pieces),
        query_index=query_index.to(device),
        kept=kept,
        tokens=query_index[kept],
        key_index=key_index,
        blocks=blocks,
        mask=mask,
    )


def attend_tile(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor | None,
    layer: LayerSpec,
    keys: torch.Tensor,
    values: torch.Tensor,
    tile: Tile,
) -> torch.Tensor:
    """Attend for one tile; return the results of its queries, padding too, [P · Q, H, E].

    query [T, H, D], key [T, K, D] and value [T, K, E] are of the whole step, keys [N, K, D, S] and values [N, K, S, E]
    the layer's cache, sinks one logit per head, [H].
    """
    num_pieces = tile.num_pieces
    queries = _take(query, tile.query_index, num_pieces)
    if tile.key_index is not None:
        seen_keys = _take(key, tile.key_index, num_pieces)
        seen_values = _take(value, tile.key_index, num_pieces)
    else:
        assert tile.blocks is not None
        gathered = keys.index_select(0, tile.blocks).view(num_pieces, -1, *keys.shape[1:])  # [P, blocks, K, D, S]
        seen_keys = gathered.permute(0, 2, 1, 4, 3).flatten(2, 3).to(query.dtype)
        gathered = values.index_select(0, tile.blocks).view(num_pieces, -1, *values.shape[1:])  # [P, blocks, K, S, E]
        seen_values = gathered.transpose(1, 2).flatten(2, 3).to(query.dtype)
    if needs_own_softmax(layer):
        assert tile.mask is not None
        output = _attend_with_own_softmax(queries, seen_keys, seen_values, sinks, layer, tile.mask)
    else:
        output = scaled_dot_product_attention(
            queries,
            seen_keys,
            seen_values,
            attn_mask=tile.mask,
            is_causal=tile.mask is None,
            scale=layer.scale,
            enable_gqa=layer.num_heads != layer.num_kv_heads,
        )
    return output.transpose(1, 2).flatten(0, 1)


def _take(tokens: torch.Tensor, index: torch.Tensor, num_pieces: int) -> torch.Tensor:
    """Heads of the indexed tokens, piece by piece: [T, heads, dim] gives [P, heads, index / P, dim]."""
    return tokens.index_select(0, index).view(num_pieces, -1, *tokens.shape[1:]).transpose(1, 2)


def _attend_with_own_softmax(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sinks: torch.Tensor | None,
    layer: LayerSpec,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Soft caps and sinks: query [P, H, Q, D], key [P, K, L, D], value [P, K, L, E] give [P, H, Q, E].

    In float32 (float64 for float64); the heads that share a kv head are folded into its queries, keys are not copied.
    """
    num_pieces, _, num_queries, key_dim = query.shape
    num_kv_heads, num_keys = key.shape[1:3]
    dtype = torch.promote_types(query.dtype, torch.float32)
    grouped = (query.to(dtype) * layer.scale).reshape(num_pieces, num_kv_heads, -1, key_dim)
    scores = torch.matmul(grouped, key.to(dtype).transpose(2, 3))
    if layer.softcap is not None:
        scores.div_(layer.softcap).tanh_().mul_(layer.softcap)
    scores = scores.view(num_pieces, layer.num_heads, num_queries, num_keys).masked_fill_(~mask, -torch.inf)
    peak = scores.amax(-1, keepdim=True)
    weights = scores.sub_(peak).exp_()
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total += (sinks.to(dtype)[:, None, None] - peak).exp_()
    output = torch.matmul(weights.view(num_pieces, num_kv_heads, -1, num_keys), value.to(dtype))
    return (output.view(num_pieces, layer.num_heads, num_queries, -1) / total).to(value.dtype)
