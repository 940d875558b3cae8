"""Rows keep their places, and what is written to the device is exactly what differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.plan import PlannedRow, SamplingRow
from headrace.engine.runner.decode_rows import DecodeRows
from headrace.engine.sampling_params import SamplingParams

COLUMNS = (12, 12)


def _row(name: str, tables: tuple[list[int], ...], seed: int = 0, **params: float) -> PlannedRow:
    sampling = SamplingRow(SamplingParams(**params), seed, 5, [1], [2])  # type: ignore[arg-type]
    return PlannedRow(name, [7], 4, tables, sampling)


class Device:
    """What the device has: entries arrive by changes alone."""

    def __init__(self, max_rows: int) -> None:
        self.rows = DecodeRows(max_rows, COLUMNS, vocab_size=50)
        self.tables = [np.full((max_rows, columns), -9) for columns in COLUMNS]
        self.num_written = 0

    def place(self, rows: list[PlannedRow]) -> list[int]:
        placement = self.rows.place(rows)
        for group, row, first, stop in placement.changes:
            self.tables[group][row, first:stop] = self.rows.tables[group][row, first:stop]
            self.num_written += stop - first
        assert sorted(placement.order) == list(range(len(rows)))
        for k, i in enumerate(placement.order):
            for group, table in enumerate(rows[i].block_tables):
                assert self.tables[group][k, : len(table)].tolist() == [max(block, 0) for block in table]
            assert self.rows.seeds[k] == rows[i].sampling.seed
        return placement.order


@given(st.data())
def test_the_device_has_the_tables_of_every_plan(data: st.DataObject) -> None:
    device = Device(max_rows=6)
    live: dict[str, PlannedRow] = {}
    block, born = 0, 0
    for _ in range(data.draw(st.integers(1, 15))):
        for name in list(live):
            fate = data.draw(st.sampled_from(["stay", "stay", "grow", "leave", "again"]))
            if fate == "leave":
                del live[name]
            elif fate == "grow" and len(live[name].block_tables[0]) < COLUMNS[0]:
                for table in live[name].block_tables:
                    table.append(block)
                    block += 1
            elif fate == "again":  # the same id with other blocks: after a preemption, or another request's
                live[name] = _row(name, ([block], [block + 1]), seed=block)
                block += 2
        while len(live) < data.draw(st.integers(1, 6)):
            live[f"r{born}"] = _row(f"r{born}", ([block, block + 1], [-1, block]), seed=born)
            born, block = born + 1, block + 2
        rows = data.draw(st.permutations(list(live.values())))
        if data.draw(st.booleans()):
            rows = rows[: max(1, len(rows) // 2)]  # not every request has a row in every step
        if data.draw(st.integers(0, 9)) == 0:
            device.rows.forget()
        device.place(list(rows))


def test_nothing_is_written_for_rows_that_stay_as_they_are() -> None:
    device = Device(max_rows=4)
    rows = [_row(name, ([i, i + 1], [i])) for i, name in enumerate("abcd")]
    device.place(rows)
    written = device.num_written
    assert device.place(rows[::-1]) == [3, 2, 1, 0], "in their places, whatever the order of the plan"
    assert device.num_written == written
    rows[2].block_tables[0].append(9)
    device.place(rows)
    assert device.num_written == written + 1


def test_the_last_row_moves_into_the_place_of_one_that_left() -> None:
    device = Device(max_rows=4)
    rows = [_row(name, ([i], [i])) for i, name in enumerate("abcd")]
    device.place(rows)
    left = [rows[0], rows[2], rows[3]]
    assert device.place(left) == [0, 2, 1]
    assert device.place(left) == [0, 2, 1]


@pytest.mark.parametrize(("top_k", "kept"), [(0, 50), (7, 7), (99, 50)])
def test_settings_of_draws_are_mirrored(top_k: int, kept: int) -> None:
    rows = DecodeRows(2, COLUMNS, vocab_size=50)
    rows.place([_row("a", ([1], [2]), 3, temperature=0.5, top_k=top_k, top_p=0.9, min_p=0.1)])
    assert rows.draws[:, 0].tolist() == [2.0, kept, 0.9, 0.1]
    assert not rows.is_greedy[0]
