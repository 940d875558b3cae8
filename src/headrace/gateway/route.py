"""What the gateway shares between its requests, and the choice of a replica."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from headrace.errors import HeadraceError, ModelNotFound, NoReplica, ReplicaFailed
from headrace.gateway.blocks import tokens_of
from headrace.gateway.budget import RetryBudget
from headrace.gateway.features import Features
from headrace.gateway.fleet import Fleet
from headrace.gateway.http.upstream import UpstreamPool
from headrace.gateway.patience import Patience, PatienceSettings
from headrace.gateway.policies import Policy
from headrace.gateway.policies.policy import Candidate
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.replica import Replica

_NUM_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """How requests are passed on.

    Attributes:
        connect_timeout_s: for a connection to a replica. max_attempts: replicas that a request is sent to before its
            answer begins, hedges included. max_continuations: how often a stream may go on elsewhere.
        max_answer_bytes: of an answer that is no stream. patience: with silent replicas.
    """

    connect_timeout_s: float = 1.0
    max_attempts: int = 3
    max_continuations: int = 8
    max_answer_bytes: int = 256 * 1024 * 1024
    patience: PatienceSettings = field(default_factory=PatienceSettings)


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Why a request went where it went.

    Attributes:
        at_s: wall clock. kind: "first", "retry", "hedge" or "continue". num_tokens: of the prompt, estimated.
        num_cached_tokens: of those that the replica holds by the index. num_in_flight: at the replica, this one left
            out. best: the best eight candidates, the best first.
    """

    request_id: str
    at_s: float
    kind: str
    model: str
    replica: str
    reason: str
    num_tokens: int
    num_cached_tokens: int
    num_in_flight: int
    tokens_in_flight: int
    best: Sequence[Candidate]

    @property
    def ranked(self) -> list[str]:
        """Names of the best candidates."""
        return [candidate.name for candidate in self.best]

    @property
    def header(self) -> bytes:
        """For the client."""
        return (
            f"replica={self.replica}; {self.kind}; {self.reason}; cached={self.num_cached_tokens}/{self.num_tokens}; "
            f"in_flight={self.num_in_flight}"
        ).encode("latin-1", "replace")

    def as_dict(self) -> dict[str, Any]:
        """For administrators."""
        told = msgspec.structs.asdict(self)
        del told["best"]
        return {**told, "ranked": self.ranked}


class Way(NamedTuple):
    """To a replica.

    Attributes: pool: connections to it. patience: with its silence.
    """

    pool: UpstreamPool
    patience: Patience


class Observer(Protocol):
    """Who counts and remembers."""

    def decided(self, decision: Decision) -> None:
        """A request is sent to a replica."""
        ...

    def attempt_ended(self, replica: str, outcome: str) -> None:
        """One try ended: "ok", "refused", "failed", "stalled" or "cancelled"."""
        ...

    def finished(self, outcome: str, status: int, took_s: float, own_s: float, usage: tuple[int, int, int]) -> None:
        """A request has its answer: "ok", "error", "cut" or "cancelled".

        took_s: until its end. own_s: of it, before a replica was asked. usage: prompt, cached and output tokens.
        """
        ...


@dataclass(slots=True)
class Router:
    """Fleet, policy and what is known of the replicas. Used by one event loop.

    Attributes:
        clock: seconds, monotonic. wall_clock: seconds since 1970. new_id: ids for requests without one.
        make_pool: connections to a replica.
    """

    fleet: Fleet
    policy: Policy
    index: PrefixIndex
    settings: ProxySettings
    observer: Observer
    clock: Callable[[], float]
    wall_clock: Callable[[], float]
    new_id: Callable[[], str]
    make_pool: Callable[[Replica], UpstreamPool]
    budget: RetryBudget = field(default_factory=RetryBudget)
    _ways: dict[Replica, Way] = field(default_factory=dict)
    _fleet_patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is known of any replica."""
        self._fleet_patience = Patience(self.settings.patience)

    def choose(
        self, features: Features, excluded: Collection[str], request_id: str, kind: str
    ) -> tuple[Replica, Decision] | None:
        """The best replica for a request and why; None when none is able. Changes nothing."""
        now_s = self.clock()
        candidates = self.fleet.candidates(features.model, excluded, now_s)
        if not candidates:
            return None
        choice = self.policy.pick(features, candidates, now_s)
        ranked, num_held = choice.ranked, choice.num_held
        replica = ranked[0]
        assert isinstance(replica, Replica)
        if num_held is None:
            num_held = self.index.depths(features.block_hashes).get(replica.number, 0) if features.block_hashes else 0
        return replica, Decision(
            request_id, self.wall_clock(), kind, features.model, replica.name, choice.reason, features.num_tokens,
            tokens_of(num_held), replica.num_in_flight, replica.tokens_in_flight,
            ranked if len(ranked) <= _NUM_NAMED else ranked[:_NUM_NAMED],
        )  # fmt: skip

    def why_none(self, features: Features, failed: Mapping[str, str]) -> HeadraceError:
        """What to tell a client whose request no replica answered; `failed`: what happened, by replica."""
        if failed:
            tried = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            return ReplicaFailed(f"no replica answered ({tried})")
        fleet = self.fleet
        if len(fleet) and not fleet.knows(features.model):
            models = sorted({model for replica in fleet for model in replica.models})
            return ModelNotFound(f"no replica serves {features.model!r}; there is: {', '.join(models)}")
        now_s = self.clock()
        states = ", ".join(f"{replica.name} {replica.condition(now_s)}" for replica in fleet) or "there are none"
        return NoReplica(f"no replica is able to take a request: {states}")

    def way(self, replica: Replica) -> Way:
        """To a replica."""
        way = self._ways.get(replica)
        if way is None:
            patience = Patience(self.settings.patience, self._fleet_patience)
            way = self._ways[replica] = Way(self.make_pool(replica), patience)
        return way

    def forget(self, replica: Replica) -> None:
        """It left the fleet; its requests go on to their end."""
        way = self._ways.pop(replica, None)
        if way is not None:
            way.pool.close()

    def close(self) -> None:
        """Hang up on all idle connections."""
        for replica in list(self._ways):
            self.forget(replica)
