"""The load generator against a server of a few lines that does exactly what a test wants."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.bench.serve.arrivals import Arrivals
from headrace.bench.serve.client import Target
from headrace.bench.serve.driver import Driver
from headrace.bench.serve.lengths import Lengths
from headrace.bench.serve.plan import Mix, cut_words, plan
from headrace.bench.serve.records import Record, spread, summarize
from headrace.bench.serve.report import Header, as_json, bars, text
from headrace.errors import ConfigError

Answer = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def piece(content: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}}]}


class Server:
    """Answers every request with `answer`; remembers their bodies, and how many connections there were."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.num_connections = 0
        self.num_under_way = 0
        self.most_under_way = 0
        self.num_left = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(next(line for line in head.lower().split(b"\r\n") if b"content-length" in line).split()[1])
                body = json.loads(await reader.readexactly(length))
                self.bodies.append(body)
                self.num_under_way += 1
                self.most_under_way = max(self.most_under_way, self.num_under_way)
                try:
                    await self.answer(body, writer)
                    await writer.drain()
                finally:
                    self.num_under_way -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            self.num_left += 1
        finally:
            writer.close()


@asynccontextmanager
async def running(answer: Answer) -> AsyncIterator[tuple[Server, str]]:
    server = Server(answer)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    try:
        yield server, f"http://{host}:{port}/v1"
    finally:
        listener.close()
        await listener.wait_closed()


async def stream_words(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    """`max_tokens` words, one event each, role first and usage last; the first event arrives in two pieces."""
    writer.write(HEAD)
    role = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    writer.write(chunk(role[:9]) + chunk(role[9:]))
    for i in range(body["max_tokens"]):
        writer.write(chunk(event(piece(f"w{i} "))))
        await writer.drain()
        await asyncio.sleep(0)
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": body["max_tokens"],
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    writer.write(chunk(event({"choices": [], "usage": usage}) + event(b"[DONE]")) + b"0\r\n\r\n")


async def load(url: str, mix: Mix, count: int, concurrency: int | None = None, **options: Any) -> list[Record]:
    target = Target.parse(url, options.pop("endpoint", "chat"), options.pop("api_key", None))
    arrivals, timeout_s = options.pop("arrivals", Arrivals()), options.pop("timeout_s", 20.0)
    driver = Driver(target, "m", mix, concurrency, timeout_s, True, time.perf_counter)
    return await driver.run(plan(mix, arrivals, count, 0, cut_words))


MIX = Mix(Lengths.parse("4"), Lengths.parse("6"))


def test_answers_are_timed_and_counted() -> None:
    async def test() -> None:
        async with running(stream_words) as (server, url):
            records = await load(url, MIX, 5)
        assert [record.outcome for record in records] == ["ok"] * 5
        for record in records:
            assert (record.num_prompt_tokens, record.num_cached_tokens, record.num_output_tokens) == (10, 4, 6)
            assert len(record.event_s) == 6  # the role is no token
            assert record.text == "w0 w1 w2 w3 w4 w5 "
            assert record.due_s <= record.sent_s <= record.event_s[0] <= record.event_s[-1] <= record.end_s
        assert server.bodies[0]["stream_options"] == {"include_usage": True}
        assert server.bodies[0]["ignore_eos"] is True

    asyncio.run(test())


def test_concurrency_is_bounded_and_connections_are_used_again() -> None:
    async def test() -> None:
        async with running(stream_words) as (server, url):
            await load(url, MIX, 12, concurrency=3)
        assert server.most_under_way == 3
        assert server.num_connections == 3

    asyncio.run(test())


def test_turns_send_the_answers_back() -> None:
    async def test() -> None:
        mix = Mix(Lengths.parse("4"), Lengths.parse("2"), prefix_tokens=3, num_turns=3)
        async with running(stream_words) as (server, url):
            records = await load(url, mix, 3)
        assert [len(body["messages"]) for body in server.bodies] == [2, 4, 6]
        assert server.bodies[2]["messages"][:4] == server.bodies[1]["messages"]
        assert server.bodies[1]["messages"][2] == {"role": "assistant", "content": "w0 w1 "}
        assert records[1].due_s == records[0].end_s

    asyncio.run(test())


def test_clients_that_leave_hang_up_and_are_not_failures() -> None:
    async def test() -> None:
        mix = Mix(Lengths.parse("4"), Lengths.parse("500"), cancel_ratio=1.0)
        async with running(stream_words) as (server, url):
            records = await load(url, mix, 4)
            async with asyncio.timeout(10):
                while server.num_left < 4:
                    await asyncio.sleep(0.01)
        assert [record.outcome for record in records] == ["cancelled"] * 4
        assert all(record.num_output_tokens == len(record.event_s) < 500 for record in records)

    asyncio.run(test())


def test_arrivals_are_kept_whatever_the_server_does() -> None:
    async def slow(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await stream_words(body, writer)

    async def test() -> None:
        async with running(slow) as (server, url):
            records = await load(url, MIX, 6, arrivals=Arrivals(50.0, None, float("inf")))
        assert server.most_under_way == 6
        assert [record.due_s for record in records] == pytest.approx([0.02 * (i + 1) for i in range(6)])
        assert all(record.ttft_s >= 0.29 for record in records)

    asyncio.run(test())


async def _refuse(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 429 Too Many Requests\r\ncontent-length: 15\r\n\r\n{"error":"full"')


async def _fail(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\nconnection: close\r\n\r\nboom")


async def _cut(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + chunk(event(piece("a"))))
    writer.close()


async def _end_early(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + chunk(event(piece("a"))) + b"0\r\n\r\n")


async def _error_event(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    failure = event({"error": {"message": "the engine died"}})
    writer.write(HEAD + chunk(event(piece("a")) + failure + event(b"[DONE]")) + b"0\r\n\r\n")


async def _hang(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.5)


async def _speak_nonsense(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(b"nonsense\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (_refuse, "rejected", "HTTP 429"),
        (_fail, "error", "HTTP 500: boom"),
        (_cut, "error", "connection was lost"),
        (_end_early, "error", r"without \[DONE\]"),
        (_error_event, "error", "the engine died"),
        (_hang, "error", "given up after 0.2 s"),
        (_speak_nonsense, "error", "not an HTTP answer"),
    ],
)
def test_what_goes_wrong_is_told(answer: Answer, outcome: str, words: str) -> None:
    async def test() -> None:
        async with running(answer) as (_, url):
            (record,) = await load(url, MIX, 1, timeout_s=0.2)
        assert record.outcome == outcome
        assert re.search(words, record.error)

    asyncio.run(test())


def test_nobody_listens() -> None:
    async def test() -> None:
        async with running(stream_words) as (_, url):
            pass
        records = await load(url, MIX, 2)
        assert [record.outcome for record in records] == ["error"] * 2
        assert "ConnectionRefused" in records[0].error

    asyncio.run(test())


def test_completions_take_text_and_a_key_is_sent() -> None:
    target = Target.parse("localhost:1234", "completions", "secret")
    assert target.head("POST", target.path, 3) == (
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost:1234\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer secret\r\ncontent-length: 3\r\n\r\n"
    )
    assert Target.parse("https://host/base/v1/", "chat", None).path == "/base/v1/chat/completions"
    for wrong in ("ftp://host", "http://", "http://host:x", "http://host:0"):
        with pytest.raises(ConfigError, match="address"):
            Target.parse(wrong, "chat", None)


# ---------------------------------------------------------------- figures


def record(due: float, events: list[float], outcome: Any = "ok", tokens: int = 0) -> Record:
    made = Record(due, due, events, events[-1] if events else due)
    made.outcome, made.num_output_tokens = outcome, tokens or len(events)
    return made


def test_percentiles_are_numpys() -> None:
    numpy = pytest.importorskip("numpy")
    values = [0.5, 0.1, 0.9, 0.3, 0.2, 0.7]
    found = spread([*values, float("nan")])
    for percent, value in found.percentiles_ms.items():
        assert value == pytest.approx(numpy.percentile(values, percent) * 1e3)
    assert found.std_ms == pytest.approx(numpy.std(values) * 1e3)


def test_goodput_counts_who_keeps_to_every_limit() -> None:
    records = [
        record(0.0, [0.1, 0.2, 0.3]),
        record(0.0, [0.5, 0.6]),
        record(1.0, [1.1, 1.9]),
        record(0, [], "rejected"),
    ]
    assert summarize(records, {"ttft": 200.0}).num_good == 2
    assert summarize(records, {"ttft": 200.0, "tpot": 150.0}).num_good == 1
    assert summarize(records, {}).num_good is None
    assert records[0].tpot_s == pytest.approx(0.1)


def test_a_report_of_a_run_says_what_happened() -> None:
    records = [record(0.0, [0.1, 0.2, 0.3]), record(0.5, [1.0], "cancelled"), record(0.6, [], "rejected")]
    records[2].error = "HTTP 429: full"
    header = Header("now", "m", "openai-chat", 2.0, 5.0, 1.0, None, 3, 2, {"ttft": 200.0})
    summary = summarize(records, {"ttft": 200.0})
    report = text(header, summary)
    for words in (
        "2 to 5 requests/s",
        "1 answered, 1 rejected, 0 failed, 1 cancelled",
        "TTFT ≤ 200 ms",
        "1 × HTTP 429",
    ):
        assert words in report
    result = json.loads(json.dumps(as_json(header, summary)))
    assert (result["completed"], result["failed"], result["cancelled"]) == (1, 1, 1)
    assert result["median_ttft_ms"] == pytest.approx(100.0)
    assert result["p99_itl_ms"] == pytest.approx(100.0)
    assert result["ttfts"][2] is None
    assert result["output_throughput"] == pytest.approx(4 / 1.0)


def test_a_run_without_any_answer_has_a_report() -> None:
    header = Header("now", "m", "openai", float("inf"), None, 1.0, 4, 3, 0, {})
    assert "0 answered" in text(header, summarize([], {}))


def test_bars_show_what_is_small() -> None:
    assert bars([0, 1, 50, 100]) == " ▁▄█"


def test_the_command_measures_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from headrace.cli.main import main

    async def test() -> int:
        async with running(stream_words) as (_, url):
            file = str(tmp_path / "result.json")
            arguments = ["bench", "serve", url, "--model", "m", "--num-requests", "3", "--output-tokens", "4"]
            return await asyncio.to_thread(main, [*arguments, "--json", file, "--tokenizer", "builtin"])

    assert asyncio.run(test()) == 0
    assert "3 answered" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text())["total_output_tokens"] == 12


def test_the_command_says_that_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    from headrace.cli.main import main

    assert main(["bench", "serve", "http://127.0.0.1:9", "--num-requests", "1"]) != 0
    assert "no server answers at 127.0.0.1:9" in capsys.readouterr().err
