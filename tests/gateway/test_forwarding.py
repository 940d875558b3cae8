"""What the gateway reads in answers, and what it does not let clients say."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from headrace.gateway.features import features
from headrace.gateway.forwarding import usage
from tests.gateway.scripted import END, Asked, event, stage, stream_head, whole
from tests.gateway.test_proxy import answer_json, run

OPENAI = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
RESPONSES = {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 5}}
ANTHROPIC = {
    "input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        ({"usage": OPENAI}, (9, 5, 4)),
        ({"usage": {"prompt_tokens": 9, "completion_tokens": 4}}, (9, 0, 4)),
        ({"usage": {**OPENAI, "prompt_tokens_details": {}}}, (9, 0, 4)),
        ({"usage": RESPONSES}, (9, 5, 4)),
        ({"response": {"usage": RESPONSES}}, (9, 5, 4)),
        ({"usage": ANTHROPIC}, (9, 5, 4)),
        ({"message": {"usage": ANTHROPIC}}, (9, 5, 4)),
        ({"usage": {"input_tokens": 9, "output_tokens": 4}}, (9, 0, 4)),
        ({"usage": {"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 4}}, (9, 9, 4)),
        ({"usage": None}, (0, 0, 0)),
        ({"usage": "much"}, (0, 0, 0)),
        ({}, (0, 0, 0)),
    ],
)
def test_tokens_are_counted_in_every_interfaces_words(answer: dict[str, Any], counts: tuple[int, int, int]) -> None:
    assert usage(json.dumps(answer).encode()) == counts
    assert usage(b'data: {"choices": []}\n\n' + event(answer) + b"data: [DONE]\n\n") == counts


CONTINUE = {"id": "x", "choices": [{"token_ids": [1, 2]}]}


@pytest.mark.parametrize("given", [CONTINUE, None, 3, "x"])
@pytest.mark.parametrize("escaped", [False, True])
def test_a_client_cannot_say_what_gateways_say(given: object, escaped: bool) -> None:
    async def test() -> None:
        async with stage(answer_json) as s:
            body = json.dumps({"messages": [], "headrace_continue": given, "stream": True})
            if escaped:
                body = body.replace("headrace_continue", r"headrace\u005fcontinue")
            answer = await s.ask(body.encode())
            assert answer.status == 400
            assert "headrace_continue" in answer.json["error"]["message"]
            assert s.replicas[0].asked == []
            assert (await s.ask({"messages": [], "metadata": {"headrace_continue": given}})).status == 200
            await s.settled()
            assert s.notes.finishes[0][:2] == ("error", 400)

    run(test)


def test_a_body_that_is_no_json_is_the_replicas_to_refuse() -> None:
    assert features(b'{"headrace_continue": ', "c").num_tokens == 0


def test_a_stream_without_an_event_is_a_whole_answer() -> None:
    async def nothing(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(stream_head() + END)

    async def test() -> None:
        async with stage(nothing) as s:
            reader, writer = await s.connect()
            writer.write(b"GET /v1/some/stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert body == END
            writer.close()

    run(test)


def test_a_fault_of_the_gateway_is_logged_as_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(200, {}))

    async def test() -> None:
        async with stage(answer, answer) as s:

            def broken(replica: str, outcome: str) -> None:
                raise ZeroDivisionError("of the gateway's own")

            s.notes.attempt_ended = broken  # type: ignore[method-assign]
            with caplog.at_level(logging.ERROR):
                _, writer = await s.connect()
                writer.write(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n")
                async with asyncio.timeout(10):
                    while not caplog.records:
                        await asyncio.sleep(0.005)
            assert caplog.records[0].exc_info is not None
            assert caplog.records[0].exc_info[0] is ZeroDivisionError
            writer.close()

    run(test)
