"""Tools and structured output of chat and completions: what is demanded is what comes, streaming and not."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import openai
import pydantic
import pytest

from tests.contract.asks import ANSWER, ASK, SCHEMAS, TOOLS, WEATHER, chat, complete, text, tool

ONE: dict[str, Any] = {"max_tokens": 200, "parallel_tool_calls": False, "tools": TOOLS}
DATE = r"20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9])"


def check_call(call: Any) -> None:
    assert call.type == "function"
    assert call.id
    jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])


def named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("choice", ["auto", "none"])
@pytest.mark.parametrize("stream", [False, True])
def test_tools_that_are_not_used(client: openai.OpenAI, choice: str, stream: bool) -> None:
    answer = chat(client, tools=TOOLS, tool_choice=choice, stream=stream)
    if stream:
        deltas = [c.delta for chunk in answer for c in chunk.choices]
        assert "".join(delta.content or "" for delta in deltas) == ANSWER
        assert not any(delta.tool_calls for delta in deltas)
    else:
        assert (answer.choices[0].message.content, answer.choices[0].message.tool_calls) == (ANSWER, None)


@pytest.mark.parametrize("choice", ["required", named("weather"), named("time")], ids=str)
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_call_that_is_demanded(client: openai.OpenAI, choice: Any, temperature: int) -> None:
    answer = chat(client, tool_choice=choice, temperature=temperature, seed=2, **ONE)
    (call,) = answer.choices[0].message.tool_calls
    check_call(call)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert not answer.choices[0].message.content
    if choice != "required":
        assert call.function.name == choice["function"]["name"]


@pytest.mark.parametrize("choice", ["required", named("weather")], ids=str)
def test_a_call_in_a_stream(client: openai.OpenAI, choice: Any) -> None:
    with client.chat.completions.stream(
        model="builtin", messages=ASK, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, max_tokens=200
    ) as stream:
        names = {event.type for event in stream}
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or ()
    check_call(call)
    assert final.choices[0].finish_reason == "tool_calls"
    assert "tool_calls.function.arguments.delta" in names


def test_arguments_are_streamed_in_pieces(client: openai.OpenAI) -> None:
    chunks = list(chat(client, tool_choice=named("weather"), stream=True, **ONE))
    calls = [call for chunk in chunks for c in chunk.choices for call in c.delta.tool_calls or ()]
    assert {call.index for call in calls} == {0}
    assert [call.id for call in calls if call.id] == [calls[0].id]
    assert [call.function.name for call in calls if call.function.name] == ["weather"]
    assert len([call for call in calls if call.function.arguments]) > 3
    jsonschema.validate(json.loads("".join(call.function.arguments or "" for call in calls)), WEATHER)


def test_parallel_calls(client: openai.OpenAI) -> None:
    tools = [tool("time", SCHEMAS["time"])]
    answer = chat(client, tools=tools, tool_choice="required", max_tokens=200, temperature=1, seed=1)
    calls = answer.choices[0].message.tool_calls
    assert len(calls) > 1
    assert len({call.id for call in calls}) == len(calls)
    for call in calls if answer.choices[0].finish_reason == "tool_calls" else calls[:-1]:
        check_call(call)


def test_one_of_the_allowed_tools(client: openai.OpenAI) -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("time")]}}
    answer = chat(client, tool_choice=allowed, **ONE)
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["time"]


def test_a_tool_that_is_not_there(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        chat(client, tools=TOOLS, tool_choice=named("bash"))
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        chat(client, tool_choice="required")


def test_calls_and_their_results_in_the_conversation(client: openai.OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "UTC"}'}}
    messages: Any = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "Noon."},
    ]
    assert chat(client, messages, tools=TOOLS).usage.prompt_tokens > chat(client).usage.prompt_tokens


FORMATS: dict[str, dict[str, Any]] = {
    "response_format": {"response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}},
    "guided_json": {"guided_json": WEATHER},
    "structured_outputs": {"structured_outputs": {"json": WEATHER}},
    "as text": {"guided_json": json.dumps(WEATHER)},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("stream", [False, True])
def test_json_by_a_schema(client: openai.OpenAI, form: str, stream: bool) -> None:
    fields = {**FORMATS[form], "temperature": 1, "seed": 3, "max_tokens": 200, "stream": stream}
    answer = chat(client, **fields)
    if stream:
        content = "".join(c.delta.content or "" for chunk in answer for c in chunk.choices)
    else:
        assert answer.choices[0].finish_reason == "stop"
        content = answer.choices[0].message.content
    jsonschema.validate(json.loads(content), WEATHER)
    jsonschema.validate(json.loads(complete(client, **{**fields, "stream": False}).choices[0].text), WEATHER)


def test_parsed_into_a_model(client: openai.OpenAI) -> None:
    class Found(pydantic.BaseModel):
        is_here: bool
        how_many: int = pydantic.Field(ge=0, le=9)

    answer = client.chat.completions.parse(model="builtin", messages=ASK, response_format=Found, max_tokens=200)
    assert isinstance(answer.choices[0].message.parsed, Found)


@pytest.mark.parametrize("stream", [False, True])
def test_any_json_object(client: openai.OpenAI, stream: bool) -> None:
    # The built-in model has no end to its keys and strings; a bias lets it close what it opened.
    fields = {"response_format": {"type": "json_object"}, "temperature": 1, "seed": 1, "max_tokens": 400}
    ends = [client.post("/../tokenize", body={"prompt": end}, cast_to=object) for end in ('"', '":', '"}', "}")]
    bias = {str(token): 15 for end in ends for token in end["tokens"]}  # type: ignore[index]
    answer = chat(client, stream=stream, logit_bias=bias, **fields)
    if stream:
        content = "".join(c.delta.content or "" for chunk in answer for c in chunk.choices)
    else:
        assert answer.choices[0].finish_reason == "stop"
        content = answer.choices[0].message.content
    assert isinstance(json.loads(content), dict)


@pytest.mark.parametrize("form", ["guided_regex", "structured_outputs"])
def test_a_regular_expression(client: openai.OpenAI, form: str) -> None:
    rule = {"guided_regex": DATE} if form == "guided_regex" else {"structured_outputs": {"regex": DATE}}
    answers = {text(client, temperature=1, seed=seed, **rule) for seed in range(4)}
    assert all(re.fullmatch(DATE, answer) for answer in answers)
    assert len(answers) > 1


@pytest.mark.parametrize("rule", [{"guided_choice": ["yes", "no"]}, {"structured_outputs": {"choice": ["yes", "no"]}}])
def test_a_choice(client: openai.OpenAI, rule: dict[str, Any]) -> None:
    assert text(client, **rule) in ("yes", "no")


@pytest.mark.parametrize("name", ["guided_grammar", "grammar"])
def test_a_grammar(client: openai.OpenAI, name: str) -> None:
    grammar = 'start: "<" ("a" | "b")~2..4 ">"'
    rule = {name: grammar} if name == "guided_grammar" else {"structured_outputs": {name: grammar}}
    assert re.fullmatch("<[ab]{2,4}>", text(client, temperature=1, seed=1, **rule))


def test_several_answers_each_follow_the_rule(client: openai.OpenAI) -> None:
    answer = chat(client, n=4, temperature=1, guided_json=WEATHER, max_tokens=200)
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content), WEATHER)


@pytest.mark.parametrize(
    ("rule", "param"),
    [
        ({"guided_regex": "(["}, "guided_regex"),
        ({"guided_grammar": "start: nothing_here"}, "guided_grammar"),
        ({"guided_json": {"type": "no such type"}}, "guided_json"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_"),
    ],
    ids=str,
)
def test_rules_that_cannot_be(client: openai.OpenAI, rule: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **rule)
    body: Any = caught.value.body
    assert param in (caught.value.param or "")
    assert body["hint"]
