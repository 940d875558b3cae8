"""First in, first out: decodes first, then running prompts, then waiting requests, each in order of arrival."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.engine.request import Request
from headrace.engine.scheduler.policy import CacheView


class Fifo:
    """Keeps running requests streaming: a long prompt gets the budget that the decodes leave.

    Args:
        safety_margin: share of the blocks that must stay free when a request starts; under it only what runs goes on.
    """

    def __init__(self, safety_margin: float) -> None:
        """Keep the margin."""
        self.safety_margin = safety_margin

    def order(self, running: Sequence[Request]) -> Sequence[Request]:
        """Requests with one token to compute first; arrival order within each kind (the sort is stable)."""
        return sorted(running, key=lambda request: request.num_unscheduled_tokens > 1)

    def admits(self, cache: CacheView) -> bool:
        """Whether the margin stays free after all that is foreseen; a lone request always may start."""
        if cache.num_running == 0:
            return True
        left = cache.num_free - cache.num_committed - cache.num_needed
        return left >= self.safety_margin * cache.num_blocks
