"""One replica, as the gateway knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from headrace.gateway.health.breaker import Breaker, BreakerSettings

SLOW_START_S = 10.0
_LEAST_SHARE = 0.1

Condition = Literal["ready", "draining", "down", "ejected", "trial", "busy"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a replica is and what it says of itself, as discovery found it.

    Attributes:
        name: unique in the fleet. host, port, tls: where it listens.
        weight: its share relative to others. models: that it serves; empty: any.
        metadata: whatever else it was registered with.
    """

    name: str
    host: str
    port: int
    tls: bool = False
    weight: float = 1.0
    models: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' * self.tls}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ReportedLoad:
    """What a replica said of itself with its last answer or probe.

    Attributes:
        num_running, num_waiting: requests. num_tokens: prompt tokens not computed yet.
        cache_ratio: of the cache in use, 0..1. num_cache_tokens: its size.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_tokens: int = 0
    cache_ratio: float = 0.0
    num_cache_tokens: int | None = None


class Replica:
    """State of one replica. Used by one event loop.

    Attributes:
        endpoint: where it is. number: its place in the index of prefixes.
        num_in_flight: requests it was sent and has not answered. tokens_in_flight: prompt tokens of those that it has
            to compute.
        is_up: by the last probe. draining: gets nothing new. breaker: from the outcomes of requests.
        busy_until_s: it asked for a pause (429 or 503 with Retry-After). load: as it reported.
        learned_models: as it lists them.
    """

    def __init__(self, endpoint: Endpoint, number: int, settings: BreakerSettings, now_s: float) -> None:
        """Up, until a probe or a request says something else."""
        self.endpoint = endpoint
        self.number = number
        self.breaker = Breaker(settings)
        self.num_in_flight = 0
        self.tokens_in_flight = 0
        self.is_up = True
        self.draining = False
        self.busy_until_s = 0.0
        self.load = ReportedLoad()
        self.learned_models: tuple[str, ...] = ()
        self._warm_since_s = now_s - SLOW_START_S

    @property
    def name(self) -> str:
        """Of the endpoint."""
        return self.endpoint.name

    @property
    def models(self) -> tuple[str, ...]:
        """Models that it serves: as it was registered with, or as it lists them; empty: not known."""
        return self.endpoint.models or self.learned_models

    def weight(self, now_s: float) -> float:
        """Its share: after an outage it grows for ten seconds, so that a cold replica is not flooded."""
        since = max(self._warm_since_s, self.breaker.closed_s or self._warm_since_s)
        share = min(max((now_s - since) / SLOW_START_S, _LEAST_SHARE), 1.0)
        return self.endpoint.weight * share

    def came_up(self, now_s: float) -> None:
        """A probe succeeded after it was down: what failed before was the outage."""
        self.is_up = True
        self._warm_since_s = now_s
        self.breaker.close(now_s)

    def begin(self, num_uncached_tokens: int, now_s: float) -> None:
        """A request is sent."""
        self.num_in_flight += 1
        self.tokens_in_flight += num_uncached_tokens
        self.breaker.sent(now_s)

    def prefilled(self, num_uncached_tokens: int) -> None:
        """The first token of a request came, so its prompt is computed."""
        self.tokens_in_flight -= num_uncached_tokens

    def end(self) -> None:
        """A request ended, in whatever way."""
        self.num_in_flight -= 1

    def condition(self, now_s: float) -> Condition:
        """Whether it can take a request, and why not."""
        if self.draining:
            return "draining"
        if not self.is_up:
            return "down"
        if not self.breaker.allows(now_s):
            return "ejected"
        if now_s < self.busy_until_s:
            return "busy"
        return "ready" if self.breaker.state(now_s) == "closed" else "trial"
