"""Each in turn."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from headrace.gateway.features import Features
from headrace.gateway.policies.policy import Candidate, Choice
from headrace.gateway.prefix_index import PrefixIndex


class RoundRobin:
    """The replica after the last one, in the order they are given in."""

    def __init__(self) -> None:
        """Begins with the first."""
        self._turn = 0

    def pick(self, features: Features, replicas: Sequence[Candidate], now_s: float) -> Choice:
        """Rotate."""
        first = self._turn % len(replicas)
        self._turn = first + 1
        return Choice([*replicas[first:], *replicas[:first]], "in turn")


def make(random: Random, index: PrefixIndex) -> RoundRobin:
    """Needs neither."""
    return RoundRobin()
