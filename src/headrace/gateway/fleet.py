"""All replicas of a gateway: who is there, and who may be asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from headrace.gateway.health.breaker import BreakerSettings
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.replica import Endpoint, Replica

_MOST_KNOWN = 1_000
"""Names of models that candidates are remembered for: clients make them up."""


class Fleet:
    """Replicas by name. Used by one event loop.

    Args:
        index: of prefixes; kept in step with the set of replicas. settings: of the breakers.
    """

    def __init__(self, index: PrefixIndex, settings: BreakerSettings | None = None) -> None:
        """Empty."""
        self._index = index
        self._settings = settings or BreakerSettings()
        self._replicas: dict[str, Replica] = {}
        self._known_candidates: dict[str, list[Replica]] = {}
        self._warming: list[Replica] = []  # whose weights are to be worked out

    def __iter__(self) -> Iterator[Replica]:
        """All of them."""
        return iter(self._replicas.values())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._replicas)

    def get(self, name: str) -> Replica | None:
        """By name."""
        return self._replicas.get(name)

    def update(self, endpoints: Iterable[Endpoint], now_s: float) -> tuple[list[Replica], list[Replica]]:
        """Take over a full set from discovery; returns who came and who went.

        A replica whose address changed is another one. Requests under way at one that went go on to their end.
        """
        wanted = {endpoint.name: endpoint for endpoint in endpoints}
        gone = [replica for name, replica in self._replicas.items() if not _is_same(replica, wanted.get(name))]
        for replica in gone:
            del self._replicas[replica.name]
            self._index.remove_replica(replica.number)
        came = []
        for name, endpoint in wanted.items():
            known = self._replicas.get(name)
            if known is not None:
                known.endpoint = endpoint
                continue
            replica = Replica(endpoint, self._free_number(), self._settings, now_s, self._changed)
            self._replicas[name] = replica
            self._index.add_replica(replica.number)
            came.append(replica)
        self._changed()
        return came, gone

    def _changed(self) -> None:
        """Something that decides who is asked."""
        self._known_candidates.clear()
        self._warming = list(self._replicas.values())

    def _free_number(self) -> int:
        taken = {replica.number for replica in self._replicas.values()}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def candidates(self, model: str, excluded: Collection[str], now_s: float) -> Sequence[Replica]:
        """Who may take a request for a model now; empty when nobody may.

        Ejections are suspicions: where they would leave less than half of those that are up, the suspects that were
        let in longest ago come back. Only probes, drains and pauses are taken at their word.

        Args:
            model: "" for any. excluded: names that this request has failed at.
        """
        if self._warming:
            self.warm(now_s)
        able = self._known_candidates.get(model)
        if able is None:
            able = self._able(model, now_s)
        return [replica for replica in able if replica.name not in excluded] if excluded else able

    def warm(self, now_s: float) -> None:
        """Bring the replicas' weights up to date."""
        self._warming = [replica for replica in self._warming if not replica.warm(now_s)]

    def _able(self, model: str, now_s: float) -> list[Replica]:
        """Sort out who may be asked; remembered when nothing but a change of a replica can make it different."""
        able, ejected, num_up, lasts = [], [], 0, True
        for replica in self._replicas.values():
            if model and replica.models and model not in replica.models:
                continue
            condition = replica.condition(now_s)
            if condition in ("down", "draining"):
                continue
            num_up += 1
            lasts = lasts and condition == "ready"
            if condition in ("ready", "trial"):
                able.append(replica)
            elif condition == "ejected":
                ejected.append(replica)
        missing = (num_up + 1) // 2 - len(able)
        if missing > 0 and ejected:
            ejected.sort(key=lambda replica: replica.breaker.reopens_in_s(now_s))
            able += ejected[:missing]
        if lasts and len(self._known_candidates) < _MOST_KNOWN:
            self._known_candidates[model] = able
        return able

    def knows(self, model: str) -> bool:
        """Whether any replica serves the model, able or not."""
        return any(not replica.models or model in replica.models for replica in self)


def _is_same(replica: Replica, endpoint: Endpoint | None) -> bool:
    if endpoint is None:
        return False
    old = replica.endpoint
    return (old.host, old.port, old.tls) == (endpoint.host, endpoint.port, endpoint.tls)
