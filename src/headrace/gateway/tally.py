"""Counts of one process of a gateway, and their sum over several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

Key = TypeVar("Key")


class Tally(msgspec.Struct, array_like=True, frozen=True):
    """What a journal has counted.

    Attributes:
        kinds: sends by kind. attempts: by (replica, outcome). requests: by (outcome, status).
        tokens: prompt, cached, output. routed_tokens: all, held by the index.
        took, own: observations per bucket, and their sum in seconds.
    """

    kinds: dict[str, int] = {}
    attempts: dict[tuple[str, str], int] = {}
    requests: dict[tuple[str, int], int] = {}
    tokens: tuple[int, int, int] = (0, 0, 0)
    routed_tokens: tuple[int, int] = (0, 0)
    took: tuple[list[int], float] = ([], 0.0)
    own: tuple[list[int], float] = ([], 0.0)

    def __add__(self, other: Tally) -> Tally:
        """Of both."""
        prompt, cached, output = self.tokens
        routed, held = self.routed_tokens
        return Tally(
            _merged(self.kinds, other.kinds),
            _merged(self.attempts, other.attempts),
            _merged(self.requests, other.requests),
            (prompt + other.tokens[0], cached + other.tokens[1], output + other.tokens[2]),
            (routed + other.routed_tokens[0], held + other.routed_tokens[1]),
            _both(self.took, other.took),
            _both(self.own, other.own),
        )


def _merged(left: Mapping[Key, int], right: Mapping[Key, int]) -> dict[Key, int]:
    total = dict(left)
    for key, count in right.items():
        total[key] = total.get(key, 0) + count
    return total


def _both(left: tuple[list[int], float], right: tuple[list[int], float]) -> tuple[list[int], float]:
    """One that has counted nothing has no buckets."""
    if not left[0] or not right[0]:
        return right if right[0] else left
    return [a + b for a, b in zip(left[0], right[0], strict=True)], left[1] + right[1]
