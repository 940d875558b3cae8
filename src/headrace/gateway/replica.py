"""One replica, as the gateway knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from headrace.gateway.health.breaker import Breaker, BreakerSettings

SLOW_START_S = 10.0
_LEAST_SHARE = 0.1
_REQUEST_TOKENS = 1e-3

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
        return f"http{'s' * self.tls}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ReportedLoad:
    """What a replica said of itself with its last answer or probe.

    Attributes:
        num_running, num_waiting: requests. num_tokens: prompt tokens not computed yet.
        cache_ratio: of the cache in use, 0..1.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_tokens: int = 0
    cache_ratio: float = 0.0


NO_LOAD = ReportedLoad()
"""Of a replica that has not told."""


class Replica:
    """State of one replica. Used by one event loop.

    Args:
        changed: called when something changed that decides whether it is asked, but for what time alone changes.

    Attributes:
        endpoint: where it is. authority: its host and port. number: its place in the index of prefixes.
        num_in_flight: requests it was sent and has not answered. tokens_in_flight: prompt tokens of those that it has
            to compute. weight: its share relative to others, which grows after an outage.
        cost: those tokens by weight, and a thousandth for each request, which decides between equals.
        is_up: by the last probe. draining: gets nothing new. breaker: from the outcomes of requests.
        busy_until_s: it asked for a pause (429 or 503 with Retry-After). load: as it reported.
        learned_models: as it lists them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        number: int,
        settings: BreakerSettings,
        now_s: float,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Up, until a probe or a request says something else."""
        self.name = endpoint.name
        self.number = number
        self.breaker = Breaker(settings, changed)
        self.num_in_flight = 0
        self.tokens_in_flight = 0
        self.cost = 0.0
        self.load = NO_LOAD
        self._endpoint, self.weight = endpoint, endpoint.weight
        self.authority = endpoint.authority.encode()
        self._changed = changed
        self._is_up = True
        self._draining = False
        self._busy_until_s = 0.0
        self._learned_models: tuple[str, ...] = ()
        self._warm_since_s = now_s - SLOW_START_S

    # What decides whether it is asked: whoever remembers that is told of every change.

    @property
    def endpoint(self) -> Endpoint:
        """Where it is; the name stays."""
        return self._endpoint

    @endpoint.setter
    def endpoint(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.authority = endpoint.authority.encode()
        self._changed()

    @property
    def is_up(self) -> bool:
        """By the last probe."""
        return self._is_up

    @is_up.setter
    def is_up(self, is_up: bool) -> None:
        self._is_up = is_up
        self._changed()

    @property
    def draining(self) -> bool:
        """Gets nothing new."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        self._changed()

    @property
    def busy_until_s(self) -> float:
        """It asked for a pause."""
        return self._busy_until_s

    @busy_until_s.setter
    def busy_until_s(self, until_s: float) -> None:
        self._busy_until_s = until_s
        self._changed()

    @property
    def learned_models(self) -> tuple[str, ...]:
        """As it lists them."""
        return self._learned_models

    @learned_models.setter
    def learned_models(self, models: tuple[str, ...]) -> None:
        self._learned_models = models
        self._changed()

    @property
    def models(self) -> tuple[str, ...]:
        """Models that it serves: as it was registered with, or as it lists them; empty: not known."""
        return self._endpoint.models or self._learned_models

    def warm(self, now_s: float) -> bool:
        """Work out its weight: after an outage it grows for ten seconds, so that a cold replica is not flooded.

        Returns whether it is whole; until then and after every change this is to be called again.
        """
        since_s = max(self._warm_since_s, self.breaker.closed_s or self._warm_since_s)
        share = min((now_s - since_s) / SLOW_START_S, 1.0)
        self.weight = self._endpoint.weight * max(share, _LEAST_SHARE)
        self.load_is(self.num_in_flight, self.tokens_in_flight)
        return share == 1.0

    def came_up(self, now_s: float) -> None:
        """A probe succeeded after it was down: what failed before was the outage."""
        self.is_up = True
        self._warm_since_s = now_s
        self.breaker.close(now_s)

    def begin(self, num_uncached_tokens: int, now_s: float) -> None:
        """A request is sent."""
        self.num_in_flight += 1
        self.tokens_in_flight += num_uncached_tokens
        self.cost = (self.tokens_in_flight + _REQUEST_TOKENS * self.num_in_flight) / self.weight
        self.breaker.sent(now_s)

    def prefilled(self, num_uncached_tokens: int) -> None:
        """The first token of a request came, so its prompt is computed."""
        self.load_is(self.num_in_flight, self.tokens_in_flight - num_uncached_tokens)

    def end(self, num_uncached_tokens: int = 0) -> None:
        """A request ended, in whatever way; so many tokens of it were not told to be computed."""
        self.num_in_flight -= 1
        self.tokens_in_flight -= num_uncached_tokens
        self.cost = (self.tokens_in_flight + _REQUEST_TOKENS * self.num_in_flight) / self.weight

    def load_is(self, num_in_flight: int, tokens_in_flight: int) -> None:
        """So much is under way."""
        self.num_in_flight, self.tokens_in_flight = num_in_flight, tokens_in_flight
        self.cost = (tokens_in_flight + _REQUEST_TOKENS * num_in_flight) / self.weight

    def condition(self, now_s: float) -> Condition:
        """Whether it can take a request, and why not."""
        if self._draining:
            return "draining"
        if not self._is_up:
            return "down"
        if not self.breaker.allows(now_s):
            return "ejected"
        if now_s < self._busy_until_s:
            return "busy"
        return "ready" if self.breaker.state(now_s) == "closed" else "trial"
