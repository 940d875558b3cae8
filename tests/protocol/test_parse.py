"""Bodies of each interface to the same kind of call."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace.engine.sampling_params import SamplingParams
from headrace.errors import InvalidField, UnsupportedField
from headrace.protocol import (
    Conversation,
    GenerationCall,
    ToolChoice,
    parse_chat,
    parse_completions,
    parse_count_tokens,
    parse_drain,
    parse_messages,
    parse_profile,
    parse_responses,
    parse_tokenize,
)
from tests.protocol.bodies import CHAT, COMPLETIONS, COUNT_TOKENS, FUNCTION, MESSAGES, RESPONSES, SCHEMA

ASK = {"messages": [{"role": "user", "content": "x"}]}
TOOL = {"type": "function", "function": FUNCTION}
OTHER = {"type": "function", "function": {"name": "time"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}


def conversation(call: GenerationCall) -> Conversation:
    """The only prompt."""
    (prompt,) = call.prompts
    assert isinstance(prompt, Conversation)
    return prompt


def test_chat() -> None:
    call = parse_chat(CHAT)
    prompt = conversation(call)
    assert prompt.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?\nIn Bern."},
        {"role": "assistant", "content": "", "reasoning_content": "They want the weather.", "tool_calls": [CALL]},
        {"role": "tool", "content": "Rain.", "tool_call_id": "c1", "name": "weather"},
    )
    assert prompt.tools == (TOOL,)
    assert prompt.chat_template_kwargs == {
        "reasoning_effort": "low", "enable_thinking": True, "thinking": True, "custom": 1
    }  # fmt: skip
    assert call.tool_choice == ToolChoice("named", "weather", parallel=False)
    assert SamplingParams(**call.sampling) == SamplingParams(
        max_tokens=50, temperature=0.5, top_k=40, top_p=0.9, min_p=0.05, n=2, seed=3, stop=("\n\n",),
        stop_token_ids=(5,), ignore_eos=True, min_tokens=1, presence_penalty=1.0, frequency_penalty=-1.5,
        repetition_penalty=1.1, logit_bias={17: -100.0, 18: 5.0}, logprobs=2,
    )  # fmt: skip
    assert (call.stream, call.include_usage, call.continuous_usage, call.num_top_logprobs) == (True, True, False, 2)
    assert (call.priority, call.cache_salt, call.user, call.n) == (2, "s", "u", 2)


def test_bytes_and_objects_are_the_same() -> None:
    assert parse_chat(msgspec.json.encode(CHAT)) == parse_chat(CHAT)


def test_completions() -> None:
    call = parse_completions(COMPLETIONS)
    assert call.prompts == ("one", (1, 2, 3))
    assert call.num_choices == 4
    assert call.sampling == {"n": 2, "max_tokens": 5, "stop": ("x",), "logprobs": 3, "prompt_logprobs": 3}
    assert call.guide is not None
    assert (call.guide.kind, msgspec.json.decode(call.guide.value)) == ("choice", ["a", "b"])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_prompts(prompt: Any, expected: Any) -> None:
    assert parse_completions({"prompt": prompt}).prompts == expected


@pytest.mark.parametrize("prompt", [[], None, 3, [[]], ["a", 1], [1, "a"], [True], [1.5], {"a": 1}])
def test_prompts_that_are_none(prompt: Any) -> None:
    with pytest.raises(InvalidField, match="prompt"):
        parse_completions({"prompt": prompt})


def test_echo_is_not_streamed_with_logprobs() -> None:
    with pytest.raises(InvalidField, match="echo=true is not allowed: false with stream"):
        parse_completions({"prompt": "a", "echo": True, "logprobs": 1, "stream": True})


def test_messages() -> None:
    call = parse_messages(MESSAGES)
    prompt = conversation(call)
    assert prompt.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [{**CALL, "id": "t1"}]},
        {"role": "tool", "content": "Rain.", "tool_call_id": "t1", "name": "weather"},
        {"role": "user", "content": "And?"},
    )
    assert prompt.tools == (TOOL,)
    assert prompt.chat_template_kwargs == {"enable_thinking": True, "thinking": True, "thinking_budget": 1024}
    assert call.tool_choice == ToolChoice("required", None, parallel=False)
    assert call.sampling == {"temperature": 0.5, "top_k": 40, "max_tokens": 2000, "stop": ("\n\n",)}
    assert parse_count_tokens(COUNT_TOKENS).prompt == prompt


def test_messages_go_on_from_the_assistants() -> None:
    body = {"max_tokens": 5, "messages": [*ASK["messages"], {"role": "assistant", "content": "It is"}]}
    prompt = conversation(parse_messages(body))
    assert (prompt.continue_final_message, prompt.add_generation_prompt) == (True, False)


def test_messages_with_an_error_and_sealed_thinking() -> None:
    content = [{"type": "tool_result", "tool_use_id": "t", "is_error": True}]
    sealed = {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "…"}]}
    body = {"max_tokens": 5, "messages": [sealed, {"role": "user", "content": content}]}
    assert conversation(parse_messages(body)).messages == (
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "", "tool_call_id": "t", "is_error": True},
    )


def test_messages_with_a_schema() -> None:
    body = {**ASK, "max_tokens": 5, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    guide = parse_messages(body).guide
    assert guide is not None
    assert msgspec.json.decode(guide.value) == SCHEMA


def test_responses() -> None:
    call = parse_responses(RESPONSES)
    prompt = conversation(call)
    assert prompt.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [CALL]},
        {"role": "tool", "content": "Rain.", "tool_call_id": "c1", "name": "weather"},
    )
    assert prompt.tools == ({"type": "function", "function": {**FUNCTION, "strict": True}},)
    assert call.tool_choice == ToolChoice("required")
    assert call.sampling == {"max_tokens": 40, "logprobs": 2}


def test_items_of_several_turns_stay_apart() -> None:
    items = [
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": ""},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
        {"type": "function_call", "call_id": "b", "name": "f", "arguments": "no json"},
    ]
    first, second, third = conversation(parse_responses({"input": items})).messages
    assert first == {"role": "assistant", "content": "one"}
    assert (second["content"], second["tool_calls"][0]["function"]["arguments"]) == ("two", {})
    assert third["reasoning_content"] == "so"
    assert third["tool_calls"][0]["function"]["arguments"] == "no json"


@pytest.mark.parametrize(
    ("choice", "tools", "expected"),
    [
        ("auto", (TOOL, OTHER), ToolChoice("auto")),
        ("none", (), ToolChoice("none")),
        ("required", (TOOL, OTHER), ToolChoice("required")),
        ({"type": "function", "function": {"name": "time"}}, (TOOL, OTHER), ToolChoice("named", "time")),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}},
            (TOOL,),
            ToolChoice("required"),
        ),
    ],
)
def test_tool_choice(choice: Any, tools: Any, expected: ToolChoice) -> None:
    call = parse_chat({**ASK, "tools": [TOOL, OTHER], "tool_choice": choice})
    assert [tool["function"]["name"] for tool in call.tools] == [tool["function"]["name"] for tool in tools]
    assert call.tool_choice == expected


@pytest.mark.parametrize(
    "body",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [TOOL]},
        {"tools": [TOOL, TOOL]},
    ],
)
def test_tools_that_do_not_fit(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidField, match="tool"):
        parse_chat({**ASK, **body})


def test_tool_choice_of_responses_and_messages() -> None:
    tools = [{"type": "function", **FUNCTION}]
    named = parse_responses({"input": "x", "tools": tools, "tool_choice": {"type": "function", "name": "weather"}})
    assert named.tool_choice == ToolChoice("named", "weather")
    tools = [{"name": "weather", "input_schema": SCHEMA}]
    for choice, expected in (("auto", "auto"), ("any", "required"), ("none", "none")):
        call = parse_messages({**ASK, "max_tokens": 5, "tools": tools, "tool_choice": {"type": choice}})
        assert call.tool_choice.mode == expected


@pytest.mark.parametrize(
    ("field", "kind", "value"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", ""),
        ({"guided_json": '{"type": "object"}'}, "json_schema", '{"type": "object"}'),
        ({"guided_json": {"type": "object"}}, "json_schema", '{"type":"object"}'),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_grammar": "start: A"}, "grammar", "start: A"),
        ({"structured_outputs": {"choice": ["a"]}}, "choice", '["a"]'),
        ({"structured_outputs": {"json_object": True}}, "json_object", ""),
    ],
)
def test_guides(field: dict[str, Any], kind: str, value: str) -> None:
    guide = parse_chat({**ASK, **field}).guide
    assert guide is not None
    assert (guide.kind, guide.value) == (kind, value)


def test_strict_of_a_schema() -> None:
    for strict, expected in ((True, True), (False, False), (None, True)):
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": strict}}
        guide = parse_chat({**ASK, "response_format": form}).guide
        assert guide is not None
        assert guide.strict is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False, "thinking": False}),
        ({"reasoning": {"enabled": False}}, {"enable_thinking": False, "thinking": False}),
        (
            {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
            {"reasoning_effort": "none", "enable_thinking": True, "thinking": False},
        ),
    ],
)
def test_what_the_chat_template_is_told(body: dict[str, Any], expected: dict[str, Any]) -> None:
    assert conversation(parse_chat({**ASK, **body})).chat_template_kwargs == expected


def test_continue_final_message() -> None:
    messages = [*ASK["messages"], {"role": "assistant", "content": "It is"}]
    prompt = conversation(parse_chat({"messages": messages, "continue_final_message": True}))
    assert (prompt.continue_final_message, prompt.add_generation_prompt) == (True, False)
    for body in (
        {**ASK, "continue_final_message": True},
        {"messages": messages, "continue_final_message": True, "add_generation_prompt": True},
    ):
        with pytest.raises(InvalidField, match="continue_final_message=true is not allowed"):
            parse_chat(body)


def test_old_forms_of_calls() -> None:
    messages = [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "done"},
        {"role": "assistant", "refusal": "No."},
    ]
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    assert conversation(parse_chat({"messages": messages})).messages == (
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "done", "name": "f"},
        {"role": "assistant", "content": "No."},
    )


def test_tokenize() -> None:
    assert parse_tokenize({"prompt": "a"}).prompt == "a"
    assert isinstance(parse_tokenize(ASK).prompt, Conversation)
    for body in ({}, {**ASK, "prompt": "a"}, {**ASK, "add_special_tokens": True}):
        with pytest.raises(InvalidField):
            parse_tokenize(body)


def test_administration() -> None:
    assert parse_drain(b"") is None
    assert parse_drain(b'{"deadline_s": 3}') == 3.0
    assert parse_profile(b"") == 2.0
    with pytest.raises(InvalidField, match="duration_s=61"):
        parse_profile(b'{"duration_s": 61}')


def test_a_guide_leaves_no_room_for_calls() -> None:
    body = {**ASK, "tools": [TOOL], "response_format": {"type": "json_object"}}
    with pytest.raises(UnsupportedField, match="tool_choice"):
        parse_chat(body)
    assert parse_chat({**body, "tool_choice": "none"}).guide is not None
