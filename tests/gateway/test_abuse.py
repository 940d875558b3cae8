"""What clients may send that is wrong, and ten thousand requests of which many fail: nothing is left behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

import pytest

from headrace.gateway.http.downstream import ClientLimits
from tests.gateway.scripted import (
    DONE,
    END,
    Asked,
    Stage,
    chunk,
    event,
    piece,
    post,
    read_answer,
    stage,
    stream_head,
    whole,
)

_FDS = Path("/proc/self/fd")


async def echo(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(200, {"got": len(asked.body)}))


# ---------------------------------------------------------------- what is wrong


def _chunked(random: Random, body: bytes) -> bytes:
    pieces, place = b"", 0
    while place < len(body):
        size = random.randint(1, 9)
        pieces += chunk(body[place : place + size])
        place += size
    return b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + pieces + END


def _spoilt(random: Random, good: bytes) -> bytes:
    """A request with something wrong in it."""
    kind, place = random.randrange(7), random.randrange(len(good))
    if kind == 0:
        return good[:place]  # half of one
    if kind == 1:
        return good[:place] + bytes([random.randrange(256)]) + good[place + 1 :]
    if kind == 2:
        return good.replace(b"content-length: ", b"content-length: 9", 1)  # too long
    if kind == 3:
        return good.replace(b"\r\n\r\n", b"\r\nx: " + b"y" * random.randrange(3000) + b"\r\n\r\n", 1)
    if kind == 4:
        return good.replace(b"content-length", b"transfer-encoding: chunked\r\ncontent-length", 1)
    if kind == 5:
        return good + random.randbytes(random.randint(1, 40))
    return good[:place] + good[random.randrange(len(good)) :]


async def _abuse(s: Stage, random: Random) -> None:
    reader, writer = await s.connect()
    data = b""
    for _ in range(random.randint(1, 3)):
        body = b'{"messages": "' + b"a" * random.randrange(300) + b'"}'
        good = _chunked(random, body) if random.random() < 0.4 else post(body)
        data += _spoilt(random, good) if random.random() < 0.7 else good
    place = 0
    while place < len(data):
        size = random.choice((1, 7, 100, 5000))
        writer.write(data[place : place + size])
        place += size
        await asyncio.sleep(0)
    if random.random() < 0.5 and not writer.is_closing():
        writer.write_eof()  # it sends no more, and still reads
    try:
        async with asyncio.timeout(0.02):
            await reader.read()
    except (TimeoutError, ConnectionError):
        pass
    writer.close()


@pytest.mark.parametrize("seed", range(4))
def test_wrong_requests_leave_nothing_behind_and_disturb_nobody(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        random, limits = Random(seed), ClientLimits(max_header_bytes=2000, max_body_bytes=4000, linger_s=0.01)
        async with stage(echo, echo, limits=limits) as s:
            for _ in range(60):
                await _abuse(s, random)
            await s.settled()
            assert (await s.ask({"messages": "well"})).status == 200
            async with asyncio.timeout(5):
                while s.gateway.connections:
                    await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(test(), 60))
    assert not [record for record in caplog.records if record.exc_info]  # all of it was foreseen


# ---------------------------------------------------------------- ten thousand


def _faulty(random: Random):  # type: ignore[no-untyped-def]
    """A replica that fails one request in seven, in one of many ways."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        draw, is_stream = random.random(), b'"stream": true' in asked.body
        if draw < 0.04:
            writer.write(whole(500, {}))
        elif draw < 0.06:
            writer.write(whole(429, {}, retry_after="0"))
        elif draw < 0.09:
            writer.transport.abort()
        elif is_stream:
            writer.write(stream_head() + chunk(event(piece("a"))))
            if draw < 0.14:
                writer.write(b'10\r\ndata: {"half')
                await writer.drain()
                writer.transport.abort()
                return
            writer.write(chunk(event(piece("b")) + DONE) + END)
        elif draw < 0.14:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            await writer.drain()
            writer.transport.abort()
        else:
            writer.write(whole(200, {"n": 1}))

    return script


async def _client(s: Stage, random: Random, count: int) -> int:
    """Returns how many answers came, each of them one."""
    reader, writer = await s.connect()
    num_answers = 0
    for number in range(count):
        writer.write(post({"stream": number % 3 == 0, "messages": str(number % 50) * 400}))
        if random.random() < 0.01:  # it leaves before its answer
            writer.close()
            reader, writer = await s.connect()
            continue
        answer = await read_answer(reader)
        assert answer.whole
        num_answers += 1
    writer.close()
    return num_answers


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not _FDS.exists(), reason="open files are counted in /proc")
def test_ten_thousand_requests_with_faults_leave_no_count_and_no_descriptor() -> None:
    async def test() -> None:
        before = len(os.listdir(_FDS))
        random = Random(3)
        async with stage(*(_faulty(random) for _ in range(3)), policy="prefix") as s:
            answers = await asyncio.gather(*(_client(s, Random(seed), 500) for seed in range(20)))
            await s.settled()
            assert sum(answers) > 9_700
            assert len(s.notes.finishes) == 10_000
            assert sum(outcome == "cancelled" for outcome, _, _ in s.notes.finishes) <= 10_000 - sum(answers)
            assert [replica.num_in_flight for replica in s.fleet] == [0, 0, 0]
            assert [replica.tokens_in_flight for replica in s.fleet] == [0, 0, 0]
        async with asyncio.timeout(5):
            while len(os.listdir(_FDS)) > before:
                await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(test(), 200))
