"""Draws without a sorted vocabulary: limits are found by bisection over the logits' bits, with exact integer sums.

The bits of a float, with the negative ones turned over, are an integer of the same order: its *key*. How many tokens,
or how much weight, lies at or above a key falls as the key rises, so what a sort would tell is found in some passes
over the row: the k-th logit, the last one within top-p, the one that a random number falls on. After each pass the
range shrinks to keys that are there, so it ends when one is left, however the logits lie.

Weights are in fixed point, as in `engine.runner.draws`: an integer sum has no order. One program does one row.
"""

import triton
import triton.language as tl

_FIXED_POINT = tl.constexpr(1099511627776.0)  # 2**40
_LINES = tl.constexpr(32)


@triton.jit
def _key(value):
    """An integer in the order of floats."""
    bits = value.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _value(key):
    """The float of a key."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _load(row, at, there):
    """Logits; both zeros as one, -inf where there is none."""
    value = tl.load(row + at, mask=there, other=-float("inf")).to(tl.float32)
    return tl.where(value == 0.0, 0.0, value)


@triton.jit
def _relative(value, peak, sharpness):
    """The weight relative to the most likely token's."""
    return tl.exp((value - peak) * sharpness)


@triton.jit
def _fixed(weight):
    return (weight * _FIXED_POINT).to(tl.int64)


@triton.jit
def _amount_from(row, pivot, peak, sharpness, V, BLOCK: tl.constexpr, BY_MASS: tl.constexpr):
    """How many tokens (or how much mass) have a key of at least pivot; the least such key, and the greatest below."""
    amount = tl.zeros([BLOCK], tl.int64)
    least = tl.full([BLOCK], 0x7FFFFFFF, tl.int32)
    below = tl.full([BLOCK], -0x7FFFFFFF, tl.int32)
    for start in range(0, V, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = _load(row, at, at < V)
        key = _key(value)
        inside = (key >= pivot) & (at < V)
        if BY_MASS:
            amount += tl.where(inside, _fixed(_relative(value, peak, sharpness)), 0)
        else:
            amount += tl.where(inside, 1, 0)
        least = tl.minimum(least, tl.where(inside, key, 0x7FFFFFFF))
        below = tl.maximum(below, tl.where(inside, -0x7FFFFFFF, key))
    return tl.sum(amount, 0), tl.min(least, 0).to(tl.int64), tl.max(below, 0).to(tl.int64)


@triton.jit
def _search(row, low, high, need, peak, sharpness, V, BLOCK: tl.constexpr, BY_MASS: tl.constexpr):
    """The greatest key in [low, high) with at least `need` at or above it, and the amount above it.

    `low` is the key of a token and has enough; `high` is beyond every key.
    """
    above = need * 0
    while high - low > 1:
        middle = low + (high - low) // 2
        amount, least, below = _amount_from(row, middle.to(tl.int32), peak, sharpness, V, BLOCK, BY_MASS)
        enough = amount >= need
        low = tl.where(enough, least, low)
        high = tl.where(enough, high, below + 1)
        above = tl.where(enough, above, amount)
    return low, above


@triton.jit
def _nth(row, key, index, V, BLOCK: tl.constexpr):
    """The id of the token with this key that has `index` equals before it; V when there are not so many."""
    seen = index * 0
    found = tl.full([BLOCK], 0x7FFFFFFF, tl.int32)
    for start in range(0, V, BLOCK):
        at = start + tl.arange(0, BLOCK)
        equal = ((_key(_load(row, at, at < V)) == key) & (at < V)).to(tl.int32)
        rank = tl.cumsum(equal, 0) - 1 + seen
        found = tl.minimum(found, tl.where((equal == 1) & (rank == index), at, 0x7FFFFFFF))
        seen += tl.sum(equal, 0)
    return tl.minimum(tl.min(found, 0), V)


@triton.jit
def _kept(value, at, there, peak, sharpness, min_p, cut, last_equal):
    """Relative weights of the tokens that every filter leaves, else 0: beyond the cut, or its equals up to an id."""
    key = _key(value)
    weight = _relative(value, peak, sharpness)
    keep = there & ((key > cut) | ((key == cut) & (at <= last_equal))) & (weight >= min_p)
    return tl.where(keep, weight, 0.0)


@triton.jit
def _column_weights(row, column, n, peak, sharpness, min_p, cut, last_equal, V):
    """Weights [32, columns]; the vocabulary lies in 32 lines of n."""
    line = tl.arange(0, _LINES)
    at = line[:, None] * n + column[None, :]
    there = (at < V) & (column < n)[None, :]
    return _kept(_load(row, at, there), at, there, peak, sharpness, min_p, cut, last_equal)


@triton.jit
def _draw_by_columns(row, uniform, peak, sharpness, min_p, cut, last_equal, V, BLOCK: tl.constexpr):
    """`engine.runner.full_row`: a column by its sum, then a line within it."""
    COLUMNS: tl.constexpr = BLOCK // _LINES
    n = tl.cdiv(V, _LINES)
    sums = tl.zeros([COLUMNS], tl.int64)
    for start in range(0, n, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        sums += _fixed(tl.sum(_column_weights(row, column, n, peak, sharpness, min_p, cut, last_equal, V), 0))
    total = tl.sum(sums, 0)
    target = tl.minimum((uniform * total.to(tl.float64)).to(tl.int64), total - 1)

    before = total * 0
    found = tl.zeros([COLUMNS], tl.int32)
    into = tl.zeros([COLUMNS], tl.int64)
    share = tl.zeros([COLUMNS], tl.int64)
    for start in range(0, n, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        own = _fixed(tl.sum(_column_weights(row, column, n, peak, sharpness, min_p, cut, last_equal, V), 0))
        upto = tl.cumsum(own, 0) + before
        hit = (upto > target) & (upto - own <= target)
        found += tl.where(hit, column, 0)
        into += tl.where(hit, target - (upto - own), 0)
        share += tl.where(hit, own, 0)
        before += tl.sum(own, 0)
    column = tl.sum(found, 0)
    within = tl.sum(into, 0).to(tl.float64) / tl.sum(share, 0).to(tl.float64)

    line = tl.arange(0, _LINES)
    at = line * n + column
    members = _kept(_load(row, at, at < V), at, at < V, peak, sharpness, min_p, cut, last_equal)
    own = _fixed(members / tl.max(members, 0))
    upto = tl.cumsum(own, 0)
    of_column = tl.sum(own, 0)
    target = tl.minimum((within * of_column.to(tl.float64)).to(tl.int64), of_column - 1)
    return tl.sum(tl.where((upto > target) & (upto - own <= target), at, 0), 0)


@triton.jit
def draw_kernel(
    logits, uniforms, sharpnesses, top_ks, top_ps, min_ps, out, logits_row, V,
    SHORTLIST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One token of one row; -1 where the row's highest logit is not finite, or there is a NaN."""
    index = tl.program_id(0).to(tl.int64)
    row = logits + index * logits_row
    sharpness, min_p = tl.load(sharpnesses + index), tl.load(min_ps + index)
    uniform, top_k, top_p = tl.load(uniforms + index), tl.load(top_ks + index), tl.load(top_ps + index)

    highest = tl.full([BLOCK], -float("inf"), tl.float32)
    odd = tl.zeros([BLOCK], tl.int32)
    for start in range(0, V, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = _load(row, at, at < V)
        odd |= (value != value).to(tl.int32)
        highest = tl.maximum(highest, value)
    peak = tl.max(highest, 0)
    if (tl.max(odd, 0) > 0) | (peak == float("inf")) | (peak == -float("inf")):
        tl.store(out + index, -1)
        return

    beyond = _key(peak).to(tl.int64) + 1
    mass, cut, _ = _amount_from(row, -0x7FFFFFFF, peak, sharpness, V, BLOCK, True)
    if top_k < V:
        cut, _ = _search(row, cut, beyond, top_k, peak, sharpness, V, BLOCK, False)
        mass, _, _ = _amount_from(row, cut.to(tl.int32), peak, sharpness, V, BLOCK, True)
    last_equal = V
    if top_p < 1.0:
        limit = tl.maximum(tl.ceil(top_p * mass.to(tl.float64)).to(tl.int64), 1)
        cut, above = _search(row, cut, beyond, limit, peak, sharpness, V, BLOCK, True)
        own = _fixed(_relative(_value(cut.to(tl.int32)), peak, sharpness))
        last_equal = _nth(row, cut.to(tl.int32), tl.cdiv(limit - above, own) - 1, V, BLOCK)

    cut_key = cut.to(tl.int32)
    kept = tl.zeros([BLOCK], tl.int64)
    listed = tl.zeros([BLOCK], tl.int64)
    for start in range(0, V, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = _load(row, at, at < V)
        kept += _fixed(_kept(value, at, at < V, peak, sharpness, min_p, cut_key, last_equal))
        with_equals = _fixed(_kept(value, at, at < V, peak, sharpness, min_p, cut_key, V))
        listed += tl.where(with_equals > 0, 1, 0)
    mass = tl.sum(kept, 0)

    # `engine.runner.shortlist` draws in the order of the logits, where its list holds all that is kept.
    tries_list = (top_k < SHORTLIST) | ((top_k == V) & (top_p < 1.0))
    if tries_list & ((V <= SHORTLIST) | (tl.sum(listed, 0) < SHORTLIST)):
        target = tl.minimum((uniform * mass.to(tl.float64)).to(tl.int64), mass - 1)
        found, above = _search(row, cut, beyond, target + 1, peak, sharpness, V, BLOCK, True)
        own = _fixed(_relative(_value(found.to(tl.int32)), peak, sharpness))
        token = _nth(row, found.to(tl.int32), (target - above) // own, V, BLOCK)
    else:
        token = _draw_by_columns(row, uniform, peak, sharpness, min_p, cut_key, last_equal, V, BLOCK)
    tl.store(out + index, token.to(tl.int64))
