"""The scheduling loop: one step = how many tokens each request computes.

::

    add ─► waiting ─► running ─► (terminal output)
              ▲          │
              └ preempted ┘   blocks given back, tokens kept: recomputed when it starts again

Remaining = tokens - computed covers prefill, chunk, decode and resume alike, so there is no phase here (law 3). The
oldest running request always gets its blocks, by preempting the least important and youngest, so some request always
goes on (law 5), whatever its priority.

A step can be planned while another is under way (`schedule_ahead`): what that one computes counts as computed, and what
it samples as a token, PENDING. Nobody is preempted then, so a request that waits is in no step under way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.engine.cache.kv_cache import KVCache
from headrace.engine.outputs import EngineOutput, FinishReason
from headrace.engine.plan import PlannedRow, RowResult, StepPlan, StepResult
from headrace.engine.request import Request
from headrace.engine.scheduler.draft import Draft
from headrace.engine.scheduler.endings import ending_after, terminal_output, waited_too_long
from headrace.engine.scheduler.flights import Flights
from headrace.engine.scheduler.limits import SchedulerCounters, SchedulerLimits
from headrace.engine.scheduler.policy import Policy
from headrace.engine.scheduler.queues import Queues
from headrace.engine.scheduler.rows import planned_row
from headrace.engine.scheduler.starter import Starter
from headrace.errors import HeadraceError


class _WouldPreempt(Exception):
    """A step that is planned ahead would take blocks from a request."""


class Scheduler:
    """Decides what each step computes, and is the only one to change a request.

    Not thread-safe: called by the engine's thread alone. `schedule` and `update` alternate, or one `schedule_ahead`
    comes between them; `add` and `end` come at any time.

    Args:
        cache: the block tables. policy: order and admission. limits: bounds of a step.
        clock: seconds, monotonic.
    """

    def __init__(self, cache: KVCache, policy: Policy, limits: SchedulerLimits, clock: Callable[[], float]) -> None:
        """Start empty."""
        self.cache = cache
        self.policy = policy
        self.limits = limits
        self.counters = SchedulerCounters()
        self._clock = clock
        self._queues = Queues()
        self._running, self._waiting = self._queues.running, self._queues.waiting
        self._starter = Starter(cache, policy, self._queues, self.counters, clock)
        self._flights = Flights()

    # ---------------------------------------------------------------- requests in and out

    @property
    def num_waiting(self) -> int:
        """Requests that hold no blocks."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests that hold blocks."""
        return len(self._running)

    @property
    def num_waiting_tokens(self) -> int:
        """Tokens, prompt and output so far, of requests that hold no blocks."""
        return self._waiting.num_tokens

    @property
    def num_running_tokens(self) -> int:
        """Tokens, prompt and output so far, of requests that hold blocks. From another thread: of some moment."""
        return self._queues.num_running_tokens

    @property
    def has_requests(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._queues)

    def add(self, request: Request) -> None:
        """Queue a request; InvalidRequest when its id is taken by a live one."""
        self._queues.add(request)

    def end(self, request_id: str, reason: FinishReason, error: HeadraceError) -> EngineOutput | None:
        """End a request from outside a step (cancelled, or failed); None when it is not live."""
        request = self._queues.get(request_id)
        return None if request is None else self._finish(request, reason, error=error)

    def expire(self) -> list[EngineOutput]:
        """End those that have waited for longer than they may. Called before every `schedule`."""
        now = self._clock()
        overdue = self._waiting.overdue(now)
        self.counters.num_queue_timeouts += len(overdue)
        return [self._finish(request, "error", error=waited_too_long(request, now)) for request in overdue]

    def live_request_ids(self) -> list[str]:
        """Ids of all requests without a terminal output."""
        return self._queues.ids()

    # ---------------------------------------------------------------- one step

    def schedule(self) -> StepPlan:
        """Plan the next step, with nothing under way; the plan is empty when nothing can run."""
        return self._plan(self._draft())

    def schedule_ahead(self) -> StepPlan | None:
        """Plan the step after the one that is under way; empty when there is nothing more that can run before it ends.

        None where that one has to be over first: tokens that it samples must be known (guides, penalties), or a
        request would have to be preempted.
        """
        if self._flights.must_end_first():
            return None
        try:
            return self._plan(self._draft())
        except _WouldPreempt:
            return None

    def _draft(self) -> Draft:
        draft = Draft(self.limits.max_num_batched_tokens)
        num_preemptions = self.counters.num_preemptions
        for request in self.policy.order(self._running):
            if request.blocks is not None:  # else it was preempted a moment ago, for another
                num_tokens = self._make_room(request, min(request.num_unscheduled_tokens, draft.budget), draft)
                draft.take(request, num_tokens)
        if num_preemptions == self.counters.num_preemptions:
            self._starter.start_waiting(draft, self.limits)
        return draft

    def _make_room(self, request: Request, num_tokens: int, draft: Draft) -> int:
        """Blocks for `num_tokens` more tokens of a running request; returns for how many it got them."""
        assert request.blocks is not None
        num_begun = request.num_begun_tokens
        while num_tokens > 0 and not self.cache.grow(request.blocks, num_begun + num_tokens):
            if num_tokens > 1:
                num_tokens = min(num_tokens - 1, self.cache.room(request.blocks) - num_begun)
                if num_tokens > 0:
                    continue
                if request is not self._running[0]:
                    return 0  # a prompt waits for blocks; only the oldest request takes them from others
                num_tokens = 1
            if self._flights:
                raise _WouldPreempt  # blocks of requests that ended may come back with what is under way
            victim = self._victim()
            if victim is None:
                raise RuntimeError(f"{request.request_id}: {request.num_tokens} tokens do not fit the cache alone")
            self._preempt(victim)
            draft.give_back(victim)
            if victim is request:
                return 0
        return num_tokens

    def _victim(self) -> Request | None:
        """Who loses its blocks: of the highest priority number the youngest, and never the oldest of all."""
        return max(self._running[1:], key=lambda request: (request.priority, request.order), default=None)

    def _preempt(self, request: Request) -> None:
        """Take a running request's blocks; its tokens are computed again when it is admitted again."""
        assert request.blocks is not None
        self.cache.release(request.blocks)
        request.blocks = None
        request.num_lost_tokens = request.num_computed_tokens
        request.num_computed_tokens = 0
        request.num_preemptions += 1
        self.counters.num_preemptions += 1
        self._queues.preempt(request)

    # ---------------------------------------------------------------- the plan and its outcome

    def _plan(self, draft: Draft) -> StepPlan:
        chosen = sorted(draft.num_tokens.items(), key=lambda item: item[1] > 1)
        rows = tuple(planned_row(request, num_tokens) for request, num_tokens in chosen)
        if not rows:
            return StepPlan(())
        self.counters.num_steps += 1
        self.counters.num_computed_tokens += self.limits.max_num_batched_tokens - draft.budget
        plan = StepPlan(rows, self.cache.take_blocks_to_zero())
        self._flights.begin(plan, [request for request, _ in chosen])
        return plan

    def replan(self, plan: StepPlan) -> StepPlan:
        """The same step, for itself: when it could not be run ahead, and all before it are over. `update` takes it."""
        return self._flights.replace(plan)

    def update(self, plan: StepPlan, result: StepResult) -> list[EngineOutput]:
        """Take in what a step computed; returns the outputs of the requests that got a token or ended.

        A request that ended while the step was under way gets nothing of it, but what it left may be NaN all the same.
        """
        outputs = []
        for row, outcome, request in zip(plan.rows, result.rows, self._flights.end(plan), strict=True):
            if request.finish_reason is not None:
                if outcome.error is not None and request.blocks is not None:
                    self.cache.distrust(request.blocks)
                self._release(request)
                continue
            assert request.blocks is not None
            if outcome.error is not None:
                outputs.append(self._finish(request, "error", error=outcome.error, distrust=True))
                continue
            request.num_computed_tokens = row.start + len(row.token_ids) - outcome.is_late
            self.counters.num_late_masks += outcome.is_late
            self.cache.advance(request.blocks, request.token_ids, request.num_computed_tokens)
            if outcome.prompt_logprobs:
                self._collect_prompt_logprobs(request, row, outcome)
            if outcome.token_id is not None:
                outputs.append(self._append(request, outcome))
            elif outcome.is_complete:
                outputs.append(self._finish(request, "stop"))
        return outputs

    @staticmethod
    def _collect_prompt_logprobs(request: Request, row: PlannedRow, outcome: RowResult) -> None:
        known = len(request.prompt_logprobs) - row.start  # positions computed again after a preemption are known
        request.prompt_logprobs.extend(outcome.prompt_logprobs[max(known, 0) :])

    def _append(self, request: Request, outcome: RowResult) -> EngineOutput:
        """Add a sampled token and see whether it was the last."""
        token = outcome.token_id
        assert token is not None
        request.token_ids.append(token)
        request.output_token_ids.append(token)
        if request.prefilled_s is None:
            request.prefilled_s = self._clock()
        logprobs = () if outcome.logprobs is None else (outcome.logprobs,)
        ending = ending_after(request, token)
        if ending is not None:
            return self._finish(request, ending[0], (token,), logprobs, stop_reason=ending[1])
        return EngineOutput(request.request_id, (token,), logprobs, num_cached_tokens=request.num_cached_tokens)

    def _finish(
        self,
        request: Request,
        reason: FinishReason,
        new_token_ids: tuple[int, ...] = (),
        new_logprobs: tuple[Any, ...] = (),
        stop_reason: int | None = None,
        error: HeadraceError | None = None,
        distrust: bool = False,
    ) -> EngineOutput:
        """Take a request out; the one place that makes terminal outputs (law 1)."""
        self._queues.remove(request)
        if distrust and request.blocks is not None:
            self.cache.distrust(request.blocks)
        self._release(request)
        request.finish_reason = reason
        return terminal_output(request, self._clock(), reason, new_token_ids, new_logprobs, stop_reason, error)

    def _release(self, request: Request) -> None:
        """Give back what a request holds, unless a step under way still writes to it."""
        if request.blocks is not None and not request.num_flights:
            self.cache.release(request.blocks)
            request.blocks = None

    # ---------------------------------------------------------------- looking in

    def dump_state(self) -> dict[str, Any]:
        """The scheduler and the cache, for people and for tests, as plain data."""
        return {
            **self._queues.dump_state(),
            "counters": {name: getattr(self.counters, name) for name in SchedulerCounters.__slots__},
            "prefix_hit_ratio": self.counters.prefix_hit_ratio,
            "cache": self.cache.dump_state(),
        }

    def check(self) -> list[str]:
        """What is wrong with the queues or the cache; empty when all is well."""
        return [*self.cache.check(), *self._queues.check()]
