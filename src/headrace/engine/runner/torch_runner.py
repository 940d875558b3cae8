"""Executes plans on a transformers model over the paged cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from headrace.engine.last_sampled import LastSampled
from headrace.engine.outputs import TokenLogprobs
from headrace.engine.plan import PlannedRow, RowResult, StepPlan, StepResult
from headrace.engine.runner.argmax import argmax
from headrace.engine.runner.logprobs import prompt_logprobs
from headrace.engine.runner.mask_workers import MaskOutcome, MaskWorkers
from headrace.engine.runner.sampler import Sampler
from headrace.errors import GuideFailed, NonFiniteLogits
from headrace.model.batch import build_inputs
from headrace.model.paged_model import PagedModel
from headrace.model.torch_threads import TorchThreads

_ANY = np.empty(0, dtype=np.uint32)  # stands for the mask of a row without a guide


class TorchRunner:
    """One device, one model.

    Args:
        model: with its cache allocated. block_size: tokens per block of that cache.
    """

    def __init__(self, model: PagedModel, block_size: int) -> None:
        """Ready to execute."""
        self._model = model
        self._block_size = block_size
        self._device = model.loaded.device
        self._sampler = Sampler(model.vocab_size, self._device, model.kernels)
        self._masks = MaskWorkers(model.vocab_size)
        self._last = LastSampled()
        self._threads = TorchThreads(model.loaded.model)

    @property
    def vocab_size(self) -> int:
        """Columns of the model's logits."""
        return self._model.vocab_size

    def execute(self, plan: StepPlan) -> StepResult:
        """One forward pass and one sampling over all rows of the plan.

        A chunk that ends before its prompt does gives logits too, of its last token: they are only looked at. NaN in
        its keys and values has reached them, so the row fails before its blocks are shared, or lent to another.
        """
        self._threads.lower()  # here, because it holds for the thread that calls
        if plan.blocks_to_zero:
            self._model.context.zero_blocks(plan.blocks_to_zero, self._device)
        masks = self._masks.begin(plan.rows)  # while the forward pass runs
        inputs = build_inputs(plan.rows, self._model.context.num_groups, self._block_size, self._device)
        sampled = [i for i, row in enumerate(plan.rows) if row.sampling is not None]
        unfinished = [i for i, row in enumerate(plan.rows) if row.sampling is None]
        targets = [i for i, row in enumerate(plan.rows) if row.prompt_targets]
        firsts = {i: inputs.last_tokens[i] + 1 - len(plan.rows[i].token_ids) for i in targets}
        keep = [inputs.last_tokens[i] for i in (*sampled, *unfinished)]
        for i in targets:
            keep.extend(range(firsts[i], firsts[i] + len(plan.rows[i].prompt_targets)))
        logits = self._model.forward(inputs, keep)
        results = [RowResult(row.request_id) for row in plan.rows]
        outcomes = self._masks.collect(masks, others=len(masks.jobs) < len(plan.rows))
        self._sample(plan.rows, sampled, logits[: len(sampled)], results, outcomes)
        self._look_at(plan.rows, unfinished, logits[len(sampled) : len(plan.rows)], results)
        self._prompt_logprobs(plan.rows, targets, logits[len(plan.rows) :], results)
        return StepResult(tuple(results))

    def launch(self, plan: StepPlan) -> Any:
        """As `execute`, at once; what the plan leaves open is what was sampled by the launch before."""
        result = self.execute(self._last.known(plan))
        self._last.note(result)
        return result

    def collect(self, handle: Any) -> StepResult:
        """The result was there at once."""
        assert isinstance(handle, StepResult)
        return handle

    def _sample(
        self,
        rows: Sequence[PlannedRow],
        sampled: Sequence[int],
        logits: torch.Tensor,
        results: list[RowResult],
        outcomes: Mapping[int, MaskOutcome],
    ) -> None:
        """Choose tokens, but for rows whose guide leaves nothing to choose, or not yet: these are only looked at."""
        idle = [k for k, i in enumerate(sampled) if not isinstance(outcomes.get(i, _ANY), np.ndarray)]
        if idle:
            for k in idle:
                results[sampled[k]] = _without_token(rows[sampled[k]], outcomes[sampled[k]])
            at = torch.tensor(idle, device=logits.device)
            self._look_at(rows, [sampled[k] for k in idle], logits[at], results)
            active = sorted(set(range(len(sampled))).difference(idle))
            logits = logits[torch.tensor(active, dtype=torch.int64, device=logits.device)]
            sampled = [sampled[k] for k in active]
        settings = [sampling for i in sampled if (sampling := rows[i].sampling) is not None]
        masks = {k: mask for k, i in enumerate(sampled) if isinstance(mask := outcomes.get(i), np.ndarray)}
        for i, chosen in zip(sampled, self._sampler.sample(logits, settings, masks), strict=True):
            results[i] = RowResult(rows[i].request_id, chosen.token_id, chosen.logprobs, (), chosen.error)

    @staticmethod
    def _look_at(
        rows: Sequence[PlannedRow], unfinished: Sequence[int], logits: torch.Tensor, results: list[RowResult]
    ) -> None:
        if not unfinished:
            return
        for i, finite in zip(unfinished, argmax(logits)[1].isfinite().tolist(), strict=True):
            if not finite:
                end = rows[i].start + len(rows[i].token_ids)
                error = NonFiniteLogits(f"the model gave NaN or infinity in the logits for position {end}")
                results[i] = RowResult(rows[i].request_id, error=error)

    @staticmethod
    def _prompt_logprobs(
        rows: Sequence[PlannedRow], targets: Sequence[int], logits: torch.Tensor, results: list[RowResult]
    ) -> None:
        done = 0
        for i in targets:
            row, result = rows[i], results[i]
            count = len(row.prompt_targets)
            found: list[TokenLogprobs] = []
            error = result.error
            try:
                found = prompt_logprobs(logits[done : done + count], row.prompt_targets, row.num_prompt_logprobs)
            except NonFiniteLogits as problem:
                error = error or problem
            results[i] = result._replace(prompt_logprobs=tuple(found), error=error)
            done += count

    def close(self) -> None:
        """Drop the cache and give the model back with its own attention."""
        self._masks.close()
        self._model.close()
        self._threads.restore()


def _without_token(row: PlannedRow, outcome: MaskOutcome) -> RowResult:
    if isinstance(outcome, GuideFailed):
        return RowResult(row.request_id, error=outcome)
    return RowResult(row.request_id, is_complete=outcome == "complete", is_late=outcome == "late")
