"""All sources together: the union of their last good sets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from headrace.errors import ConfigError
from headrace.gateway.discovery.source import Source
from headrace.gateway.replica import Endpoint

_log = logging.getLogger(__name__)


class DiscoveryHub:
    """Runs sources and hands over the union when it changes.

    A name that two sources list belongs to the one that comes first.

    Args:
        sources: by name, in order of precedence. update: is given the union.
        retry_s: until a source that is down is asked again.
    """

    def __init__(
        self, sources: Mapping[str, Source], update: Callable[[list[Endpoint]], object], retry_s: float = 2.0
    ) -> None:
        """Nothing known yet."""
        self._sources = dict(sources)
        self._update = update
        self._retry_s = retry_s
        self._sets: dict[str, tuple[Endpoint, ...]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Follow every source."""
        for name, source in self._sources.items():
            task = asyncio.get_running_loop().create_task(self._follow(name, source), name=f"headrace-discovery-{name}")
            self._tasks.append(task)

    async def stop(self) -> None:
        """Follow none; the last set stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _follow(self, name: str, source: Source) -> None:
        told: tuple[Endpoint, ...] | None = None
        while True:
            try:
                async for endpoints in source.sets():
                    self._sets[name] = endpoints
                    if told != endpoints:
                        told = None
                        self._update(self.union())
                        told = endpoints
            except (OSError, ConfigError) as error:
                _log.error("the source %s of replicas is down, its last set stays: %s", name, error)
            except Exception:  # without its sources a gateway would look well and grow old
                _log.exception("the source %s of replicas failed, its last set stays", name)
            await asyncio.sleep(self._retry_s)

    def union(self) -> list[Endpoint]:
        """What all sources list."""
        found: dict[str, Endpoint] = {}
        for name in self._sources:
            for endpoint in self._sets.get(name, ()):
                found.setdefault(endpoint.name, endpoint)
        return list(found.values())
