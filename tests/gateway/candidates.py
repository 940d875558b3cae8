"""Replicas for tests of policies."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.gateway.features import Features


@dataclass
class FakeReplica:
    """What a policy may know."""

    name: str
    number: int
    num_in_flight: int = 0
    tokens_in_flight: int = 0
    weight: float = 1.0

    @property
    def cost(self) -> float:
        return (self.tokens_in_flight + 1e-3 * self.num_in_flight) / self.weight


def fleet(count: int) -> list[FakeReplica]:
    return [FakeReplica(f"r{i}", i) for i in range(count)]


def request(hashes: tuple[int, ...] = (), session: str = "", client: str = "1.2.3.4", tokens: int = 100) -> Features:
    return Features("m", tokens, hashes, session, client)
