"""The small fused operations as custom operators of torch, so that compiled and captured code sees one call each.

Shapes: M rows, T tokens, H query heads, K kv heads, D and E their sizes, N blocks, S block size.
"""

from __future__ import annotations

from typing import Any

import torch

from headrace.model.triton_kernels.device.rows import activate_kernel, norm_kernel, rotate_and_write_kernel
from headrace.model.triton_kernels.launch_plan import power_of_two

_ACTIVATE_BLOCK = 1024
_library: Any = torch.library.Library("headrace", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch has no types here


def norm(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float, centered: bool, offset: float
) -> torch.Tensor:
    """RMS norm of each row of x [M, n], or with `centered` a layer norm, times weight + offset, plus bias."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch_norm(x, None, weight, bias, out, out, eps, centered, offset)
    return out


def add_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    centered: bool,
    offset: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum x + residual, [M, n], rounded to its dtype, and the norm of that."""
    out, sums = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    _launch_norm(x, residual, weight, bias, out, sums, eps, centered, offset)
    return sums, out


def _launch_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, bias: torch.Tensor | None,
    out: torch.Tensor, sums: torch.Tensor, eps: float, centered: bool, offset: float,
) -> None:  # fmt: skip
    added = x if residual is None else residual
    padded = power_of_two(x.shape[1])
    norm_kernel[(x.shape[0],)](
        x, added, x if weight is None else weight, x if bias is None else bias, out, sums,
        x.stride(0), added.stride(0), eps, offset, x.shape[1], padded,
        centered, residual is not None, weight is not None, bias is not None, num_warps=norm_warps(padded),
    )  # fmt: skip


def norm_warps(padded: int) -> int:
    """Eight elements a thread or so; to be confirmed on a GPU."""
    return min(16, max(1, padded // 256))


def activate(x: torch.Tensor, activation: int, gated: bool, block: int = _ACTIVATE_BLOCK) -> torch.Tensor:
    """Of x [M, 2n] if gated activation(gate) · up, the gates first; else activation(x), [M, n]; returns [M, n].

    activation: as `kernels.linear.Activation`. block: columns of one program.
    """
    n = x.shape[1] // 2 if gated else x.shape[1]
    out = torch.empty(x.shape[0], n, dtype=x.dtype, device=x.device)
    block = min(block, power_of_two(n))
    activate_kernel[(x.shape[0], -(-n // block))](x, out, x.stride(0), activation, gated, n, block)
    return out


def rotate_and_write(
    qkv: torch.Tensor,
    query_norm: torch.Tensor | None,
    key_norm: torch.Tensor | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    rotary_dim: int,
    interleaved: bool,
    angle_step: int,
    eps: float,
    offset: float,
) -> torch.Tensor:
    """Normalize and rotate the heads of qkv [T, (H + K) · D + K · E]; keys and values go to their slots int64 [T].

    Args:
        query_norm, key_norm: weights [D] of an RMS norm per head. cos, sin: [T, angles], equal strides.
        slots: a negative one is left out. keys: [N, K, S, D]. values: [N, K, S, E].
        rotary_dim, interleaved, angle_step: as `kernels.paged.Rotation`.

    Returns:
        The queries, [T, H, D].
    """
    _, num_kv_heads, block_size, key_dim = keys.shape
    value_dim = values.shape[3]
    num_heads = (qkv.shape[1] - num_kv_heads * (key_dim + value_dim)) // key_dim
    group = num_heads // num_kv_heads
    query = torch.empty(qkv.shape[0], num_heads, key_dim, dtype=qkv.dtype, device=qkv.device)
    rotate_and_write_kernel[(qkv.shape[0], num_kv_heads)](
        qkv, qkv if query_norm is None else query_norm, qkv if key_norm is None else key_norm, cos, sin, slots,
        query, keys, values, qkv.stride(0), cos.stride(0), eps, offset, query_norm is not None, key_norm is not None,
        rotary_dim, interleaved, angle_step, num_kv_heads, group, 1 << (group - 1).bit_length(), block_size,
        key_dim, power_of_two(key_dim), value_dim, power_of_two(value_dim), num_warps=1 if group <= 4 else 4,
    )  # fmt: skip
    return query


def _empty(x: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _two_empty(x: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return _empty(x), _empty(x)


def _half_empty(x: torch.Tensor, activation: int, gated: bool) -> torch.Tensor:
    return x.new_empty(x.shape[0], x.shape[1] // 2 if gated else x.shape[1])


def _query(
    qkv: torch.Tensor, a: Any, b: Any, c: Any, d: Any, slots: Any, keys: torch.Tensor, values: torch.Tensor, *_: Any
) -> torch.Tensor:
    dim, num_kv_heads = keys.shape[3], keys.shape[1]
    return qkv.new_empty(qkv.shape[0], (qkv.shape[1] - num_kv_heads * (dim + values.shape[3])) // dim, dim)


_NORM = "Tensor? weight, Tensor? bias, float eps, bool centered, float offset"
for name, schema, run, fake in (
    ("norm", f"(Tensor x, {_NORM}) -> Tensor", norm, _empty),
    ("add_norm", f"(Tensor x, Tensor residual, {_NORM}) -> (Tensor, Tensor)", add_norm, _two_empty),
    ("activate", "(Tensor x, int activation, bool gated) -> Tensor", activate, _half_empty),
    (
        "rotate_and_write",
        "(Tensor qkv, Tensor? query_norm, Tensor? key_norm, Tensor cos, Tensor sin, Tensor slots, Tensor(a!) keys, "
        "Tensor(b!) values, int rotary_dim, bool interleaved, int angle_step, float eps, float offset) -> Tensor",
        rotate_and_write,
        _query,
    ),
):
    _library.define(name + schema)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"headrace::{name}", fake, lib=_library)

OPERATORS: Any = torch.ops.headrace
"""The functions of this file as operators, under their names."""
