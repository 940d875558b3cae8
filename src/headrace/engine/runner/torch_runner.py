"""Executes plans on a transformers model over the paged cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from headrace.engine.outputs import TokenLogprobs
from headrace.engine.plan import PlannedRow, RowResult, StepPlan, StepResult
from headrace.engine.runner.argmax import argmax
from headrace.engine.runner.logprobs import prompt_logprobs
from headrace.engine.runner.sampler import Sampler
from headrace.errors import NonFiniteLogits
from headrace.model.batch import build_inputs
from headrace.model.paged_model import PagedModel


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
        self._sampler = Sampler(model.vocab_size, self._device)

    @property
    def vocab_size(self) -> int:
        """Columns of the model's logits."""
        return self._model.vocab_size

    def execute(self, plan: StepPlan) -> StepResult:
        """One forward pass and one sampling over all rows of the plan.

        A chunk that ends before its prompt does gives logits too, of its last token: they are only looked at. NaN in
        its keys and values has reached them, so the row fails before its blocks are shared, or lent to another.
        """
        if plan.blocks_to_zero:
            self._model.context.zero_blocks(plan.blocks_to_zero, self._device)
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
        self._sample(plan.rows, sampled, logits[: len(sampled)], results)
        self._look_at(plan.rows, unfinished, logits[len(sampled) : len(plan.rows)], results)
        self._prompt_logprobs(plan.rows, targets, logits[len(plan.rows) :], results)
        return StepResult(tuple(results))

    def _sample(
        self, rows: Sequence[PlannedRow], sampled: Sequence[int], logits: torch.Tensor, results: list[RowResult]
    ) -> None:
        settings = [row.sampling for row in rows if row.sampling is not None]
        for i, chosen in zip(sampled, self._sampler.sample(logits, settings), strict=True):
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
            results[i] = RowResult(row.request_id, result.token_id, result.logprobs, tuple(found), error)
            done += count

    def close(self) -> None:
        """Drop the cache and give the model back with its own attention."""
        self._model.close()
