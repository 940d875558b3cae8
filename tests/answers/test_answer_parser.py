"""Answers in every known format, in pieces of every size, and texts that are none of them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidRequest
from headrace.text.answers import (
    AnswerFormat,
    AnswerParser,
    ContentPart,
    ReasoningPart,
    ToolCallPart,
    ToolChoice,
    answer_format,
    tool_call_schema,
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}
TOOLS = [WEATHER, TIME]
CALL = '{"name": "weather", "arguments": {"city": "Bern", "days": 3}}'
ARGUMENTS = {"city": "Bern", "days": 3}

# What the chat template holds, and an answer that calls weather: with text in front where the format allows it.
FORMATS = {
    "hermes": ("<|im_start|><|im_end|><tool_call>", f"I look.\n<tool_call>\n{CALL}\n</tool_call><|im_end|>"),
    "function tags": (
        "<|im_start|><|im_end|><tool_call><function=",
        "I look.\n<tool_call>\n<function=weather>\n<parameter=city>\nBern\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n</function>\n</tool_call><|im_end|>",
    ),
    "argument tags": (
        "<tool_call><arg_key>",
        "I look.\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Bern</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>",
    ),
    "mistral list": ("[INST][TOOL_CALLS]</s>", f"I look.[TOOL_CALLS] [{CALL}]</s>"),
    "mistral args": ("[INST][TOOL_CALLS][ARGS]</s>", f"I look.[TOOL_CALLS]weather[ARGS]{json.dumps(ARGUMENTS)}</s>"),
    "deepseek fenced": (
        "<｜Assistant｜><｜tool▁call▁begin｜>```json",
        "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        f"{json.dumps(ARGUMENTS)}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    "deepseek": (
        "<｜Assistant｜><｜tool▁call▁begin｜>",
        "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"
        f"{json.dumps(ARGUMENTS)}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    "kimi": (
        "<|im_end|><|tool_call_argument_begin|>",
        "I look.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        f"{json.dumps(ARGUMENTS)}<|tool_call_end|><|tool_calls_section_end|><|im_end|>",
    ),
    "phi": ("<|tool_call|><|/tool_call|><|end|>", f"I look.<|tool_call|>[{CALL}]<|/tool_call|><|end|>"),
    "granite": ("<|tool_call|><|end_of_text|>", f"I look.<|tool_call|>[{CALL}]<|end_of_text|>"),
    "llama": ('<|start_header_id|><|eot_id|>"parameters"', CALL.replace("arguments", "parameters") + "<|eot_id|>"),
    "gemma": (
        "<turn|><|tool_call>call:",
        'I look.<|tool_call>call:weather{city:<|"|>Bern<|"|>,days:3}<tool_call|><turn|>',
    ),
    "harmony": (
        "<|channel|>analysis<|channel|>final<|message|>functions.<|return|>",
        "<|channel|>final<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
        f"<|constrain|>json<|message|>{json.dumps(ARGUMENTS)}<|call|>",
    ),
}


def format_of(chat_template: str) -> AnswerFormat:
    return answer_format(SimpleNamespace(chat_template=chat_template))


def read(parser: AnswerParser, text: str, size: int) -> dict[str, Any]:
    """The answer that comes of a text in pieces: what is joined must not depend on their size."""
    answer: dict[str, Any] = {"content": "", "reasoning": "", "calls": []}
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    parts = [part for piece in pieces for part in parser.push(piece)] + parser.flush()
    for part in parts:
        match part:
            case ContentPart(more):
                answer["content"] += more
            case ReasoningPart(more):
                answer["reasoning"] += more
            case ToolCallPart(index, call_id, name, arguments) if call_id is not None:
                assert index == len(answer["calls"])
                answer["calls"].append([call_id, name, arguments])
            case ToolCallPart(index, None, None, arguments):
                answer["calls"][index][2] += arguments
    return answer


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("name", FORMATS)
def test_a_call_is_found_in_every_format(name: str, size: int) -> None:
    chat_template, text = FORMATS[name]
    parser = AnswerParser(format_of(chat_template), tools=TOOLS)
    assert parser.needs_special_tokens
    answer = read(parser, text, size)
    assert answer["content"] == ("" if name == "llama" else "I look.")
    ((call_id, called, arguments),) = answer["calls"]
    assert (call_id, called) == ("call_0", "weather")
    assert json.loads(arguments) == ARGUMENTS


@pytest.mark.parametrize("name", FORMATS)
def test_without_tools_no_calls_are_looked_for(name: str) -> None:
    chat_template, text = FORMATS[name]
    answer = read(AnswerParser(format_of(chat_template)), text, 5)
    assert answer["calls"] == []


def test_several_calls_are_numbered() -> None:
    text = f"<tool_call>{CALL}</tool_call>\n<tool_call>\n" + '{"name": "get_time", "arguments": {}}</tool_call>'
    answer = read(AnswerParser(format_of("<tool_call>"), tools=TOOLS), text, 4)
    assert [(call_id, name) for call_id, name, _ in answer["calls"]] == [("call_0", "weather"), ("call_1", "get_time")]
    assert answer["calls"][1][2] == "{}"
    assert answer["content"] == ""


def test_arguments_come_while_they_are_written() -> None:
    parser = AnswerParser(format_of("<tool_call>"), tools=TOOLS)
    parts = parser.push('<tool_call>{"name": "weather", "arguments": {"city": "Be')
    assert parts == [ToolCallPart(0, "call_0", "weather", ""), ToolCallPart(0, None, None, '{"city": "Be')]


@pytest.mark.parametrize(
    "call",
    [
        '{"arguments": {"city": "Bern", "days": 3}, "name": "weather"}',
        '{"id": {"a": [1, "]}"]}, "name": "weather", "parameters": {"city": "Bern", "days": 3}}',
        '{"name": "weather", "arguments": "{\\"city\\": \\"Bern\\", \\"days\\": 3}"}',
        '{"name": "weather", "type": "function", "arguments": {"city": "\\u0042ern", "days":3}, "x": null}',
    ],
)
def test_the_order_of_keys_and_what_else_is_there_do_not_matter(call: str) -> None:
    parser = AnswerParser(format_of("<tool_call>"), tools=TOOLS)
    answer = read(parser, f"<tool_call>{call}</tool_call>", 3)
    assert [(name, json.loads(arguments)) for _, name, arguments in answer["calls"]] == [("weather", ARGUMENTS)]


@pytest.mark.parametrize("size", [1, 6, 1000])
@pytest.mark.parametrize("inner", ["oops", '{"x": 1}', "[1]", "{", "", '"\\q"', '{"name": 3, "arguments": {}}'])
def test_what_is_no_call_comes_back_as_content(inner: str, size: int) -> None:
    text = f"a <tool_call>{inner}</tool_call> b"
    answer = read(AnswerParser(format_of("<tool_call>"), tools=TOOLS), text, size)
    assert answer["calls"] == []
    assert answer["content"] == f"a<tool_call>{inner}</tool_call>b"


def test_a_malformed_call_of_another_format_is_content_too() -> None:
    text = "<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{no json<|tool_call_end|> after"
    answer = read(AnswerParser(format_of("<|tool_call_argument_begin|>"), tools=TOOLS), text, 7)
    assert answer["calls"] == []
    assert "{no json" in answer["content"]
    assert answer["content"].endswith("after")


def test_a_call_that_is_cut_off_keeps_what_there_is() -> None:
    answer = read(AnswerParser(format_of("<tool_call>"), tools=TOOLS), f"<tool_call>{CALL[:45]}", 5)
    assert answer["calls"] == [["call_0", "weather", '{"city": "Bern'[: len(CALL[:45]) - CALL.index('{"city')]]]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_reasoning_is_split_from_content(size: int) -> None:
    answer = read(AnswerParser(format_of("<think><|im_end|>")), "<think>\nwell, so\n</think>\n\n So be it.", size)
    assert (answer["reasoning"], answer["content"]) == ("well, so", "So be it.")


def test_reasoning_that_the_prompt_began() -> None:
    parser = AnswerParser(
        format_of("<|im_start|><think>"), prompt_tail="hi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    answer = read(parser, "well\n</think>\nyes", 3)
    assert (answer["reasoning"], answer["content"]) == ("well", "yes")


def test_a_prompt_without_a_known_beginning_is_not_read() -> None:
    parser = AnswerParser(format_of("<|im_start|><think>"), prompt_tail="the text speaks of <think> itself")
    assert read(parser, "yes", 3)["content"] == "yes"


def test_a_template_that_the_tokenizer_ships_is_taken() -> None:
    shipped = {
        "start_anchor": "A:",
        "fields": {
            "thinking": {"open": "(", "close": ")"},
            "tool_calls": {
                "open_pattern": r"call (?P<who>\w+) ",
                "close": ";",
                "repeats": True,
                "content": "json",
                "transform": {"function": {"name": "{who}", "arguments": "{content.given}"}},
            },
            "content": {"close": "#"},
        },
    }
    found = answer_format(SimpleNamespace(response_template=shipped, chat_template="<think>"))
    assert found.writes_reasoning
    assert found.writes_tool_calls
    answer = read(AnswerParser(found, tools=TOOLS), '(hm)Well call weather {"given": {"city": "x"}};#', 2)
    assert (answer["reasoning"], answer["content"]) == ("hm", "Well")
    assert answer["calls"] == [["call_0", "weather", '{"city": "x"}']]
    lacking = read(AnswerParser(found, tools=TOOLS), 'call weather {"other": 1};', 2)
    assert lacking["calls"] == [["call_0", "weather", "{}"]] or '{"other": 1}' in lacking["content"]


def test_plain_models_have_plain_answers() -> None:
    parser = AnswerParser(format_of("{{ messages }}"), tools=TOOLS)
    assert not parser.needs_special_tokens
    assert parser.push(" a <think> \n") == [ContentPart(" a <think> \n")]
    assert parser.flush() == []


PLAIN = format_of("<|im_start|><|im_end|><think><tool_call>")


@given(st.text(alphabet='<>/think_olcar{}"[]:, \n\\ne1', max_size=80), st.integers(1, 9))
def test_no_text_raises_and_the_pieces_do_not_matter(text: str, size: int) -> None:
    in_pieces = read(AnswerParser(PLAIN, tools=TOOLS), text, size)
    assert in_pieces == read(AnswerParser(PLAIN, tools=TOOLS), text, 10_000)
    if "<" not in text:
        assert in_pieces["content"] == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.integers(1, 11),
    st.booleans(),
)
def test_any_arguments_survive(value: Any, size: int, ascii_only: bool) -> None:
    arguments = {"value": value}
    text = json.dumps([{"name": "weather", "arguments": arguments}] * 2, ensure_ascii=ascii_only)
    answer = read(AnswerParser(AnswerFormat(), tools=TOOLS, choice=ToolChoice("required")), text, size)
    assert [json.loads(call[2]) for call in answer["calls"]] == [arguments, arguments]


def test_a_named_call_is_all_of_the_answer() -> None:
    parser = AnswerParser(AnswerFormat(), tools=TOOLS, choice=ToolChoice("named", "weather"), new_id="id-{}".format)
    assert read(parser, json.dumps(ARGUMENTS), 4)["calls"] == [["id-0", "weather", json.dumps(ARGUMENTS)]]


# ---------------------------------------------------------------- schemas


def test_the_schema_of_a_named_call_is_the_arguments() -> None:
    assert tool_call_schema(TOOLS, ToolChoice("named", "weather")) == WEATHER["function"]["parameters"]
    assert tool_call_schema(TOOLS, ToolChoice("named", "get_time")) == {"type": "object", "additionalProperties": False}


def test_the_schema_of_required_calls_accepts_calls_and_nothing_else() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = tool_call_schema(TOOLS, ToolChoice("required"))
    call = json.loads(CALL)
    jsonschema.validate([call, {"name": "get_time", "arguments": {}}], schema)
    for wrong in ([], [{"name": "other", "arguments": {}}], [{"name": "weather", "arguments": {}}], call):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([call, call], tool_call_schema(TOOLS, ToolChoice("required", parallel=False)))


def test_definitions_of_several_tools_do_not_collide() -> None:
    jsonschema = pytest.importorskip("jsonschema")

    def tool(name: str, kind: str) -> dict[str, Any]:
        parameters = {
            "properties": {"x": {"$ref": "#/$defs/T"}, "again": {"$ref": "#"}},
            "$defs": {"T": {"type": kind}},
            "required": ["x"],
        }
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    schema = tool_call_schema([tool("a", "string"), tool("b", "integer")], ToolChoice("required"))
    jsonschema.validate([{"name": "a", "arguments": {"x": "s", "again": {"x": "t"}}}], schema)
    jsonschema.validate([{"name": "b", "arguments": {"x": 1}}], schema)
    for wrong in ({"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": {"x": 1, "again": {"x": "t"}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate([wrong], schema)


def test_choices_that_cannot_be_are_refused() -> None:
    assert tool_call_schema(TOOLS, ToolChoice("auto")) is None
    assert tool_call_schema([], ToolChoice("none")) is None
    with pytest.raises(InvalidRequest, match="no tools"):
        tool_call_schema([], ToolChoice("required"))
    with pytest.raises(InvalidRequest, match="'weather', 'get_time'"):
        tool_call_schema(TOOLS, ToolChoice("named", "other"))
