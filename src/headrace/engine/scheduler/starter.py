"""Starts waiting requests: their cached prefix, their first blocks, the tokens that they compute at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from headrace.engine.cache.kv_cache import KVCache, PrefixHit
from headrace.engine.request import Request
from headrace.engine.scheduler.admission import AdmissionCosts
from headrace.engine.scheduler.draft import Draft
from headrace.engine.scheduler.limits import SchedulerCounters, SchedulerLimits
from headrace.engine.scheduler.policy import Policy
from headrace.engine.scheduler.queues import Queues


class Starter:
    """A part of the scheduler.

    Args:
        cache, policy, queues, counters, clock: the scheduler's own.
    """

    def __init__(
        self, cache: KVCache, policy: Policy, queues: Queues, counters: SchedulerCounters, clock: Callable[[], float]
    ) -> None:
        """Ready."""
        self._cache = cache
        self._policy = policy
        self._queues = queues
        self._counters = counters
        self._clock = clock

    def start_waiting(self, draft: Draft, limits: SchedulerLimits) -> None:
        """Start waiting requests in their order while the budget, the policy and the cache allow."""
        running, waiting = self._queues.running, self._queues.waiting
        if not waiting:
            return
        costs = AdmissionCosts(self._cache, limits.max_num_batched_tokens, running)
        # A request whose prefix another is computing waits for it; those behind it need not. The look-ahead bounds
        # the work of a step, however many wait.
        for request in list(islice(waiting, 2 * limits.max_num_seqs)):
            if draft.budget <= 0 or len(running) >= limits.max_num_seqs:
                return
            hit = self._match(request)
            if hit.awaited:
                continue
            if not all(map(self._policy.admits, costs.views(request, hit, len(running)))):
                return
            num_tokens = self._start(request, hit, draft.budget)
            if num_tokens == 0:
                return
            draft.take(request, num_tokens)
            costs.commit(request)

    def _match(self, request: Request) -> PrefixHit:
        if request.num_missing_prompt_logprobs > 0:
            return PrefixHit()  # the logits of every prompt token are asked for, so every one is computed
        return self._cache.match(request.token_ids, request.cache_salt)

    def _start(self, request: Request, hit: PrefixHit, budget: int) -> int:
        """Give a waiting request its first blocks; returns the tokens that it computes in this step, 0 for none."""
        blocks = self._cache.begin(request.token_ids, hit, request.cache_salt)
        cached = len(hit.nodes) * self._cache.block_size
        num_tokens = min(request.num_tokens - cached, budget, self._cache.room(blocks) - cached)
        if num_tokens <= 0 or not self._cache.grow(blocks, cached + num_tokens):
            self._cache.release(blocks)
            return 0
        self._queues.start(request)
        request.blocks = blocks
        request.num_computed_tokens = cached
        self._account(request, cached)
        return num_tokens

    def _account(self, request: Request, cached: int) -> None:
        counters = self._counters
        counters.num_admissions += 1
        if request.scheduled_s is None:
            request.scheduled_s = self._clock()
            request.num_cached_tokens = min(cached, request.num_prompt_tokens)  # an answer that goes on has more
            counters.num_prompt_tokens += request.num_prompt_tokens
            counters.num_cached_tokens += request.num_cached_tokens
        else:
            recomputed = max(request.num_lost_tokens - cached, 0)
            request.num_recomputed_tokens += recomputed
            counters.num_recomputed_tokens += recomputed
