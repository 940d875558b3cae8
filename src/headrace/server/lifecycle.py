"""A server's life: from a bound socket to the exit code.

::

    bound ─► engine process started ─► answering "not ready" ─► model and tokenizer loaded ─► a token made ─► ready
                     │                                                                                          │
                     └─► cannot be loaded: 3                signal or /admin/drain: draining ◄──────────────────┘
                                                            │ nothing new; the rest until the deadline
                         engine given up: 5 ◄── failed      └─► 0        second signal: 130, at once

The engine's process is started before anything else is imported: it has the most to do.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.config.server import ServerConfig
from headrace.engine.remote import EngineLink, EngineState, EngineStats
from headrace.server import listen
from headrace.server.exit_codes import CUT_SHORT, ENGINE_FAILED, OK

if TYPE_CHECKING:
    import uvicorn

    from headrace.server.app import Application
    from headrace.server.registration import Registration
    from headrace.text import Tokenizer

_log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75
_LAST_BYTES_S = 2
_POLL_S = 0.02

MakeEngine = Callable[[Callable[[EngineState], None], Callable[[EngineStats], None]], EngineLink]


class ServerLife:
    """Runs one server on the current event loop.

    Args:
        config: of the server. model: its name. listener: bound.
        make_engine: from what to tell of its state and its statistics.
        load_tokenizer: of the model, in a thread. announce: told once that requests are served.
    """

    def __init__(
        self,
        config: ServerConfig,
        model: str,
        listener: socket.socket,
        make_engine: MakeEngine,
        load_tokenizer: Callable[[], Tokenizer],
        announce: Callable[[], None],
    ) -> None:
        """Nothing runs yet."""
        self._config = config
        self._model = model
        self._listener = listener
        self._load_tokenizer = load_tokenizer
        self._announce = announce
        self._engine = make_engine(self._engine_changed, self._take_stats)
        self._threads = ThreadPoolExecutor(1, "headrace-long-texts")
        self._engine_pid: int | None = None
        self._app: Application | None = None
        self._http: uvicorn.Server | None = None
        self._ending: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._drain: asyncio.Task[None] | None = None
        self._registration: Registration | None = None

    async def run(self) -> int:
        """Serve until something ends it; returns the exit code. Raises what kept it from starting."""
        with self._signals():
            starting = asyncio.create_task(self._engine.start(), name="headrace-engine-start")
            await asyncio.sleep(0)  # the engine's process is on its way before the rest is imported
            await asyncio.sleep(0)
            serving: asyncio.Task[None] | None = None
            try:
                self._app = self._make_app()
                assert self._http is not None
                serving = asyncio.create_task(self._http.serve(sockets=[self._listener]), name="headrace-http")
                opening = asyncio.create_task(self._open(self._app, starting), name="headrace-open")
                return await self._first_end(opening, serving)
            finally:
                await self._close(starting, serving)

    async def _first_end(self, opening: asyncio.Task[None], serving: asyncio.Task[None]) -> int:
        """Whatever ends first of the start that fails, the HTTP server, and what signals and the engine say."""
        await asyncio.wait((opening, serving, self._ending), return_when=asyncio.FIRST_COMPLETED)
        if opening.done() and not self._ending.done():
            opening.result()
            await asyncio.wait((serving, self._ending), return_when=asyncio.FIRST_COMPLETED)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        if not self._ending.done():
            serving.result()
            raise RuntimeError("the HTTP server ended without being told to")
        return self._ending.result()

    # ---------------------------------------------------------------- start

    def _make_app(self) -> Application:
        from headrace.server.http_server import http_server
        from headrace.server.making import make_application

        app = make_application(self._config, self._engine, self._model, self.drain)
        self._http = http_server(app, self._config, _KEEP_ALIVE_S, _LAST_BYTES_S)
        return app

    async def _open(self, app: Application, starting: asyncio.Task[object]) -> None:
        """Load what is needed to serve, prove it, and say so."""
        from headrace.server.backend import Backend

        loop = asyncio.get_running_loop()
        tokenizer, _ = await asyncio.gather(loop.run_in_executor(self._threads, self._load_tokenizer), starting)
        info = self._engine.info
        assert info is not None
        queue_tokens = self._config.queue_tokens(info.num_blocks * info.block_size)
        app.line.limits = replace(app.line.limits, max_tokens=queue_tokens)
        app.backend = Backend(
            self._config, self._engine, info, tokenizer, app.line, app.metrics, self._threads, app.tools
        )
        app.readiness.missing = None
        app.readiness.engine_changed()
        await app.readiness.proven()
        self._announce()
        if self._config.register is not None:
            from headrace.server.registration import Registration

            url = listen.url(self._config, self._listener)
            self._registration = Registration(self._config, url, app.backend.names)
            self._registration.start()

    # ---------------------------------------------------------------- what the engine says

    def _engine_changed(self, state: EngineState) -> None:
        # In a moment: the engine tells of its state before it says which process it is.
        asyncio.get_running_loop().call_soon(self._follow_engine, state)

    def _follow_engine(self, state: EngineState) -> None:
        app, info = self._app, self._engine.info
        if app is None:
            return
        app.readiness.engine_changed()
        app.metrics.engine_ready(state == "ready")
        if state == "ready" and info is not None and info.pid != self._engine_pid:
            self._engine_pid = info.pid
            app.metrics.engine_started(info)
        if state == "failed" and app.backend is not None:
            _log.error("the engine cannot be kept running: %s", self._engine.trouble)
            self._end(ENGINE_FAILED)

    def _take_stats(self, stats: EngineStats) -> None:
        if self._app is not None:
            self._app.metrics.engine_stats(stats)

    # ---------------------------------------------------------------- end

    @contextmanager
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
        if self._drain is not None:
            _log.warning("a second signal: ending at once")
            self._end(CUT_SHORT)
            return
        _log.info("%s: no new work; the rest has %g s", signal.Signals(number).name, self._config.drain_timeout_s)
        self.drain(None)

    def drain(self, deadline_s: float | None) -> None:
        """Take no new work, finish the rest within `deadline_s` (None: the configured one), then end with 0."""
        if self._drain is None:
            limit = self._config.drain_timeout_s if deadline_s is None else deadline_s
            self._drain = asyncio.get_running_loop().create_task(self._drained(limit), name="headrace-drain")

    async def _drained(self, limit_s: float) -> None:
        app = self._app
        if app is not None:
            app.readiness.is_draining = True
            if self._registration is not None:
                await self._registration.withdraw()
            end_s = time.monotonic() + limit_s
            while app.num_active and time.monotonic() < end_s:
                await asyncio.sleep(_POLL_S)
            if app.num_active:
                _log.warning("%d requests have not ended after %g s, and are ended", app.num_active, limit_s)
        self._end(OK)

    def _end(self, code: int) -> None:
        if not self._ending.done():
            self._ending.set_result(code)
        elif code == CUT_SHORT and self._http is not None:
            self._http.force_exit = True

    async def _close(self, starting: asyncio.Task[object], serving: asyncio.Task[None] | None) -> None:
        """End everything that runs; requests that still do get the reason as their last word."""
        if self._registration is not None:
            await self._registration.withdraw()
        if self._app is not None:
            self._app.readiness.is_draining = True
            await self._app.readiness.close()
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        await self._engine.stop(0.0)
        if self._http is not None:
            self._http.should_exit = True
        if serving is not None:
            await asyncio.gather(serving, return_exceptions=True)
        if self._drain is not None:
            self._drain.cancel()
        self._listener.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
