"""Blocks of prompts: where they end, that they are chained, and what a hash says of its block."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.blocks import BLOCK_BYTES, BLOCK_TOKENS, BYTES_PER_TOKEN, block_tokens, chained_hashes, tokens_of

KIB = 1024


def ends(num_bytes: int) -> list[int]:
    """Where the blocks of a text of that length end, in bytes."""
    return [tokens_of(n + 1) * BYTES_PER_TOKEN for n in range(len(chained_hashes(bytes(num_bytes))))]


def test_blocks_are_of_256_bytes_and_each_doubling_of_the_text_is_cut_into_32() -> None:
    found = ends(70 * KIB)
    assert found[:64] == [BLOCK_BYTES * (n + 1) for n in range(64)]
    assert found[64:96] == [16 * KIB + 512 * (n + 1) for n in range(32)]
    assert found[96:128] == [32 * KIB + 1024 * (n + 1) for n in range(32)]
    assert found[128:] == [64 * KIB + 2048 * (n + 1) for n in range(3)]


@pytest.mark.parametrize("num_bytes", [0, 255, 256, 16 * KIB - 1, 16 * KIB, 16 * KIB + 511, 16 * KIB + 512, 5_000_001])
def test_little_is_left_behind_the_last_whole_block(num_bytes: int) -> None:
    last = max(ends(num_bytes), default=0)
    assert 0 <= num_bytes - last < max(BLOCK_BYTES, num_bytes / 32)


def test_long_prompts_have_few_blocks() -> None:
    assert len(chained_hashes(bytes(400_000))) == 208
    assert len(chained_hashes(bytes(4_000_000))) < 320


def test_a_hash_says_how_long_its_block_is() -> None:
    hashes = chained_hashes(bytes(100_000))
    assert [block_tokens(h) for h in hashes] == [tokens_of(n + 1) - tokens_of(n) for n in range(len(hashes))]
    assert block_tokens(hashes[0]) == BLOCK_TOKENS
    assert tokens_of(0) == 0


@given(st.integers(0, 80_000), st.integers(0, 30_000))
def test_hashes_of_a_longer_text_begin_with_those_of_the_shorter(num_bytes: int, more: int) -> None:
    text = (b"%d" % num_bytes) * (1 + (num_bytes + more) // len(b"%d" % num_bytes))
    short, long = chained_hashes(text[:num_bytes]), chained_hashes(text[: num_bytes + more])
    assert long[: len(short)] == short


@pytest.mark.parametrize("place", [0, 300, 16 * KIB - 1, 16 * KIB, 50_000])
def test_what_differs_changes_its_block_and_all_behind_it(place: int) -> None:
    text = bytes(60_000)
    other = text[:place] + b"x" + text[place + 1 :]
    before, after = chained_hashes(text), chained_hashes(other)
    assert [a == b for a, b in zip(before, after, strict=True)] == [end <= place for end in ends(60_000)]


def test_a_text_may_be_a_view() -> None:
    text = b"0123456789" * 3000
    assert chained_hashes(memoryview(text)) == chained_hashes(text)
    assert all(start < end for start, end in pairwise(ends(30_000)))
