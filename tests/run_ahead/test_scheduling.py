"""Steps that are planned and launched while the one before runs: the whole book of the scheduler holds as without.

The tests of the scheduler that do not count steps one by one are run once more, ahead.
"""

from __future__ import annotations

from typing import Any

import pytest

from headrace.engine.plan import PENDING, StepPlan
from headrace.errors import RequestFailed
from tests.engine.checking_runner import InjectedError
from tests.engine.simulation import Simulation
from tests.engine.test_scheduler_properties import (  # noqa: F401
    test_a_fate_meets_its_own_request_alone,
    test_a_fate_meets_its_own_request_alone_at_length,
    test_everything_finishes_with_its_own_tokens,
    test_prefix_caching_and_pressure_change_no_token,
)
from tests.engine.test_scheduling import (  # noqa: F401
    test_a_prefix_shared_by_32_is_computed_once_when_they_arrive_together,
    test_a_quarter_of_the_cache_finishes_everything_and_recomputes_little,
    test_a_sliding_window_costs_no_concurrency_for_tokens_that_it_will_have_dropped,
    test_many_preemptions_keep_their_books,
    test_nobody_starves_under_a_stream_of_short_requests,
    test_recomputed_tokens_are_exactly_those_that_were_computed_twice,
    test_requests_start_in_the_order_of_arrival,
)

pytestmark = pytest.mark.slow  # the same tests run without it in the fast part


def _watched(**options: Any) -> tuple[Simulation, list[tuple[str, Any]]]:
    """A simulation, and what its runner is asked, in order."""
    simulation = Simulation(**options)
    events: list[tuple[str, Any]] = []
    launch, collect = simulation.runner.launch, simulation.runner.collect

    def launched(plan: StepPlan) -> Any:
        handle = launch(plan)
        events.append(("launch", plan))
        return handle, len(events)

    def collected(handle: Any) -> Any:
        events.append(("collect", handle[1]))
        return collect(handle[0])

    simulation.runner.launch, simulation.runner.collect = launched, collected  # type: ignore[method-assign]
    return simulation, events


def test_each_step_is_launched_before_the_one_before_is_collected() -> None:
    simulation, events = _watched()
    simulation.add([1, 2, 3], max_tokens=4, ignore_eos=True)
    simulation.run()
    assert [kind for kind, _ in events] == [
        "launch",
        "launch",
        "collect",
        "launch",
        "collect",
        "launch",
        *["collect"] * 2,
    ]
    tokens = [plan.rows[0].token_ids for kind, plan in events if kind == "launch"]
    assert [list(ids) for ids in tokens] == [[1, 2, 3], [PENDING], [PENDING], [PENDING]]
    assert simulation.scheduler.counters.num_computed_tokens == 3 + 3, "the length is known before: no row too much"
    simulation.check_tokens()


def test_what_ends_with_a_token_has_one_row_too_much_and_keeps_its_blocks_until_that_is_over() -> None:
    free = Simulation()
    free.add([1, 2, 3], max_tokens=9, ignore_eos=True)
    stop = free.run().tokens["r0"][3]

    simulation = Simulation(block_size=2)
    first = simulation.add([1, 2, 3], max_tokens=9, ignore_eos=True, stop_token_ids=[stop])
    other = simulation.add([4, 5], max_tokens=30, ignore_eos=True)
    while first.finish_reason is None:
        simulation.step()
    assert first.finish_reason == "stop"
    assert (first.num_flights, first.blocks is None) == (1, False)
    assert simulation.scheduler.num_running == 1
    simulation.step()
    assert (first.num_flights, first.blocks) == (0, None)
    assert other.finish_reason is None
    simulation.run().check_tokens()
    once = 3 + len(simulation.tokens["r0"]) - 1 + 2 + 29
    assert simulation.scheduler.counters.num_computed_tokens == once + 1


def test_a_cancelled_request_is_over_at_once_and_its_id_is_free_while_a_step_still_has_it() -> None:
    simulation = Simulation(checking=False)
    simulation.add([1, 2, 3], request_id="a", max_tokens=50, ignore_eos=True)
    for _ in range(4):
        simulation.step()
    before = list(simulation.tokens["a"])
    simulation.cancel("a")
    assert simulation.core.has_work
    simulation.ended.clear()
    again = simulation.add([1, 2, 3], request_id="a", max_tokens=5, ignore_eos=True)
    simulation.run()
    assert simulation.tokens["a"] == again.output_token_ids
    assert again.output_token_ids[: len(before)] == before


def test_what_is_under_way_for_nobody_is_taken_in_when_asked() -> None:
    simulation = Simulation()
    simulation.add([1, 2, 3], max_tokens=50, ignore_eos=True)
    for _ in range(4):
        simulation.step()
    simulation.cancel("r0")
    assert simulation.cache.pools[0].num_used > 0
    simulation.core.settle()
    simulation.check_empty()
    assert not simulation.core.has_work


@pytest.mark.parametrize("params", [{"repetition_penalty": 1.1}, {"frequency_penalty": 0.5}, {"presence_penalty": 0.5}])
def test_a_token_that_the_next_draw_depends_on_is_known_before_the_next_step_is_planned(params: dict[str, Any]) -> None:
    simulation, events = _watched()
    simulation.add([1, 2, 3], max_tokens=6, ignore_eos=True, **params)
    simulation.add([4, 5], max_tokens=12, ignore_eos=True)
    simulation.run().check_tokens()
    plans = [plan for kind, plan in events if kind == "launch"]
    assert not any(row.is_pending for plan in plans[:6] for row in plan.rows)
    assert any(row.is_pending for plan in plans[7:] for row in plan.rows)
    assert [kind for kind, _ in events[:6]] == ["launch", "collect"] * 3


@pytest.mark.parametrize("place", ["launch", "collect"])
@pytest.mark.parametrize("when", range(6))
def test_a_step_that_raises_once_changes_no_token(place: str, when: int) -> None:
    simulation = Simulation(max_tokens=8, block_size=2)
    for i in range(3):
        simulation.add([1 + i] * 5, max_tokens=6, ignore_eos=i != 1)
    for _ in range(when):
        simulation.step()
    if place == "launch":
        simulation.runner.step_error = InjectedError("once")
    else:
        simulation.runner.collect_error = InjectedError("once")
    simulation.run()
    assert not [output for output in simulation.ended.values() if output.error is not None]
    simulation.check_tokens()


def test_a_row_that_always_raises_fails_alone_while_steps_run_ahead() -> None:
    simulation = Simulation()
    for i in range(5):
        simulation.add([1 + i] * 3, max_tokens=8, ignore_eos=True)
    for _ in range(3):
        simulation.step()
    simulation.runner.broken.add("r2")
    simulation.run()
    errors = {name for name, output in simulation.ended.items() if output.error is not None}
    assert errors == {"r2"}
    assert isinstance(simulation.ended["r2"].error, RequestFailed)
    simulation.check_tokens()


def test_steps_are_taken_in_in_the_order_in_which_they_were_planned() -> None:
    simulation = Simulation()
    simulation.add([1, 2, 3], max_tokens=5, ignore_eos=True)
    plan = simulation.scheduler.schedule()
    ahead = simulation.scheduler.schedule_ahead()
    assert ahead is not None
    with pytest.raises(RuntimeError, match="order"):
        simulation.scheduler.update(ahead, simulation.runner.inner.execute(plan))
