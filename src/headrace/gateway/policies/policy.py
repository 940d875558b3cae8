"""The interface of a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from headrace.gateway.features import Features


class Candidate(Protocol):
    """What a policy may know of a replica that is able to take a request. Read-only."""

    @property
    def name(self) -> str:
        """Of the replica; the same after a restart."""
        ...

    @property
    def number(self) -> int:
        """Its place in the index of prefixes."""
        ...

    @property
    def num_in_flight(self) -> int:
        """Requests that it was sent and has not answered, of all gateways that tell."""
        ...

    @property
    def tokens_in_flight(self) -> int:
        """Prompt tokens of those that its cache does not hold."""
        ...

    @property
    def cost(self) -> float:
        """Those tokens by weight, and a little for each request, which decides between equals."""
        ...

    @property
    def weight(self) -> float:
        """Its share relative to others, more than 0; less while it starts slowly."""
        ...


class Choice(msgspec.Struct, frozen=True):
    """A decision.

    Attributes:
        ranked: every candidate, the best first; a retry takes the next. reason: for people, in a few words.
        num_held: leading blocks of the prompt that the best one holds; None when the policy did not look.
    """

    ranked: Sequence[Candidate]
    reason: str
    num_held: int | None = None


class Policy(Protocol):
    """Ranks replicas. Depends on nothing but its arguments, its own counters and the random source it was made with."""

    def pick(self, features: Features, replicas: Sequence[Candidate], now_s: float) -> Choice:
        """Rank the replicas (at least one) for a request."""
        ...
