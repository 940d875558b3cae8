"""What starting a request would cost the cache: the figures that a policy's admission looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.engine.cache.groups import CacheGroup
from headrace.engine.cache.kv_cache import KVCache, PrefixHit
from headrace.engine.request import Request
from headrace.engine.scheduler.policy import CacheView

GROWTH_HORIZON_TOKENS = 128
"""Output that each request is expected to still write when another asks to start, if its limit allows so much.

A running request that outgrows the cache costs a preemption, and all its tokens are computed again; one that is let in
later costs concurrency. Simulated: 64 requests of 200 to 400 output tokens in a quarter of the memory that they want
recompute 23 % of all tokens without a horizon, 18 % with 64, 8 % with 128, none with 256, in 866, 952, 1189 and 1400
steps; with 500 to 1,000 output tokens 128 keeps it at 20 %.
"""


class AdmissionCosts:
    """Blocks that the prompts begun so far will still take, kept up to date through one step's admissions.

    Args:
        cache: the block tables.
        step_tokens: token budget of a step, which bounds what a sliding window holds.
        running: requests that hold blocks.
    """

    def __init__(self, cache: KVCache, step_tokens: int, running: Iterable[Request]) -> None:
        """Count what `running` is still going to take."""
        self._cache = cache
        self._step_tokens = step_tokens
        self._committed = [0] * len(cache.pools)
        for request in running:
            self.commit(request)

    def commit(self, request: Request) -> None:
        """Hold back the blocks that a running request is still going to take."""
        assert request.blocks is not None
        for g, (group, table) in enumerate(zip(self._cache.groups, request.blocks.tables, strict=True)):
            held = len(table) - request.blocks.num_dropped[g]
            self._committed[g] += max(self._most_blocks(group, request) - held, 0)

    def views(self, request: Request, hit: PrefixHit, num_running: int) -> Iterator[CacheView]:
        """One view per cache group of what starting `request` after `hit` would take."""
        size = self._cache.block_size
        for g, (group, pool) in enumerate(zip(self._cache.groups, self._cache.pools, strict=True)):
            in_sight = hit.nodes[group.first_visible(len(hit.nodes) * size) // size :]
            # A hit on a block that somebody holds costs nothing; one that is only cached stops being available.
            shared = sum(pool.holders(node.blocks[g]) > 0 for node in in_sight)
            needed = max(self._most_blocks(group, request) - shared, 0)
            yield CacheView(pool.num_blocks, pool.num_available, self._committed[g], needed, num_running)

    def _most_blocks(self, group: CacheGroup, request: Request) -> int:
        """Most blocks that `request` holds from now until its foreseen end; a window's do not grow with its length."""
        step_tokens = min(self._step_tokens, request.num_remaining_tokens)
        return group.max_blocks(self._foreseen_tokens(request), step_tokens, self._cache.block_size)

    @staticmethod
    def _foreseen_tokens(request: Request) -> int:
        left = request.max_output_tokens - len(request.output_token_ids)
        return request.num_tokens + min(left, GROWTH_HORIZON_TOKENS)
