"""A runner without a device: deterministic tokens, and a cost model in place of compute. No torch here.

It runs whatever is above a runner (scheduler, client, server) at any speed: with no cost for property tests, on a
virtual clock for scheduling experiments, with `time.sleep` as a stand-in for a model of a known speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.engine.guidance import allowed_tokens
from headrace.engine.last_sampled import LastSampled
from headrace.engine.outputs import TokenLogprobs
from headrace.engine.plan import PlannedRow, RowResult, SamplingRow, StepPlan, StepResult
from headrace.errors import GuideFailed


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds that a step takes, linear in what it does.

    Attributes:
        step_s: per step (launches, and reading the weights). token_s: per token computed.
        kv_token_s: per token of context read, once for each row.
    """

    step_s: float = 0.0
    token_s: float = 0.0
    kv_token_s: float = 0.0

    def seconds(self, plan: StepPlan) -> float:
        """What executing `plan` takes."""
        kv_tokens = sum(row.start + len(row.token_ids) for row in plan.rows)
        return self.step_s + self.token_s * plan.num_tokens + self.kv_token_s * kv_tokens


class VirtualClock:
    """A clock that moves only when somebody sleeps on it; call it for the time in seconds."""

    def __init__(self) -> None:
        """Starts at 0."""
        self._now_s = 0.0

    def __call__(self) -> float:
        """The time."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now_s += seconds


class SimulatedRunner:
    """Executes plans by sleeping as long as the cost model says.

    Args:
        vocab_size: of the model that is not there. cost: what a step takes.
        sleep: how to let that time pass: `VirtualClock.sleep`, `time.sleep`; None takes no time.
    """

    def __init__(
        self, vocab_size: int, cost: CostModel | None = None, sleep: Callable[[float], None] | None = None
    ) -> None:
        """Ready to execute."""
        self._vocab_size = vocab_size
        self._cost = CostModel() if cost is None else cost
        self._sleep = sleep
        self._last = LastSampled()

    @property
    def vocab_size(self) -> int:
        """Token ids are 0 … vocab_size - 1."""
        return self._vocab_size

    def execute(self, plan: StepPlan) -> StepResult:
        """Sleep, then answer every row."""
        if self._sleep is not None:
            self._sleep(self._cost.seconds(plan))
        return StepResult(tuple(self._answer(row) for row in plan.rows))

    def launch(self, plan: StepPlan) -> StepResult:
        """As `execute`; what the plan leaves open is what was sampled by the launch before."""
        result = self.execute(self._last.known(plan))
        self._last.note(result)
        return result

    def collect(self, handle: StepResult) -> StepResult:
        """The result was there at once."""
        return handle

    def _answer(self, row: PlannedRow) -> RowResult:
        positions = range(row.start + 1, row.start + 1 + len(row.prompt_targets))
        prompt_logprobs = tuple(
            simulated_logprobs(token, position, row.num_prompt_logprobs, self._vocab_size)
            for token, position in zip(row.prompt_targets, positions, strict=True)
        )
        sampling = row.sampling
        if sampling is None:
            return RowResult(row.request_id, prompt_logprobs=prompt_logprobs)
        allowed = None
        if sampling.guide is not None:
            try:
                allowed = allowed_tokens(sampling, self._vocab_size)
            except GuideFailed as error:
                return RowResult(row.request_id, prompt_logprobs=prompt_logprobs, error=error)
            if allowed is None:
                return RowResult(row.request_id, prompt_logprobs=prompt_logprobs, is_complete=True)
        token, num = simulated_token(sampling, self._vocab_size, allowed), sampling.params.logprobs
        logprobs = None if num is None else simulated_logprobs(token, sampling.position, num, self._vocab_size)
        return RowResult(row.request_id, token, logprobs, prompt_logprobs)

    def close(self) -> None:
        """Nothing to give back."""


def simulated_token(sampling: SamplingRow, vocab_size: int, allowed: npt.NDArray[np.uint32] | None = None) -> int:
    """The token that follows: a pure function of the tokens so far, the seed and the position.

    The next token that is not banned, and of `allowed` (the bits of a guide's mask), takes the place of one that is.
    ValueError when all are.
    """
    tokens = (*sampling.prompt_token_ids, *sampling.output_token_ids)
    first = hash((sampling.seed, sampling.position, tokens)) % vocab_size  # of integers: the same in every process
    for i in range(vocab_size):
        token = (first + i) % vocab_size
        if token in sampling.banned_token_ids or (allowed is not None and not allowed[token // 32] >> token % 32 & 1):
            continue
        return token
    raise ValueError(f"all {vocab_size} tokens are banned")


def simulated_logprobs(token_id: int, position: int, num_top: int, vocab_size: int) -> TokenLogprobs:
    """Made-up log-probabilities of the right form: a pure function of token and position."""
    rank = 1 + hash((token_id, position)) % vocab_size
    top = {(token_id + 1 - rank + i) % vocab_size: -1.0 - i for i in range(min(num_top, vocab_size))}
    return TokenLogprobs(token_id, -float(rank), rank, top)
