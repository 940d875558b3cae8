"""The replica with the least to do, in requests or in tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from random import Random

from headrace.gateway.features import Features
from headrace.gateway.policies.policy import Candidate, Choice
from headrace.gateway.prefix_index import PrefixIndex


class Least:
    """By a load; equals take turns, so that an idle fleet is not one busy replica.

    Args:
        load: of a replica. reason: for people.
    """

    def __init__(self, load: Callable[[Candidate], float], reason: str) -> None:
        """Begins with the first of equals."""
        self._load = load
        self._reason = reason
        self._turn = 0

    def pick(self, features: Features, replicas: Sequence[Candidate], now_s: float) -> Choice:
        """The least loaded first."""
        first = self._turn % len(replicas)
        self._turn = first + 1
        turned = [*replicas[first:], *replicas[:first]] if first else replicas
        return Choice(sorted(turned, key=self._load), self._reason)


def make_least_connections(random: Random, index: PrefixIndex) -> Least:
    """By requests under way."""
    return Least(lambda replica: replica.num_in_flight / replica.weight, "fewest requests")


def make_least_tokens(random: Random, index: PrefixIndex) -> Least:
    """By prompt tokens to compute; requests under way where those are equal."""
    return Least(attrgetter("cost"), "fewest tokens")
