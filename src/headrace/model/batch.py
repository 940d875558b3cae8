"""From rows of token ids and block tables to the tensors of one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.attention.interface import AttentionBatch


class BatchRow(Protocol):
    """What the model needs of a row; a planned row of the engine is one."""

    @property
    def token_ids(self) -> Sequence[int]:
        """Tokens to compute."""
        ...

    @property
    def start(self) -> int:
        """Position of the first of them."""
        ...

    @property
    def block_tables(self) -> tuple[Sequence[int], ...]:
        """Per cache group; entry i holds positions [i·S, (i+1)·S)."""
        ...


@dataclass(frozen=True, slots=True)
class StepInputs:
    """Tensors of one step, all rows packed one after the other.

    Attributes:
        input_ids: int64 [1, T]. position_ids: int64 [1, T].
        batches: attention's view, one per cache group.
        last_tokens: index into T of each row's last token, [B] on the host.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    batches: list[AttentionBatch]
    last_tokens: list[int]


def build_inputs(rows: Sequence[BatchRow], num_groups: int, block_size: int, device: torch.device) -> StepInputs:
    """Pack `rows`; rows with one token must come first."""
    lens = [len(row.token_ids) for row in rows]
    starts = np.concatenate(([0], np.cumsum(lens)))
    ids = np.fromiter((token for row in rows for token in row.token_ids), np.int64, int(starts[-1]))
    # Position of every token: its row's start plus its place within the row.
    offsets = np.repeat(np.asarray([row.start for row in rows]) - starts[:-1], lens)
    positions = np.arange(starts[-1]) + offsets
    row_of_token = np.repeat(np.arange(len(rows)), lens)
    context_lens = [row.start + n for row, n in zip(rows, lens, strict=True)]
    batches = []
    for group in range(num_groups):
        table = _padded([row.block_tables[group] for row in rows])
        slots = table[row_of_token, positions // block_size].astype(np.int64) * block_size + positions % block_size
        batches.append(
            AttentionBatch(
                query_lens=lens,
                context_lens=context_lens,
                num_decodes=sum(n == 1 for n in lens),
                query_start=to_device(starts.astype(np.int32), device),
                context_len=to_device(np.asarray(context_lens, np.int32), device),
                slot_mapping=to_device(slots, device),
                block_table=to_device(table, device),
                block_size=block_size,
            )
        )
    return StepInputs(
        to_device(ids, device)[None], to_device(positions, device)[None], batches, (starts[1:] - 1).tolist()
    )


def _padded(tables: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """[B, longest table]; 0 for padding and for blocks that were given back, which nothing reads unmasked."""
    padded = np.zeros((len(tables), max(map(len, tables))), np.int32)
    for i, table in enumerate(tables):
        padded[i, : len(table)] = table
    return np.maximum(padded, 0)


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array on a device, without waiting for what that is doing: a copy from ordinary memory would."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
