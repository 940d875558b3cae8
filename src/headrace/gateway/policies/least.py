"""The replica with the least to do, in requests or in tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from headrace.gateway.features import Features
from headrace.gateway.policies.policy import Candidate, Choice
from headrace.gateway.prefix_index import PrefixIndex


class Least:
    """By a load; equals take turns, so that an idle fleet is not one busy replica.

    Args:
        loads: of replicas. reason: for people.
    """

    def __init__(self, loads: Callable[[Sequence[Candidate]], list[float]], reason: str) -> None:
        """Begins with the first of equals."""
        self._loads = loads
        self._reason = reason
        self._turn = 0

    def pick(self, features: Features, replicas: Sequence[Candidate], now_s: float) -> Choice:
        """The least loaded first."""
        first = self._turn % len(replicas)
        self._turn = first + 1
        turned = [*replicas[first:], *replicas[:first]] if first else replicas
        loads = self._loads(turned)
        least = min(loads)
        if least == max(loads):
            return Choice(turned, self._reason)
        ranked = [turned[place] for place in sorted(range(len(turned)), key=loads.__getitem__)]
        return Choice(ranked, self._reason)


def _connections(replicas: Sequence[Candidate]) -> list[float]:
    return [replica.num_in_flight / replica.weight for replica in replicas]


def _tokens(replicas: Sequence[Candidate]) -> list[float]:
    """The requests under way decide between equals."""
    return [(replica.tokens_in_flight + 1e-3 * replica.num_in_flight) / replica.weight for replica in replicas]


def make_least_connections(random: Random, index: PrefixIndex) -> Least:
    """By requests under way."""
    return Least(_connections, "fewest requests")


def make_least_tokens(random: Random, index: PrefixIndex) -> Least:
    """By prompt tokens to compute; requests under way where those are equal."""
    return Least(_tokens, "fewest tokens")
