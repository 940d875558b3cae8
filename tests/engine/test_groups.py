"""What a cache group says is in sight, and how many blocks that takes, against counting it out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.cache.groups import CacheGroup

REACH = st.one_of(st.none(), st.integers(1, 20))


def sees(query: int, key: int, window: int | None, chunk: int | None) -> bool:
    """The rule as `LayerSpec` states it."""
    inside = window is None or key > query - window
    return key <= query and inside and (chunk is None or key >= query // chunk * chunk)


@given(REACH, REACH, st.integers(0, 60))
def test_first_visible_is_the_first_that_this_query_or_a_later_one_sees(
    window: int | None, chunk: int | None, position: int
) -> None:
    seen = [
        key for query in range(position, position + 45) for key in range(query + 1) if sees(query, key, window, chunk)
    ]
    assert CacheGroup((0,), 1, window, chunk).first_visible(position) == min(seen)


@given(REACH, REACH, st.integers(1, 60), st.integers(1, 12), st.sampled_from([1, 2, 4, 8]), st.data())
def test_a_request_never_holds_more_than_max_blocks(
    window: int | None, chunk: int | None, length: int, step: int, size: int, data: st.DataObject
) -> None:
    group = CacheGroup((0,), 1, window, chunk)
    computed, most = 0, 0
    while computed < length:
        first = group.first_visible(computed) // size
        computed = min(computed + data.draw(st.integers(1, step)), length)
        most = max(most, -(-computed // size) - first)
    assert most <= group.max_blocks(length, step, size)
