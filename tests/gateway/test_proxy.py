"""What goes through: requests, answers and streams, whole and untouched; and what does not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from headrace.gateway.health.breaker import BreakerSettings
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.route import ProxySettings
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

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}


async def answer_json(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(200, {"got": asked.body.decode(), "usage": USAGE}, content_type="application/json"))


async def answer_stream(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(stream_head(x_headrace_load="running=3,waiting=1,tokens=812,kv=0.25"))
    for i in range(5):
        writer.write(chunk(event(piece(f"w{i} "))))
        await writer.drain()
    writer.write(chunk(event({"choices": [], "usage": USAGE}) + DONE) + END)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))  # type: ignore[arg-type]


def test_a_request_and_its_answer_pass_untouched() -> None:
    async def test() -> None:
        async with stage(answer_json) as s:
            body = b'{"model":"m",  "messages":[{"role":"user","content":"h\\u00e9"}] }'
            answer = await s.ask(body, "/v1/chat/completions?x=1", x_custom="1", authorization="Bearer k")
            assert answer.status == 200
            assert answer.json["got"] == body.decode()
            asked = s.replicas[0].asked[0]
            assert (asked.method, asked.target, asked.body) == ("POST", "/v1/chat/completions?x=1", body)
            assert asked.headers["x-custom"] == "1"
            assert asked.headers["authorization"] == "bearer k"
            assert asked.headers["x-forwarded-for"] == "127.0.0.1"
            assert asked.headers["x-request-id"] == answer.headers["x-request-id"] == "id-0"
            assert answer.headers["x-headrace-route"].startswith("replica=r0; first; in turn")
            await s.settled()
            assert s.notes.finishes == [("ok", 200, (9, 5, 4))]

    run(test)


def test_a_stream_passes_event_by_event() -> None:
    async def test() -> None:
        async with stage(answer_stream) as s:
            answer = await s.ask({"stream": True, "messages": []})
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.text == "w0 w1 w2 w3 w4 "
            assert answer.body.endswith(b"data: [DONE]\n\n")
            assert answer.whole
            await s.settled()
            assert s.notes.finishes == [("ok", 200, (9, 5, 4))]
            assert s.fleet[0].load.num_running == 3

    run(test)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_events_in_pieces_come_out_the_same(size: int) -> None:
    text = b": comment\n\n" + b"".join(event(piece(f"w{i}")) for i in range(6)) + DONE

    async def trickle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head())
        for start in range(0, len(text), size):
            writer.write(chunk(text[start : start + size]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(END)

    async def test() -> None:
        async with stage(trickle) as s:
            assert (await s.ask({"stream": True})).body == text

    run(test)


def test_connections_are_kept_on_both_sides() -> None:
    async def test() -> None:
        async with stage(answer_json) as s:
            reader, writer = await s.connect()
            for i in range(5):
                writer.write(post({"n": i}))
                assert json.loads((await read_answer(reader)).json["got"]) == {"n": i}
            writer.close()
            assert s.replicas[0].num_connections == 1

    run(test)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def test() -> None:
        async with stage(answer_json, answer_json) as s:
            reader, writer = await s.connect()
            writer.write(b"".join(post({"user": str(i)}) for i in range(40)))
            for i in range(40):
                assert json.loads((await read_answer(reader)).json["got"]) == {"user": str(i)}
            writer.close()

    run(test)


def test_bodies_in_chunks_and_clients_that_ask_to_go_on() -> None:
    async def test() -> None:
        async with stage(answer_json) as s:
            reader, writer = await s.connect()
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
            )
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n')
            assert (await read_answer(reader)).json["got"] == '{"a":1}'
            assert s.replicas[0].asked[0].headers["content-length"] == "7"
            assert "expect" not in s.replicas[0].asked[0].headers
            writer.close()

    run(test)


def test_clients_of_http_1_0_get_streams_without_chunks() -> None:
    async def test() -> None:
        async with stage(answer_stream) as s:
            reader, writer = await s.connect()
            writer.write(b'POST /v1/completions HTTP/1.0\r\nContent-Length: 15\r\n\r\n{"stream":true}')
            answer = await reader.read()
            assert b"transfer-encoding" not in answer
            assert answer.endswith(DONE)
            writer.close()

    run(test)


def test_headers_of_one_connection_do_not_pass() -> None:
    async def odd(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(
            whole(200, {}, connection="x-secret, keep-alive", x_secret="1", keep_alive="timeout=5", x_kept="1")
        )

    async def test() -> None:
        async with stage(odd) as s:
            answer = await s.ask({}, connection="x-mine", x_mine="1", te="trailers", x_headrace_seed="3", x_other="1")
            asked = s.replicas[0].asked[0].headers
            assert not {"x-mine", "te", "connection", "x-headrace-seed"} & asked.keys()
            assert asked["x-other"] == "1"
            assert not {"x-secret", "keep-alive"} & answer.headers.keys()
            assert answer.headers["x-kept"] == "1"

    run(test)


def test_a_clients_request_id_is_kept_if_it_is_fit_for_one() -> None:
    async def test() -> None:
        async with stage(answer_json) as s:
            assert (await s.ask({}, x_request_id="mine-1")).headers["x-request-id"] == "mine-1"
            assert (await s.ask({}, x_request_id="with space")).headers["x-request-id"] == "id-0"

    run(test)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_clients_mistake_is_its_own(status: int) -> None:
    async def refuse(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(status, {"error": {"message": "no"}}))

    async def test() -> None:
        async with stage(refuse, answer_json) as s:
            for _ in range(6):
                await s.ask({})
            assert [a for a in s.notes.attempts if a[0] == "r0"] == [("r0", "ok")] * 3
            assert s.fleet[0].condition(0.0) == "ready"

    run(test)


# ---------------------------------------------------------------- what clients do


def test_a_client_that_leaves_is_left_at_once() -> None:
    started = asyncio.Event()

    async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head() + chunk(event(piece("a"))))
        started.set()
        await asyncio.sleep(60)

    async def test() -> None:
        async with stage(endless) as s:
            for body in ({"stream": True}, {"stream": False}):
                started.clear()
                _, writer = await s.connect()
                writer.write(post(body))
                await started.wait()
                writer.close()
                await s.settled()
            async with asyncio.timeout(2):
                while s.replicas[0].num_hung_up < 2:
                    await asyncio.sleep(0.005)
            assert s.notes.finishes == [("cancelled", 499, (0, 0, 0))] * 2
            assert s.fleet[0].breaker.state(0.0) == "closed"

    run(test)


def test_a_slow_reader_slows_the_replica_and_nobody_else() -> None:
    sent = 0

    async def flood(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        if asked.json.get("user") == "quick":
            return await answer_stream(asked, writer)
        writer.write(stream_head())
        data = chunk(event(piece("x" * 1000)))
        for _ in range(40_000):
            writer.write(data)
            await writer.drain()
            sent += 1
        writer.write(chunk(DONE) + END)
        return None

    async def test() -> None:
        async with stage(flood) as s:
            reader, writer = await s.connect()
            writer.write(post({"stream": True}))
            await reader.readuntil(b"\r\n\r\n")
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 20_000  # 40 MB do not pile up anywhere
            assert (await s.ask({"stream": True, "user": "quick"})).text == "w0 w1 w2 w3 w4 "
            received = 0
            while received < 40_000_000 and (data := await reader.read(1 << 20)):
                received += len(data)
            writer.close()
            assert sent == 40_000

    run(test)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"x" * 600) * 2, 413),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(data: bytes, status: int) -> None:
    async def test() -> None:
        limits = ClientLimits(max_body_bytes=1000, linger_s=0.02)
        async with stage(answer_json, limits=limits) as s:
            reader, writer = await s.connect()
            writer.write(data)
            answer = await read_answer(reader)
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            assert answer.json["error"]["message"]
            assert await reader.read() == b""
            assert s.replicas[0].asked == []
            writer.close()

    run(test)


def test_slow_and_idle_clients_are_closed() -> None:
    async def test() -> None:
        limits = ClientLimits(read_timeout_s=0.1, idle_timeout_s=0.2, sweep_s=0.05)
        async with stage(answer_json, limits=limits) as s:
            slow_reader, slow = await s.connect()
            slow.write(b"POST / HTTP/1.1\r\nhos")
            idle_reader, idle = await s.connect()
            async with asyncio.timeout(5):
                assert await slow_reader.read() == b""
                assert await idle_reader.read() == b""
            assert not s.gateway.connections
            slow.close()
            idle.close()

    run(test)


# ---------------------------------------------------------------- what replicas do


def failing_once(first: Callable[[asyncio.StreamWriter], Awaitable[None]]):  # type: ignore[no-untyped-def]
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await first(writer)

    return script


async def _500(writer: asyncio.StreamWriter) -> None:
    writer.write(whole(500, {"error": {"message": "boom"}}))


async def _429(writer: asyncio.StreamWriter) -> None:
    writer.write(whole(429, {"error": {"message": "full"}}, retry_after="7"))


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _half_a_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()


async def _half_an_event(writer: asyncio.StreamWriter) -> None:
    writer.write(stream_head() + chunk(b'data: {"half'))
    await writer.drain()
    writer.transport.abort()


async def _empty_stream(writer: asyncio.StreamWriter) -> None:
    writer.write(stream_head() + END)


async def _nonsense(writer: asyncio.StreamWriter) -> None:
    writer.write(b"nonsense")


async def _engine_dead(writer: asyncio.StreamWriter) -> None:
    writer.write(stream_head() + chunk(event({"error": {"code": "engine_dead", "message": "died"}}) + DONE) + END)


FAILURES = [_500, _429, _hang_up, _half_a_body, _half_an_event, _empty_stream, _nonsense, _engine_dead]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_what_was_not_given_out_is_asked_for_elsewhere(
    failure: Callable[[asyncio.StreamWriter], Awaitable[None]], stream: bool
) -> None:
    async def test() -> None:
        async with stage(failing_once(failure), answer_stream if stream else answer_json) as s:
            answer = await s.ask({"stream": stream})
            assert answer.status == 200
            assert "retry" in answer.headers["x-headrace-route"]
            await s.settled()
            outcome = "refused" if failure is _429 else "failed"
            assert s.notes.attempts == [("r0", outcome), ("r1", "ok")]
            assert [decision.kind for decision in s.notes.decisions] == ["first", "retry"]

    run(test)


def test_a_replica_that_is_not_there_is_passed_over() -> None:
    async def test() -> None:
        async with stage(answer_json, answer_json) as s:
            await s.replicas[0].stop()
            for _ in range(8):
                assert (await s.ask({})).status == 200
            await s.settled()
            assert s.fleet[0].condition(s.gateway.router.clock()) in ("ejected", "ready")
            assert [a for a in s.notes.attempts if a[0] == "r0"].count(("r0", "failed")) >= 3

    run(test)


@pytest.mark.parametrize("breaks", [True, False])
def test_broken_connections_are_told_from_failed_requests(breaks: bool) -> None:
    async def fail(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if breaks:
            writer.transport.abort()
        else:
            writer.write(whole(500, {}))

    async def test() -> None:
        async with stage(fail, answer_json, breaker=BreakerSettings(early_recovery_s=0.0)) as s:
            bad = s.fleet[0]
            while bad.condition(time.monotonic()) == "ready":
                assert (await s.ask()).status == 200
            bad.breaker.seen_well(time.monotonic())
            assert bad.condition(time.monotonic()) == ("trial" if breaks else "ejected")

    run(test)


def test_when_all_fail_the_client_is_told_what_happened() -> None:
    async def test() -> None:
        async with stage(failing_once(_hang_up), failing_once(_hang_up)) as s:
            answer = await s.ask({})
            assert answer.status == 502
            assert answer.json["error"]["code"] == "replica_failed"
            assert "r0: it closed the connection" in answer.json["error"]["message"]
            assert "r1: it closed the connection" in answer.json["error"]["message"]

    run(test)


def test_when_all_are_full_the_client_gets_their_answer_and_the_pause_is_kept() -> None:
    async def test() -> None:
        async with stage(failing_once(_429), failing_once(_429)) as s:
            answer = await s.ask({})
            assert (answer.status, answer.headers["retry-after"]) == (429, "7")
            again = await s.ask({})
            assert again.status == 503
            assert "r0 busy, r1 busy" in again.json["error"]["message"]
            assert len(s.replicas[0].asked) == len(s.replicas[1].asked) == 1

    run(test)


def test_a_stream_that_is_cut_says_so() -> None:
    async def cut(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head() + chunk(event(piece("a"))))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async def test() -> None:
        async with stage(cut, answer_stream) as s:
            answer = await s.ask({"stream": True})
            assert answer.whole
            *_, last = [line for line in answer.body.split(b"\n") if line]
            assert json.loads(last[6:])["error"]["code"] == "replica_failed"
            assert b"[DONE]" not in answer.body
            await s.settled()
            assert s.notes.finishes[-1][0] == "cut"

    run(test)


def test_an_idle_connection_that_the_replica_closed_is_no_failure() -> None:
    async def closing(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(200, {}))
        await writer.drain()
        asyncio.get_running_loop().call_later(0.02, writer.transport.abort)

    async def test() -> None:
        async with stage(closing) as s:
            for _ in range(20):
                assert (await s.ask({})).status == 200
                await asyncio.sleep(0.02)
            assert all(outcome == "ok" for _, outcome in s.notes.attempts)

    run(test)


def test_retries_have_a_budget() -> None:
    async def test() -> None:
        async with stage(failing_once(_500), failing_once(_500), failing_once(_500)) as s:
            s.gateway.router.budget._least_per_s = 0.5
            for _ in range(30):
                await s.ask({})
            num_retries = sum(decision.kind == "retry" for decision in s.notes.decisions)
            assert num_retries <= 0.2 * 30 + 5

    run(test)


# ---------------------------------------------------------------- silence


QUICK = ProxySettings()


def impatient() -> ProxySettings:
    from headrace.gateway.patience import PatienceSettings

    return ProxySettings(
        patience=PatienceSettings(
            least_first_s=0.1, least_gap_s=0.1, unknown_first_s=0.1, unknown_gap_s=0.1, unknown_whole_s=0.1
        )
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_replica_that_accepts_and_hangs_is_hedged(stream: bool) -> None:
    async def hang(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def test() -> None:
        async with stage(hang, answer_stream if stream else answer_json, settings=impatient()) as s:
            answer = await asyncio.wait_for(s.ask({"stream": stream}), 2)
            assert answer.status == 200
            await s.settled()
            assert s.notes.attempts == [("r0", "cancelled"), ("r1", "ok")]
            assert [decision.kind for decision in s.notes.decisions] == ["first", "hedge"]

    run(test)


def test_the_slow_one_wins_when_the_hedge_is_slower() -> None:
    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.25)
        await answer_stream(asked, writer)

    async def hang(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def test() -> None:
        async with stage(slow, hang, settings=impatient()) as s:
            answer = await s.ask({"stream": True})
            assert answer.text == "w0 w1 w2 w3 w4 "
            assert answer.headers["x-headrace-route"].startswith("replica=r0; first; ")
            await s.settled()
            assert sorted(s.notes.attempts) == [("r0", "ok"), ("r1", "cancelled")]

    run(test)


def test_a_probe_that_fails_moves_what_waits() -> None:
    async def hang(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def test() -> None:
        async with stage(hang, answer_json) as s:
            asking = asyncio.ensure_future(s.ask({}))
            while not s.replicas[0].asked:
                await asyncio.sleep(0.005)
            s.gateway.went_down(s.fleet[0], "its probe failed")
            assert (await asking).status == 200
            assert (await s.ask({})).status == 200
            assert len(s.replicas[0].asked) == 1

    run(test)


# ---------------------------------------------------------------- going on elsewhere


def telling(
    words: list[str], die_after: int | None, stall: bool = False
) -> Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]:
    """A headrace replica: word i is token 100 + i; goes on behind the tokens that it is given."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        assert asked.headers["x-headrace-token-ids"] == "1"
        given = asked.json.get("headrace_continue")
        done = len(given["choices"][0]["token_ids"]) if given else 0
        writer.write(stream_head(x_headrace_token_ids="1", x_headrace_seed="5"))
        if not given:
            writer.write(chunk(event({"id": "cmpl-9", "created": 77, "choices": []})))
        for i in range(done, len(words)):
            if die_after is not None and i >= done + die_after:
                writer.write(chunk(b": headrace 0:%d\ndata: {" % (100 + i)))  # half an event dies with it
                await writer.drain()
                if stall:
                    await asyncio.sleep(60)
                writer.transport.abort()
                return
            end = b" 0=stop" if i == len(words) - 1 else b""
            writer.write(chunk(b": headrace 0:%d%b\n" % (100 + i, end) + event(piece(words[i]))))
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.write(chunk(b": headrace usage\n" + event({"choices": [], "usage": USAGE}) + DONE) + END)

    return script


WORDS = [f"word{i} " for i in range(20)]


@pytest.mark.parametrize("stall", [False, True])
def test_a_stream_goes_on_where_its_replica_died_or_stalled(stall: bool) -> None:
    async def test() -> None:
        script = telling(WORDS, 3, stall)
        async with stage(script, script, script, telling(WORDS, None), settings=impatient()) as s:
            answer = await s.ask({"stream": True, "messages": [], "temperature": 0.7})
            assert answer.text == "".join(WORDS)
            assert b"headrace" not in answer.body.replace(b"x-headrace", b"")
            assert answer.body.count(b"[DONE]") == answer.body.count(b'"usage"') == 1
            await s.settled()
            *lost, (name, ended) = s.notes.attempts
            assert (name, ended) == ("r3", "ok")
            assert len(lost) >= 1
            assert {reason for _, reason in lost} == {"stalled" if stall else "failed"}
            last = s.replicas[3].asked[0].json
            assert last["temperature"] == 0.7
            assert last["headrace_continue"] == {
                "id": "cmpl-9",
                "created": 77,
                "seed": 5,
                "choices": [{"token_ids": list(range(100, 100 + 3 * len(lost))), "finish_reason": None}],
            }
            await s.settled()
            assert s.notes.finishes == [("ok", 200, (9, 5, 4))]
            assert [decision.kind for decision in s.notes.decisions] == ["first"] + ["continue"] * len(lost)

    run(test)


def test_a_client_that_asks_for_token_ids_gets_them() -> None:
    async def test() -> None:
        async with stage(telling(WORDS, None)) as s:
            answer = await s.ask({"stream": True}, x_headrace_token_ids="1")
            assert answer.body.count(b": headrace 0:") == 20

    run(test)


def test_a_replica_that_dies_after_the_last_word_leaves_nothing_open() -> None:
    async def mute(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head(x_headrace_token_ids="1"))
        writer.write(
            chunk(b": headrace 0:1 0=stop\n" + event(piece("all")) + b": headrace usage\n" + event({"usage": USAGE}))
        )
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()

    async def test() -> None:
        async with stage(mute) as s:
            answer = await s.ask({"stream": True})
            assert answer.text == "all"
            assert answer.body.endswith(DONE)
            await s.settled()
            assert s.notes.finishes == [("ok", 200, (9, 5, 4))]

    run(test)


def test_a_failure_of_the_request_itself_is_not_moved() -> None:
    async def nan(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head(x_headrace_token_ids="1") + chunk(b": headrace 0:1\n" + event(piece("a"))))
        writer.write(chunk(event({"error": {"code": "non_finite_logits", "message": "NaN"}})) + END)

    async def test() -> None:
        async with stage(nan, nan) as s:
            answer = await s.ask({"stream": True})
            assert b"non_finite_logits" in answer.body
            assert len(s.replicas[1].asked) == 0
            assert s.notes.attempts == [("r0", "ok")]

    run(test)


def test_draining_finishes_what_is_under_way_and_takes_nothing_new() -> None:
    go_on = asyncio.Event()

    async def waiting(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await answer_json(asked, writer)

    async def begun(s: Stage) -> asyncio.Future[object]:
        asking = asyncio.ensure_future(s.ask({}))
        while not s.replicas[0].asked:
            await asyncio.sleep(0.005)
        return asking

    async def test() -> None:
        async with stage(waiting) as s:
            asking = await begun(s)
            draining = asyncio.ensure_future(s.gateway.drain(5.0))
            await asyncio.sleep(0.05)
            with pytest.raises(OSError, match="Connect"):
                await s.connect()
            assert not draining.done()
            go_on.set()
            assert (await asking).status == 200  # type: ignore[attr-defined]
            assert await draining

    run(test)
