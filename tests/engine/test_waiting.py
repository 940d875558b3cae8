"""Who waits, in which order, and for how long at most."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.request import Request
from headrace.engine.sampling_params import SamplingParams
from headrace.engine.scheduler.waiting import WaitingQueue
from headrace.errors import QueueTimeout
from tests.engine.simulation import Simulation


def _request(order: int, priority: int, limit: float | None, arrival: float) -> Request:
    request = Request(
        f"r{order}", [1] * (1 + order % 5), SamplingParams(), 0, frozenset(), 100, arrival,
        queue_timeout_s=limit, priority=priority,
    )  # fmt: skip
    request.order = order
    return request


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "preempt", "remove", "time"]), st.integers(-1, 2), st.integers(0, 30)),
        max_size=80,
    )
)
def test_the_queue_against_a_sorted_list(actions: list[tuple[str, int, int]]) -> None:
    queue, model, started, now = WaitingQueue(), [], [], 0.0
    for order, (action, priority, number) in enumerate(actions):
        if action == "add":
            request = _request(order, priority, None if number % 2 else number / 2, now)
            queue.add(request)
            model.append(request)
        elif action == "remove" and model:
            request = model.pop(number % len(model))
            queue.remove(request)
            started.append(request)
        elif action == "preempt" and started:
            request = started.pop(number % len(started))
            request.num_preemptions += 1
            queue.add_preempted(request)
            model.append(request)
        elif action == "time":
            now += number / 4
            late = [
                r for r in model
                if r.num_preemptions == 0 and r.queue_timeout_s is not None and r.arrival_s + r.queue_timeout_s < now
            ]  # fmt: skip
            assert sorted(r.order for r in queue.overdue(now)) == sorted(r.order for r in late)
            for request in late:
                queue.remove(request)
                model.remove(request)
        expected = sorted(model, key=lambda r: (r.priority, r.num_preemptions == 0, r.order))
        assert list(queue) == expected
        assert len(queue) == len(model)
        assert queue.num_tokens == sum(r.num_tokens for r in model)


def test_deadlines_of_those_that_started_do_not_pile_up() -> None:
    queue = WaitingQueue()
    for i in range(10_000):
        request = _request(i, 0, 3600.0, 0.0)
        queue.add(request)
        queue.remove(request)
        assert queue.overdue(1.0) == []
    assert len(queue._deadlines) < 200


def test_lower_priorities_start_first_and_equal_ones_by_arrival() -> None:
    simulation = Simulation(max_seqs=1, block_size=16)
    order = [3, 0, 3, -2, 0, 1, -2]
    for priority in order:
        simulation.add([1, 2], max_tokens=3, ignore_eos=True, priority=priority)
    simulation.run()
    started = sorted(simulation.requests.values(), key=lambda r: r.scheduled_s)
    assert [(r.priority, r.order) for r in started] == sorted((p, i) for i, p in enumerate(order))


def test_the_least_important_lose_their_blocks_and_the_oldest_never_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is the least important of all: it keeps its blocks all the same (law 5)."""
    monkeypatch.setattr("headrace.engine.scheduler.admission.GROWTH_HORIZON_TOKENS", 0)
    simulation = Simulation(num_blocks=30, block_size=4, max_tokens=32, max_seqs=4, safety_margin=0.0)
    priorities = [9, 1, 5, 3]
    for priority in priorities:
        simulation.add([1, 2, 3, priority], max_tokens=70, ignore_eos=True, priority=priority)
    firsts: list[int] = []
    while simulation.scheduler.has_requests:
        simulation.step()  # asserts who was preempted, too
        lost = [r.priority for r in simulation.requests.values() if r.num_preemptions]
        firsts += [priority for priority in lost if priority not in firsts]
    simulation.check_empty()
    simulation.check_tokens()
    assert firsts[:2] == [5, 3]
    assert 9 not in firsts


@pytest.mark.parametrize("seed", range(3))
def test_priorities_under_pressure_keep_the_books(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.scheduler.admission.GROWTH_HORIZON_TOKENS", 0)
    rng = random.Random(seed)
    simulation = Simulation(num_blocks=60, block_size=2, max_tokens=16, max_seqs=8, safety_margin=0.0)
    for i in range(30):
        simulation.add(
            [1 + (i * j) % 40 for j in range(rng.randint(1, 40))],
            max_tokens=rng.randint(10, 60), ignore_eos=True, priority=rng.randint(-2, 2),
            queue_timeout_s=rng.choice([None, None, 20.0, 200.0]),
        )  # fmt: skip
        for _ in range(rng.randrange(4)):
            simulation.step()
    simulation.run()
    simulation.check_tokens()
    errors = [output.error for output in simulation.ended.values() if output.error is not None]
    assert all(isinstance(error, QueueTimeout) for error in errors)
    assert simulation.scheduler.counters.num_preemptions > 5


def test_who_waits_too_long_ends_with_the_numbers() -> None:
    simulation = Simulation(max_seqs=1, block_size=16)  # a step takes a second
    simulation.add([1], max_tokens=50, ignore_eos=True)
    simulation.add([2], max_tokens=5, queue_timeout_s=9.5)
    simulation.add([3], max_tokens=5, ignore_eos=True, queue_timeout_s=60.0)
    while "r1" not in simulation.ended:
        simulation.step()
    output = simulation.ended["r1"]
    assert isinstance(output.error, QueueTimeout)
    assert "has waited 10.0 s for its turn, its limit is 9.5 s" in str(output.error)
    assert output.finish_reason == "error"
    assert (output.timing.queued_s, output.timing.e2e_s) == (None, 10.0)
    simulation.run()
    assert simulation.ended["r2"].finish_reason == "length"
    assert simulation.scheduler.counters.num_queue_timeouts == 1


def test_a_request_that_was_started_in_time_may_take_longer() -> None:
    simulation = Simulation(num_blocks=12, block_size=4, max_seqs=4, safety_margin=0.0)
    for i in range(3):
        simulation.add([1, 2, 3, i], max_tokens=40, ignore_eos=True, queue_timeout_s=2.0, priority=0)
    simulation.run()
    started = [request for request in simulation.requests.values() if request.scheduled_s is not None]
    assert {simulation.ended[request.request_id].finish_reason for request in started} == {"length"}


def test_ten_thousand_priorities_do_not_slow_the_steps() -> None:
    simulation = Simulation(num_blocks=4000, block_size=32, max_tokens=512, max_seqs=64, checking=False)
    for i in range(10_000):
        simulation.add([1 + i % 40], max_tokens=1, priority=(i * 7919) % 10_000, queue_timeout_s=1e6)
    simulation.run()
    assert simulation.scheduler.counters.num_steps < 10_000 / 64 * 1.2
