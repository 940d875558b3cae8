"""What the journal counts is all that happened, whenever it is asked and however much there was."""

from __future__ import annotations

import pytest

from headrace.gateway.fleet import Fleet
from headrace.gateway.journal import NUM_DECISIONS, Journal
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.route import Decision


def journal() -> Journal:
    index = PrefixIndex()
    return Journal(Fleet(index), index, lambda: 0.0)


def decision(number: int, kind: str = "first") -> Decision:
    return Decision(f"id-{number}", 0.0, kind, "m", "r0", "in turn", 100, 64, 0, 0, ())


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 2_500])
def test_nothing_is_lost_between_two_sums(count: int) -> None:
    made = journal()
    for number in range(count):
        made.decided(decision(number, "retry" if number % 5 == 0 else "first"))
        made.attempt_ended("r0", "ok")
        made.finished("ok", 200, 0.5, 0.0001, (9, 5, 4))
    num_retries = len(range(0, count, 5))
    assert made.counts.get("ok", 0) == count
    assert (made.counts["sent_first"], made.counts["sent_retry"]) == (count - num_retries, num_retries)
    told = made.tally()
    assert told.tokens == (9 * count, 5 * count, 4 * count)
    assert told.routed_tokens == (100 * count, 64 * count)
    assert sum(told.took[0]) == sum(told.own[0]) == count
    assert told.attempts == ({("r0", "ok"): count} if count else {})
    assert [one.request_id for one in made.decisions] == [
        f"id-{number}" for number in range(max(count - NUM_DECISIONS, 0), count)
    ]


def test_a_scrape_in_the_middle_sees_what_was_and_counts_nothing_twice() -> None:
    made = journal()
    for number in range(3):
        made.decided(decision(number))
        made.finished("ok", 200, 0.5, 0.0001, (1, 1, 1))
        text = made.render().decode()
        assert f'headrace_gateway_requests_total{{outcome="ok",status="200"}} {number + 1}.0' in text
        assert f'headrace_gateway_sends_total{{kind="first"}} {number + 1}.0' in text
