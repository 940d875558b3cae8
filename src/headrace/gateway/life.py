"""A gateway's life: from a bound socket to the exit code.

::

    bound ─► replicas of its own started ─► listening: announced ─► signal: draining, nothing new ─► 0
                     │                            │                        │
                     └─► one cannot start: its    └─► all given up: 5      └─► second signal: 130, at once
                         exit code
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from headrace.gateway.assembly import Assembly
from headrace.gateway.freed_memory import keep_freed_memory

_log = logging.getLogger(__name__)

OK = 0
CUT_SHORT = 130
_KEEP_MEMORY_S = 2.0
_SEEN_S = 2.0
_POLL_S = 0.02


class Front(NamedTuple):
    """Where clients come in.

    Attributes: listener: bound. tls: for https. drain_timeout_s: what is under way gets this long at the end.
    """

    listener: socket.socket
    tls: ssl.SSLContext | None = None
    drain_timeout_s: float = 30.0


class Kept(Protocol):
    """What lives with the gateway: replicas, or processes of it."""

    async def start(self) -> int | None:
        """Start them; None once they are ready, an exit code when none can be."""
        ...

    async def run(self) -> int:
        """Keep them alive; returns only when that is given up, with the exit code."""
        ...

    async def stop(self, deadline_s: float) -> None:
        """Let them finish what they have, for so many seconds, and end them."""
        ...

    def kill(self) -> None:
        """End them at once."""
        ...


class GatewayLife:
    """Runs one gateway on the current event loop.

    Args:
        assembly: the gateway. front: where it listens. announce: told once that requests are taken.
        own: replicas that live with it. processes: that take the requests in its place.
    """

    def __init__(
        self,
        assembly: Assembly,
        front: Front,
        announce: Callable[[], None],
        own: Kept | None = None,
        processes: Kept | None = None,
    ) -> None:
        """Nothing runs yet."""
        self._assembly = assembly
        self._front = front
        self._announce = announce
        self._own = own
        self._processes = processes
        self._ending: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._draining: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Pass requests on until something ends it; returns the exit code. Raises what kept it from starting."""
        background: list[asyncio.Task[None]] = []
        with self._signals():
            try:
                opening = asyncio.create_task(self._open(background), name="headrace-open")
                await asyncio.wait((opening, self._ending), return_when=asyncio.FIRST_COMPLETED)
                if opening.done():
                    opening.result()
                return await self._ending
            finally:
                opening.cancel()
                await self._close([opening, *background])

    async def _open(self, background: list[asyncio.Task[None]]) -> None:
        self._assembly.hub.start()
        if self._own is not None:
            code = await self._own.start()
            if code is not None:
                self._end(code)
                return
            await self._seen()
            background.append(asyncio.create_task(self._keep_alive(self._own), name="headrace-replicas"))
        if self._processes is not None:
            code = await self._processes.start()
            if code is not None:
                self._end(code)
                return
            background.append(asyncio.create_task(self._keep_alive(self._processes), name="headrace-processes"))
        else:
            keep_freed_memory()
            await self._assembly.gateway.listen([self._front.listener], self._front.tls)
        background.append(asyncio.create_task(self._keep_memory(), name="headrace-memory"))
        self._announce()

    async def _seen(self) -> None:
        """Until what is ready is in the fleet and known by its models: who reads the address may ask at once."""
        fleet = self._assembly.gateway.router.fleet
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SEEN_S):
                while not len(fleet) or not all(replica.models for replica in fleet):
                    await asyncio.sleep(_POLL_S)

    async def _keep_alive(self, kept: Kept) -> None:
        self._end(await kept.run())

    async def _keep_memory(self) -> None:
        index, kept = self._assembly.gateway.router.index, 0
        while True:
            await asyncio.sleep(_KEEP_MEMORY_S)
            if index.num_changes != kept:
                kept = index.num_changes
                self._assembly.keep_memory()

    # ---------------------------------------------------------------- end

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _signalled(self, number: int) -> None:
        if self._draining is not None:
            _log.warning("a second signal: ending at once")
            self._end(CUT_SHORT)
            return
        _log.info("%s: no new work; the rest has %g s", signal.Signals(number).name, self._front.drain_timeout_s)
        self._draining = asyncio.get_running_loop().create_task(self._drained(), name="headrace-drain")

    async def _drained(self) -> None:
        gateway = self._assembly.gateway
        if self._processes is not None:
            await self._processes.stop(self._front.drain_timeout_s)
        elif not await gateway.drain(self._front.drain_timeout_s):
            _log.warning(
                "%d requests have not ended after %g s, and are cut", len(gateway.live), self._front.drain_timeout_s
            )
        self._end(OK)

    def _end(self, code: int) -> None:
        if not self._ending.done():
            self._ending.set_result(code)

    async def _close(self, tasks: list[asyncio.Task[None]]) -> None:
        if self._draining is not None:
            tasks.append(self._draining)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        is_cut = self._ending.done() and self._ending.result() == CUT_SHORT
        if self._processes is not None:
            await self._ended(self._processes, is_cut)
        self._assembly.keep_memory()
        await self._assembly.stop()
        if self._own is not None:
            await self._ended(self._own, is_cut)
        self._front.listener.close()

    async def _ended(self, kept: Kept, is_cut: bool) -> None:
        if is_cut:
            kept.kill()
        await kept.stop(self._front.drain_timeout_s)
