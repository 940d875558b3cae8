"""How bytes go through: what one read brings goes on together, long bodies, and what does not belong to an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from headrace.gateway.http.downstream import ClientLimits
from tests.gateway.scripted import DONE, END, Asked, chunk, event, piece, post, read_answer, stage, stream_head, whole


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))  # type: ignore[arg-type]


async def echo(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(200, {"got": asked.body.decode()}, x_seen=asked.headers.get("x-late", "none")))


def test_events_that_come_together_go_on_in_one_chunk() -> None:
    async def burst(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head() + b"".join(chunk(event(piece(f"w{i} "))) for i in range(50)) + chunk(DONE) + END)

    async def test() -> None:
        async with stage(burst) as s:
            reader, writer = await s.connect()
            writer.write(post({"stream": True}))
            await reader.readuntil(b"\r\n\r\n")
            sizes = []
            while size := int(await reader.readuntil(b"\r\n"), 16):
                sizes.append(size)
                await reader.readexactly(size + 2)
            writer.close()
            everything = b"".join(event(piece(f"w{i} ")) for i in range(50)) + DONE
            assert sum(sizes) == len(everything)
            assert len(sizes) < 51

    run(test)


@pytest.mark.parametrize("num_bytes", [16_000, 20_000, 700_000])
def test_long_bodies_pass_both_ways(num_bytes: int) -> None:
    async def test() -> None:
        async with stage(echo) as s:
            body = b'{"messages": "' + b"x" * num_bytes + b'"}'
            answer = await s.ask(body)
            assert answer.json["got"] == body.decode()
            await s.settled()

    run(test)


def test_an_answer_that_nobody_asked_for_ends_its_connection() -> None:
    """A second answer behind the first must not be taken for the answer to the next request."""

    async def twice(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(200, {"got": asked.body.decode()}) + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")

    async def test() -> None:
        async with stage(twice) as s:
            for number in range(3):
                body = b'{"n": %d}' % number
                assert (await s.ask(body)).json["got"] == body.decode()
            assert s.replicas[0].num_connections == 3

    run(test)


def test_fields_behind_a_body_are_not_headers() -> None:
    async def test() -> None:
        async with stage(echo) as s:
            reader, writer = await s.connect()
            head = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            writer.write(head + b"2\r\n{}\r\n0\r\nx-late: 1\r\n\r\n")
            answer = await read_answer(reader)
            assert answer.json["got"] == "{}"
            assert answer.headers["x-seen"] == "none"
            writer.close()

    run(test)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /" + b"a" * 2_000_000,
        b"POST / HTTP/1.1\r\nx: " + b"a" * 2_000_000,
        b"POST / HTTP/1.1\r\n" + b"x: a\r\n" * 300_000,
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: a\r\n" * 300_000,
    ],
    ids=["target", "value", "many", "trailers"],
)
def test_a_head_without_an_end_is_refused(head: bytes) -> None:
    async def test() -> None:
        async with stage(echo, limits=ClientLimits(max_header_bytes=4096)) as s:
            reader, writer = await s.connect()
            writer.write(head)
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            assert not s.replicas[0].asked

    run(test)


def test_each_request_of_a_connection_is_measured_alone() -> None:
    async def test() -> None:
        async with stage(echo, limits=ClientLimits(max_header_bytes=600)) as s:
            reader, writer = await s.connect()
            writer.write(b"".join(post({"n": i}, x_pad="p" * 400) for i in range(5)))
            for _ in range(5):
                assert (await read_answer(reader)).status == 200
            writer.write(post({}, x_pad="p" * 700))
            assert (await read_answer(reader)).status == 400
            writer.close()

    run(test)
