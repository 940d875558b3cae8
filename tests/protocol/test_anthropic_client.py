"""Anthropic's own client reads what the writers write."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from headrace.errors import EngineDead, HeadraceError
from headrace.protocol import ContentPart, GenerationCall, Part, ReasoningPart, ToolCallPart
from tests.protocol.events import PROMPT, writer_of
from tests.protocol.service import answer_with, anthropic_client

ASK: Any = [{"role": "user", "content": "Weather?"}]
TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object"}}]
PARTS: list[Part] = [
    ReasoningPart("h"),
    ReasoningPart("m"),
    ContentPart('I "look"'),
    ContentPart("\n☂"),
    ToolCallPart(0, "c1", "weather", ""),
    ToolCallPart(0, None, None, '{"city":'),
    ToolCallPart(0, None, None, ' "Bern"}'),
    ToolCallPart(1, "c2", "weather", "{}"),
]


def check(message: Any) -> None:
    """The answer of PARTS."""
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert message.content[0].thinking == "hm"
    assert message.content[1].text == 'I "look"\n☂'
    assert (message.content[2].id, message.content[2].input) == ("c1", {"city": "Bern"})
    assert message.content[3].input == {}
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (7, 4, 7)
    assert message.usage.output_tokens_details.thinking_tokens == 2


def test_messages() -> None:
    check(anthropic_client(answer_with(PARTS)).messages.create(model="m", max_tokens=9, messages=ASK, tools=TOOLS))


def test_messages_stream() -> None:
    client = anthropic_client(answer_with(PARTS))
    with client.messages.stream(model="m", max_tokens=9, messages=ASK, tools=TOOLS) as stream:
        types = [event.type for event in stream]
        check(stream.get_final_message())
    assert types[0] == "message_start"
    assert types[-1] == "message_stop"
    assert types.count("content_block_start") == types.count("content_block_stop") == 4


@pytest.mark.parametrize(
    ("finish", "stop_reason", "max_tokens", "expected"),
    [
        ("stop", None, 9, ("end_turn", None)),
        ("stop", 5, 9, ("end_turn", None)),
        ("stop", "END", 9, ("stop_sequence", "END")),
        ("length", None, 7, ("max_tokens", None)),
        ("length", None, 9, ("model_context_window_exceeded", None)),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_stop_reasons(finish: str, stop_reason: Any, max_tokens: int, expected: Any, stream: bool) -> None:
    client = anthropic_client(answer_with([ContentPart("a")], finish_reason=finish, stop_reason=stop_reason))
    answer: Any
    if stream:
        with client.messages.stream(model="m", max_tokens=max_tokens, messages=ASK) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(model="m", max_tokens=max_tokens, messages=ASK)
    assert (answer.stop_reason, answer.stop_sequence) == expected


def test_thinking_is_left_out_where_that_is_asked() -> None:
    thinking: Any = {"type": "adaptive", "display": "omitted"}
    client = anthropic_client(answer_with(PARTS))
    answer = client.messages.create(model="m", max_tokens=9, messages=ASK, thinking=thinking)
    assert [block.type for block in answer.content] == ["text", "tool_use", "tool_use"]


def test_arguments_that_were_cut_off_are_handed_over_as_they_are() -> None:
    parts = [ToolCallPart(0, "c1", "weather", '{"city": "Be')]
    answer: Any = anthropic_client(answer_with(parts, finish_reason="length")).messages.create(
        model="m", max_tokens=7, messages=ASK, tools=TOOLS
    )
    assert answer.content[0].input == {"_raw": '{"city": "Be'}
    assert answer.stop_reason == "max_tokens"


def test_token_ids_in_a_stream() -> None:
    client = anthropic_client(answer_with(PARTS))
    events: Any = client.messages.create(
        model="m", max_tokens=9, messages=ASK, stream=True, extra_body={"return_token_ids": True}
    )
    extras = [event.model_extra or {} for event in events]
    assert [i for extra in extras for i in extra.get("token_ids", ())] == [7] * len(PARTS)


def test_count_tokens() -> None:
    client = anthropic_client(answer_with([]))
    assert client.messages.count_tokens(model="m", messages=ASK, tools=TOOLS).input_tokens == 5


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client(answer_with([])).messages.create(model="m", max_tokens=-1, messages=ASK)
    body: Any = caught.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["param"] == "max_tokens"
    assert body["request_id"] == "req-1"
    assert "max_tokens=-1 is not allowed: an integer of at least 1" in str(caught.value)


def test_an_engine_that_is_gone() -> None:
    def gone(call: GenerationCall) -> bytes:
        raise EngineDead("the engine is gone")

    with pytest.raises(anthropic.APIStatusError) as caught:
        anthropic_client(gone).messages.create(model="m", max_tokens=9, messages=ASK)
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["type"]) == (503, "overloaded_error")


def test_an_error_in_mid_stream() -> None:
    def broken(call: GenerationCall) -> bytes:
        writer = writer_of(call)
        sent = writer.start([PROMPT]) + writer.parts(0, [ContentPart("a")], (7,))
        return sent + writer.error(HeadraceError("it broke"), "req-1")

    with pytest.raises(anthropic.APIStatusError, match="it broke"):
        list(anthropic_client(broken).messages.create(model="m", max_tokens=9, messages=ASK, stream=True))
