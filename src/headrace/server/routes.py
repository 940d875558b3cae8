"""From method and path to an endpoint of the interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.errors import MethodNotAllowed, RouteNotFound
from headrace.protocol.table.endpoints import Endpoint


class Routes:
    """The endpoints, by path and method. A parameter is the last part of a path and may hold slashes."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        """Index them."""
        self._fixed: dict[str, dict[str, Endpoint]] = {}
        self._open_ended: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            fixed, brace, _ = endpoint.path.partition("{")
            methods = (self._open_ended if brace else self._fixed).setdefault(fixed, {})
            methods[endpoint.method] = endpoint
            if endpoint.method == "GET":
                methods["HEAD"] = endpoint

    def find(self, method: str, path: str) -> tuple[Endpoint, str]:
        """The endpoint, and its parameter ("" where it has none).

        Raises:
            RouteNotFound, MethodNotAllowed: with the methods that are.
        """
        methods, parameter = self._methods(path)
        endpoint = methods.get(method)
        if endpoint is None:
            raise MethodNotAllowed(f"{path} is for {allowed(methods)}, not for {method[:20]}")
        return endpoint, parameter

    def methods(self, path: str) -> str:
        """What a path may be asked with, for the Allow header. Raises RouteNotFound."""
        return allowed(self._methods(path)[0])

    def _methods(self, path: str) -> tuple[Mapping[str, Endpoint], str]:
        if path in self._fixed:
            return self._fixed[path], ""
        for prefix, methods in self._open_ended.items():
            if path.startswith(prefix) and len(path) > len(prefix):
                return methods, path[len(prefix) :]
        meant = self._meant(path)
        hint = "/openapi.json lists what there is" if meant is None else f"did you mean {meant}?"
        raise RouteNotFound(f"there is nothing at {path[:200]}; {hint}").with_hint(hint)

    def _meant(self, path: str) -> str | None:
        """The path that a client with a wrong base address meant: a slash, or /v1, too much or too little."""
        plain = "/" + "/".join(part for part in path.split("/") if part)
        for candidate in (plain, f"/v1{plain}", plain.removeprefix("/v1")):
            if candidate in self._fixed:
                return candidate
        return None


def allowed(methods: Iterable[str]) -> str:
    """Methods as the Allow header lists them."""
    return ", ".join(sorted(methods))
