"""Replicas that announce themselves, each with a lease that it renews; one that falls silent is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from headrace.gateway.replica import Endpoint

LEASE_S = 30.0


class RegistrationSource:
    """A registry of leases. Used by one event loop.

    Args:
        clock: seconds, monotonic. lease_s: how long an announcement holds.
    """

    def __init__(self, clock: Callable[[], float], lease_s: float = LEASE_S) -> None:
        """Nobody yet."""
        self.lease_s = lease_s
        self._clock = clock
        self._leases: dict[str, tuple[Endpoint, float]] = {}
        self._changed = asyncio.Event()

    def announce(self, endpoint: Endpoint) -> None:
        """A replica is there, or still there."""
        known = self._leases.get(endpoint.name)
        self._leases[endpoint.name] = (endpoint, self._clock() + self.lease_s)
        if known is None or known[0] != endpoint:
            self._changed.set()

    def withdraw(self, name: str) -> bool:
        """A replica says that it goes; whether it was there."""
        found = self._leases.pop(name, None) is not None
        self._changed.set()
        return found

    def expires_in_s(self, name: str) -> float | None:
        """Seconds that a lease still holds; None for a name that has none."""
        lease = self._leases.get(name)
        return None if lease is None else lease[1] - self._clock()

    def drop_expired(self) -> list[str]:
        """Forget the leases that ran out; returns their names."""
        now_s = self._clock()
        expired = [name for name, (_, until_s) in self._leases.items() if until_s <= now_s]
        for name in expired:
            del self._leases[name]
        if expired:
            self._changed.set()
        return expired

    async def sets(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """Now, and after each change; leases are looked at every second."""
        while True:
            self._changed.clear()
            yield tuple(endpoint for endpoint, _ in self._leases.values())
            while not self._changed.is_set():
                try:
                    async with asyncio.timeout(1.0):
                        await self._changed.wait()
                except TimeoutError:
                    self.drop_expired()
