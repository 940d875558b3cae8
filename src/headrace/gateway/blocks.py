"""How a prompt is cut into blocks, each of which is known by one hash.

::

    0        256      512   …   16 K          16.5 K        …   32 K          33 K        …   64 K
    ├────────┼────────┼──   …  ──┼─────────────┼────────    …  ──┼─────────────┼──────    …  ──┤
      64 blocks of 256 bytes       32 of 512                       32 of 1,024                   32 of 2,048 …

What is left of a match behind its last whole block is never more than 1/32 of it (or 256 bytes), and a long prompt has
few blocks: 208 for 400 kB, where blocks of 256 bytes would be 1,562, each to be hashed, looked up and remembered.

A hash is over its block and the hash before it. Its lowest bits say how often the length of its block was doubled, so
that an index which holds nothing but hashes knows what they stand for.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import chain
from struct import Struct

import xxhash

BLOCK_BYTES = 256
"""Text of the first blocks: about 64 tokens of English, two blocks of a replica's cache."""

BYTES_PER_TOKEN = 4
"""What a token is taken for, before a replica has said better."""

BLOCK_TOKENS = BLOCK_BYTES // BYTES_PER_TOKEN

_PER_DOUBLING = 32
_NUM_FIRST = 2 * _PER_DOUBLING
_FIRST_BYTES = _NUM_FIRST * BLOCK_BYTES
_MOST_DOUBLINGS = 31  # what the lowest bits of a hash can say: up to 32 TiB
_REST = ~_MOST_DOUBLINGS

_LATER = tuple(
    (doublings, (_FIRST_BYTES << doublings - 1) + place * (BLOCK_BYTES << doublings), BLOCK_BYTES << doublings)
    for doublings in range(1, _MOST_DOUBLINGS + 1)
    for place in range(_PER_DOUBLING)
)
"""Of each block but the first ones: doublings of its length, where it begins, its length."""

_ENDS = (*range(BLOCK_BYTES, _FIRST_BYTES + 1, BLOCK_BYTES), *(start + size for _, start, size in _LATER))

_hash = xxhash.xxh3_64_intdigest
_FIRST = Struct(f"{BLOCK_BYTES}s")


def chained_hashes(text: bytes | memoryview) -> tuple[int, ...]:
    """A hash per whole block, each over the block and the hash before it."""
    hashes: list[int] = []
    add, view, before = hashes.append, memoryview(text), 0
    first = min(len(view), _FIRST_BYTES) // BLOCK_BYTES * BLOCK_BYTES
    # To be cut up in C takes half the time of slices.
    for block in chain.from_iterable(_FIRST.iter_unpack(view[:first])):
        before = _hash(block, before) & _REST
        add(before)
    if len(view) > _FIRST_BYTES:
        for doublings, start, size in _LATER[: bisect_right(_ENDS, len(view)) - _NUM_FIRST]:
            before = _hash(view[start : start + size], before) & _REST | doublings
            add(before)
    return tuple(hashes)


def tokens_of(num_blocks: int) -> int:
    """What so many leading blocks of a prompt are, in tokens."""
    return _ENDS[num_blocks - 1] // BYTES_PER_TOKEN if num_blocks else 0


def block_tokens(block_hash: int) -> int:
    """What the block of a hash is, in tokens, without those before it."""
    return BLOCK_TOKENS << (block_hash & _MOST_DOUBLINGS)
