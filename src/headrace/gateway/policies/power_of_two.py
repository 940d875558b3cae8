"""Two at random, the better of them (Mitzenmacher 2001): nearly as even as asking all, for the work of asking two."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from headrace.gateway.features import Features
from headrace.gateway.policies.policy import Candidate, Choice
from headrace.gateway.prefix_index import PrefixIndex


class PowerOfTwo:
    """The less loaded of two random replicas."""

    def __init__(self, random: Random) -> None:
        """Draws from `random`."""
        self._random = random

    def pick(self, features: Features, replicas: Sequence[Candidate], now_s: float) -> Choice:
        """The better of the first two of a random order; then the other, and the rest."""
        ranked = self._random.sample(replicas, len(replicas))
        ranked[:2] = sorted(ranked[:2], key=lambda replica: replica.num_in_flight / replica.weight)
        return Choice(ranked, "better of two")


def make(random: Random, index: PrefixIndex) -> PowerOfTwo:
    """Needs no index."""
    return PowerOfTwo(random)
