"""The interface of a source, and the one way to write a replica down."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from headrace.errors import ConfigError
from headrace.gateway.replica import Endpoint

_NAME = re.compile(r"[\x21-.0-~]{1,200}")
"""What can stand in a path and in a header."""

_ADDRESS = re.compile(r"[\x21-~]+")


class Source(Protocol):
    """Somewhere that replicas are listed."""

    def sets(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """The full set, each time that it changes, the first at once.

        A source that is down yields nothing: the last good set stays. It may raise OSError or ConfigError; it is then
        asked again after a while.
        """
        ...


def parse_endpoint(given: object) -> Endpoint:
    """An endpoint from an address, or from a table with url, name, weight, models and metadata. Raises ConfigError."""
    if not isinstance(given, str | Mapping):
        raise ConfigError(f"a replica is an address or a table, such as http://10.0.0.5:8000; not {given!r}")
    fields: dict[str, Any] = {"url": given} if isinstance(given, str) else dict(given)
    unknown = fields.keys() - {"url", "name", "weight", "models", "metadata"}
    if unknown:
        raise ConfigError(f"a replica has url, name, weight, models and metadata; not {', '.join(sorted(unknown))}")
    address = fields.get("url")
    if not isinstance(address, str):
        raise ConfigError(f"a replica needs a url, such as http://10.0.0.5:8000; {given!r} has none")
    host, port, is_tls = _parse_address(address)
    weight = fields.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise ConfigError(f"{address!r}: weight={weight!r} must be a number above 0")
    models, metadata = fields.get("models", ()), fields.get("metadata", {})
    if not isinstance(models, list | tuple) or not all(isinstance(model, str) for model in models):
        raise ConfigError(f"{address!r}: models={models!r} must be a list of names")
    if not isinstance(metadata, Mapping) or not all(isinstance(value, str) for value in metadata.values()):
        raise ConfigError(f"{address!r}: metadata={metadata!r} must be names with texts")
    name = fields.get("name") or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{address!r}: name={name!r} must be printable ASCII without spaces and slashes, at most 200")
    return Endpoint(name, host, port, is_tls, float(weight), tuple(models), dict(metadata))


def _parse_address(address: str) -> tuple[str, int, bool]:
    """Host, port, and whether it is https."""
    wrong = ConfigError(f"{address!r} is not the address of a replica; http://10.0.0.5:8000 would be")
    if not _ADDRESS.fullmatch(address):
        raise wrong
    try:
        url = urlsplit(address if "://" in address else f"http://{address}")
        port = url.port
    except ValueError:
        raise wrong from None
    if url.username is not None:
        raise ConfigError("a replica's address has no user and password: replica_api_key is the gateway's key to it")
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise wrong
    if url.path not in ("", "/", "/v1", "/v1/") or url.query or url.fragment:
        raise ConfigError(f"{address!r}: a replica is host and port; a path cannot be put before the client's")
    is_tls = url.scheme == "https"
    return url.hostname, port or (443 if is_tls else 80), is_tls
