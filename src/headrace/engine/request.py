"""A request as the scheduler knows it. Only the scheduler changes one (law 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from headrace.engine.cache.kv_cache import RequestBlocks
from headrace.engine.outputs import FinishReason, Timing, TokenLogprobs
from headrace.engine.sampling_params import SamplingParams

if TYPE_CHECKING:
    from headrace.text.guides.guide import Guide  # brings numpy, which the server's process does not need to begin


class RequestStatus(IntEnum):
    """Where a request stands, derived from its counters for people and dumps; scheduling never reads it.

    ::

        PENDING ─► PREFILLING ─────────────────────────────► DECODING ─► FINISHED
                └► PREFILLING_SPLIT ◄─► SPLIT_PENDING_REMAINDER ┘   (FAILED from anywhere)
    """

    PENDING = 0
    PREFILLING = 1
    PREFILLING_SPLIT = 2
    SPLIT_PENDING_REMAINDER = 3
    DECODING = 4
    FINISHED = 5
    FAILED = 6


@dataclass(slots=True, eq=False)
class Request:
    """One sequence to complete.

    Attributes:
        request_id: unique among the live requests.
        prompt_token_ids: the prompt; never changed.
        params: how it is sampled. seed: resolved, 0 ≤ seed < 2**64.
        eos_token_ids: ids that end it unless `params.ignore_eos`.
        max_total_tokens: prompt and output together never exceed it.
        arrival_s: engine clock at arrival.
        cache_salt: prefixes are shared only within one salt.
        queue_timeout_s: it ends with QueueTimeout when it has waited so long without being started; None: it waits.
        priority: who waits with a lower one starts first. It matters to nothing else but who is preempted.
        output_token_ids: output alone. What is given at the start was generated elsewhere: it is never emitted, and
            counts for everything else (limits, penalties, draws), so the rest comes out as if nothing had happened.
        guide: compiled of `params.guide`, this request's own; it is there before the scheduler sees the request.
        order: place in the order of arrival, given by the scheduler.
        max_output_tokens: most tokens that it may generate.
        token_ids: prompt and output.
        num_computed_tokens: tokens whose KV is in the cache.
        num_scheduled_tokens: tokens in steps that are under way, else 0.
        num_pending_tokens: of the output, that steps under way sample: nobody has seen them yet. At most 1 when a
            step is planned.
        num_flights: steps under way that it has a row in.
        blocks: what it holds of the cache while it runs.
        num_cached_tokens: prompt tokens that its first admission took from the prefix cache.
        num_lost_tokens: tokens whose KV the last preemption took. num_preemptions: how often it lost its blocks.
        num_recomputed_tokens: tokens computed again because of it.
        finish_reason: set once, with the terminal output.
    """

    request_id: str
    prompt_token_ids: Sequence[int]
    params: SamplingParams
    seed: int
    eos_token_ids: frozenset[int]
    max_total_tokens: int
    arrival_s: float
    cache_salt: str | None = None
    queue_timeout_s: float | None = None
    priority: int = 0
    output_token_ids: list[int] = field(default_factory=list)
    guide: Guide | None = None
    order: int = -1
    max_output_tokens: int = field(init=False)
    token_ids: list[int] = field(init=False)
    num_computed_tokens: int = 0
    num_scheduled_tokens: int = 0
    num_pending_tokens: int = 0
    num_flights: int = 0
    blocks: RequestBlocks | None = None
    num_cached_tokens: int = 0
    num_lost_tokens: int = 0
    num_preemptions: int = 0
    num_recomputed_tokens: int = 0
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    scheduled_s: float | None = None
    prefilled_s: float | None = None
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        """Start with the prompt, and what was generated of it elsewhere."""
        self.token_ids = [*self.prompt_token_ids, *self.output_token_ids]
        room = self.max_total_tokens - len(self.prompt_token_ids)
        self.max_output_tokens = room if self.params.max_tokens is None else min(self.params.max_tokens, room)

    @property
    def num_prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        """Prompt and output so far."""
        return len(self.token_ids)

    @property
    def num_remaining_tokens(self) -> int:
        """Tokens still to compute: covers prefill, chunk, decode and resume after preemption alike (law 3)."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def num_begun_tokens(self) -> int:
        """Tokens that are computed, or will be when the steps under way are over."""
        return self.num_computed_tokens + self.num_scheduled_tokens

    @property
    def num_unscheduled_tokens(self) -> int:
        """Remaining tokens that no step under way computes, the pending one included unless it is the last."""
        num_tokens = len(self.token_ids) - self.num_computed_tokens - self.num_scheduled_tokens
        if not self.num_pending_tokens:
            return num_tokens
        return num_tokens + 1 if len(self.output_token_ids) + 1 < self.max_output_tokens else 0

    @property
    def needs_known_tokens(self) -> bool:
        """Whether the host has to see each token before the next is sampled: its mask or penalties are made of it."""
        return self.guide is not None or self.params.guide is not None or self.params.has_penalties

    @property
    def num_missing_prompt_logprobs(self) -> int:
        """Prompt tokens whose log-probabilities are asked for and not there yet."""
        if self.params.prompt_logprobs is None:
            return 0
        return len(self.prompt_token_ids) - 1 - len(self.prompt_logprobs)

    @property
    def status(self) -> RequestStatus:
        """The life cycle's name for where it stands."""
        if self.finish_reason is not None:
            return RequestStatus.FAILED if self.finish_reason == "error" else RequestStatus.FINISHED
        if self.blocks is None:
            return RequestStatus.PENDING
        if self.output_token_ids and self.num_remaining_tokens == 1:
            return RequestStatus.DECODING
        if 0 < self.num_scheduled_tokens == self.num_remaining_tokens:
            return RequestStatus.PREFILLING
        if self.num_scheduled_tokens:
            return RequestStatus.PREFILLING_SPLIT
        return RequestStatus.SPLIT_PENDING_REMAINDER

    def timing(self, now_s: float | None = None) -> Timing:
        """Seconds since arrival; `now_s` where it ends now."""
        arrival = self.arrival_s
        queued = None if self.scheduled_s is None else self.scheduled_s - arrival
        prefill = None
        if self.prefilled_s is not None and self.scheduled_s is not None:
            prefill = self.prefilled_s - self.scheduled_s
        return Timing(
            queued_s=queued,
            prefill_s=prefill,
            ttft_s=None if self.prefilled_s is None or not self.output_token_ids else self.prefilled_s - arrival,
            e2e_s=None if now_s is None else now_s - arrival,
        )
