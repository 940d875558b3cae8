"""To where the prompt's prefix is cached, unless the wait there costs more than the prefill that it saves.

A replica's cost is what has to be computed before the first token: the uncached tokens it was sent already, and those
of this prompt that it does not hold. A replica that holds nearly all of the prompt (80 %) is preferred while its queue
is longer than the shortest by no more than the prefill that it saves. A replica that holds less is no different from
any other but for its cost: that is what spreads a new prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from random import Random

from headrace.gateway.blocks import tokens_of
from headrace.gateway.features import Features
from headrace.gateway.policies.least import Least, make_least_tokens
from headrace.gateway.policies.policy import Candidate, Choice
from headrace.gateway.prefix_index import PrefixIndex

HELD_RATIO = 0.8
_COST = attrgetter("cost")
_SLACK_TOKENS = 0.5  # a cost has a little for each request in it, which is no token


class Prefix:
    """Holders first, then by cost.

    Args:
        index: of what each replica was sent. otherwise: ranks requests whose prefix nobody holds.
    """

    def __init__(self, index: PrefixIndex, otherwise: Least) -> None:
        """The index is kept up to date by who sends the requests."""
        self._index = index
        self._otherwise = otherwise

    def pick(self, features: Features, replicas: Sequence[Candidate], now_s: float) -> Choice:
        """Rank by what has to be computed first."""
        hashes = features.block_hashes
        if not hashes or not (depths := self._index.depths(hashes)):
            return self._otherwise.pick(features, replicas, now_s)
        held = {number: tokens_of(depth) for number, depth in depths.items()}
        shortest, enough = min(map(_COST, replicas)), HELD_RATIO * tokens_of(len(hashes))

        def key(replica: Candidate) -> tuple[bool, float]:
            saved = held.get(replica.number)
            if saved is None:
                return True, replica.cost
            holds = saved >= enough and replica.cost - shortest <= saved + _SLACK_TOKENS
            return not holds, replica.cost if holds else replica.cost - saved / replica.weight

        ranked = sorted(replicas, key=key)
        depth = depths.get(ranked[0].number, 0)
        return Choice(ranked, f"{depth} of {len(hashes)} blocks held", depth)


def make(random: Random, index: PrefixIndex) -> Prefix:
    """Falls back on the fewest tokens."""
    return Prefix(index, make_least_tokens(random, index))
