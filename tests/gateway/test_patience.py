"""How long a replica may be silent: by its own past, by the fleet's while it has none, and never out of bounds."""

from __future__ import annotations

from headrace.gateway.patience import Patience, PatienceSettings

SETTINGS = PatienceSettings()


def test_nothing_known_is_the_longest_wait() -> None:
    patience = Patience(SETTINGS)
    assert patience.first_limit_s(0) == SETTINGS.unknown_first_s
    assert patience.gap_limit_s() == SETTINGS.unknown_gap_s
    assert patience.whole_limit_s(0, 0) == SETTINGS.unknown_whole_s


def test_a_limit_is_a_few_times_what_was_long_and_grows_with_the_prompt() -> None:
    patience = Patience(SETTINGS)
    for _ in range(16):
        patience.saw_first(0.5, 0, 0.0)
        patience.saw_gap(0.5, 0.0)
    assert patience.first_limit_s(0) == 2.0
    assert patience.first_limit_s(256) == 4.0
    assert patience.gap_limit_s() == 2.0


def test_a_new_replica_is_judged_by_the_fleet_with_twice_the_time_until_it_is_known() -> None:
    fleet = Patience(SETTINGS)
    old, new = Patience(SETTINGS, fleet), Patience(SETTINGS, fleet)
    for _ in range(16):
        old.saw_first(0.5, 0, 0.0)
        old.saw_gap(0.4, 0.0)
        old.saw_whole(0.3, 0, 0, 0.0)
    assert (new.first_limit_s(0), new.gap_limit_s(), new.whole_limit_s(0, 0)) == (4.0, 3.2, 2.4)
    for _ in range(16):
        new.saw_first(2.0, 0, 0.0)
    assert (new.first_limit_s(0), old.first_limit_s(0)) == (8.0, 2.0)


def test_what_a_known_replica_does_teaches_the_fleet_no_more() -> None:
    fleet = Patience(SETTINGS)
    old, new = Patience(SETTINGS, fleet), Patience(SETTINGS, fleet)
    for _ in range(300):
        old.saw_gap(0.4, 0.0)
    for _ in range(300):
        old.saw_gap(8.0, 0.0)
    assert new.gap_limit_s() == 3.2


def test_a_whole_answer_has_time_for_its_prompt_and_for_what_it_may_say() -> None:
    patience = Patience(SETTINGS)
    for _ in range(16):
        patience.saw_whole(0.5, 256, 32, 0.0)
    assert patience.whole_limit_s(256, 32) == 2.0
    assert patience.whole_limit_s(256, 64) == 3.0
    assert patience.whole_limit_s(512 + 256, 32) == 3.0


def test_a_full_ring_takes_one_value_in_a_while() -> None:
    patience = Patience(SETTINGS)
    for _ in range(400):
        patience.saw_gap(0.5, 0.0)
    for _ in range(1000):
        patience.saw_gap(9.0, 1.0)  # all at once: one of them counts
    assert patience.gap_limit_s() == 2.0
    for step in range(300):
        patience.saw_gap(1.0, 2.0 + step * 0.005)
    assert patience.gap_limit_s() == 4.0
