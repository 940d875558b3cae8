"""The attention kernels: decode split over the context, its merge pass, and chunks of prompts.

::

    decode    program (row, kv head, split)    all query heads of the kv head, as rows of one product
    merge     program (row, query head)        the splits' results, by their log-sum-exp, and the sink
    prefill   program (tile, kv head)          some queries of one row × all query heads of the kv head

Scores are kept in base 2: exp2 is an instruction, exp is not. Keys and values are only read where somebody sees
them, so what a block holds of another request (NaN, say) never gets into a product.

Keys lie as [N, K, S, D], values as [N, K, S, E]: the tokens of one block and head are one piece of memory.
"""

import triton
import triton.language as tl

from headrace.model.triton_kernels.device.language import LOG2_E, dot


@triton.jit
def _first_visible(position, WINDOW: tl.constexpr, CHUNK: tl.constexpr):
    """Position of the earliest key that a query sees; `visibility.first_visible`."""
    first = position * 0
    if WINDOW > 0:
        first = tl.maximum(first, position - (WINDOW - 1))
    if CHUNK > 0:
        first = tl.maximum(first, position // CHUNK * CHUNK)
    return first


@triton.jit
def _capped(score, scale, softcap, HAS_SOFTCAP: tl.constexpr):
    """Scores in base 2 of products."""
    if HAS_SOFTCAP:
        # tanh(x) = 2 · sigmoid(2x) - 1
        return (2.0 * tl.sigmoid(2.0 * score * scale / softcap) - 1.0) * softcap * LOG2_E
    return score * (scale * LOG2_E)


@triton.jit
def _fold(
    query, peak, total, acc,
    keys, values, table, head, begin, end, first, last,
    scale, softcap,
    MASKED: tl.constexpr, HAS_SOFTCAP: tl.constexpr, KV_HEADS: tl.constexpr, PAGE: tl.constexpr,
    D: tl.constexpr, D_PAD: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Fold the keys at positions [begin, end) into a running softmax.

    Masked, row m of the queries sees the positions first[m] … last[m]. Otherwise every row sees all of them, and there
    is a whole number of tiles.
    """
    token = tl.arange(0, TOKENS)
    dim = tl.arange(0, D_PAD)
    out_dim = tl.arange(0, E_PAD)
    for start in range(begin, end, TOKENS):
        position = start + token
        there = position < end
        block = tl.load(table + position // PAGE, mask=there, other=0).to(tl.int64)
        place = (block * KV_HEADS + head) * PAGE + position % PAGE
        key_at = keys + place[None, :] * D + dim[:, None]
        value_at = values + place[:, None] * E + out_dim[None, :]
        if MASKED:
            key = tl.load(key_at, mask=there[None, :] & (dim < D)[:, None], other=0.0)
            value = tl.load(value_at, mask=there[:, None] & (out_dim < E)[None, :], other=0.0)
        else:
            if D == D_PAD:
                key = tl.load(key_at)
            else:
                key = tl.load(key_at, mask=(dim < D)[:, None], other=0.0)
            if E == E_PAD:
                value = tl.load(value_at)
            else:
                value = tl.load(value_at, mask=(out_dim < E)[None, :], other=0.0)
        score = _capped(dot(query, key.to(query.dtype)), scale, softcap, HAS_SOFTCAP)
        if MASKED:
            seen = there[None, :] & (position[None, :] >= first[:, None]) & (position[None, :] <= last[:, None])
            score = tl.where(seen, score, -float("inf"))
        new_peak = tl.maximum(peak, tl.max(score, 1))
        base = tl.where(new_peak == -float("inf"), 0.0, new_peak)  # a row that has seen nothing yet
        weight = tl.exp2(score - base[:, None])
        shrink = tl.exp2(peak - base)
        total = total * shrink + tl.sum(weight, 1)
        acc = acc * shrink[:, None] + dot(weight.to(query.dtype), value.to(query.dtype))
        peak = new_peak
    return peak, total, acc


@triton.jit
def _split_range(first, context, split, NUM_SPLITS: tl.constexpr, MIN_TOKENS: tl.constexpr, TOKENS: tl.constexpr):
    """The positions [begin, end) of a split; both passes ask, so that they agree which splits are empty."""
    share = tl.maximum(tl.cdiv(context - first, NUM_SPLITS), MIN_TOKENS)
    share = tl.cdiv(share, TOKENS) * TOKENS
    begin = first + split * share
    return begin, tl.minimum(begin + share, context)


# What changes from step to step is no reason to compile again, however it divides by 16.
@triton.jit(do_not_specialize=["table_row"])
def decode_kernel(
    query, keys, values, block_table, context_len, sinks, out, partial_out, partial_lse,
    query_token, query_head, table_row, scale, softcap,
    WINDOW: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_SINKS: tl.constexpr,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, PAGE: tl.constexpr,
    D: tl.constexpr, D_PAD: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, NUM_SPLITS: tl.constexpr, MIN_TOKENS: tl.constexpr,
):  # fmt: skip
    """One split of one row's context, for the query heads of one kv head."""
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    context = tl.load(context_len + row)
    first = _first_visible(tl.maximum(context - 1, 0), WINDOW, CHUNK)
    begin, end = _split_range(first, context, split, NUM_SPLITS, MIN_TOKENS, TOKENS)
    if NUM_SPLITS > 1:
        if begin >= end:
            return
    member, dim, out_dim = tl.arange(0, ROWS), tl.arange(0, D_PAD), tl.arange(0, E_PAD)
    is_head = member < GROUP
    q_head = head * GROUP + member
    query_at = query + row.to(tl.int64) * query_token + q_head[:, None] * query_head + dim[None, :]
    q = tl.load(query_at, mask=is_head[:, None] & (dim < D)[None, :], other=0.0)
    peak = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    if HAS_SINKS and NUM_SPLITS == 1:
        peak = tl.load(sinks + q_head, mask=is_head, other=0.0).to(tl.float32) * LOG2_E
        total += 1.0
    acc = tl.zeros([ROWS, E_PAD], tl.float32)
    table = block_table + row.to(tl.int64) * table_row
    whole = begin + tl.maximum(end - begin, 0) // TOKENS * TOKENS
    edge = member * 0
    peak, total, acc = _fold(
        q, peak, total, acc, keys, values, table, head, begin, whole, edge, edge, scale, softcap,
        False, HAS_SOFTCAP, KV_HEADS, PAGE, D, D_PAD, E, E_PAD, TOKENS,
    )  # fmt: skip
    peak, total, acc = _fold(
        q, peak, total, acc, keys, values, table, head, whole, end, edge, edge + context, scale, softcap,
        True, HAS_SOFTCAP, KV_HEADS, PAGE, D, D_PAD, E, E_PAD, TOKENS,
    )  # fmt: skip
    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    there = is_head[:, None] & (out_dim < E)[None, :]
    if NUM_SPLITS == 1:
        at = (row.to(tl.int64) * KV_HEADS * GROUP + q_head)[:, None] * E + out_dim[None, :]
        tl.store(out + at, result.to(out.dtype.element_ty), mask=there)
    else:
        place = (row.to(tl.int64) * KV_HEADS * GROUP + q_head) * NUM_SPLITS + split
        tl.store(partial_out + place[:, None] * E + out_dim[None, :], result, mask=there)
        tl.store(partial_lse + place, peak + tl.log2(total), mask=is_head)


@triton.jit
def merge_kernel(
    partial_out, partial_lse, context_len, sinks, out,
    WINDOW: tl.constexpr, CHUNK: tl.constexpr, HAS_SINKS: tl.constexpr, HEADS: tl.constexpr,
    E: tl.constexpr, E_PAD: tl.constexpr,
    TOKENS: tl.constexpr, NUM_SPLITS: tl.constexpr, MIN_TOKENS: tl.constexpr,
):  # fmt: skip
    """The splits of one row and query head, one weighted sum; NUM_SPLITS is a power of two."""
    row, head = tl.program_id(0), tl.program_id(1)
    context = tl.load(context_len + row)
    first = _first_visible(tl.maximum(context - 1, 0), WINDOW, CHUNK)
    split, out_dim = tl.arange(0, NUM_SPLITS), tl.arange(0, E_PAD)
    begin, end = _split_range(first, context, split, NUM_SPLITS, MIN_TOKENS, TOKENS)
    filled = begin < end
    place = (row.to(tl.int64) * HEADS + head) * NUM_SPLITS + split
    lse = tl.load(partial_lse + place, mask=filled, other=-float("inf"))
    peak = tl.max(lse, 0)
    if HAS_SINKS:
        sink = tl.load(sinks + head).to(tl.float32) * LOG2_E
        peak = tl.maximum(peak, sink)
    peak = tl.where(peak == -float("inf"), 0.0, peak)
    weight = tl.exp2(lse - peak)
    total = tl.sum(weight, 0)
    if HAS_SINKS:
        total += tl.exp2(sink - peak)
    part = tl.load(
        partial_out + place[:, None] * E + out_dim[None, :], mask=filled[:, None] & (out_dim < E)[None, :], other=0.0
    )
    result = tl.sum(part * weight[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    at = (row.to(tl.int64) * HEADS + head) * E + out_dim
    tl.store(out + at, result.to(out.dtype.element_ty), mask=out_dim < E)


@triton.jit(do_not_specialize=["table_row", "first_row", "num_rows"])
def prefill_kernel(
    query, keys, values, block_table, context_len, query_start, sinks, out,
    query_token, query_head, table_row, first_row, num_rows, scale, softcap,
    WINDOW: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_SINKS: tl.constexpr,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, PAGE: tl.constexpr,
    D: tl.constexpr, D_PAD: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """QUERIES queries of one row, for the query heads of one kv head.

    The rows before `first_row` are decodes. Row r's tiles begin at number query_start[r] // QUERIES + r, both counted
    from there: that leaves each row room for its tiles, and needs nothing of the host but the number of tokens.
    """
    tile, head = tl.program_id(0), tl.program_id(1)
    low, high = first_row, num_rows
    while low < high:
        middle = (low + high) // 2
        begins = (tl.load(query_start + middle) - first_row) // QUERIES + middle - first_row
        if begins <= tile:
            low = middle + 1
        else:
            high = middle
    row = low - 1
    row_start = tl.load(query_start + row)
    query_len = tl.load(query_start + row + 1) - row_start
    first_query = (tile - ((row_start - first_row) // QUERIES + row - first_row)) * QUERIES
    if first_query >= query_len:
        return
    context = tl.load(context_len + row)
    member, dim, out_dim = tl.arange(0, ROWS), tl.arange(0, D_PAD), tl.arange(0, E_PAD)
    index = first_query + member // GROUP
    is_query = (member < QUERIES * GROUP) & (index < query_len)
    q_head = head * GROUP + member % GROUP
    token = (row_start + index).to(tl.int64)
    query_at = query + (token * query_token + q_head * query_head)[:, None] + dim[None, :]
    q = tl.load(query_at, mask=is_query[:, None] & (dim < D)[None, :], other=0.0)
    peak = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    if HAS_SINKS:
        peak = tl.load(sinks + q_head, mask=is_query, other=0.0).to(tl.float32) * LOG2_E
        total += 1.0
    acc = tl.zeros([ROWS, E_PAD], tl.float32)
    table = block_table + row.to(tl.int64) * table_row

    # Positions: of the tile's first and last query, and of the keys that all of its queries see, in whole tiles.
    start = context - query_len + first_query
    stop = tl.minimum(start + QUERIES, context) - 1
    position = context - query_len + index
    first = _first_visible(position, WINDOW, CHUNK)
    begin = _first_visible(start, WINDOW, CHUNK)
    all_see = begin
    if WINDOW > 0 or CHUNK > 0:
        all_see = begin + tl.cdiv(_first_visible(stop, WINDOW, CHUNK) - begin, TOKENS) * TOKENS
    all_see = tl.minimum(all_see, stop + 1)
    whole = all_see + tl.maximum(start + 1 - all_see, 0) // TOKENS * TOKENS
    if WINDOW > 0 or CHUNK > 0:
        peak, total, acc = _fold(
            q, peak, total, acc, keys, values, table, head, begin, all_see, first, position, scale, softcap,
            True, HAS_SOFTCAP, KV_HEADS, PAGE, D, D_PAD, E, E_PAD, TOKENS,
        )  # fmt: skip
    peak, total, acc = _fold(
        q, peak, total, acc, keys, values, table, head, all_see, whole, first, position, scale, softcap,
        False, HAS_SOFTCAP, KV_HEADS, PAGE, D, D_PAD, E, E_PAD, TOKENS,
    )  # fmt: skip
    peak, total, acc = _fold(
        q, peak, total, acc, keys, values, table, head, whole, stop + 1, first, position, scale, softcap,
        True, HAS_SOFTCAP, KV_HEADS, PAGE, D, D_PAD, E, E_PAD, TOKENS,
    )  # fmt: skip
    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    at = (token * KV_HEADS * GROUP + q_head)[:, None] * E + out_dim[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=is_query[:, None] & (out_dim < E)[None, :])


@triton.jit
def write_kernel(
    key, value, keys, values, slots,
    key_token, key_head, value_token, value_head,
    KV_HEADS: tl.constexpr, PAGE: tl.constexpr,
    D: tl.constexpr, D_PAD: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr, HEADS_PAD: tl.constexpr,
):  # fmt: skip
    """All heads of one token into its slot; nothing for a negative slot."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    if slot < 0:
        return
    head, dim, out_dim = tl.arange(0, HEADS_PAD), tl.arange(0, D_PAD), tl.arange(0, E_PAD)
    place = (slot // PAGE * KV_HEADS + head) * PAGE + slot % PAGE
    of_key = (head < KV_HEADS)[:, None] & (dim < D)[None, :]
    of_value = (head < KV_HEADS)[:, None] & (out_dim < E)[None, :]
    k = tl.load(key + token * key_token + head[:, None] * key_head + dim[None, :], mask=of_key)
    v = tl.load(value + token * value_token + head[:, None] * value_head + out_dim[None, :], mask=of_value)
    tl.store(keys + place[:, None] * D + dim[None, :], k.to(keys.dtype.element_ty), mask=of_key)
    tl.store(values + place[:, None] * E + out_dim[None, :], v.to(values.dtype.element_ty), mask=of_value)
