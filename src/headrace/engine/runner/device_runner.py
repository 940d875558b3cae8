"""Executes plans on a device that computes while the host goes on: a launch waits for nothing that the device does.

::

    launch   rows ─► buffers on the device ─► graph, or forward pass ─► sampling ─► copy to the host ─ event
    collect                                                                              wait for the event ─► results

Steps of single tokens alone run on persistent buffers, on a captured graph once there is one; those with chunks of
prompts are packed anew. A row whose token needs the host in between (a guide's mask, log-probabilities, those of a
prompt) makes its step wait: it is executed as by `TorchRunner`, before `launch` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch

from headrace.engine.plan import PlannedRow, RowResult, SamplingRow, StepPlan, StepResult
from headrace.engine.resilience import is_out_of_memory
from headrace.engine.runner.decode_buffers import DecodeBuffers
from headrace.engine.runner.decode_rows import DecodeRows
from headrace.engine.runner.device_draws import DeviceDraws
from headrace.engine.runner.device_sampling import is_special, sample_special
from headrace.engine.runner.draw_settings import DrawSettings
from headrace.engine.runner.draws import uniforms
from headrace.engine.runner.graphs import DecodeGraphs, GraphFactory, graph_sizes
from headrace.engine.runner.read_back import OnItsWay, ReadBack
from headrace.engine.runner.sampler import NON_FINITE, Sampler, outcome_error, raw_outcomes
from headrace.engine.runner.torch_runner import TorchRunner
from headrace.errors import NonFiniteLogits
from headrace.model.attention.interface import AttentionBatch
from headrace.model.batch import build_inputs, to_device
from headrace.model.paged_model import PagedModel


class _Launched:
    """A step under way: where each row's outcome will be, or the result, where it was waited for."""

    __slots__ = ("outcomes", "plan", "result", "row_of")

    def __init__(self, plan: StepPlan, outcomes: OnItsWay | None, row_of: Sequence[int], result: StepResult | None):
        self.plan = plan
        self.outcomes = outcomes
        self.row_of = row_of  # by place in the plan
        self.result = result


class DeviceRunner(TorchRunner):
    """One device, one model.

    Args:
        model: with its cache allocated. block_size: tokens per block. max_num_seqs: rows of a step, at most.
        max_model_len: tokens of a request, at most. graphs: how to capture; None runs every step without.
        free_memory: gives back what the allocator keeps for later. draws: those of the device, unless given.
    """

    def __init__(
        self,
        model: PagedModel,
        block_size: int,
        max_num_seqs: int,
        max_model_len: int,
        graphs: GraphFactory | None = None,
        free_memory: Callable[[], None] = torch.cuda.empty_cache,
        draws: DeviceDraws | None = None,
    ) -> None:
        """Allocate the buffers; MemoryError or RuntimeError when they do not fit."""
        super().__init__(model, block_size)
        num_columns = [-(-max_model_len // block_size)] * model.context.num_groups
        self._rows = DecodeRows(max_num_seqs, num_columns, model.vocab_size)
        self._buffers = DecodeBuffers(
            max_num_seqs, num_columns, block_size, model.vocab_size, model.loaded.dtype, self._device
        )
        self._read_back = ReadBack(max_num_seqs, self._device)
        self._free_memory = free_memory
        self._draws = DeviceDraws.where_there_are(self._device) if draws is None else draws
        self._sampler = Sampler(model.vocab_size, self._device, model.kernels, self._draws)
        self._num_short = 0  # launches in a row that did not fit the memory
        self._row_in_last: dict[str, int] = {}
        self._latest: _Launched | None = None
        self._batches: dict[int, list[AttentionBatch]] = {}  # of each size, for the host values in them
        self._graphs: DecodeGraphs | None = None
        if graphs is not None and hasattr(model.context.implementation, "graph_values"):
            self._graphs = DecodeGraphs(graph_sizes(max_num_seqs), graphs, self._decode_all, self._host_values)

    # ---------------------------------------------------------------- the runner's interface

    def execute(self, plan: StepPlan) -> StepResult:
        """Launch, and wait."""
        return self.collect(self.launch(plan))

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> _Launched:
        """Begin a step. It is waited for here only where a row needs the host in between."""
        if self._num_short:  # here, because what the step that failed had was still held when it raised
            self._make_room()
        try:
            if any(map(_needs_host, plan.rows)):
                self._latest = self._execute_now(plan)
            else:
                self._latest = self._begin(plan)
        except BaseException as error:
            self._rows.forget()
            self._num_short += isinstance(error, Exception) and is_out_of_memory(error)
            raise
        self._num_short = 0
        return self._latest

    def _make_room(self) -> None:
        """After a step that did not fit: give back what torch keeps; after two, what the graphs keep too."""
        if self._num_short > 1 and self._graphs is not None:
            self._graphs.clear()
        self._free_memory()

    def collect(self, handle: _Launched) -> StepResult:
        """Wait for a step's tokens."""
        if handle.result is None:
            assert handle.outcomes is not None
            outcomes = handle.outcomes.wait()
            rows = zip(handle.plan.rows, handle.row_of, strict=True)
            handle.result = StepResult(tuple(_row_result(row, outcomes[k]) for row, k in rows))
        return handle.result

    def prepare(self) -> bool:
        """Capture a graph, if one is missing; nothing is under way. Whether there may be more to prepare."""
        if self._graphs is None:
            return False
        with torch.inference_mode():
            self._buffers.write_padding()
        self._rows.forget()
        return self._graphs.capture_one()

    def close(self) -> None:
        """As `TorchRunner.close`; graphs go first, because they hold the model's tensors."""
        if self._graphs is not None:
            self._graphs.clear()
        super().close()

    # ---------------------------------------------------------------- one step

    def _begin(self, plan: StepPlan) -> _Launched:
        rows = plan.rows
        if plan.blocks_to_zero:
            self._model.context.zero_blocks(plan.blocks_to_zero, self._device)
        if all(len(row.token_ids) == 1 and row.sampling is not None for row in rows):
            order = self._decode(rows)
        else:
            order = list(range(len(rows)))
            self._pack(rows)
        row_of = [0] * len(rows)
        for k, i in enumerate(order):
            row_of[i] = k
        self._row_in_last = {row.request_id: k for row, k in zip(rows, row_of, strict=True) if row.sampling is not None}
        return _Launched(plan, self._read_back.begin(self._buffers.last[: len(rows)]), row_of, None)

    def _decode(self, rows: Sequence[PlannedRow]) -> list[int]:
        """One token a row, on the persistent buffers; returns which row of the plan is in which row of them."""
        placement = self._rows.place(rows)
        self._buffers.write(rows, placement, self._rows, self._row_in_last)
        found = None if self._graphs is None else self._graphs.find(len(rows))
        if found is None:
            self._decode_step(len(rows), [rows[i].start + 1 for i in placement.order])
        else:
            found[1].replay()
        special = [k for k, i in enumerate(placement.order) if (s := rows[i].sampling) is not None and is_special(s)]
        if special:
            samplings = [_sampling(rows[placement.order[k]]) for k in special]
            at = np.array(special)
            table = np.empty((5, len(special), 1))
            table[0, :, 0] = uniforms(self._rows.seeds[at], [sampling.position for sampling in samplings])
            table[1:, :, 0] = self._rows.draws[:, at]
            settings = DrawSettings.from_table(table, self._device)
            sample_special(
                self._buffers.logits[: len(rows)], self._buffers.last, special, samplings, settings, self._draws
            )
        return placement.order

    def _decode_all(self, size: int) -> None:
        """What a graph records."""
        with torch.inference_mode():
            self._decode_step(size, None)

    def _decode_step(self, size: int, context_lens: list[int] | None) -> None:
        buffers = self._buffers
        logits = self._model.forward(buffers.inputs(size, context_lens), None)
        buffers.logits[:size].copy_(logits)
        buffers.last[:size].copy_(raw_outcomes(logits))

    def _pack(self, rows: Sequence[PlannedRow]) -> None:
        """Chunks of prompts and single tokens, packed for this step alone."""
        inputs = build_inputs(rows, self._model.context.num_groups, self._block_size, self._device)
        pending = [i for i, row in enumerate(rows) if row.is_pending]  # rows of one token come first: row i is token i
        if pending:
            table = np.array([pending, [self._row_in_last[rows[i].request_id] for i in pending]])
            at, source = to_device(table, self._device)
            inputs.input_ids[0].index_copy_(0, at, self._buffers.last.index_select(0, source).clamp_(min=0))
        keep = to_device(np.array(inputs.last_tokens), self._device)
        logits = self._model.forward(inputs, keep)
        outcomes = raw_outcomes(logits)
        special = [i for i, row in enumerate(rows) if row.sampling is not None and is_special(row.sampling)]
        if special:
            samplings = [_sampling(rows[i]) for i in special]
            settings = DrawSettings.of(samplings, self.vocab_size, self._device)
            sample_special(logits, outcomes, special, samplings, settings, self._draws)
        self._buffers.last[: len(rows)].copy_(outcomes)

    def _execute_now(self, plan: StepPlan) -> _Launched:
        """As `TorchRunner`, with what the step before sampled known to the host."""
        if any(row.is_pending for row in plan.rows):
            assert self._latest is not None
            self._last.note(self.collect(self._latest))
            plan = self._last.known(plan)
        result = super().execute(plan)
        tokens = np.array([NON_FINITE if row.token_id is None else row.token_id for row in result.rows])
        self._buffers.last[: len(tokens)].copy_(to_device(tokens, self._device))
        self._row_in_last = {row.request_id: i for i, row in enumerate(result.rows)}
        return _Launched(plan, None, range(len(plan.rows)), result)

    def _host_values(self, size: int) -> Hashable:
        batches = self._batches.get(size)
        if batches is None:
            batches = self._batches[size] = self._buffers.inputs(size).batches
        implementation: Any = self._model.context.implementation
        values = tuple(implementation.graph_values(batch) for batch in batches)
        return None if None in values else values


def _needs_host(row: PlannedRow) -> bool:
    sampling = row.sampling
    if row.prompt_targets:
        return True
    return sampling is not None and (sampling.guide is not None or sampling.params.logprobs is not None)


def _sampling(row: PlannedRow) -> SamplingRow:
    assert row.sampling is not None
    return row.sampling


def _row_result(row: PlannedRow, outcome: int) -> RowResult:
    if outcome >= 0:
        return RowResult(row.request_id, None if row.sampling is None else outcome)
    if row.sampling is None:
        end = row.start + len(row.token_ids)
        error = NonFiniteLogits(f"the model gave NaN or infinity in the logits for position {end}")
        return RowResult(row.request_id, error=error)
    return RowResult(row.request_id, error=outcome_error(outcome, row.sampling))
