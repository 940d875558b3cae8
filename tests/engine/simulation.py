"""A whole engine over the simulated and the checking runner, watched from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.engine.cache.groups import CacheGroup
from headrace.engine.cache.kv_cache import KVCache
from headrace.engine.core import EngineCore
from headrace.engine.outputs import EngineOutput
from headrace.engine.plan import SamplingRow
from headrace.engine.request import Request
from headrace.engine.runner.simulated import CostModel, SimulatedRunner, VirtualClock, simulated_token
from headrace.engine.sampling_params import SamplingParams
from headrace.engine.scheduler import Scheduler, SchedulerLimits, get_policy
from headrace.engine.scheduler.prefill_first import PrefillFirst
from headrace.errors import RequestCancelled
from tests.engine.checking_runner import CheckingRunner

FULL = CacheGroup((0,), 1)
EOS = 0


def _rank(request: Request) -> tuple[int, int]:
    return request.priority, request.order


def _is_running(request: Request) -> bool:
    """Whether it holds blocks that are more than what a step under way still writes to."""
    return request.blocks is not None and request.finish_reason is None


class Simulation:
    """An engine without a device; asserts after every step what must hold after every step.

    Attributes:
        runs_ahead: whether simulations plan and launch each step while the one before runs, unless told.
    """

    runs_ahead = False

    def __init__(
        self,
        *,
        groups: Sequence[CacheGroup] = (FULL,),
        num_blocks: int | Sequence[int] = 1000,
        block_size: int = 4,
        max_tokens: int = 64,
        max_seqs: int = 16,
        policy: str = "fifo",
        safety_margin: float = 0.1,
        prefix_caching: bool = True,
        vocab_size: int = 50,
        max_model_len: int = 10_000,
        checking: bool = True,
        cost: CostModel | None = None,
        runs_ahead: bool | None = None,
    ) -> None:
        self.clock = VirtualClock()
        counts = [num_blocks] * len(groups) if isinstance(num_blocks, int) else num_blocks
        self.cache = KVCache(groups, counts, block_size, prefix_caching)
        limits = SchedulerLimits(max_tokens, max_seqs)
        self.scheduler = Scheduler(self.cache, get_policy(policy, safety_margin), limits, self.clock)
        self.requests: dict[str, Request] = {}
        simulated = SimulatedRunner(vocab_size, cost or CostModel(step_s=1.0), self.clock.sleep)
        self.runner = CheckingRunner(simulated, self.requests, groups, block_size)
        self.checking = checking
        runner = self.runner if checking else simulated
        is_ahead = self.runs_ahead if runs_ahead is None else runs_ahead
        self.core = EngineCore(self.scheduler, runner, self.clock, checking, runner if is_ahead else None)
        self.tokens: dict[str, list[int]] = {}
        self.ended: dict[str, EngineOutput] = {}
        self._max_model_len = max_model_len

    def make(
        self,
        prompt: Sequence[int],
        *,
        request_id: str | None = None,
        salt: str | None = None,
        seed: int = 0,
        eos: frozenset[int] = frozenset({EOS}),
        priority: int = 0,
        queue_timeout_s: float | None = None,
        begun: Sequence[int] = (),
        **params: Any,
    ) -> Request:
        """A request that the checking runner knows; `params` are fields of SamplingParams."""
        name = f"r{len(self.requests)}" if request_id is None else request_id
        request = Request(
            name, list(prompt), SamplingParams(**params), seed, eos, self._max_model_len, self.clock(), salt,
            queue_timeout_s, priority, list(begun),
        )  # fmt: skip
        self.requests[name] = request
        self.tokens[name] = []
        return request

    def add(self, prompt: Sequence[int], **options: Any) -> Request:
        """Queue a request; options as for `make`."""
        request = self.make(prompt, **options)
        self.scheduler.add(request)
        return request

    def cancel(self, request_id: str) -> None:
        """End a request from outside; harmless when it has ended."""
        output = self.scheduler.end(request_id, "cancelled", RequestCancelled("cancelled"))
        self._take([] if output is None else [output])

    def step(self) -> None:
        """One step of the engine, and the checks."""
        running = [request for request in self.requests.values() if _is_running(request)]
        oldest = min(running, key=lambda request: request.order, default=None)
        before = oldest and (oldest.num_preemptions, oldest.num_computed_tokens + oldest.num_begun_tokens)
        preemptions = {request: request.num_preemptions for request in running}
        self._take(self.core.step())
        preempted = [_rank(request) for request in running if request.num_preemptions > preemptions[request]]
        kept = [_rank(request) for request in running if _is_running(request) and request is not oldest]
        assert not preempted or not kept or min(preempted) > max(kept), "the least important youngest are preempted"
        if oldest is not None and oldest.finish_reason is None:
            assert oldest.num_preemptions == before[0], "the oldest running request was preempted"
            if isinstance(self.scheduler.policy, PrefillFirst):
                return  # decodes may wait until the prompts that were begun are done
            now = oldest.num_computed_tokens + oldest.num_begun_tokens
            assert now > before[1], "the oldest running request did not go on"

    def run(self, max_steps: int = 100_000) -> Simulation:
        """Step until nothing is live."""
        steps = 0
        while self.scheduler.has_requests:
            self.step()
            steps += 1
            assert steps < max_steps, f"not over after {steps} steps: {self.scheduler.dump_state()}"
        self.check_empty()
        return self

    def check_empty(self) -> None:
        """Everything ended and everything was given back."""
        assert self.ended.keys() == self.requests.keys()
        assert [pool.num_used for pool in self.cache.pools] == [0] * len(self.cache.pools)
        assert self.scheduler.check() == []
        assert self.scheduler.num_running == self.scheduler.num_waiting == 0

    def _take(self, outputs: Sequence[EngineOutput]) -> None:
        for output in outputs:
            name = output.request_id
            assert name not in self.ended, f"{name} got an output after its end"
            self.tokens[name].extend(output.new_token_ids)
            if output.finished:
                self.ended[name] = output
                assert (output.error is not None) == (output.finish_reason in ("error", "cancelled"))

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Generated tokens by request."""
        return {name: tuple(tokens) for name, tokens in self.tokens.items()}

    def check_tokens(self) -> None:
        """What was generated is what the simulated model says, cut where a request was cut short."""
        for name, request in self.requests.items():
            end = self.ended[name]
            most = request.max_output_tokens if end.error is None else len(self.tokens[name])
            num_begun = len(request.output_token_ids) - len(self.tokens[name])
            most += num_begun if end.error is not None else 0
            expected, reason = self.continuation(request, most)
            assert self.tokens[name] == expected[num_begun:]
            assert end.error is not None or end.finish_reason == reason

    def continuation(self, request: Request, most: int) -> tuple[list[int], str]:
        """The simulated model's own continuation of a prompt, of `most` tokens, and why it ends."""
        output: list[int] = []
        params, prompt = request.params, request.prompt_token_ids
        stops = {*params.stop_token_ids, *(() if params.ignore_eos else request.eos_token_ids)}
        while len(output) < most:
            banned = tuple(stops) if len(output) < params.min_tokens else ()
            row = SamplingRow(params, request.seed, len(prompt) + len(output), prompt, output, banned)
            output.append(simulated_token(row, self.runner.vocab_size))
            if output[-1] in stops:
                return output, "stop"
        return output, "length"
