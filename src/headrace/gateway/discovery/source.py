"""The interface of a source, and the one way to write a replica down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from headrace.errors import ConfigError
from headrace.gateway.replica import Endpoint


class Source(Protocol):
    """Somewhere that replicas are listed."""

    def sets(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """The full set, each time that it changes, the first at once.

        A source that is down yields nothing: the last good set stays. It may raise OSError or ConfigError; it is then
        asked again after a while.
        """
        ...


def parse_endpoint(given: str | Mapping[str, Any]) -> Endpoint:
    """An endpoint from an address, or from a table with url, name, weight, models and metadata. Raises ConfigError."""
    fields: dict[str, Any] = {"url": given} if isinstance(given, str) else dict(given)
    unknown = fields.keys() - {"url", "name", "weight", "models", "metadata"}
    if unknown:
        raise ConfigError(f"a replica has url, name, weight, models and metadata; not {', '.join(sorted(unknown))}")
    address = fields.get("url")
    if not isinstance(address, str):
        raise ConfigError(f"a replica needs a url, such as http://10.0.0.5:8000; {given!r} has none")
    url = urlsplit(address if "://" in address else f"http://{address}")
    try:
        port = url.port
    except ValueError:
        port = 0
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise ConfigError(f"{address!r} is not the address of a replica; http://10.0.0.5:8000 would be")
    if url.path not in ("", "/", "/v1", "/v1/") or url.query:
        raise ConfigError(f"{address!r}: a replica is host and port; a path cannot be put before the client's")
    is_tls = url.scheme == "https"
    port = port or (443 if is_tls else 80)
    weight = fields.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise ConfigError(f"{address!r}: weight={weight!r} must be a number above 0")
    models, metadata = fields.get("models", ()), fields.get("metadata", {})
    if not isinstance(models, list | tuple) or not all(isinstance(model, str) for model in models):
        raise ConfigError(f"{address!r}: models={models!r} must be a list of names")
    if not isinstance(metadata, Mapping) or not all(isinstance(value, str) for value in metadata.values()):
        raise ConfigError(f"{address!r}: metadata={metadata!r} must be names with texts")
    name = fields.get("name") or f"{url.hostname}:{port}"
    if not isinstance(name, str) or not name.isprintable() or not name.isascii() or " " in name or len(name) > 200:
        raise ConfigError(f"{address!r}: name={name!r} must be printable ASCII without spaces")
    return Endpoint(name, url.hostname, port, is_tls, float(weight), tuple(models), dict(metadata))
