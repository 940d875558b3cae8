"""A whole server in this process: the application over an engine with a cost model, with and without sockets."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import httpx
import uvloop

from headrace.config import EngineConfig, ServerConfig
from headrace.engine.remote import EngineLink, EngineSpec, EngineState, SimulatedSpec
from headrace.engine.remote.building import build
from headrace.engine.remote.local import LocalEngine
from headrace.server.app import Application
from headrace.server.backend import Backend, Tools
from headrace.server.http_server import HttpServer, http_server
from headrace.server.making import make_application
from headrace.server.tokenizers import tokenizer_of
from headrace.text import Tokenizer

VOCAB_SIZE = 1536
"""Of the built-in tokenizer: simulated answers are random tokens of it."""


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """An async test, run on a loop of the kind that the server runs on."""

    @functools.wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(*arguments, **options), 60))  # type: ignore[arg-type]

    return run


@cache
def tokenizer() -> Tokenizer:
    return tokenizer_of("builtin")


@dataclass
class Service:
    """Attributes: drains: the deadlines that a drain was asked for with. url: where it has sockets."""

    app: Application
    engine: EngineLink
    client: httpx.AsyncClient
    drains: list[float | None] = field(default_factory=list)
    url: str = ""

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    async def chat(self, **fields: Any) -> httpx.Response:
        """A chat request; a prompt and a length are there by default."""
        return await self.client.post("/v1/chat/completions", json=chat(**fields))

    async def idle(self, limit_s: float = 5.0) -> float:
        """Seconds until the engine holds no request and no block."""
        begin = time.monotonic()
        while time.monotonic() < begin + limit_s:
            state = await self.engine.call("state")
            pools = state["cache"]["pools"]
            if not state["running"] and not state["waiting"] and not any(pool["used"] for pool in pools):
                return time.monotonic() - begin
            await asyncio.sleep(0.002)
        raise AssertionError(f"the engine still has {state}")


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, **fields}


@asynccontextmanager
async def serving(
    config: ServerConfig | None = None,
    *,
    sockets: bool = False,
    engine_config: EngineConfig | None = None,
    tools: Tools | None = None,
    **simulated: Any,
) -> AsyncIterator[Service]:
    """A server that is ready; `simulated` are fields of SimulatedSpec."""
    config = ServerConfig(port=0) if config is None else config
    spec = EngineSpec(
        model="builtin",
        config=engine_config or EngineConfig(),
        simulated=SimulatedSpec(**({"vocab_size": VOCAB_SIZE} | simulated)),
    )
    app: Application | None = None

    def changed(state: EngineState) -> None:
        if app is not None:
            app.readiness.engine_changed()

    engine = LocalEngine(partial(build, spec), clock=time.monotonic, on_change=changed)
    drains: list[float | None] = []
    app = make_application(config, engine, "builtin", drains.append, tools)
    await engine.start()
    open_backend(app)
    await app.readiness.proven()
    try:
        async with _connected(app, config, sockets) as (client, url):
            yield Service(app, engine, client, drains, url)
    finally:
        await app.readiness.close()
        await engine.stop(0.0)


def open_backend(app: Application) -> None:
    """What the server's life does once the model is there."""
    from concurrent.futures import ThreadPoolExecutor

    info = app.engine.info
    assert info is not None
    app.backend = Backend(
        app.config, app.engine, info, tokenizer(), app.line, app.metrics, ThreadPoolExecutor(1), app.tools
    )
    app.readiness.missing = None
    app.readiness.engine_changed()


@asynccontextmanager
async def _connected(
    app: Application, config: ServerConfig, sockets: bool
) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    if not sockets:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://headrace", timeout=30) as client:
            yield client, ""
        return
    async with listening(app, config) as (_, url):
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
            yield client, url


@asynccontextmanager
async def listening(app: Any, config: ServerConfig) -> AsyncIterator[tuple[HttpServer, str]]:
    """The HTTP server on a free port."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = http_server(app, config, 75, 1)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.001)
        try:
            yield server, url
        finally:
            server.should_exit = True
            await task


def request_bytes(body: dict[str, Any], path: str = "/v1/chat/completions", headers: str = "") -> bytes:
    """A request as it goes over a socket."""
    data = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nhost: h\r\n{headers}content-length: {len(data)}\r\n\r\n".encode() + data


def events(text: str) -> list[Any]:
    """The JSON of each event of a stream, and "[DONE]"."""
    payloads = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]
