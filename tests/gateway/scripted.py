"""Replicas that do what a test says, and a gateway in front of them, in one event loop."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from headrace.gateway.fleet import Fleet
from headrace.gateway.gateway import Gateway
from headrace.gateway.health.breaker import BreakerSettings
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.http.upstream import UpstreamPool
from headrace.gateway.policies import get_policy
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.replica import Endpoint, Replica
from headrace.gateway.route import Decision, ProxySettings, Router


@dataclass
class Asked:
    """A request as a replica got it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Script = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class ScriptedReplica:
    """A server whose answers are written by `script`, byte by byte if it likes."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.num_connections = 0
        self.num_hung_up = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def stop(self) -> None:
        self._server.close()
        for writer in list(self.writers):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self.writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, target, _ = head[0].split(" ")
                self.asked.append(Asked(method, target, headers, body))
                answering = asyncio.ensure_future(self.script(self.asked[-1], writer))
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() and not gone.result():
                    self.num_hung_up += not answering.done()
                    answering.cancel()
                    return
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                await answering
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


def whole(status: int, body: Any, **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


def stream_head(**headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


END = b"0\r\n\r\n"
DONE = event(b"[DONE]")


def piece(text: str, index: int = 0) -> dict[str, Any]:
    return {"id": "cmpl-1", "created": 77, "choices": [{"index": index, "delta": {"content": text}}]}


@dataclass
class Notes:
    """An observer that keeps everything."""

    decisions: list[Decision] = field(default_factory=list)
    attempts: list[tuple[str, str]] = field(default_factory=list)
    finishes: list[tuple[str, int, tuple[int, int, int]]] = field(default_factory=list)

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def attempt_ended(self, replica: str, outcome: str) -> None:
        self.attempts.append((replica, outcome))

    def finished(self, outcome: str, status: int, took_s: float, own_s: float, usage: tuple[int, int, int]) -> None:
        self.finishes.append((outcome, status, usage))


@dataclass
class Stage:
    """A gateway in front of scripted replicas."""

    gateway: Gateway
    replicas: list[ScriptedReplica]
    notes: Notes
    port: int

    @property
    def fleet(self) -> list[Replica]:
        return list(self.gateway.router.fleet)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, body: Any = None, target: str = "/v1/chat/completions", **headers: str) -> Answer:
        """One request on a connection of its own."""
        reader, writer = await self.connect()
        try:
            writer.write(post(body, target, **headers))
            async with asyncio.timeout(10):
                return await read_answer(reader)
        finally:
            writer.close()

    async def settled(self) -> None:
        """Until nothing is under way: no exchange, nothing counted at a replica."""
        async with asyncio.timeout(5):
            while self.gateway.live or any(r.num_in_flight or r.tokens_in_flight for r in self.fleet):
                await asyncio.sleep(0.005)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The content of a stream's events together."""
        events = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: {")]
        return "".join(json.loads(e)["choices"][0]["delta"]["content"] for e in events if b'"choices": [{' in e)


def post(body: Any, target: str = "/v1/chat/completions", **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body or {"messages": []}).encode()
    lines = [f"POST {target} HTTP/1.1", "host: test", f"content-length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One answer; not whole when the connection ended first."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    status = int(head[0].split(" ")[1])
    if "transfer-encoding" not in headers:
        return Answer(status, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
    body = b""
    try:
        while length := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(length)
            await reader.readexactly(2)
        await reader.readexactly(2)
    except asyncio.IncompleteReadError:
        return Answer(status, headers, body, whole=False)
    return Answer(status, headers, body)


@asynccontextmanager
async def stage(
    *scripts: Script,
    policy: str = "round_robin",
    settings: ProxySettings | None = None,
    limits: ClientLimits | None = None,
    breaker: BreakerSettings | None = None,
) -> AsyncIterator[Stage]:
    replicas = [ScriptedReplica(script) for script in scripts]
    endpoints = [Endpoint(f"r{i}", "127.0.0.1", await replica.start()) for i, replica in enumerate(replicas)]
    index, notes, ids = PrefixIndex(), Notes(), itertools.count()
    router = Router(
        Fleet(index, breaker), get_policy(policy, Random(1), index), index, settings or ProxySettings(), notes,
        time.monotonic, time.time, lambda: f"id-{next(ids)}", lambda replica: UpstreamPool(replica.endpoint, None),
    )  # fmt: skip
    gateway = Gateway(router, limits or ClientLimits())
    gateway.update(endpoints)
    await gateway.listen(host="127.0.0.1", port=0)
    try:
        yield Stage(gateway, replicas, notes, gateway.addresses[0][1])
    finally:
        await gateway.close()
        for replica in replicas:
            await replica.stop()
