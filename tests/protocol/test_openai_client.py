"""OpenAI's own client reads what the writers write."""

from __future__ import annotations

from typing import Any

import openai
import pydantic
import pytest

from headrace.errors import HeadraceError, QueueFull
from headrace.protocol import ContentPart, GenerationCall, Part, ReasoningPart, ToolCallPart
from tests.protocol.events import PROMPT, play, token, writer_of
from tests.protocol.service import answer_with, openai_client

ASK: Any = [{"role": "user", "content": "Weather?"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
PARTS: list[Part] = [ReasoningPart("hm"), ContentPart('a "b"'), ContentPart("\n☂")]
CALLS: list[Part] = [
    ContentPart("I look."),
    ToolCallPart(0, "c1", "weather", ""),
    ToolCallPart(0, None, None, '{"city":'),
    ToolCallPart(0, None, None, ' "Bern"}'),
    ToolCallPart(1, "c2", "weather", "{}"),
]


def test_chat() -> None:
    answer = openai_client(answer_with(PARTS)).chat.completions.create(model="m", messages=ASK, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.message.content == 'a "b"\n☂'
        assert choice.message.model_extra == {"reasoning_content": "hm", "reasoning": "hm"}
        assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.completion_tokens_details is not None
    assert (answer.usage.total_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (18, 4)
    assert answer.usage.completion_tokens_details.reasoning_tokens == 2


def test_chat_stream() -> None:
    chunks = list(
        openai_client(answer_with(PARTS)).chat.completions.create(
            model="m", messages=ASK, n=2, stream=True, stream_options={"include_usage": True}
        )
    )
    for index in (0, 1):
        mine = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == index]
        assert mine[0].delta.role == "assistant"
        assert "".join(c.delta.content or "" for c in mine) == 'a "b"\n☂'
        assert [c.finish_reason for c in mine if c.finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 7
    assert {chunk.id for chunk in chunks} == {"chatcmpl-abc"}


def test_continuous_usage_counts_the_tokens_so_far() -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(
        openai_client(answer_with(PARTS)).chat.completions.create(
            model="m", messages=ASK, stream=True, stream_options=options
        )
    )
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
    assert counts == [0, 1, 2, 3, 3, 7]


def test_chat_without_reasoning() -> None:
    client = openai_client(answer_with(PARTS))
    for extra in ({"include_reasoning": False}, {"reasoning": {"exclude": True}}):
        answer = client.chat.completions.create(model="m", messages=ASK, extra_body=extra)
        assert not answer.choices[0].message.model_extra


def test_tool_calls() -> None:
    client = openai_client(answer_with(CALLS))
    answer = client.chat.completions.create(model="m", messages=ASK, tools=TOOLS)
    assert answer.choices[0].finish_reason == "tool_calls"
    calls: Any = answer.choices[0].message.tool_calls
    assert [(c.id, c.function.name, c.function.arguments) for c in calls] == [
        ("c1", "weather", '{"city": "Bern"}'),
        ("c2", "weather", "{}"),
    ]


def test_tool_calls_in_a_stream() -> None:
    client = openai_client(answer_with(CALLS))
    with client.chat.completions.stream(model="m", messages=ASK, tools=TOOLS) as stream:
        completion = stream.get_final_completion()
    calls: Any = completion.choices[0].message.tool_calls
    assert [(c.id, c.function.arguments) for c in calls] == [("c1", '{"city": "Bern"}'), ("c2", "{}")]
    assert completion.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_at_most_one_call_where_that_is_asked(stream: bool) -> None:
    client = openai_client(answer_with(CALLS))
    answer: Any = client.chat.completions.create(
        model="m", messages=ASK, tools=TOOLS, parallel_tool_calls=False, stream=stream
    )
    if stream:
        ids = [c.id for chunk in answer for c in chunk.choices[0].delta.tool_calls or () if c.id]
    else:
        ids = [c.id for c in answer.choices[0].message.tool_calls]
    assert ids == ["c1"]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_logprobs(stream: bool) -> None:
    client = openai_client(answer_with(PARTS))
    answer: Any = client.chat.completions.create(model="m", messages=ASK, logprobs=True, top_logprobs=2, stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    content = [item for choice in choices if choice.logprobs for item in choice.logprobs.content]
    assert len(content) == 3
    assert (content[0].token, content[0].bytes, content[0].logprob) == ("x", [120], -0.5)
    assert [top.token for top in content[0].top_logprobs] == ["x", "other"]


def test_parse_of_a_json_schema() -> None:
    class City(pydantic.BaseModel):
        city: str

    asked: list[GenerationCall] = []

    def answer(call: GenerationCall) -> bytes:
        asked.append(call)
        return play(call, [ContentPart('{"city": "Bern"}')])

    found = openai_client(answer).chat.completions.parse(model="m", messages=ASK, response_format=City)
    assert found.choices[0].message.parsed == City(city="Bern")
    assert asked[0].guide is not None
    assert (asked[0].guide.kind, asked[0].guide.strict) == ("json_schema", True)
    assert '"city"' in asked[0].guide.value


def test_token_ids_for_who_wants_to_go_on_from_a_stream() -> None:
    client = openai_client(answer_with([*PARTS, *CALLS]))
    chunks: Any = list(
        client.chat.completions.create(
            model="m", messages=ASK, stream=True, tools=TOOLS, extra_body={"return_token_ids": True}
        )
    )
    assert chunks[0].prompt_token_ids == [1, 2, 3]
    ids = [i for c in chunks for i in (c.choices[0].model_extra or {}).get("token_ids", ())]
    assert len(ids) == len(PARTS) + len(CALLS)


@pytest.mark.parametrize("stream", [False, True])
def test_completions(stream: bool) -> None:
    client = openai_client(answer_with([ContentPart("upon"), ContentPart(" a")]))
    answer: Any = client.completions.create(
        model="m", prompt=["Once", "Once"], n=2, echo=True, stream=stream, extra_body={"return_token_ids": True}
    )
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    for index in range(4):
        mine = [choice for choice in choices if choice.index == index]
        assert "".join(choice.text for choice in mine) == "Onceupon a"
        assert mine[-1].finish_reason == "stop"
        assert mine[0].prompt_token_ids == [1, 2, 3]


def test_completions_logprobs_with_echo() -> None:
    parts = [ContentPart("x"), ContentPart("x")]
    how: Any = {"prompt_logprobs": [None, token("ce", -0.25)]}
    answer = openai_client(answer_with(parts, **how)).completions.create(
        model="m", prompt="Once", echo=True, logprobs=1
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["On", "ce", "x", "x"]
    assert logprobs.text_offset == [0, 2, 4, 5]
    assert logprobs.token_logprobs == [None, -0.25, -0.5, -0.5]
    assert logprobs.top_logprobs == [None, {"ce": -0.25}, {"x": -0.5}, {"x": -0.5}]


def test_completions_of_nothing_but_the_prompt() -> None:
    client = openai_client(answer_with([ContentPart("dropped")]))
    answer = client.completions.create(model="m", prompt="Once", echo=True, max_tokens=0, logprobs=1)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Once", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0


def test_prompt_logprobs_as_vllm_writes_them() -> None:
    how: Any = {"prompt_logprobs": [None, token("ce", -0.25)]}
    answer: Any = openai_client(answer_with(PARTS, **how)).chat.completions.create(
        model="m", messages=ASK, extra_body={"prompt_logprobs": 2}
    )
    first, second = answer.prompt_logprobs
    assert first is None
    assert second["7"] == {"logprob": -0.25, "rank": 1, "decoded_token": "ce"}
    assert second["9"]["decoded_token"] == "other"


def test_responses() -> None:
    client = openai_client(answer_with([*PARTS, *CALLS[1:]]))
    answer: Any = client.responses.create(
        model="m",
        input="Weather?",
        instructions="Be brief.",
        metadata={"a": "b"},
        tools=[{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}],
    )
    assert answer.status == "completed"
    assert answer.output_text == 'a "b"\n☂'
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"]
    assert answer.output[2].arguments == '{"city": "Bern"}'
    assert answer.usage.input_tokens_details.cached_tokens == 4
    assert answer.usage.output_tokens_details.reasoning_tokens == 2
    assert (answer.instructions, answer.metadata, answer.tools[0].name) == ("Be brief.", {"a": "b"}, "weather")


def test_responses_stream() -> None:
    client = openai_client(answer_with([*PARTS, *CALLS[1:]]))
    with client.responses.stream(model="m", input="Weather?") as stream:
        seen = list(stream)
        final: Any = stream.get_final_response()
    assert [event.sequence_number for event in seen if hasattr(event, "sequence_number")][-1] > 20
    assert final.output_text == 'a "b"\n☂'
    assert final.output[-1].call_id == "c2"
    assert seen[-1].type == "response.completed"


def test_responses_that_ran_out_of_tokens() -> None:
    answer = openai_client(answer_with(PARTS, finish_reason="length")).responses.create(model="m", input="x")
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_responses_logprobs() -> None:
    client = openai_client(answer_with([ContentPart("x")]))
    for stream in (False, True):
        answer: Any = client.responses.create(
            model="m", input="x", include=["message.output_text.logprobs"], top_logprobs=2, stream=stream
        )
        final = list(answer)[-1].response if stream else answer
        (found,) = final.output[0].content[0].logprobs
        assert (found.token, found.top_logprobs[1].token) == ("x", "other")


def test_a_refusal_names_the_field() -> None:
    client = openai_client(answer_with(PARTS))
    image: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="m", messages=image)
    assert caught.value.code == "unsupported_field"
    assert caught.value.param == "messages[0].content[0].type"
    assert "only text" in str(caught.value)
    body: Any = caught.value.body
    assert body["request_id"] == "req-1"


def test_a_full_queue_says_when_to_try_again() -> None:
    def full(call: GenerationCall) -> bytes:
        error = QueueFull("the queue is full")
        error.retry_after_s = 2.5
        raise error

    with pytest.raises(openai.RateLimitError) as caught:
        openai_client(full).chat.completions.create(model="m", messages=ASK)
    assert caught.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
def test_an_error_in_mid_stream(endpoint: str) -> None:
    def broken(call: GenerationCall) -> bytes:
        writer = writer_of(call)
        sent = writer.start([PROMPT]) + writer.parts(0, [ContentPart("a")], (7,))
        return sent + writer.error(HeadraceError("it broke"), "req-1")

    client = openai_client(broken)
    if endpoint == "responses":
        seen: list[Any] = list(client.responses.create(model="m", input="x", stream=True))
        assert [event.type for event in seen[-2:]] == ["error", "response.failed"]
        assert seen[-1].response.error.message == "it broke"
        assert seen[-1].response.output[0].status == "incomplete"
        return
    stream: Any = (
        client.chat.completions.create(model="m", messages=ASK, stream=True)
        if endpoint == "chat"
        else client.completions.create(model="m", prompt="x", stream=True)
    )
    with pytest.raises(openai.APIError, match="it broke") as caught:
        list(stream)
    assert caught.value.code == "internal_error"
