"""Which graph a batch runs on, what is captured when, and what becomes of one that cannot be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headrace.engine.runner.graphs import DecodeGraphs, graph_sizes
from tests.device.capturable import Recorded


class Fake:
    """Notes what is captured; `fails` says from which size on memory is short."""

    def __init__(self, max_rows: int = 20, fails: int = 10_000) -> None:
        self.captured: list[int] = []
        self.value: object = "v"
        self.fails = fails
        self.graphs = DecodeGraphs(graph_sizes(max_rows), self._capture, self._step, lambda size: self.value)
        self._size = 0

    def _step(self, size: int) -> None:
        self._size = size

    def _capture(self, function: Callable[[], None]) -> Recorded:
        graph = Recorded(function)
        if self._size >= self.fails:
            raise MemoryError("CUDA out of memory")
        self.captured.append(self._size)
        return graph

    def capture_all(self) -> None:
        while self.graphs.capture_one():
            pass


@pytest.mark.parametrize(
    ("max_rows", "sizes"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (8, [1, 2, 4, 8]),
        (20, [1, 2, 4, 8, 16, 20]),
        (256, [1, 2, 4, *range(8, 257, 8)]),
    ],
)
def test_sizes(max_rows: int, sizes: list[int]) -> None:
    assert graph_sizes(max_rows) == sizes


def test_small_ones_are_captured_first_and_those_that_were_missed_before_them() -> None:
    fake = Fake()
    assert fake.graphs.find(11) is None
    assert fake.captured == [], "never on the way of a step"
    fake.capture_all()
    assert fake.captured == [16, 1, 2, 4, 8, 20]
    assert not fake.graphs.capture_one()


def test_a_batch_runs_on_the_least_graph_that_holds_it() -> None:
    fake = Fake()
    fake.capture_all()
    assert [fake.graphs.find(n)[0] for n in (1, 2, 3, 5, 8, 9, 17, 20)] == [1, 2, 4, 8, 8, 16, 20, 20]
    assert fake.graphs.find(21) is None


def test_a_replay_does_what_was_recorded_again() -> None:
    fake = Fake()
    fake.capture_all()
    size, graph = fake.graphs.find(3)
    fake._size = 0
    graph.replay()
    assert fake._size == size == 4


def test_another_value_of_the_host_is_another_graph() -> None:
    fake = Fake(max_rows=2)
    fake.capture_all()
    fake.value = "w"
    assert fake.graphs.find(1) is None
    fake.capture_all()
    assert fake.captured == [1, 2, 1, 2]
    fake.value = "v"
    assert fake.graphs.find(1) is not None
    assert fake.graphs.num_captured == 4


def test_what_does_not_fit_is_not_tried_again_nor_what_is_larger() -> None:
    fake = Fake(fails=8)
    fake.capture_all()
    assert fake.captured == [1, 2, 4]
    assert fake.graphs.find(4) is not None
    assert fake.graphs.find(5) is None
    assert not fake.graphs.capture_one()


def test_without_host_values_nothing_is_captured() -> None:
    fake = Fake()
    fake.value = None
    assert not fake.graphs.capture_one()
    assert fake.graphs.find(1) is None
    assert fake.captured == []
