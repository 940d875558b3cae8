"""How many blocks, how large a step: worked out from the memory that is there. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.engine.cache.groups import CacheGroup
from headrace.errors import ConfigError

MAX_CPU_CACHE_BYTES = 8 << 30
"""Most that the cache takes of a host's memory unless `num_blocks` says otherwise: a laptop has other things to do."""


@dataclass(frozen=True, slots=True)
class CacheSize:
    """What was decided.

    Attributes:
        num_blocks: per cache group.
        max_model_len: most tokens of one request: what was asked for, or what fits the cache alone.
        num_bytes: of the cache.
    """

    num_blocks: tuple[int, ...]
    max_model_len: int
    num_bytes: int


def size_cache(
    groups: Sequence[CacheGroup],
    *,
    block_size: int,
    budget_bytes: int,
    max_model_len: int,
    max_num_seqs: int,
    step_tokens: int,
    num_blocks: int | None = None,
) -> CacheSize:
    """Divide a budget between the groups.

    A bounded group (sliding window) gets what `max_num_seqs` requests can hold at most, a full group what the longest
    requests can; when that is more than the budget, all groups shrink alike, a bounded one no further than to what one
    request holds, and with them the longest request that fits alone.

    Args:
        groups: cache groups. block_size: tokens per block. budget_bytes: for all of them.
        max_model_len: most tokens of one request. max_num_seqs: requests at a time. step_tokens: budget of a step.
        num_blocks: of the largest group when the user fixed it; others in proportion, the budget is not looked at.

    Raises:
        ConfigError: not even one short request fits; says how many bytes would do.
    """
    wanted = [max_num_seqs * group.max_blocks(max_model_len, step_tokens, block_size) for group in groups]
    # A bounded group does not shrink below what one request holds: that would shorten every request for little.
    least = [group.max_blocks(max_model_len, step_tokens, block_size) if group.bounded else 1 for group in groups]
    if num_blocks is None:
        blocks = _divided(groups, wanted, least, budget_bytes)
    else:
        most = max(wanted)
        blocks = [
            num_blocks if n == most else max(round(n * num_blocks / most), low)
            for n, low in zip(wanted, least, strict=True)
        ]
    longest = _longest_alone(groups, blocks, block_size, step_tokens, max_model_len)
    num_bytes = sum(n * group.block_bytes for n, group in zip(blocks, groups, strict=True))
    shortest = min(2 * block_size, max_model_len)
    if longest < shortest or (num_blocks is None and num_bytes > budget_bytes):
        enough = sum(g.max_blocks(shortest, step_tokens, block_size) * g.block_bytes for g in groups)
        raise ConfigError(
            f"the cache has room for {longest} tokens of one request in {budget_bytes:,} bytes; {enough:,} bytes hold "
            f"{shortest} tokens: free memory, raise max_memory_percent or num_blocks, or choose a smaller block_size"
        )
    return CacheSize(tuple(blocks), longest, num_bytes)


def _divided(groups: Sequence[CacheGroup], wanted: Sequence[int], least: Sequence[int], budget_bytes: int) -> list[int]:
    """What each group gets of a budget: its least, where that fits, and its share of the rest."""
    sizes = [group.block_bytes for group in groups]
    if sum(low * size for low, size in zip(least, sizes, strict=True)) > budget_bytes:
        least = [1] * len(groups)
    rest = budget_bytes - sum(low * size for low, size in zip(least, sizes, strict=True))
    more = sum((n - low) * size for n, low, size in zip(wanted, least, sizes, strict=True))
    share = min(1.0, max(rest, 0) / more) if more else 0.0
    return [low + int((n - low) * share) for n, low in zip(wanted, least, strict=True)]


def _longest_alone(
    groups: Sequence[CacheGroup], blocks: Sequence[int], block_size: int, step_tokens: int, max_model_len: int
) -> int:
    """Most tokens of a request that has the whole cache to itself."""
    longest = max_model_len
    for group, count in zip(groups, blocks, strict=True):
        if group.max_blocks(longest, step_tokens, block_size) > count:
            longest = min(longest, count * block_size)
    return longest
