"""The index against the plain truth: sets of prefixes per replica."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.features import BLOCK_BYTES, chained_hashes, features
from headrace.gateway.prefix_index import PrefixIndex

PREFIXES = st.lists(st.integers(0, 3), max_size=6).map(tuple)


def hashes(path: tuple[int, ...]) -> tuple[int, ...]:
    """A chained hash per block of a path, as small numbers that cannot collide."""
    found, value = [], 0
    for step in path:
        value = value * 5 + step + 1
        found.append(value)
    return tuple(found)


@given(st.lists(st.tuples(st.integers(0, 4), PREFIXES), max_size=30), PREFIXES)
def test_depths_are_the_longest_common_prefixes(
    sent: list[tuple[int, tuple[int, ...]]], asked: tuple[int, ...]
) -> None:
    index = PrefixIndex()
    for replica in range(5):
        index.add_replica(replica)
    truth: dict[int, int] = {}
    for replica, path in sent:
        index.record(hashes(path), replica)
        common = 0
        while common < min(len(path), len(asked)) and path[: common + 1] == asked[: common + 1]:
            common += 1
        if common:
            truth[replica] = max(truth.get(replica, 0), common)
    assert index.depths(hashes(asked)) == truth


@given(st.lists(st.lists(st.integers(0, 300), max_size=8), max_size=60), st.integers(2, 40))
def test_a_replica_holds_no_more_than_its_bound_and_always_what_is_new(sent: list[list[int]], capacity: int) -> None:
    index = PrefixIndex()
    index.add_replica(3)
    index.set_capacity(3, capacity)
    for path in sent:
        index.record(path, 3)
        held = set(index.hashes(3))
        assert set(path) <= held
        assert len(held) <= capacity + 8
        assert len(index) == len(held)


def test_a_replica_that_goes_is_forgotten() -> None:
    index = PrefixIndex()
    for replica in (0, 1):
        index.add_replica(replica)
        index.record((1, 2), replica)
    index.remove_replica(0)
    assert index.depths((1, 2)) == {1: 2}
    index.remove_replica(1)
    assert len(index) == 0
    index.remove_replica(1)
    index.add_replica(0)
    assert index.depths((1, 2)) == {}


@pytest.mark.slow
def test_a_million_prompts_stay_under_a_hundred_megabytes() -> None:
    index = PrefixIndex()
    for replica in range(8):
        index.add_replica(replica)
    tracemalloc.start()
    for i in range(1_000_000):
        index.record((i * 2654435761 % 2**61, i * 40503 % 2**61), i % 8)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 100e6


# ---------------------------------------------------------------- features


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def chat(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user" if i % 2 else "system", "content": content} for i, content in enumerate(contents)]


def test_a_conversation_that_goes_on_shares_its_beginning() -> None:
    first = features(body(model="m", messages=chat("s" * 700, "hello")), "c")
    later = features(body(messages=chat("s" * 700, "hello", "hi", "more " * 300), model="m", stream=True), "c")
    other = features(body(model="m", messages=chat("t" * 700, "hello")), "c")
    common = len(first.block_hashes) - 1  # the last block holds the closing bracket
    assert common >= 1
    assert later.block_hashes[:common] == first.block_hashes[:common]
    assert not set(other.block_hashes) & set(first.block_hashes)


def test_what_a_request_says_is_read() -> None:
    found = features(
        body(model="m/x", prompt="p" * 4000, stream=True, n=3, max_tokens=9, user='a"b', temperature=0.5), "c", ""
    )
    assert (found.model, found.stream, found.num_choices, found.max_tokens) == ("m/x", True, 3, 9)
    assert found.session == 'a"b'
    assert found.num_tokens == 1000
    assert features(body(user="u"), "c", "s").session == "s"
    assert features(body(prompt_cache_key="k", user="u"), "c").session == "k"
    assert features(body(max_completion_tokens=5, max_tokens=9), "c").max_tokens == 5


def test_tools_and_system_are_part_of_the_prefix() -> None:
    plain = features(body(messages=chat("s" * 600)), "c")
    tools = features(body(messages=chat("s" * 600), tools=[{"type": "function"}]), "c")
    system = features(body(messages=chat("s" * 600), system="be brief"), "c")
    assert len({plain.block_hashes[0], tools.block_hashes[0], system.block_hashes[0]}) == 3


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_body_raises(data: bytes) -> None:
    assert features(data, "c").client == "c"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["model", "n", "user", "messages"]), inner),
    )
)
def test_no_json_raises(value: object) -> None:
    features(json.dumps(value).encode(), "c")


@given(st.binary(max_size=2000), st.binary(max_size=700))
def test_hashes_of_a_longer_text_begin_with_those_of_the_shorter(text: bytes, more: bytes) -> None:
    short = chained_hashes(text)
    assert chained_hashes(text + more)[: len(short)] == short
    assert len(short) == len(text) // BLOCK_BYTES
