"""The hop between scheduler and runner: what one step computes, and what came of it. No torch here.

::

    Scheduler.schedule() ──StepPlan──► Runner.execute() ──StepResult──► Scheduler.update()

A step that is planned while another runs (see `run_ahead`) computes tokens that nobody has seen yet: PENDING stands in
their place, and the runner reads them where the step before left them, on the device.

What is made once per row and step is a NamedTuple: a frozen dataclass takes about twice as long to make.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from headrace.engine.outputs import TokenLogprobs
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.text.guides.guide import Guide  # brings numpy, which the server's process does not need to begin

PENDING = -1
"""In the place of a token id: what the step that was launched last samples for this request."""


class RowGuide(NamedTuple):
    """What a row's token must be of.

    Attributes:
        guide: whose mask is a function of the row's output so far; the only thing of a request that is shared with it.
        end_token_ids: may follow an answer that is complete, and end it; empty: it ends without one.
        eos_token_ids: of the model, no part of any text: chosen as an end or not at all.
    """

    guide: Guide
    end_token_ids: Sequence[int]
    eos_token_ids: Sequence[int]


class SamplingRow(NamedTuple):
    """All that sampling one token depends on; the same row gives the same token in any batch (law 7).

    Attributes:
        params: the request's settings.
        seed: the request's resolved seed, 0 ≤ seed < 2**64.
        position: index of the token that is drawn, in prompt + output; with the seed it fixes the draw.
        prompt_token_ids: the prompt (a view that must not be changed).
        output_token_ids: generated so far (a view that must not be changed). A PENDING token is not among them, so
            `position` is more than prompt and output have when the row is launched.
        banned_token_ids: never sampled in this step (the stop tokens, while under `min_tokens`).
        guide: None where any token may come.
    """

    params: SamplingParams
    seed: int
    position: int
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    banned_token_ids: Sequence[int] = ()
    guide: RowGuide | None = None


class PlannedRow(NamedTuple):
    """The tokens of one request in one step.

    Attributes:
        request_id: whose.
        token_ids: to compute, at positions start, start + 1, …; at least one; or PENDING alone.
        start: position of the first of them: so many tokens of the request are in the cache already.
        block_tables: one per cache group; entry i holds positions [i·S, (i+1)·S), -1 where they are out of every
            window to come. Covers at least start + len(token_ids) positions.
        sampling: None while the prompt is not finished: then nothing is sampled.
        prompt_targets: where log-probabilities of the prompt are due: for each of token_ids, the prompt token that
            follows it; shorter when the last one has none. Empty otherwise.
        num_prompt_logprobs: how many alternatives with each of prompt_targets.
    """

    request_id: str
    token_ids: Sequence[int]
    start: int
    block_tables: tuple[Sequence[int], ...]
    sampling: SamplingRow | None
    prompt_targets: Sequence[int] = ()
    num_prompt_logprobs: int = 0

    @property
    def is_pending(self) -> bool:
        """Whether its token is what the step that was launched last samples for this request."""
        return self.token_ids[0] == PENDING

    def with_token(self, token_id: int) -> PlannedRow:
        """The same row with its PENDING token known; what it has of the output may know it already, or not."""
        sampling = self.sampling
        if sampling is not None and len(sampling.prompt_token_ids) + len(sampling.output_token_ids) < sampling.position:
            sampling = sampling._replace(output_token_ids=(*sampling.output_token_ids, token_id))
        return self._replace(token_ids=(token_id,), sampling=sampling)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step over the model.

    Attributes:
        rows: single-token rows (decodes) first, then chunks of prompts.
        blocks_to_zero: per cache group, blocks that held a failed request's KV: they may hold NaN, and a masked
            NaN is still NaN in a product, so they are zeroed before anything is written.
    """

    rows: tuple[PlannedRow, ...]
    blocks_to_zero: tuple[tuple[int, ...], ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return sum(len(row.token_ids) for row in self.rows)

    @property
    def num_decode_rows(self) -> int:
        """Rows of a single token."""
        return bisect_left(self.rows, True, key=lambda row: len(row.token_ids) > 1)


class RowResult(NamedTuple):
    """What came of one planned row: a token, nothing yet (an unfinished prompt), or an error of its own.

    Attributes:
        is_complete: no token, because the row's guide has nothing more to come: the request ends.
        is_late: no token, because what its guide allows was not known in time: its last token is computed once more.
    """

    request_id: str
    token_id: int | None = None
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    error: HeadraceError | None = None
    is_complete: bool = False
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """One result per planned row, in the plan's order."""

    rows: tuple[RowResult, ...]


class Runner(Protocol):
    """Executes plans: the torch runner on a real model, the simulated one on a cost model."""

    @property
    def vocab_size(self) -> int:
        """Token ids are 0 … vocab_size - 1."""
        ...

    def execute(self, plan: StepPlan) -> StepResult:
        """Compute the plan. Raises what the device raises; a plan may be executed again, whole or in parts."""
        ...

    def close(self) -> None:
        """Give back the device's memory and the model as it was handed over."""
        ...


class AheadRunner(Runner, Protocol):
    """A runner that takes the next plan while it executes one. Steps run in the order in which they are launched."""

    def launch(self, plan: StepPlan) -> Any:
        """Begin a step, without waiting for the one before; at most two are under way. Returns what `collect` takes.

        Raises what the device raises; then nothing of the step is under way, and it may be executed again.
        """
        ...

    def collect(self, handle: Any) -> StepResult:
        """Wait for a step that was launched, in order of launching. Raises what the device raises."""
        ...
