"""The same replica for the same key, and only the keys of a replica that comes or goes move.

Rendezvous hashing (Thaler and Ravishankar 1998), by weight, with bounded load (Mirrokni et al. 2016): a replica with
more than its share by a quarter is passed over, so one hot key cannot drown it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import xxhash

from headrace.gateway.features import Features
from headrace.gateway.policies.policy import Candidate, Choice
from headrace.gateway.prefix_index import PrefixIndex

_SURPLUS = 1.25


class Rendezvous:
    """By the highest score of (key, replica).

    Args:
        key: what of the request is hashed. bounded: pass over replicas with more than their share.
    """

    def __init__(self, key: Callable[[Features], str], bounded: bool, reason: str) -> None:
        """Holds no state."""
        self._key = key
        self._bounded = bounded
        self._reason = reason

    def pick(self, features: Features, replicas: Sequence[Candidate], now_s: float) -> Choice:
        """Rank by score; those over their share come last, in the same order."""
        key = self._key(features)
        scores = {replica.name: _score(key, replica) for replica in replicas}
        ranked = sorted(replicas, key=lambda replica: scores[replica.name], reverse=True)
        if not self._bounded:
            return Choice(ranked, self._reason)
        in_flight = sum(replica.num_in_flight for replica in replicas) + 1
        weights = sum(replica.weight for replica in replicas)
        full = {
            replica.name: replica.num_in_flight + 1 > math.ceil(_SURPLUS * in_flight * replica.weight / weights)
            for replica in replicas
        }
        moved = full[ranked[0].name]
        ranked.sort(key=lambda replica: full[replica.name])
        return Choice(ranked, f"{self._reason}, the first has its share" if moved else self._reason)


def _score(key: str, replica: Candidate) -> float:
    digest = xxhash.xxh3_64_intdigest(f"{key}\0{replica.name}".encode())
    return -replica.weight / math.log((digest + 1) / (2**64 + 1))


def make_consistent_hash(random: Random, index: PrefixIndex) -> Rendezvous:
    """By session; by client address for requests that name none."""
    return Rendezvous(lambda features: features.session or features.client, True, "by session")


def make_ip_hash(random: Random, index: PrefixIndex) -> Rendezvous:
    """By client address."""
    return Rendezvous(lambda features: features.client, False, "by client address")
