"""Answers under way by key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import TooManyStreams
from headrace.server.streams import StreamLimit


def test_one_more_than_a_key_may_have_is_refused_and_the_next_may_start_when_one_ends() -> None:
    limit = StreamLimit(2)
    limit.acquire("a")
    with limit.hold("a"):
        with pytest.raises(TooManyStreams, match="2 answers under way"):
            limit.acquire("a")
        with limit.hold("b"):
            assert (limit.num_open("a"), limit.num_open("b"), limit.num_open()) == (2, 1, 3)
    with limit.hold("a"):
        assert limit.num_open("a") == 2


def test_a_stream_that_fails_is_released() -> None:
    limit = StreamLimit(1)
    with pytest.raises(RuntimeError), limit.hold("a"):
        raise RuntimeError
    assert limit.num_open() == 0


@given(st.lists(st.sampled_from("abc")))
def test_without_a_bound_everything_is_counted_and_nothing_is_left(keys: list[str]) -> None:
    limit = StreamLimit(None)
    for key in keys:
        limit.acquire(key)
    assert limit.num_open() == len(keys)
    for key in keys:
        limit.release(key)
    assert limit._open == {}
    assert {limit.num_open(key) for key in "abc"} == {0}
    assert limit._open == {}, "asking leaves nothing behind"
