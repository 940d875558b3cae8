"""Which request sits in which row of the device's buffers, and what has changed there since the step before.

::

    step N       rows  a  b  c  d          b ends, e comes, d moves into no hole because there is none left
    step N + 1   rows  a  e  c  d          changed: all of row 1, and the blocks by which a, c and d have grown

Rows stay where they are from step to step, packed from 0, so that nearly nothing has to be written: a block a row every
`block_size` steps. What a row has is mirrored here; the device gets what differs. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.engine.plan import PlannedRow
from headrace.engine.sampling_params import SamplingParams

_MOST_SHARPNESS = float(np.finfo(np.float32).max)


class Change(NamedTuple):
    """Entries `first` to `stop` of a row of a group's block table, to be copied from the mirror."""

    group: int
    row: int
    first: int
    stop: int


class Placement(NamedTuple):
    """Where the rows of a plan are: `order[k]` is the place in the plan of what sits in row k."""

    order: list[int]
    changes: list[Change]


class DecodeRows:
    """The rows of single-token steps.

    Args:
        max_rows: at most so many. num_columns: entries of a row of each group's block table.
        vocab_size: V.

    Attributes:
        tables: mirror of the block tables, int32 [max_rows, columns] per group; 0 where a block was given back.
        draws: sharpness, top_k (V for all), top_p and min_p of each row, float64 [4, max_rows].
        seeds: uint64 [max_rows]. is_greedy: bool [max_rows].
    """

    def __init__(self, max_rows: int, num_columns: Sequence[int], vocab_size: int) -> None:
        """Every row is free."""
        self.tables: list[NDArray[np.int32]] = [np.zeros((max_rows, columns), np.int32) for columns in num_columns]
        self.draws = np.ones((4, max_rows))
        self.seeds = np.zeros(max_rows, np.uint64)
        self.is_greedy = np.ones(max_rows, np.bool_)
        self._vocab_size = vocab_size
        self._row_of: dict[str, int] = {}
        self._owner: list[str | None] = [None] * max_rows
        # The tables' own objects: another request of the same id, or the same one after a preemption, has others.
        self._known: list[tuple[Sequence[int], ...]] = [()] * max_rows
        self._lengths = [[0] * len(num_columns) for _ in range(max_rows)]

    def place(self, rows: Sequence[PlannedRow]) -> Placement:
        """Give every row of a plan its place, at most `max_rows` of them; the mirror is up to date afterwards."""
        count = len(rows)
        order = [-1] * count
        homeless = []
        for i, row in enumerate(rows):
            at = self._row_of.get(row.request_id, count)
            if at < count and self._known[at] is row.block_tables:
                order[at] = i
            else:
                homeless.append(i)
        if homeless:
            free = (k for k, i in enumerate(order) if i < 0)
            for i, k in zip(homeless, free, strict=False):
                order[k] = i
                self._move_in(k, rows[i])
        changes: list[Change] = []
        for k, i in enumerate(order):
            self._grow(k, rows[i].block_tables, changes)
        return Placement(order, changes)

    def forget(self) -> None:
        """The device may not have what is mirrored here (a step could not be launched): all is written anew."""
        self._row_of.clear()

    def _move_in(self, k: int, row: PlannedRow) -> None:
        owner = self._owner[k]
        if owner is not None and self._row_of.get(owner) == k:
            del self._row_of[owner]
        self._owner[k] = row.request_id
        self._row_of[row.request_id] = k
        self._known[k] = row.block_tables
        self._lengths[k] = [0] * len(self.tables)
        if row.sampling is not None:
            self._set_draws(k, row.sampling.params)
            self.seeds[k] = row.sampling.seed

    def _set_draws(self, k: int, params: SamplingParams) -> None:
        self.is_greedy[k] = params.greedy
        sharpness = 1.0 if params.greedy else min(1.0 / params.temperature, _MOST_SHARPNESS)
        top_k = min(params.top_k, self._vocab_size) or self._vocab_size
        self.draws[:, k] = (sharpness, top_k, params.top_p, params.min_p)

    def _grow(self, k: int, tables: tuple[Sequence[int], ...], changes: list[Change]) -> None:
        lengths = self._lengths[k]
        for group, table in enumerate(tables):
            known = lengths[group]
            if len(table) > known:
                np.maximum(table[known:], 0, out=self.tables[group][k, known : len(table)], casting="unsafe")
                changes.append(Change(group, k, known, len(table)))
                lengths[group] = len(table)
