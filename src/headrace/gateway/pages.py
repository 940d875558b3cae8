"""What the gateway answers itself: health, metrics, the models of the fleet, and administration."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

import msgspec

from headrace.errors import InvalidField, InvalidRequest, MethodNotAllowed, NoReplica, RouteNotFound
from headrace.gateway.discovery.registration import RegistrationSource
from headrace.gateway.discovery.source import parse_endpoint
from headrace.gateway.discovery.static import StaticSource
from headrace.gateway.features import features
from headrace.gateway.fleet import Fleet
from headrace.gateway.gateway import OwnAnswer
from headrace.gateway.guard import Guard as Guard
from headrace.gateway.http.messages import Request
from headrace.gateway.journal import Journal
from headrace.gateway.own_paths import OwnPaths, name_in
from headrace.gateway.replica import Replica
from headrace.gateway.route import Router

_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"


class Supervisor(Protocol):
    """Who runs replicas of its own."""

    async def rolling_restart(self) -> list[str]:
        """Restart each in turn, with no request lost; returns their names."""
        ...

    async def scale(self, count: int) -> int:
        """Run so many."""
        ...


class Pages:
    """Routes of the gateway's own.

    Args:
        router, journal: what there is to tell. added: replicas that administrators add. registered: that announce
            themselves. guard: who may ask. supervisor: of replicas that the gateway runs itself, if it does.
        is_draining: whether nothing new is taken.
    """

    def __init__(
        self,
        router: Router,
        journal: Journal,
        added: StaticSource,
        registered: RegistrationSource,
        guard: Guard,
        version: str,
        is_draining: Callable[[], bool],
        supervisor: Supervisor | None = None,
    ) -> None:
        """Ready to answer."""
        self._router = router
        self._journal = journal
        self._added = added
        self._registered = registered
        self._guard = guard
        self._version = version
        self._is_draining = is_draining
        self.supervisor = supervisor
        self._own = OwnPaths()

    def serves(self, request: Request) -> bool:
        """Whether a request is for the gateway."""
        return request in self._own

    def admits(self, request: Request) -> None:
        """Whether a request for a replica may pass. Raises Unauthorized."""
        self._guard.admit(request)

    async def answer(self, request: Request) -> OwnAnswer:
        """Answer a request for the gateway."""
        path, method = unquote(request.path.decode("latin-1")), request.method.decode()
        if path.startswith("/admin"):
            self._guard.identify(request, is_administrator=True)
            return await self._administer(request, method, path)
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{path} takes GET, not {method}")
        if path == "/v1/models":
            self._guard.identify(request)
        answer = self._page(path)
        return answer._replace(body=b"") if method == "HEAD" else answer

    def _page(self, path: str) -> OwnAnswer:
        if path == "/metrics":
            return OwnAnswer(200, self._journal.render(), _PROMETHEUS)
        if path == "/version":
            return _json({"version": self._version})
        if path == "/v1/models":
            return _json(self._models())
        return self._health(path)

    async def _administer(self, request: Request, method: str, path: str) -> OwnAnswer:
        routes = self._admin_routes()
        found = {m: (pattern, name) for m, pattern in routes if (name := name_in(path, pattern)) is not None}
        if method in found:
            pattern, name = found[method]
            return await routes[method, pattern](request, name)
        if found:
            raise MethodNotAllowed(f"{path} takes {', '.join(sorted(found))}, not {method}")
        raise RouteNotFound(f"{path} is not served here; {', '.join(sorted({p for _, p in routes}))} are")

    # ---------------------------------------------------------------- for everybody

    def _health(self, path: str) -> OwnAnswer:
        if path == "/health/live":
            return _json({"status": "live"})
        if path not in ("/health", "/health/ready"):
            raise RouteNotFound(f"{path} is not served here; /health, /health/live and /health/ready are")
        able = self._router.fleet.candidates("", (), self._router.clock())
        if self._is_draining() or not able:
            reason = "the gateway drains" if self._is_draining() else _conditions(self._router)
            return _json({"status": "not ready", "reason": reason}, 503)
        return _json({"status": "ready", "replicas": len(able)})

    def _models(self) -> dict[str, Any]:
        found: dict[str, list[str]] = {}
        for replica in self._router.fleet:
            for model in replica.models:
                found.setdefault(model, []).append(replica.name)
        data = [
            {"id": model, "object": "model", "created": 0, "owned_by": "headrace", "replicas": names}
            for model, names in sorted(found.items())
        ]
        return {"object": "list", "data": data}

    # ---------------------------------------------------------------- for administrators

    def _admin_routes(self) -> dict[tuple[str, str], Callable[[Request, str], Awaitable[OwnAnswer]]]:
        return {
            ("GET", "/admin/fleet"): self._fleet,
            ("POST", "/admin/replicas"): self._add,
            ("DELETE", "/admin/replicas/{name}"): self._remove,
            ("POST", "/admin/replicas/{name}/drain"): self._drain,
            ("POST", "/admin/replicas/{name}/undrain"): self._undrain,
            ("POST", "/admin/register"): self._register,
            ("DELETE", "/admin/register/{name}"): self._withdraw,
            ("POST", "/admin/route"): self._route,
            ("GET", "/admin/decisions"): self._decisions,
            ("POST", "/admin/rolling_restart"): self._rolling_restart,
            ("POST", "/admin/scale"): self._scale,
        }

    async def _fleet(self, request: Request, name: str) -> OwnAnswer:
        now_s = self._router.clock()
        self._router.fleet.warm(now_s)
        replicas = [self.described(replica, now_s) for replica in sorted(self._router.fleet, key=_name)]
        return _json({"replicas": replicas, "counts": self._journal.counts, "index_entries": len(self._router.index)})

    def described(self, replica: Replica, now_s: float) -> dict[str, Any]:
        """A replica as administrators see it."""
        load = replica.load
        return {
            "name": replica.name,
            "url": replica.endpoint.url,
            "condition": replica.condition(now_s),
            "weight": replica.weight,
            "models": list(replica.models),
            "num_in_flight": replica.num_in_flight,
            "tokens_in_flight": replica.tokens_in_flight,
            "reported": {"running": load.num_running, "waiting": load.num_waiting, "cache_ratio": load.cache_ratio},
            "lease_s": self._registered.expires_in_s(replica.name),
            "metadata": dict(replica.endpoint.metadata),
        }

    async def _add(self, request: Request, name: str) -> OwnAnswer:
        endpoint = parse_endpoint(_object(request.body))
        self._added.add(endpoint)
        return _json({"added": endpoint.name, "url": endpoint.url}, 201)

    async def _remove(self, request: Request, name: str) -> OwnAnswer:
        self._known(name)
        if not self._added.remove(name) and not self._registered.withdraw(name):
            raise InvalidRequest(
                f"replica {name} comes from a file or from the gateway's own processes: take it out there, or drain it"
            )
        return _json({"removed": name})

    async def _drain(self, request: Request, name: str) -> OwnAnswer:
        self._known(name).draining = True
        return _json({"draining": name})

    async def _undrain(self, request: Request, name: str) -> OwnAnswer:
        self._known(name).draining = False
        return _json({"undrained": name})

    def _known(self, name: str) -> Replica:
        replica = self._router.fleet.get(name)
        if replica is None:
            raise RouteNotFound(f"there is no replica {name!r}; there is: {_names(self._router.fleet)}")
        return replica

    async def _register(self, request: Request, name: str) -> OwnAnswer:
        endpoint = parse_endpoint(_object(request.body))
        self._registered.announce(endpoint)
        return _json({"registered": endpoint.name, "lease_s": self._registered.lease_s})

    async def _withdraw(self, request: Request, name: str) -> OwnAnswer:
        return _json({"withdrawn": self._registered.withdraw(name)})

    async def _route(self, request: Request, name: str) -> OwnAnswer:
        """Where a body would go; nothing is sent and nothing counted."""
        query = parse_qs(request.target.partition(b"?")[2].decode("latin-1"))
        if query.get("dry_run") != ["1"]:
            raise InvalidRequest("only POST /admin/route?dry_run=1 is there: it tells where a request would go")
        asked = features(request.body, request.client, request.header(b"x-session-id").decode("latin-1"))
        chosen = self._router.choose(asked, (), "dry-run", "first")
        if chosen is None:
            raise NoReplica(f"no replica is able to take a request: {_conditions(self._router)}")
        return _json(chosen[1].as_dict())

    async def _decisions(self, request: Request, name: str) -> OwnAnswer:
        return await self.decided(request)

    async def decided(self, request: Request) -> OwnAnswer:
        """The newest decisions, the newest first. Raises InvalidField."""
        newest = list(self._journal.decisions)[::-1][: self.decision_limit(request)]
        return _json({"decisions": [decision.as_dict() for decision in newest]})

    @staticmethod
    def decision_limit(request: Request) -> int:
        """How many are wanted. Raises InvalidField."""
        query = parse_qs(request.target.partition(b"?")[2].decode("latin-1"))
        text = query.get("limit", ["100"])[0]
        if not text.isdecimal() or len(text) > 6:
            raise InvalidField("limit", text, "a whole number")
        return int(text)

    async def _rolling_restart(self, request: Request, name: str) -> OwnAnswer:
        return _json({"restarted": await self._supervised().rolling_restart()})

    async def _scale(self, request: Request, name: str) -> OwnAnswer:
        count = _object(request.body).get("replicas")
        if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= 64:
            raise InvalidField("replicas", count, "a whole number from 1 to 64")
        return _json({"replicas": await self._supervised().scale(count)})

    def _supervised(self) -> Supervisor:
        if self.supervisor is None:
            raise InvalidRequest("this gateway runs no replicas of its own; `headrace up` does")
        return self.supervisor


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


def _json(value: Any, status: int = 200) -> OwnAnswer:
    return OwnAnswer(status, msgspec.json.encode(value))


def _name(replica: Replica) -> str:
    return replica.name


def _conditions(router: Router) -> str:
    now_s = router.clock()
    return ", ".join(f"{replica.name} {replica.condition(now_s)}" for replica in router.fleet) or "there are none"


def _names(fleet: Fleet) -> str:
    return ", ".join(replica.name for replica in fleet) or "none"
