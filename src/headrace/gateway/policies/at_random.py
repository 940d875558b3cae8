"""Any replica, in proportion to its weight."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from headrace.gateway.features import Features
from headrace.gateway.policies.policy import Candidate, Choice
from headrace.gateway.prefix_index import PrefixIndex


class AtRandom:
    """A random order in which each place is drawn by weight (Efraimidis and Spirakis 2006)."""

    def __init__(self, random: Random) -> None:
        """Draws from `random`."""
        self._random = random

    def pick(self, features: Features, replicas: Sequence[Candidate], now_s: float) -> Choice:
        """Draw an order."""
        keys = {replica.name: self._random.expovariate(replica.weight) for replica in replicas}
        return Choice(sorted(replicas, key=lambda replica: keys[replica.name]), "at random")


def make(random: Random, index: PrefixIndex) -> AtRandom:
    """Needs no index."""
    return AtRandom(random)
