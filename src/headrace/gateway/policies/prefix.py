"""To where the prompt's prefix is cached, unless the wait there costs more than the prefill that it saves.

A replica's cost is what has to be computed before the first token: the uncached tokens it was sent already, and those
of this prompt that it does not hold. A replica that holds nearly all of the prompt (80 %) is preferred while its queue
is longer than the shortest by no more than the prefill that it saves. A replica that holds less is no different from
any other but for its cost: that is what spreads a new prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from headrace.gateway.blocks import tokens_of
from headrace.gateway.features import Features
from headrace.gateway.policies.least import Least, make_least_tokens
from headrace.gateway.policies.policy import Candidate, Choice
from headrace.gateway.prefix_index import PrefixIndex

HELD_RATIO = 0.8


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
        weights = [replica.weight for replica in replicas]
        loads = [replica.tokens_in_flight / weight for replica, weight in zip(replicas, weights, strict=True)]
        held = {number: tokens_of(depth) for number, depth in depths.items()}
        shortest, enough, keys = min(loads), HELD_RATIO * tokens_of(len(hashes)), []
        for place, replica in enumerate(replicas):
            saved, load = held.get(replica.number, 0), loads[place]
            holds = saved >= enough and load - shortest <= saved
            keys.append((not holds, load if holds else load - saved / weights[place], replica.num_in_flight, place))
        keys.sort()
        ranked = [replicas[place] for _, _, _, place in keys]
        depth = depths.get(ranked[0].number, 0)
        return Choice(ranked, f"{depth} of {len(hashes)} blocks held", depth)


def make(random: Random, index: PrefixIndex) -> Prefix:
    """Falls back on the fewest tokens."""
    return Prefix(index, make_least_tokens(random, index))
