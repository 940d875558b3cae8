"""POST /v1/responses by OpenAI's client."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
import pydantic
import pytest

from tests.contract.asks import ANSWER, SCHEMAS

TOOLS: Any = [
    {"type": "function", "name": name, "parameters": schema, "strict": True} for name, schema in SCHEMAS.items()
]


def respond(client: openai.OpenAI, *, stream: bool = False, **fields: Any) -> Any:
    """A response, also the last one of a stream."""
    arguments = {"model": "builtin", "input": "Who are you?", **fields}
    if not stream:
        return client.responses.create(**arguments)
    events: Any = list(client.responses.create(**arguments, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events[-1].response


@pytest.mark.parametrize("stream", [False, True])
def test_a_response(client: openai.OpenAI, stream: bool) -> None:
    answer = respond(client, stream=stream, metadata={"a": "b"}, user="u", store=False)
    assert (answer.object, answer.status, answer.output_text) == ("response", "completed", ANSWER)
    assert [item.type for item in answer.output] == ["message"]
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.input_tokens_details.cached_tokens < answer.usage.input_tokens
    assert (answer.metadata, answer.store, answer.error) == ({"a": "b"}, False, None)


def test_the_events_of_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="builtin", input="Who are you?") as stream:
        events = list(stream)
        final = stream.get_final_response()
    names = [event.type for event in events]
    assert names[:2] == ["response.created", "response.in_progress"]
    assert names[-1] == "response.completed"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_cut_off(client: openai.OpenAI, stream: bool) -> None:
    answer = respond(client, stream=stream, max_output_tokens=16, extra_body={"ignore_eos": True})
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == 16


def test_conversations_and_instructions(client: openai.OpenAI) -> None:
    plain = respond(client).usage.input_tokens
    turns: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "The time?"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "c1", "name": "time", "arguments": '{"zone": "UTC"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "Noon."},
        {"role": "user", "content": "Who are you?"},
    ]
    answer = respond(client, input=turns, instructions="Be brief.", max_output_tokens=16)
    assert answer.usage.input_tokens > plain
    assert answer.instructions == "Be brief."


def test_an_answer_is_the_next_questions_context(client: openai.OpenAI) -> None:
    first = respond(client)
    follow: Any = [{"role": "user", "content": "Who are you?"}, *first.output, {"role": "user", "content": "And?"}]
    assert respond(client, input=follow, max_output_tokens=16).usage.input_tokens > first.usage.total_tokens


def test_sampling(client: openai.OpenAI) -> None:
    hot: Any = {"temperature": 2.0, "max_output_tokens": 16, "extra_body": {"seed": 3, "ignore_eos": True}}
    assert respond(client, **hot).output_text == respond(client, **hot, stream=True).output_text
    assert respond(client, temperature=1.0, top_p=0.0001).output_text == ANSWER


def test_logprobs(client: openai.OpenAI) -> None:
    include: Any = ["message.output_text.logprobs"]
    for stream in (False, True):
        answer = respond(client, stream=stream, include=include, top_logprobs=3)
        found = answer.output[0].content[0].logprobs
        assert "".join(item.token for item in found).removesuffix("<|im_end|>") == ANSWER
        assert all(item.top_logprobs[0].logprob == item.logprob for item in found)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_demanded(client: openai.OpenAI, stream: bool) -> None:
    for choice in ({"type": "function", "name": "weather"}, "required"):
        answer = respond(client, stream=stream, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
        (call,) = (item for item in answer.output if item.type == "function_call")
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
        assert answer.status == "completed"
    for choice in ("none", "auto"):
        answer = respond(client, stream=stream, tools=TOOLS, tool_choice=choice)
        assert answer.output_text == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_json_by_a_schema(client: openai.OpenAI, stream: bool) -> None:
    text: Any = {"format": {"type": "json_schema", "name": "weather", "schema": SCHEMAS["weather"], "strict": True}}
    answer = respond(client, stream=stream, text=text, temperature=1.0)
    jsonschema.validate(json.loads(answer.output_text), SCHEMAS["weather"])


def test_parsed_into_a_model(client: openai.OpenAI) -> None:
    class Found(pydantic.BaseModel):
        is_here: bool

    answer = client.responses.parse(model="builtin", input="Who are you?", text_format=Found)
    assert isinstance(answer.output_parsed, Found)


def test_what_is_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, previous_response_id="resp_1")
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "unsupported_field")
    with pytest.raises(openai.BadRequestError, match=r"tools\[0\].type"):
        respond(client, tools=[{"type": "web_search"}])
    with pytest.raises(openai.NotFoundError):
        respond(client, model="gpt-9")
    with pytest.raises(openai.BadRequestError, match="input"):
        client.responses.create(model="builtin")
