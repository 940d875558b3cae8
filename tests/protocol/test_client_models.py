"""Every event and body, strictly by the clients' own models."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from headrace.errors import HeadraceError, RequestFailed
from headrace.protocol import ContentPart, ReasoningPart, ToolCallPart
from tests.protocol.bodies import CASES, GENERATING
from tests.protocol.events import PROMPT, events, play, writer_of

PARTS = [
    ReasoningPart("hm"),
    ContentPart("a"),
    ContentPart("b"),
    ToolCallPart(0, "c", "f", ""),
    ToolCallPart(0, None, None, "{}"),
    ContentPart("c"),
]
STREAMED: dict[str, TypeAdapter[Any]] = {
    "chat": TypeAdapter(ChatCompletionChunk),
    "completions": TypeAdapter(Completion),
    "messages": TypeAdapter(RawMessageStreamEvent),
    "responses": TypeAdapter(ResponseStreamEvent),
}
WHOLE: dict[str, TypeAdapter[Any]] = {
    "chat": TypeAdapter(ChatCompletion),
    "completions": TypeAdapter(Completion),
    "messages": TypeAdapter(Message),
    "responses": TypeAdapter(Response),
}


@pytest.mark.parametrize("name", GENERATING)
@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("extra", [{}, {"return_token_ids": True}])
def test_whole_bodies(name: str, finish: str, extra: dict[str, Any]) -> None:
    parse, body = CASES[name]
    content = play(parse({**body, **extra, "stream": False, "echo": None}), PARTS, finish)
    found = WHOLE[name].validate_json(content, strict=True)
    assert found.model == 'a "model"'


def test_streams() -> None:
    for name in GENERATING:
        parse, body = CASES[name]
        for extra in ({}, {"return_token_ids": True}, {"logprobs": None, "top_logprobs": None, "include": None}):
            call = parse({**body, **extra, "stream": True, "echo": None})
            for event in events(play(call, PARTS)):
                if event.data == "[DONE]" or _has_no_finish_reason(name, event.data):
                    continue
                found = STREAMED[name].validate_python(event.data, strict=True)
                assert event.name in (None, found.type if event.name else None)


def _has_no_finish_reason(name: str, data: Any) -> bool:
    """OpenAI's own model of completions has no place for the null that its streams have."""
    return name == "completions" and data["choices"] != [] and data["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize("error", [RequestFailed("no"), HeadraceError("no"), ValueError("secret")])
def test_failures_of_responses(error: Exception) -> None:
    call = CASES["responses"][0]({"input": "x", "stream": True})
    writer = writer_of(call)
    sent = writer.start([PROMPT]) + writer.parts(0, [ContentPart("a")]) + writer.error(error, "r")
    for event in events(sent):
        STREAMED["responses"].validate_python(event.data, strict=True)
    assert b"secret" not in sent


def test_events_of_responses_are_numbered() -> None:
    call = CASES["responses"][0]({"input": "x", "stream": True})
    numbers = [event.data["sequence_number"] for event in events(play(call, PARTS))]
    assert numbers == list(range(len(numbers)))


def test_a_chunk_is_the_same_by_the_short_way_and_the_long_one() -> None:
    """Text alone goes by the short way; with another part beside it by the long one."""
    for name in ("chat", "completions"):
        parse, body = CASES[name]
        plain = {"stream": True, "logprobs": None, "top_logprobs": None, "echo": None, "n": 1, "best_of": None}
        call = parse({**body, **plain})
        text = 'quote " back \\ \u2028 \x00 ☂'
        short = writer_of(call).parts(0, [ContentPart(text)], (7,))
        long = writer_of(call)
        long._is_plain = False
        assert [event.data for event in events(long.parts(0, [ContentPart(text)], (7,)))] == [
            event.data for event in events(short)
        ]
