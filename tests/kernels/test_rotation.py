"""Norm, rotation and cache write in one, against float64 and against a plain write."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.kernels.paged import PagedCache, Rotation, rotate_and_write

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rotated(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, rotary_dim: int, interleaved: bool) -> np.ndarray:
    """Heads [T, heads, D] turned by angles [T, rotary_dim / 2]."""
    out, half = x.copy(), rotary_dim // 2
    first = np.arange(half) * 2 if interleaved else np.arange(half)
    second = first + (1 if interleaved else half)
    a, b, c, s = x[..., first], x[..., second], cos[:, None], sin[:, None]
    out[..., first], out[..., second] = a * c - b * s, b * c + a * s
    return out


@FEW
@given(
    num_tokens=st.integers(1, 12),
    heads=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dim=st.integers(1, 16).map(lambda d: 8 * d),
    rotary_ratio=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    interleaved=st.booleans(),
    angle_step=st.sampled_from([1, 2]),
    with_norm=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_float64(
    open_isa, num_tokens, heads, dim, rotary_ratio, interleaved, angle_step, with_norm, dtype
) -> None:
    """The query in place, and the cache as a plain write of rotated keys leaves it."""
    kernels, (num_kv_heads, group) = open_isa(2), heads
    generator = torch.Generator().manual_seed(dim)
    rotary_dim = int(dim * rotary_ratio) // 2 * 2
    q_size, k_size = num_kv_heads * group * dim, num_kv_heads * dim
    qkv = torch.randn(num_tokens, q_size + 2 * k_size, generator=generator).to(dtype)
    angles = torch.rand(num_tokens, max(1, rotary_dim // 2), generator=generator) * 6
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    weights = [torch.randn(dim, generator=generator).to(dtype) if with_norm else None for _ in range(2)]
    query, key, value = (
        part.double().numpy().reshape(num_tokens, -1, dim) for part in qkv.split([q_size, k_size, k_size], dim=1)
    )
    turned = []
    for part, weight in zip((query, key), weights, strict=True):
        if weight is not None:
            scale = np.sqrt((part**2).mean(axis=-1, keepdims=True) + 1e-6)
            part = part / scale * (weight.double().numpy() + 1)
        turned.append(rotated(part, cos.double().numpy(), sin.double().numpy(), rotary_dim, interleaved))

    shape = {"num_blocks": 3, "block_size": 8, "num_kv_heads": num_kv_heads, "key_dim": dim, "value_dim": dim}
    cache, plain = (PagedCache(kernels, dtype=dtype, **shape) for _ in range(2))
    slots = torch.randperm(24, generator=generator)[:num_tokens]
    repeated = [t.repeat_interleave(angle_step, dim=1) for t in (cos, sin)]
    rotation = Rotation(rotary_dim, interleaved, angle_step, weights[0], weights[1], 1e-6, 1.0)
    got = rotate_and_write(kernels, cache, rotation, qkv, *repeated, slots)
    limit = {"atol": 1e-5, "rtol": 0} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 1e-2}
    np.testing.assert_allclose(got.double().numpy(), turned[0], **limit)
    plain.write(kernels, torch.from_numpy(turned[1]).to(dtype), torch.from_numpy(value).to(dtype), slots)
    np.testing.assert_allclose(cache.keys.double().numpy(), plain.keys.double().numpy(), **limit)
    assert torch.equal(cache.values, plain.values)
