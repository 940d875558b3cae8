"""The benchmark of gateways: its backend does what it says, its client sees it, and its figures are read right."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.bench.gateway import faults, overhead, wrk
from headrace.bench.gateway.backend import FAULT_PATH, BackendSettings, Connection, Script
from headrace.bench.gateway.client import Answer, connect, post
from headrace.bench.gateway.contenders import CONTENDERS, Place, find
from headrace.errors import BenchmarkFailed, ConfigError


@asynccontextmanager
async def backend(**settings: object) -> AsyncIterator[tuple[Script, int]]:
    script = Script(BackendSettings(**settings))  # type: ignore[arg-type]
    server = await asyncio.get_running_loop().create_server(lambda: Connection(script), "127.0.0.1", 0)
    try:
        yield script, server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def ask(port: int, timeout_s: float = 5.0, **body: object) -> Answer:
    connection = await connect(port, time.monotonic)
    answer = await connection.ask(post(json.dumps(body).encode()), bool(body.get("stream")), timeout_s)
    connection.close()
    return answer


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))  # type: ignore[arg-type]


def test_a_backend_answers_and_says_who_it_is() -> None:
    async def test() -> None:
        async with backend(name="b7", num_chunks=4) as (_, port):
            answer = await ask(port, model="m", stream=False)
            assert (answer.failure, answer.status, answer.backend) == ("", 200, "b7")
            stream = await ask(port, stream=True)
            assert (stream.failure, stream.text) == ("", "t0 t1 t2 t3 ")

    run(test)


def test_a_body_in_many_pieces_is_one_request() -> None:
    async def test() -> None:
        async with backend() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            request = post(b'{"messages":"%b"}' % (b"x" * 300_000))
            for start in range(0, len(request), 70_001):
                writer.write(request[start : start + 70_001])
                await writer.drain()
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()

    run(test)


def test_a_resumable_backend_goes_on_behind_the_tokens_it_is_given() -> None:
    async def test() -> None:
        async with backend(num_chunks=5, is_resumable=True) as (_, port):
            given = {"choices": [{"token_ids": [0, 1, 2], "finish_reason": None}]}
            assert (await ask(port, stream=True, headrace_continue=given)).text == "t3 t4 "

    run(test)


@pytest.mark.parametrize(
    ("fault", "is_stream", "failure"),
    [
        ("storm", False, "HTTP 500"),
        ("reset", False, "the connection was lost"),
        ("reset", True, "the connection was lost"),
        ("truncate", True, "the connection was lost"),
        ("stall", True, "nothing more within 0.3 s"),
        ("hang", False, "nothing more within 0.3 s"),
    ],
)
def test_the_client_sees_each_fault_and_its_end(fault: str, is_stream: bool, failure: str) -> None:
    async def test() -> None:
        async with backend(num_chunks=20) as (script, port):
            connection = await connect(port, time.monotonic)
            request = post(b"").replace(b"/v1/chat/completions", FAULT_PATH + fault.encode())
            await connection.ask(request, False, 5.0)
            assert script.fault == fault
            assert (await ask(port, 0.3, stream=is_stream)).failure.startswith(failure)
            await connection.ask(request.replace(fault.encode(), b"none"), False, 5.0)
            connection.close()
            assert (await ask(port, stream=is_stream)).failure == ""

    run(test)


def test_a_flood_waits_for_its_client() -> None:
    async def test() -> None:
        async with backend() as (_, port):
            connection = await connect(port, time.monotonic)
            asked = asyncio.create_task(
                connection.ask(post(b'{"stream":true,"flood":200000}'), True, 0.5)  # 27 MB
            )
            await asyncio.sleep(0)
            connection.pause()
            answer = await asked
            assert answer.failure.startswith("nothing more")
            assert answer.num_events < 100_000

    run(test)


WRK = """\
Running 5s test @ http://127.0.0.1:1/v1/chat/completions
  Latency Distribution
     50%    1.40ms
     99%  322.00us
  109861 requests in 5.00s, 46.94MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 30
Requests/sec:  21965.06
"""


def test_what_wrk_prints_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "wrk"
    program.write_text(f"#!/bin/sh\ncat <<'X'\n{WRK}X\n")
    program.chmod(0o755)
    monkeypatch.setattr(wrk.shutil, "which", lambda name: str(program))
    load = wrk.run(1, wrk.same(tmp_path, "s", "{}"), 1, 1, 0)
    assert load == wrk.Load(109_861, 21_965.06, 1.4, 0.322, 37)
    program.write_text("#!/bin/sh\necho 'unable to connect'\n")
    with pytest.raises(BenchmarkFailed, match="unable to connect"):
        wrk.run(1, tmp_path / "s.lua", 1, 1, 0)


@pytest.mark.parametrize("name", [name for name, contender in CONTENDERS.items() if contender.program])
def test_every_contender_is_told_port_and_backends(name: str, tmp_path: Path) -> None:
    argv = CONTENDERS[name].argv("/bin/x", Place(4321, ["127.0.0.1:11", "127.0.0.1:12"], tmp_path))
    told = " ".join(argv) + "".join(path.read_text() for path in tmp_path.iterdir())
    assert argv[0] == "/bin/x"
    assert all(text in told for text in ("4321", "127.0.0.1:11", "127.0.0.1:12"))


def test_a_contender_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="haproxy is not installed"):
        find(CONTENDERS["haproxy"], {"haproxy": "/no/such/file"})


def test_affinity_is_of_the_same_client() -> None:
    def answer(begun_s: float, backend: str) -> Answer:
        return Answer(begun_s, False, backend=backend)

    seen = [(1, answer(1, "a")), (2, answer(2, "b")), (1, answer(3, "a")), (2, answer(4, "a"))]
    assert faults._affinity(seen, 0.0) == 0.5
    assert faults._affinity(seen, 3.5) == 0.0


def test_tables_have_a_row_for_each_result() -> None:
    rows = overhead.table([overhead.Overhead("a", {"json_us": 12.3}), overhead.Overhead("direct")]).splitlines()
    assert rows[2:] == ["| a | 12.3 |", "| direct | – |"]
    outcome = faults.Outcome("a", "reset", bad_json={"HTTP 500": 2, "x": 1})
    assert faults.table([outcome]).splitlines()[2].startswith("| reset | a | 0 | 3 | 0 | 0 |")
