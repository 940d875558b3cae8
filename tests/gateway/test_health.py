"""Breaker, window, replica and fleet under a clock that tests move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.fleet import Fleet
from headrace.gateway.health.breaker import Breaker, BreakerSettings
from headrace.gateway.health.window import OutcomeWindow
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.replica import Endpoint, Replica

SETTINGS = BreakerSettings()
OUTCOMES = st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=80)


@given(OUTCOMES)
def test_the_window_counts_what_is_in_it(outcomes: list[tuple[float, bool]]) -> None:
    window, now, happened = OutcomeWindow(), 0.0, []
    for gap, success in outcomes:
        now += gap
        window.record(success, now)
        happened.append((int(now), success))
        recent = [ok for second, ok in happened if second > int(now) - 10]
        assert window.counts(now) == (recent.count(True), recent.count(False))


def test_three_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    breaker = Breaker(SETTINGS)
    for success in (False, False, True, False, False):
        assert not breaker.record(success, 0.0)
    assert breaker.allows(0.0)
    assert breaker.record(False, 0.0)
    assert breaker.state(0.0) == "open"
    assert not breaker.allows(29.9)


def test_half_of_a_busy_window_opens_it() -> None:
    breaker = Breaker(SETTINGS)
    opened = [breaker.record(i % 2 == 0, i * 0.1) for i in range(20)]
    assert opened.index(True) == 19
    calm = Breaker(SETTINGS)
    assert not any(calm.record(i % 2 == 0, i * 5.0) for i in range(60))  # never twenty in ten seconds


def test_it_tries_with_one_request_and_closes_when_that_succeeds() -> None:
    breaker = Breaker(SETTINGS)
    breaker.open(0.0)
    assert not breaker.allows(29.9)
    assert breaker.state(30.0) == "half_open"
    assert breaker.allows(30.0)
    breaker.sent(30.0)
    assert not breaker.allows(30.1)
    breaker.record(True, 31.0)
    assert breaker.state(31.0) == "closed"
    assert breaker.closed_s == 31.0


def test_a_failed_trial_waits_longer_up_to_a_bound() -> None:
    breaker, now, waits = Breaker(SETTINGS), 0.0, []
    breaker.open(now)
    for _ in range(6):
        waits.append(breaker.reopens_in_s(now))
        now += waits[-1]
        breaker.sent(now)
        assert breaker.record(False, now)
    assert waits == [30.0, 60.0, 120.0, 240.0, 240.0, 240.0]


def test_a_trial_without_an_outcome_does_not_hold_it_open_for_good() -> None:
    breaker = Breaker(SETTINGS)
    breaker.open(0.0)
    breaker.sent(30.0)
    assert not breaker.allows(59.9)
    assert breaker.allows(60.0)


def broken(*kinds: bool) -> Breaker:
    """Opened by failures at second 0, each of a connection (True) or of something else."""
    breaker = Breaker(SETTINGS)
    assert [breaker.record(False, 0.0, is_connection) for is_connection in kinds][-1]
    return breaker


def test_where_connections_broke_a_good_health_check_invites_a_trial() -> None:
    breaker = broken(True, True, True)
    breaker.seen_well(0.9)
    assert breaker.state(0.9) == "open"
    assert not breaker.allows(1.1)  # nobody has looked since
    breaker.seen_well(1.1)
    assert breaker.allows(1.1)
    assert breaker.reopens_in_s(1.1) == 0.0
    breaker.sent(1.1)
    breaker.seen_well(1.2)
    assert not breaker.allows(1.2)  # one at a time
    breaker.record(True, 1.3)
    assert breaker.state(1.3) == "closed"


def test_invited_trials_that_fail_come_ever_later() -> None:
    breaker, now, waits = broken(True, True, True), 0.0, []
    for _ in range(8):
        opened = now
        while not breaker.allows(now):
            now += 0.25
            breaker.seen_well(now)
        waits.append(now - opened)
        breaker.sent(now)
        assert breaker.record(False, now, is_connection=True)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]


@pytest.mark.parametrize("kinds", [(False, False, False), (True, False, True), (True, True, False)])
def test_who_answers_checks_and_fails_requests_waits_in_full(kinds: tuple[bool, ...]) -> None:
    breaker = broken(*kinds)
    breaker.record(True, 0.5)  # of a request that was sent before
    breaker.seen_well(29.9)
    assert breaker.state(29.9) == "open"
    assert breaker.state(30.0) == "half_open"


def test_a_trial_that_fails_in_another_way_ends_the_invitations() -> None:
    breaker = broken(True, True, True)
    breaker.seen_well(1.0)
    breaker.sent(1.0)
    assert breaker.record(False, 1.1)
    breaker.seen_well(20.0)
    assert not breaker.allows(20.0)


@given(OUTCOMES)
def test_a_replica_that_recovers_is_used_again(outcomes: list[tuple[float, bool]]) -> None:
    breaker, now = Breaker(SETTINGS), 0.0
    for gap, success in outcomes:
        now += gap
        if breaker.allows(now):
            breaker.sent(now)
            breaker.record(success, now)
    now += SETTINGS.max_recovery_s + SETTINGS.recovery_s
    assert breaker.allows(now)
    breaker.sent(now)
    breaker.record(True, now)
    assert breaker.state(now) == "closed"


# ---------------------------------------------------------------- replica and fleet


def endpoints(count: int, **fields: object) -> list[Endpoint]:
    return [Endpoint(f"r{i}", "127.0.0.1", 8000 + i, **fields) for i in range(count)]  # type: ignore[arg-type]


def fleet(count: int) -> tuple[Fleet, list[Replica], PrefixIndex]:
    index = PrefixIndex()
    made = Fleet(index)
    made.update(endpoints(count), 0.0)
    return made, list(made), index


def names(made: Fleet, now: float = 0.0, model: str = "", excluded: tuple[str, ...] = ()) -> list[str]:
    return sorted(replica.name for replica in made.candidates(model, excluded, now))


def test_a_replica_comes_back_slowly() -> None:
    made, (replica,), _ = fleet(1)
    assert (names(made), replica.weight) == (["r0"], 1.0)
    replica.is_up = False
    assert names(made) == []
    replica.came_up(100.0)
    assert names(made, 100.0) == ["r0"]
    weights = []
    for second in (0, 5, 10, 60):
        made.warm(100.0 + second)
        weights.append(replica.weight)
    assert weights == [0.1, 0.5, 1.0, 1.0]


def test_a_replica_whose_breaker_closed_comes_back_slowly_too() -> None:
    made, (replica, other), _ = fleet(2)
    assert names(made, 99.0) == ["r0", "r1"]
    for _ in range(3):
        replica.breaker.record(False, 100.0)
    assert names(made, 131.0) == ["r0", "r1"]
    replica.breaker.record(True, 131.0)
    assert (names(made, 131.0), replica.weight) == (["r0", "r1"], 0.1)
    assert (names(made, 136.0), replica.weight, other.weight) == (["r0", "r1"], 0.5, 1.0)
    assert (names(made, 141.0), replica.weight) == (["r0", "r1"], 1.0)


def test_conditions_in_words() -> None:
    _, (replica,), _ = fleet(1)
    assert replica.condition(0.0) == "ready"
    replica.busy_until_s = 5.0
    assert (replica.condition(0.0), replica.condition(5.0)) == ("busy", "ready")
    replica.breaker.open(10.0)
    assert (replica.condition(10.0), replica.condition(40.0)) == ("ejected", "trial")
    replica.is_up = False
    assert replica.condition(40.0) == "down"
    replica.draining = True
    assert replica.condition(40.0) == "draining"


@given(st.integers(1, 9), st.sets(st.integers(0, 8)), st.sets(st.integers(0, 8)))
def test_never_more_than_half_of_those_that_are_up_are_ejected(count: int, ejected: set[int], down: set[int]) -> None:
    made, replicas, _ = fleet(count)
    for replica in replicas:
        replica.is_up = replica.number not in down
        if replica.number in ejected:
            replica.breaker.open(float(replica.number) / 10)
    num_up = sum(replica.is_up for replica in replicas)
    able = made.candidates("", (), 1.0)
    assert len(able) >= (num_up + 1) // 2
    assert all(replica.is_up for replica in able)
    healthy = {replica.name for replica in replicas if replica.is_up and replica.number not in ejected}
    assert healthy <= {replica.name for replica in able}


def test_requests_go_where_their_model_is_and_not_where_they_failed() -> None:
    made = Fleet(PrefixIndex())
    made.update([*endpoints(2, models=("a",)), Endpoint("b", "h", 1, models=("a", "b")), Endpoint("any", "h", 2)], 0.0)
    assert names(made, model="b") == ["any", "b"]
    assert names(made, model="a", excluded=("r0", "any")) == ["b", "r1"]
    assert made.knows("zzz")
    made.update(endpoints(2, models=("a",)), 0.0)
    assert not made.knows("zzz")
    assert names(made, model="zzz") == []


def test_a_new_set_replaces_the_old_one_and_keeps_what_is_known() -> None:
    made, (first, second), index = fleet(2)
    second.num_in_flight = 7
    index.record((1,), first.number)
    came, gone = made.update([Endpoint("r1", "127.0.0.1", 8001, weight=2.0), Endpoint("new", "h", 1)], 0.0)
    assert [replica.name for replica in came] == ["new"]
    assert gone == [first]
    assert made.get("r1") is second
    assert (names(made), second.num_in_flight, second.weight) == (["new", "r1"], 7, 2.0)
    assert came[0].number == first.number  # the number is free again, and nothing is left under it
    assert index.depths((1,)) == {}
    moved, _ = made.update([Endpoint("r1", "127.0.0.1", 9999), Endpoint("new", "h", 1)], 0.0)
    assert [replica.endpoint.url for replica in moved] == ["http://127.0.0.1:9999"]


def test_load_is_counted_while_requests_are_under_way() -> None:
    _, (replica,), _ = fleet(1)
    replica.begin(500, 0.0)
    replica.begin(100, 0.0)
    assert (replica.num_in_flight, replica.tokens_in_flight) == (2, 600)
    replica.prefilled(500)
    replica.end()
    assert (replica.num_in_flight, replica.tokens_in_flight) == (1, 100)
