"""What the attention kernels are launched with: a pure function of a layer, a device and a few integers of the host.

No length of a context is among them. A decode is always cut into the same number of splits, and each split finds its
own range from the length on the device; so one captured graph serves every context that its block table can hold.

The figures are choices that still have to be confirmed on a GPU (`benchmarks/gpu_kernels.py` measures them); the rule
after the table keeps every other shape within the memory of one multiprocessor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.model.attention.interface import LayerSpec

MAX_SPLITS = 32
"""More splits of a context than this cost more in the merge than they gain."""

MIN_SPLIT_TOKENS = 128
"""A shorter range is not worth a program of its own."""

_PROGRAMS_PER_SM = 4
"""Programs of the decode kernel that are to be there for each multiprocessor: enough loads in flight."""

_STAGE_BYTES = 32 * 1024
"""Of keys and values that one stage of the loop may hold in shared memory."""


@dataclass(frozen=True, slots=True)
class Tile:
    """How one program works: `rows` of (query, head) pairs at most, `tokens` of keys at a time, warps, loop stages."""

    rows: int
    tokens: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The integers of a batch that a launch depends on; equal shapes are launched alike.

    Attributes:
        num_rows: B. num_decodes: leading rows with one token. num_tokens: T.
        table_stride: elements from one row of the block table to the next. block_size: S.
    """

    num_rows: int
    num_decodes: int
    num_tokens: int
    table_stride: int
    block_size: int


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """The launches of one layer's attention.

    Attributes:
        num_splits: programs that share a decode's context, a power of two; with more than one there is a merge pass.
        min_split_tokens: least range of one; further splits of a short context stay empty.
        decode: its tile. prefill: the tile of rows with several tokens.
        queries_per_tile: of such a row, in one program. num_tiles: programs per kv head, at least as many as needed.
    """

    num_splits: int
    min_split_tokens: int
    decode: Tile
    prefill: Tile
    queries_per_tile: int
    num_tiles: int


_TUNED: dict[tuple[int, int, int], tuple[Tile, Tile]] = {
    # (larger head size, heads per kv head, bytes of an element): decode, prefill
    (128, 2, 2): (Tile(16, 64, 4, 3), Tile(64, 64, 4, 3)),  # Qwen3-0.6B
    (128, 4, 2): (Tile(16, 64, 4, 3), Tile(128, 64, 8, 3)),  # Qwen3-8B, Llama 3
    (64, 4, 2): (Tile(16, 128, 4, 3), Tile(128, 64, 4, 3)),  # Llama 3.2 1B
}


def plan_launch(
    layer: LayerSpec, shape: BatchShape, itemsize: int, num_sms: int, tiles: tuple[Tile, Tile] | None = None
) -> LaunchPlan:
    """The launches for a layer of `itemsize` bytes an element on a device with `num_sms` multiprocessors.

    Args:
        tiles: of decode and prefill, in place of the table and the rule (for measuring).
    """
    decode, prefill = tiles or choose_tiles(layer, itemsize)
    group = layer.num_heads // layer.num_kv_heads
    queries = prefill.rows // group
    prefill_tokens = shape.num_tokens - shape.num_decodes
    return LaunchPlan(
        num_splits=choose_splits(shape.num_decodes * layer.num_kv_heads, num_sms),
        min_split_tokens=MIN_SPLIT_TOKENS,
        decode=decode,
        prefill=prefill,
        queries_per_tile=queries,
        num_tiles=prefill_tokens // queries + shape.num_rows - shape.num_decodes if prefill_tokens else 0,
    )


def choose_tiles(layer: LayerSpec, itemsize: int) -> tuple[Tile, Tile]:
    """The tiles of decode and prefill: out of the table, else by the rule."""
    group = layer.num_heads // layer.num_kv_heads
    tuned = _TUNED.get((max(layer.key_dim, layer.value_dim), group, itemsize))
    if tuned is not None:
        return tuned
    token_bytes = (power_of_two(layer.key_dim) + power_of_two(layer.value_dim)) * itemsize
    stage_bytes = _STAGE_BYTES if itemsize == 2 else _STAGE_BYTES // 2  # float32 products live in registers
    tokens = 128
    while tokens > 16 and tokens * token_bytes > stage_bytes:
        tokens //= 2
    stages = 3 if tokens * token_bytes <= _STAGE_BYTES else 2
    fewest = power_of_two(group)
    rows = max(fewest, 64 if token_bytes <= 512 else 32 if itemsize == 2 else 16)
    return (
        Tile(fewest, tokens, 4 if fewest <= 32 else 8, stages),
        Tile(rows, min(tokens, 64), 4 if rows <= 64 and itemsize == 2 else 8, stages),
    )


def choose_splits(num_programs: int, num_sms: int) -> int:
    """A power of two that gives every multiprocessor its programs, where `num_programs` contexts alone do not."""
    splits = 1
    while splits < MAX_SPLITS and num_programs and splits * num_programs < _PROGRAMS_PER_SM * num_sms:
        splits *= 2
    return splits


def power_of_two(n: int) -> int:
    """The least power of two that is at least n, and at least 16, the least side of a product."""
    return max(16, 1 << (n - 1).bit_length())


Planner = Callable[[LayerSpec, BatchShape, int, int], LaunchPlan]
"""What `plan_launch` is; the benchmark has others."""
