"""Clients over real sockets: those that leave, those that are slow, and many of them."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager

import httpx
import pytest

from headrace.config import EngineConfig, ServerConfig
from headrace.server import http_protocol
from tests.server.service import Service, chat, events, in_loop, request_bytes, serving

LIMIT_S = 1.0
"""After a client has left, its work has ended within this: 0.1 s with a core to itself, which a suite never has."""


@asynccontextmanager
async def connected(service: Service):
    reader, writer = await asyncio.open_connection(*service.address)
    try:
        yield reader, writer
    finally:
        writer.close()


async def gone_after(service: Service, begin: float) -> float:
    while service.app.num_active or service.app.line.num_running or service.app.line.num_pending:
        await asyncio.sleep(0.001)
        assert time.monotonic() < begin + 5, "the work goes on without a client"
    await service.idle(1.0)
    return time.monotonic() - begin


@pytest.mark.parametrize("stream", [True, False])
@in_loop
async def test_a_client_that_leaves_ends_its_work(stream: bool) -> None:
    async with serving(sockets=True, step_s=0.002) as service:
        async with connected(service) as (_, writer):
            writer.write(request_bytes(chat(stream=stream, max_tokens=4000)))
            while service.app.line.num_running == 0:
                await asyncio.sleep(0.001)
        assert await gone_after(service, time.monotonic()) < LIMIT_S
        assert (await service.chat()).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
@in_loop
async def test_a_client_that_leaves_the_queue(stream: bool) -> None:
    async with serving(sockets=True, engine_config=EngineConfig(max_num_seqs=1), step_s=0.002) as service:
        first = asyncio.create_task(service.chat(max_tokens=600))
        async with connected(service) as (_, writer):
            writer.write(request_bytes(chat(stream=stream, n=3)))
            while service.app.line.num_pending < 3:
                await asyncio.sleep(0.001)
        begin = time.monotonic()
        while service.app.line.num_pending:
            await asyncio.sleep(0.001)
        assert time.monotonic() - begin < LIMIT_S
        assert not first.done()
        assert (await first).json()["usage"]["completion_tokens"] == 600


@in_loop
async def test_a_client_that_leaves_while_its_prompt_is_encoded() -> None:
    async with serving(sockets=True, max_model_len=1 << 20) as service:
        async with connected(service) as (_, writer):
            writer.write(request_bytes({"prompt": "The mill grinds. " * 40_000}, "/v1/completions"))
            while service.app.num_active == 0:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert service.app.line.num_pending == 0  # it is in the thread
        begin = time.monotonic()
        while service.app.num_active:
            await asyncio.sleep(0.001)
        assert time.monotonic() - begin < LIMIT_S
        assert service.app.line.num_pending == 0


@in_loop
async def test_a_client_that_stops_reading_and_leaves() -> None:
    async with serving(sockets=True, max_model_len=1 << 16, num_blocks=8192) as service:
        async with connected(service) as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request_bytes(chat(stream=True, max_tokens=20_000, logprobs=True, top_logprobs=20)))
            while service.app.line.num_running == 0:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.5)  # its socket is full by now
            assert service.app.num_active == 1
            writer.transport.abort()
        assert await gone_after(service, time.monotonic()) < LIMIT_S


@in_loop
async def test_a_client_that_leaves_in_its_body() -> None:
    async with serving(sockets=True) as service:
        async with connected(service) as (_, writer):
            writer.write(request_bytes(chat())[:-10])
            while service.app.num_active == 0:
                await asyncio.sleep(0.001)
        while service.app.num_active:
            await asyncio.sleep(0.001)


@pytest.mark.slow
@in_loop
async def test_a_slow_reader_slows_nobody_and_misses_nothing() -> None:
    async with serving(sockets=True, max_model_len=1 << 16, num_blocks=8192) as service:
        num_tokens = 6_000
        async with connected(service) as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # the socket fills up
            writer.write(request_bytes(chat(stream=True, max_tokens=num_tokens, logprobs=True, top_logprobs=20)))
            while service.app.line.num_running == 0:
                await asyncio.sleep(0.001)
            begin = time.monotonic()
            for _ in range(5):
                assert (await service.chat()).status_code == 200
            others_s = time.monotonic() - begin
            while service.app.line.num_running:
                await asyncio.sleep(0.01)  # the engine is done; the client has hardly anything of it
            assert service.app.num_active == 1
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            received = await _until_done(reader)
        last = [event for event in events(received) if event != "[DONE]"][-1]
        assert last["choices"][0]["finish_reason"] == "length"
        assert others_s < 5
        await service.idle()


async def _until_done(reader: asyncio.StreamReader) -> str:
    received = bytearray()
    while b"[DONE]" not in received[-64:]:
        data = await reader.read(1 << 16)
        assert data, "the connection was closed before the end"
        received += data
    return received.decode("utf-8", "replace")


@pytest.mark.slow
@in_loop
async def test_a_thousand_connections_at_once() -> None:
    async with serving(sockets=True, engine_config=EngineConfig(max_num_seqs=256)) as service:
        payload = request_bytes(chat(max_tokens=2), headers="connection: close\r\n")

        async def ask() -> bytes:
            async with connected(service) as (reader, writer):
                writer.write(payload)
                return await reader.read()

        answers = await asyncio.gather(*(ask() for _ in range(1000)))
        assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers)
        assert len({answer.partition(b"x-request-id: ")[2][:28] for answer in answers}) == 1000
        await service.idle()


@in_loop
async def test_a_body_over_the_limit_is_refused_with_the_numbers() -> None:
    async with serving(ServerConfig(max_body_bytes=10_000), sockets=True) as service:
        big = chat(messages=[{"role": "user", "content": "x" * 20_000}])
        for how in ({"json": big}, {"content": _pieces(json.dumps(big).encode())}):
            answer = await service.client.post("/v1/chat/completions", **how)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
            assert "10000" in answer.json()["error"]["message"]
        assert (await service.chat()).status_code == 200


async def _pieces(data: bytes):
    for start in range(0, len(data), 4096):
        yield data[start : start + 4096]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"messages": "\xc3("}', b"[1]", b"null", b"[" * 100_000])
@in_loop
async def test_bodies_that_are_no_json(body: bytes) -> None:
    async with serving() as service:
        answer = await service.client.post("/v1/chat/completions", content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")


@in_loop
async def test_a_prompt_that_is_far_too_long_stalls_nobody() -> None:
    config = ServerConfig(max_body_bytes=100 << 20)
    async with serving(config, sockets=True) as service:
        body = {"prompt": "The miller of the old mill by the river said hello. " * 200_000}
        late = asyncio.create_task(service.client.post("/v1/completions", json=body))
        worst = 0.0
        while not late.done():
            begin = time.monotonic()
            await asyncio.sleep(0.001)
            worst = max(worst, time.monotonic() - begin)
        answer = await late
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "prompt_too_long")
        assert "characters" in answer.json()["error"]["message"]
        assert worst < 2.0  # on a shared core; in this process the client encodes and sends those 10 MB too


@in_loop
async def test_slow_loris(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol.GuardedHttpProtocol, "head_timeout_s", 0.2)
    async with serving(sockets=True) as service:
        for sent in (b"", b"GET /health HTTP/1.1\r\nx: "):
            async with connected(service) as (reader, writer):
                writer.write(sent)
                answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 408")
                assert b"bad_head" in answer


@in_loop
async def test_a_head_without_an_end() -> None:
    async with serving(sockets=True) as service, connected(service) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nx: " + b"y" * (http_protocol.MAX_HEAD_BYTES + 1))
        assert (await reader.read()).startswith(b"HTTP/1.1 431")


@in_loop
async def test_what_is_no_http() -> None:
    async with serving(sockets=True) as service, connected(service) as (reader, writer):
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["error"]["code"] == "bad_head"


@in_loop
async def test_connections_are_used_again_and_pipelined() -> None:
    async with serving(sockets=True) as service, connected(service) as (reader, writer):
        writer.write(request_bytes(chat()) + request_bytes(chat()) + b"GET /version HTTP/1.1\r\nhost: h\r\n\r\n")
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 3 or not received.endswith(b"}"):
            received += await reader.read(1 << 16)


@in_loop
async def test_a_body_that_stops_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.server.body.GRACE_S", 0.2)
    async with serving(sockets=True) as service, connected(service) as (reader, writer):
        writer.write(request_bytes(chat())[:-10])
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408")


@in_loop
async def test_nothing_stays_behind() -> None:
    async with serving(sockets=True, step_s=0.0005) as service:
        before = len(asyncio.all_tasks())
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            await asyncio.gather(*(_any_way(client, service, number) for number in range(200)))
        await gone_after(service, time.monotonic())
        assert len(asyncio.all_tasks()) <= before + 1
        assert not (await service.engine.call("integrity"))["problems"]


async def _any_way(client: httpx.AsyncClient, service: Service, number: int) -> None:
    """Whole, streamed, left in the middle, wrong."""
    kind = number % 4
    if kind == 0:
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    elif kind == 1:
        assert "[DONE]" in (await client.post("/v1/chat/completions", json=chat(stream=True))).text
    elif kind == 2:
        async with connected(service) as (reader, writer):
            writer.write(request_bytes(chat(stream=True, max_tokens=1000)))
            await reader.read(10)
    else:
        assert (await client.post("/v1/chat/completions", json=chat(top_p=7))).status_code == 400
