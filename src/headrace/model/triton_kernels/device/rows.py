"""Operations on rows: norms (with the sum before them), activations, and rotation into the paged cache."""

import triton
import triton.language as tl

from headrace.model.triton_kernels.device.language import LOG2_E


@triton.jit
def norm_kernel(
    x, residual, weight, bias, out, sums, x_row, residual_row, eps, offset,
    N: tl.constexpr, N_PAD: tl.constexpr, CENTERED: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One row: RMS norm, or with CENTERED a layer norm, of x or of x + residual, which goes to `sums` too."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, N_PAD)
    there = column < N
    value = tl.load(x + row * x_row + column, mask=there, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        value += tl.load(residual + row * residual_row + column, mask=there, other=0.0).to(tl.float32)
        rounded = value.to(sums.dtype.element_ty)
        tl.store(sums + row * N + column, rounded, mask=there)
        value = rounded.to(tl.float32)  # what the model would go on with
    if CENTERED:
        value = tl.where(there, value - tl.sum(value, 0) / N, 0.0)
    value *= 1.0 / tl.sqrt(tl.sum(value * value, 0) / N + eps)
    if HAS_WEIGHT:
        value *= tl.load(weight + column, mask=there, other=0.0).to(tl.float32) + offset
    if HAS_BIAS:
        value += tl.load(bias + column, mask=there, other=0.0).to(tl.float32)
    tl.store(out + row * N + column, value.to(out.dtype.element_ty), mask=there)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * LOG2_E))


@triton.jit
def activate_kernel(x, out, x_row, ACTIVATION: tl.constexpr, GATED: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr):
    """Of rows of x, activation(gate) · up if gated (gates first, then as many ups), else activation(x)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < N
    gate = tl.load(x + row * x_row + column, mask=there, other=0.0).to(tl.float32)
    if ACTIVATION == 1:  # silu
        gate *= _sigmoid(gate)
    elif ACTIVATION == 2:  # gelu
        gate *= 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    elif ACTIVATION == 3:  # gelu, by tanh; tanh(x) = 2 · sigmoid(2x) - 1
        gate *= _sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    elif ACTIVATION == 4:  # relu
        gate = tl.maximum(gate, 0.0)
    if GATED:
        gate *= tl.load(x + row * x_row + N + column, mask=there, other=0.0).to(tl.float32)
    tl.store(out + row * N + column, gate.to(out.dtype.element_ty), mask=there)


@triton.jit
def _normed(value, weight, dim, there, eps, offset, D: tl.constexpr):
    """Heads [rows, D] by their own RMS norm, and the factor that it multiplies every dim with."""
    factor = 1.0 / tl.sqrt(tl.sum(value * value, 1) / D + eps)
    scale = tl.load(weight + dim, mask=there, other=0.0).to(tl.float32) + offset
    return value * factor[:, None] * scale[None, :], factor


@triton.jit
def _turned(
    at, dim, partner, there, sign, cos, sin, weight, eps, offset, is_head,
    HAS_NORM: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Heads at `at` [rows, 1], normalized and rotated: each dim · cos + its partner · sin, signed as in its pair."""
    mask = is_head[:, None] & there[None, :]
    value = tl.load(at + dim[None, :], mask=mask, other=0.0).to(tl.float32)
    other = tl.load(at + partner[None, :], mask=mask, other=0.0).to(tl.float32)
    if HAS_NORM:
        value, factor = _normed(value, weight, dim, there, eps, offset, D)
        of_partner = tl.load(weight + partner, mask=there, other=0.0).to(tl.float32) + offset
        other = other * factor[:, None] * of_partner[None, :]
    return value * cos[None, :] + other * (sign * sin)[None, :]


@triton.jit
def rotate_and_write_kernel(
    qkv, query_norm, key_norm, cos, sin, slots, query, keys, values,
    qkv_row, angle_row, eps, offset,
    HAS_QUERY_NORM: tl.constexpr, HAS_KEY_NORM: tl.constexpr,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr, ANGLE_STEP: tl.constexpr,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PAD: tl.constexpr, PAGE: tl.constexpr,
    D: tl.constexpr, D_PAD: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr,
):  # fmt: skip
    """One kv head of one token with its query heads: queries go to `query`, key and value to the token's slot."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.arange(0, D_PAD)
    there, turns = dim < D, dim < ROTARY
    HALF: tl.constexpr = ROTARY // 2
    if INTERLEAVED:
        partner, angle, is_first = dim ^ 1, dim // 2, dim % 2 == 0
    else:
        is_first = dim < HALF
        partner, angle = tl.where(is_first, dim + HALF, dim - HALF), tl.where(is_first, dim, dim - HALF)
    partner = tl.where(turns, partner, dim)
    sign = tl.where(is_first, -1.0, 1.0)
    c = tl.load(cos + token * angle_row + angle * ANGLE_STEP, mask=turns, other=1.0).to(tl.float32)
    s = tl.load(sin + token * angle_row + angle * ANGLE_STEP, mask=turns, other=0.0).to(tl.float32)

    member = tl.arange(0, GROUP_PAD)
    q_head = head * GROUP + member
    is_head = member < GROUP
    row = qkv + token * qkv_row
    q = _turned(
        row + q_head[:, None] * D, dim, partner, there, sign, c, s, query_norm, eps, offset, is_head, HAS_QUERY_NORM, D
    )
    at = (token * KV_HEADS * GROUP + q_head)[:, None] * D + dim[None, :]
    tl.store(query + at, q.to(query.dtype.element_ty), mask=is_head[:, None] & there[None, :])

    slot = tl.load(slots + token)
    one = tl.arange(0, 1)
    first_key = KV_HEADS * GROUP * D
    k = _turned(
        row + (first_key + head * D + one)[:, None], dim, partner, there, sign, c, s, key_norm, eps, offset, one == 0,
        HAS_KEY_NORM, D,
    )  # fmt: skip
    out_dim = tl.arange(0, E_PAD)
    v = tl.load(row + first_key + KV_HEADS * D + head * E + out_dim, mask=out_dim < E)
    place = (slot // PAGE * KV_HEADS + head) * PAGE + slot % PAGE
    if slot >= 0:
        key_at = keys + (place * D + one)[:, None] + dim[None, :]
        tl.store(key_at, k.to(keys.dtype.element_ty), mask=there[None, :])
        tl.store(values + place * E + out_dim, v.to(values.dtype.element_ty), mask=out_dim < E)
