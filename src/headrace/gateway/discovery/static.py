"""A set that does not change by itself: addresses on the command line, and what an administrator adds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from headrace.gateway.replica import Endpoint


class StaticSource:
    """Endpoints by name. Used by one event loop."""

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        """Begin with these."""
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._changed = asyncio.Event()

    def add(self, endpoint: Endpoint) -> None:
        """One more, or another address under a known name."""
        self._endpoints[endpoint.name] = endpoint
        self._changed.set()

    def remove(self, name: str) -> bool:
        """Whether it was there."""
        found = self._endpoints.pop(name, None) is not None
        self._changed.set()
        return found

    async def sets(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """Now, and after each change."""
        while True:
            self._changed.clear()
            yield tuple(self._endpoints.values())
            await self._changed.wait()
