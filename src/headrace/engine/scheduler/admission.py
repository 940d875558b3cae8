"""What starting a request would cost the cache: the figures that a policy's admission looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
        for g, table in enumerate(request.blocks.tables):
            blocks = -(-self._foreseen_tokens(request) // self._cache.block_size)
            self._committed[g] += max(blocks - len(table), 0)

    def views(self, request: Request, hit: PrefixHit, num_running: int) -> Iterator[CacheView]:
        """One view per cache group of what starting `request` after `hit` would take."""
        size = self._cache.block_size
        for g, (group, pool) in enumerate(zip(self._cache.groups, self._cache.pools, strict=True)):
            most = group.max_blocks(self._foreseen_tokens(request), self._step_tokens, size)
            # A hit on a block that somebody holds costs nothing; one that is only cached stops being available.
            shared = sum(node.blocks[g] >= 0 and pool.holders(node.blocks[g]) > 0 for node in hit.nodes)
            needed = max(most - shared, 0)
            yield CacheView(pool.num_blocks, pool.num_available, self._committed[g], needed, num_running)

    @staticmethod
    def _foreseen_tokens(request: Request) -> int:
        left = request.max_output_tokens - len(request.output_token_ids)
        return request.num_tokens + min(left, GROWTH_HORIZON_TOKENS)
