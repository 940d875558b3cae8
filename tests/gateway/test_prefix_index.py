"""The index against the plain truth: sets of prefixes per replica."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.blocks import BLOCK_TOKENS, block_tokens, chained_hashes
from headrace.gateway.features import EXPECTED_OUTPUT_TOKENS, features
from headrace.gateway.prefix_index import PrefixIndex

PREFIXES = st.lists(st.integers(0, 3), max_size=6).map(tuple)


def hashes(path: tuple[int, ...]) -> tuple[int, ...]:
    """A chained hash per block of a path, as small numbers that cannot collide."""
    found, value = [], 0
    for step in path:
        value = value * 5 + step + 1
        found.append(value << 5)  # the lowest bits say how long the block is: the shortest
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


@given(st.lists(st.lists(st.integers(0, 300).map(lambda i: i << 5), max_size=8), max_size=60), st.integers(2, 40))
def test_a_replica_holds_no_more_than_its_bound_and_always_what_is_new(sent: list[list[int]], capacity: int) -> None:
    index = PrefixIndex()
    index.add_replica(3)
    index.set_capacity(3, capacity * BLOCK_TOKENS)
    for path in sent:
        index.record(path, 3)
        held = set(index.hashes(3))
        assert set(path) <= held
        assert len(held) <= capacity + 8
        assert len(index) == len(held)


def test_the_bound_is_in_tokens_however_long_the_blocks_are() -> None:
    index = PrefixIndex()
    index.add_replica(0)
    index.set_capacity(0, 262_144)
    longest = tokens = 0
    for number in range(12):
        path = chained_hashes(b"%d" % number * 200_000)
        tokens = sum(map(block_tokens, path))
        index.record(path, 0)
        longest = max(longest, sum(map(block_tokens, index.hashes(0))))
        assert set(path) <= set(index.hashes(0))
    assert tokens > 40_000
    assert 131_072 <= longest <= 262_144 + tokens


def test_all_replicas_together_share_the_entries() -> None:
    index = PrefixIndex(max_entries=400)
    for replica in range(4):
        index.add_replica(replica)
        for number in range(300):
            index.record((number << 5, (1000 + number) << 5), replica)
        assert len(list(index.hashes(replica))) <= 400 // (replica + 1)


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
        index.record((i * 2654435761 % 2**58 << 5, i * 40503 % 2**58 << 5), i % 8)
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
    assert (found.model, found.stream, found.num_output_tokens) == ("m/x", True, 27)
    assert found.session == 'a"b'
    assert found.num_tokens == 1000
    assert features(body(user="u"), "c", "s").session == "s"
    assert features(body(prompt_cache_key="k", user="u"), "c").session == "k"
    assert features(body(max_completion_tokens=5, max_tokens=9), "c").num_output_tokens == 5
    assert features(body(max_output_tokens=7), "c").num_output_tokens == 7
    assert features(body(max_tokens="many", n="some"), "c").num_output_tokens == EXPECTED_OUTPUT_TOKENS
    assert features(body(max_tokens=None, n=None), "c").num_output_tokens == EXPECTED_OUTPUT_TOKENS


@pytest.mark.parametrize("field", ["tools", "system", "instructions"])
def test_what_templates_put_first_is_part_of_the_prefix(field: str) -> None:
    plain = features(body(messages=chat("s" * 600)), "c")
    more = features(body(messages=chat("s" * 600), **{field: "be brief " * 100}), "c")
    again = features(body(messages=chat("another", "x" * 900), **{field: "be brief " * 100}), "c")
    assert more.block_hashes[0] != plain.block_hashes[0]
    assert again.block_hashes[:3] == more.block_hashes[:3]
    assert more.num_tokens == plain.num_tokens + 226


@pytest.mark.parametrize("field", ["messages", "prompt", "input"])
def test_a_prompt_is_read_in_the_form_of_any_api(field: str) -> None:
    found = features(body(**{field: "w" * 1000}), "c")
    assert found.num_tokens == 1002 // 4
    assert found.block_hashes == chained_hashes(b'"' + b"w" * 1000 + b'"')


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
