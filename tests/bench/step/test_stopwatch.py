"""Time goes to the innermost part, and to no part twice."""

from __future__ import annotations

import pytest

from headrace.bench.step.stopwatch import Cost, Stopwatch


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> float:
        self.now += seconds
        return seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stopwatch(clock: Clock) -> Stopwatch:
    made = Stopwatch(clock, lambda cost: max(cost.num_bytes / 10, cost.operations / 100))
    made.running = True
    return made


def test_what_is_called_inside_is_taken_off_the_outer_part(clock: Clock, stopwatch: Stopwatch) -> None:
    inner = stopwatch.around(clock.work, "inner")

    def body() -> None:
        clock.work(1.0)
        inner(2.0)
        clock.work(4.0)
        inner(8.0)

    stopwatch.around(body, "outer")()
    parts = stopwatch.take()
    assert {name: (part.seconds, part.calls) for name, part in parts.items()} == {"outer": (5.0, 1), "inner": (10.0, 2)}


def test_time_between_calls_belongs_to_nobody(clock: Clock, stopwatch: Stopwatch) -> None:
    timed = stopwatch.around(clock.work, "a")
    timed(1.0)
    clock.work(100.0)
    timed(1.0)
    assert stopwatch.take()["a"].seconds == 2.0


def test_a_call_that_raises_is_closed(clock: Clock, stopwatch: Stopwatch) -> None:
    def fails() -> None:
        clock.work(3.0)
        raise ValueError("no")

    timed = stopwatch.around(fails, "a")
    with pytest.raises(ValueError, match="no"):
        timed()
    stopwatch.around(clock.work, "b")(1.0)
    assert {name: part.seconds for name, part in stopwatch.take().items()} == {"a": 3.0, "b": 1.0}


def test_results_and_arguments_pass_through(clock: Clock, stopwatch: Stopwatch) -> None:
    timed = stopwatch.around(clock.work, lambda seconds: f"work of {seconds:.0f} s")
    assert timed(seconds=7.0) == 7.0
    assert list(stopwatch.take()) == ["work of 7 s"]


def test_nothing_is_counted_while_it_does_not_run(clock: Clock, stopwatch: Stopwatch) -> None:
    stopwatch.running = False
    assert stopwatch.around(clock.work, "a")(1.0) == 1.0
    assert stopwatch.take() == {}


def test_limits_add_up_call_by_call(clock: Clock, stopwatch: Stopwatch) -> None:
    costs = iter([Cost(num_bytes=20.0), Cost(operations=500.0)])
    timed = stopwatch.around(clock.work, "a", lambda _: next(costs))
    timed(1.0)
    timed(1.0)
    part = stopwatch.take()["a"]
    assert part.cost == Cost(20.0, 500.0)
    assert part.limit_s == 2.0 + 5.0  # one waits for memory, the other for arithmetic


def test_what_was_measured_elsewhere_joins(stopwatch: Stopwatch) -> None:
    stopwatch.charge("schedule", 0.5)
    stopwatch.charge("attention", 0.0, Cost(num_bytes=30.0))
    parts = stopwatch.take()
    assert parts["schedule"].seconds == 0.5
    assert parts["attention"].limit_s == 3.0
    assert stopwatch.take() == {}
