"""Bodies in very small chunks cost no more than others."""

from __future__ import annotations

import asyncio
import json
from random import Random

from headrace.gateway.http.pieces import join_small
from tests.gateway.scripted import END, Asked, chunk, read_answer, stage, whole


async def count(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(200, {"got": len(asked.body), "a": asked.body.count(b"a")}))


def test_few_pieces_stay_and_none_is_lost() -> None:
    random = Random(1)
    pieces: list[bytes] = []
    wanted = bytearray()
    for _ in range(200):
        for _ in range(random.randrange(500)):
            piece = random.randbytes(3000 if random.random() < 0.01 else 2)
            pieces.append(piece)
            wanted += piece
        join_small(pieces)
        assert len(pieces) < 4096 + 500
    assert b"".join(pieces) == wanted


def test_a_body_of_a_byte_a_chunk_arrives_whole() -> None:
    async def test() -> None:
        async with stage(count) as s:
            body = b'{"messages": "' + b"a" * 100_000 + b'"}'
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            reader, writer = await s.connect()
            writer.write(head + b"".join(chunk(body[i : i + 1]) for i in range(len(body))) + END)
            await writer.drain()
            async with asyncio.timeout(30):
                answer = await read_answer(reader)
            assert answer.status == 200
            assert json.loads(answer.body) == {"got": len(body), "a": body.count(b"a")}
            writer.close()

    asyncio.run(asyncio.wait_for(test(), 60))
