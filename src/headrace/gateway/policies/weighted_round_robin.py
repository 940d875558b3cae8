"""Each in turn, in proportion to its weight and as evenly as can be (smooth weighted round robin, from nginx)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from headrace.gateway.features import Features
from headrace.gateway.policies.policy import Candidate, Choice
from headrace.gateway.prefix_index import PrefixIndex


class WeightedRoundRobin:
    """Every replica earns its weight each turn; the richest is taken and pays what all earned together."""

    def __init__(self) -> None:
        """All begin with nothing."""
        self._credit: dict[str, float] = {}

    def pick(self, features: Features, replicas: Sequence[Candidate], now_s: float) -> Choice:
        """The richest first; who is gone loses its credit."""
        weights = [replica.weight for replica in replicas]
        credit = {
            replica.name: self._credit.get(replica.name, 0.0) + weight
            for replica, weight in zip(replicas, weights, strict=True)
        }
        ranked = sorted(replicas, key=lambda replica: -credit[replica.name])
        credit[ranked[0].name] -= sum(weights)
        self._credit = credit
        return Choice(ranked, "in turn by weight")


def make(random: Random, index: PrefixIndex) -> WeightedRoundRobin:
    """Needs neither."""
    return WeightedRoundRobin()
