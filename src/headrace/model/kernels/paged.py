"""The paged cache as the kernels lay it out, and what reads and writes it: attention, cache writes, rotation."""

from __future__ import annotations

from ctypes import addressof, byref
from dataclasses import dataclass

import torch

from headrace.model.kernels.library import DTYPES, Kernels, check
from headrace.model.kernels.pages import zeroed_pages
from headrace.model.kernels.structs import AttentionStruct, CacheStruct, RopeStruct


class PagedCache:
    """One layer's keys and values in N blocks of S tokens (S a power of two); the layouts are csrc/headrace.h's.

    Attributes:
        keys: [N, K, D · S]. values: [N, K, S · E]. Only whole blocks mean something to Python.
    """

    def __init__(
        self,
        kernels: Kernels,
        *,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        key_dim: int,
        value_dim: int,
        dtype: torch.dtype,
    ) -> None:
        """Take zeroed memory. Raises OSError when it does not fit, ValueError for a dtype that no kernel takes."""
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"the CPU kernels keep a cache of float32 or bfloat16, not {dtype}")
        if max(key_dim, value_dim) > 256 or key_dim % 2 or value_dim % 2:
            raise ValueError(f"the CPU kernels do even head sizes up to 256, not {key_dim} and {value_dim}")
        self.dtype = dtype
        padding = kernels.library.hr_cache_padding()

        def take(dim: int) -> torch.Tensor:
            num_elements = num_blocks * num_kv_heads * dim * block_size
            memory = zeroed_pages(num_elements * dtype.itemsize + padding)[:-padding]
            return memory.view(dtype).view(num_blocks, num_kv_heads, dim * block_size)

        self.keys = take(key_dim)
        self.values = take(value_dim)
        pointers = (self.keys.data_ptr(), self.values.data_ptr())
        self.struct = CacheStruct(*pointers, DTYPES[dtype], num_kv_heads, key_dim, value_dim, block_size)

    def write(self, kernels: Kernels, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """Write key [T, K, D] and value [T, K, E] (last dimension dense) to slots int64 [T]."""
        if key.dtype != self.dtype or value.dtype != self.dtype:
            raise ValueError(f"key and value are {key.dtype} and {value.dtype}, the cache is {self.dtype}")
        key = key if key.stride(2) == 1 else key.contiguous()
        value = value if value.stride(2) == 1 else value.contiguous()
        k_token, k_head, _ = key.stride()
        v_token, v_head, _ = value.stride()
        done = kernels.library.hr_cache_write(
            kernels.context,
            byref(self.struct),
            key.data_ptr(),
            k_token,
            k_head,
            value.data_ptr(),
            v_token,
            v_head,
            slots.data_ptr(),
            key.shape[0],
        )
        check(done, "cache write")

    def zero_blocks(self, blocks: torch.Tensor) -> None:
        """Zero whole blocks (int64 ids)."""
        self.keys[blocks] = 0
        self.values[blocks] = 0


@dataclass(frozen=True, slots=True)
class Context:
    """Where the rows of a batch stand, as csrc/headrace.h's hr_attention has it; int32, contiguous."""

    query_start: torch.Tensor
    context_len: torch.Tensor
    block_table: torch.Tensor


def attend(
    kernels: Kernels,
    cache: PagedCache,
    query: torch.Tensor,
    context: Context,
    *,
    scale: float,
    window: int | None = None,
    chunk: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of query [T, H, D] over the cache, which already holds its keys and values; returns [T, H, E].

    sinks: float32 [H]. A query's bits depend on its own context alone: not on the batch, chunks or threads.
    """
    if query.dtype != cache.dtype:
        raise ValueError(f"the query is {query.dtype}, the cache is {cache.dtype}")
    query = query if query.stride(2) == 1 else query.contiguous()
    num_tokens, num_heads, _ = query.shape
    value_dim = cache.struct.value_dim
    out = torch.empty(num_tokens, num_heads, value_dim, dtype=query.dtype)
    args = AttentionStruct(
        addressof(cache.struct),
        query.data_ptr(),
        query.stride(0),
        query.stride(1),
        out.data_ptr(),
        num_heads * value_dim,
        value_dim,
        None if sinks is None else sinks.data_ptr(),
        context.query_start.data_ptr(),
        context.context_len.data_ptr(),
        context.block_table.data_ptr(),
        context.block_table.stride(0),
        context.context_len.shape[0],
        num_heads,
        window or 0,
        chunk or 0,
        scale,
        softcap or 0.0,
    )
    check(kernels.library.hr_attend(kernels.context, byref(args)), "attention")
    return out


@dataclass(frozen=True, slots=True)
class Rotation:
    """What happens to query and key heads before attention.

    Attributes:
        rotary_dim: leading dims that turn. interleaved: pairs are (2i, 2i + 1), else (i, i + rotary_dim / 2).
        angle_step: 2 where cos and sin repeat each angle (a, a, b, b, …), else 1.
        query_norm, key_norm: weights [D] of an RMS norm per head, of the cache's dtype.
    """

    rotary_dim: int
    interleaved: bool = False
    angle_step: int = 1
    query_norm: torch.Tensor | None = None
    key_norm: torch.Tensor | None = None
    norm_eps: float = 0.0
    norm_offset: float = 0.0


def rotate_and_write(
    kernels: Kernels,
    cache: PagedCache,
    rotation: Rotation,
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """Normalize and rotate the heads of qkv [T, (H + K) · D + K · E]; keys and values go to slots int64 [T].

    cos and sin: [T, ≥ rotary_dim / 2 angles], of the cache's dtype, equal strides. Returns the query, [T, H, D], which
    is a view of qkv.
    """
    c = cache.struct
    k_size, v_size = c.num_kv_heads * c.key_dim, c.num_kv_heads * c.value_dim
    q_size = qkv.shape[1] - k_size - v_size
    item, base = qkv.element_size(), qkv.data_ptr()
    args = RopeStruct(
        addressof(c),
        base,
        qkv.stride(0),
        base + q_size * item,
        qkv.stride(0),
        base + (q_size + k_size) * item,
        qkv.stride(0),
        None if rotation.query_norm is None else rotation.query_norm.data_ptr(),
        None if rotation.key_norm is None else rotation.key_norm.data_ptr(),
        cos.data_ptr(),
        sin.data_ptr(),
        cos.stride(0),
        slots.data_ptr(),
        qkv.shape[0],
        q_size // c.key_dim,
        rotation.angle_step,
        rotation.rotary_dim,
        rotation.interleaved,
        rotation.norm_eps,
        rotation.norm_offset,
    )
    check(kernels.library.hr_rope_and_write(kernels.context, byref(args)), "rotation")
    return qkv[:, :q_size].view(qkv.shape[0], -1, c.key_dim)
