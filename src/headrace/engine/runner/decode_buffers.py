"""What a decode reads and writes on the device: tensors that stay where they are, so that a graph can be replayed.

::

    host     rows of the plan ─► DecodeRows (what differs) ─┬─ columns [4, rows], one copy a step
                                                            └─ entries of the block tables, where there are new ones
    device   columns, tables, last ─► ids, positions, slots, lengths ─► forward ─► logits, last

A row's token is read where the step before left it (`last`), or comes from the host. Rows beyond the plan's are
padding: of context 0 and slot -1, so that attention neither reads nor writes anything for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from headrace.engine.plan import PENDING, PlannedRow
from headrace.engine.runner.decode_rows import Change, DecodeRows, Placement
from headrace.model.attention.interface import AttentionBatch
from headrace.model.batch import StepInputs, to_device

_SOURCE, _TOKEN, _POSITION, _CONTEXT = range(4)


class DecodeBuffers:
    """Tensors of up to `max_rows` rows.

    Args:
        max_rows: rows of a step. num_columns: entries of a row of each group's block table. block_size: S.
        vocab_size: V. dtype: of the logits. device: of all.

    Attributes:
        last: int64 [max_rows], the outcome of each row of the step that was launched last, of whatever kind.
        logits: [max_rows, V] of the last decode.
    """

    def __init__(
        self,
        max_rows: int,
        num_columns: Sequence[int],
        block_size: int,
        vocab_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocate; MemoryError or RuntimeError when it does not fit."""
        self.last = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.logits = torch.zeros(max_rows, vocab_size, dtype=dtype, device=device)
        self._columns = torch.zeros(4, max_rows, dtype=torch.int64, device=device)
        self._tables = [torch.zeros(max_rows, columns, dtype=torch.int32, device=device) for columns in num_columns]
        self._query_start = torch.arange(max_rows + 1, dtype=torch.int32, device=device)
        self._block_size = block_size
        self._device = device

    @property
    def longest_context(self) -> int:
        """Tokens that a row of the tables has room for."""
        return min(table.shape[1] for table in self._tables) * self._block_size

    def write(self, rows: Sequence[PlannedRow], placement: Placement, mirror: DecodeRows, at: dict[str, int]) -> None:
        """Bring the device up to date with a plan's rows; `at` says where in `last` a PENDING token is."""
        columns = np.zeros(self._columns.shape, np.int64)
        placed = [rows[i] for i in placement.order]
        count = len(placed)
        columns[_SOURCE] = -1
        for k, row in enumerate(placed):
            token = row.token_ids[0]
            if token == PENDING:
                columns[_SOURCE, k] = at[row.request_id]
            else:
                columns[_TOKEN, k] = token
        columns[_POSITION, :count] = [row.start for row in placed]
        columns[_CONTEXT, :count] = columns[_POSITION, :count] + 1
        self._columns.copy_(to_device(columns, self._device))
        for group in range(len(self._tables)):
            self._write_table(group, [change for change in placement.changes if change.group == group], mirror)

    def write_padding(self) -> None:
        """Make every row padding: a step then reads and writes nothing of the cache."""
        self._columns.zero_()
        self._columns[_SOURCE] = -1

    def _write_table(self, group: int, changes: Sequence[Change], mirror: DecodeRows) -> None:
        if not changes:
            return
        table = self._tables[group]
        width = table.shape[1]
        where = np.concatenate([np.arange(c.row * width + c.first, c.row * width + c.stop) for c in changes])
        entries = to_device(np.stack((where, mirror.tables[group].reshape(-1)[where])), self._device)
        table.view(-1).index_copy_(0, entries[0], entries[1].int())

    def inputs(self, size: int, context_lens: list[int] | None = None) -> StepInputs:
        """The first `size` rows as a step's inputs, computed on the device out of what was written.

        Args:
            context_lens: what the host knows; None for a step that is recorded: then the longest that there may be.
        """
        source, token, position, context = self._columns[:, :size]
        pending = self.last.index_select(0, source.clamp(min=0)).clamp(min=0)
        ids = torch.where(source >= 0, pending, token)
        lens = [self.longest_context] * size if context_lens is None else context_lens
        batches = []
        for table in self._tables:
            block = table[:size].gather(1, (position // self._block_size)[:, None])[:, 0].long()
            slots = block * self._block_size + position % self._block_size
            batches.append(
                AttentionBatch(
                    query_lens=[1] * size,
                    context_lens=lens,
                    num_decodes=size,
                    query_start=self._query_start[: size + 1],
                    context_len=context.int(),
                    slot_mapping=torch.where(context > 0, slots, -1),
                    block_table=table[:size],
                    block_size=self._block_size,
                )
            )
        return StepInputs(ids[None], position[None], batches, list(range(size)))
