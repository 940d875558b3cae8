"""The four classes of fields, and what is said of values that are not allowed."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidField, InvalidRequest, UnknownField, UnsupportedField
from headrace.protocol import parse_chat, parse_completions, parse_messages, parse_responses
from headrace.protocol.fields import Field
from headrace.protocol.shown import shown
from headrace.protocol.table import ENDPOINTS
from tests.protocol.bodies import CASES

ASK = {"messages": [{"role": "user", "content": "x"}]}
AUDIO = {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}
IMAGE = {"messages": [{"role": "user", "content": [{"type": "image"}]}], "max_tokens": 1}
BASH = [{"type": "bash_20250124", "name": "bash"}]
FUNCTIONS = [{"type": "function", "function": {"name": "f"}}]
UNSUPPORTED = [
    (endpoint.name, field) for endpoint in ENDPOINTS for field in endpoint.body or () if field.support == "unsupported"
]


@pytest.mark.parametrize(("name", "field"), UNSUPPORTED, ids=lambda item: getattr(item, "name", item))
def test_unsupported_fields_are_refused_by_name_unless_neutral(name: str, field: Field) -> None:
    if name not in CASES:
        pytest.skip("no body with other fields")
    parse, body = CASES[name]
    for neutral in (None, *field.neutral):
        assert field.name not in parse({**body, field.name: neutral}).ignored_fields
    with pytest.raises(UnsupportedField) as caught:
        parse({**body, field.name: "something else"})
    assert (caught.value.name, caught.value.hint) == (field.name, field.note)


def test_neutral_is_by_type_too() -> None:
    with pytest.raises(UnsupportedField):
        parse_chat({**ASK, "include_stop_str_in_output": 0})
    with pytest.raises(
        UnsupportedField, match=r'modalities=\["text", "audio"\] is not supported; what works: \["text"\]'
    ):
        parse_chat({**ASK, "modalities": ["text", "audio"]})


def test_unknown_fields_are_named_with_their_paths() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "deep": 1}]}], "temprature": 1}
    assert parse_chat(body).ignored_fields == ("messages[0].content[0].deep", "temprature")
    with pytest.raises(UnknownField, match=r"messages\[0\].content\[0\].deep is not a field"):
        parse_chat(body, strict=True)
    with pytest.raises(UnknownField, match="did you mean temperature") as caught:
        parse_chat({**ASK, "temprature": 1}, strict=True)
    assert caught.value.code == "unknown_field"


def test_informational_fields_do_nothing_but_their_type_is_checked() -> None:
    plain = parse_chat(ASK)
    extra = parse_chat({**ASK, "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "prompt_cache_key": "k"})
    assert extra.sampling == plain.sampling
    assert extra.prompts == plain.prompts
    assert extra.ignored_fields == ()
    with pytest.raises(InvalidField, match="store=3 is not allowed: true or false"):
        parse_chat({**ASK, "store": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": "hot"}, 'temperature="hot" is not allowed: a number of at least 0'),
        ({"temperature": True}, "temperature=true is not allowed: a number of at least 0"),
        ({"top_p": 0}, "top_p=0 is not allowed: a number of more than 0 and at most 1"),
        ({"top_p": 1.5}, "top_p=1.5 is not allowed: a number of more than 0 and at most 1"),
        ({"n": 0}, "n=0 is not allowed: an integer of at least 1 and at most 1024"),
        ({"n": 1.5}, "n=1.5 is not allowed: an integer of at least 1 and at most 1024"),
        (
            {"top_logprobs": 21, "logprobs": True},
            "top_logprobs=21 is not allowed: an integer of at least 0 and at most 20",
        ),
        ({"top_logprobs": 2}, "top_logprobs=2 is not allowed: 0, or logprobs: true with it"),
        ({"logprobs": 3}, "logprobs=3 is not allowed: true or false"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens=5 is not allowed: at most max_tokens=4"),
        ({"logit_bias": {"x": 1}}, 'logit_bias={"x": 1} is not allowed: .* "x" is not a token id'),
        ({"logit_bias": {"7": 101}}, "logit_bias.7=101 is not allowed: a number of at least -100 and at most 100"),
        ({"stop_token_ids": [1, "2"]}, r'stop_token_ids\[1\]="2" is not allowed: a token id of 0 or more'),
        ({"stop": ["a", ""]}, r'stop\[1\]="" is not allowed: a string that is not empty'),
        (
            {"response_format": {"type": "xml"}},
            'response_format.type="xml" is not allowed: one of "text", "json_object"',
        ),
        ({"response_format": {}}, "response_format.type is missing: one of "),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema is missing: an object with name"),
        ({"messages": []}, r"messages=\[\] is not allowed: a list of at least 1"),
        ({"messages": [{"role": "robot"}]}, r'messages\[0\].role="robot" is not allowed: one of "system"'),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is missing: a string, or a list"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\].content=null is not allowed"),
        ({"messages": None}, "messages=null is not allowed: a list"),
        ({"reasoning_effort": "huge"}, 'reasoning_effort="huge" is not allowed: one of "none", "minimal"'),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs=1 is not allowed: null with stream"),
    ],
)
def test_messages_say_path_value_and_what_is_allowed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidField, match="^" + message):
        parse_chat({**ASK, **change})


@pytest.mark.parametrize(
    ("parse", "body", "name"),
    [
        (parse_chat, AUDIO, "messages[0].content[0].type"),
        (parse_chat, {**ASK, "tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        (parse_messages, IMAGE, "messages[0].content[0].type"),
        (parse_messages, {**ASK, "max_tokens": 1, "tools": BASH}, "tools[0].type"),
        (parse_responses, {"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        (parse_responses, {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        (parse_responses, {"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        (parse_completions, {"prompt": "x", "suffix": "y"}, "suffix"),
        (parse_completions, {"prompt": "x", "n": 1, "best_of": 3}, "best_of"),
        (parse_chat, {**ASK, "guided_regex": "a", "tools": FUNCTIONS}, "guided_regex"),
    ],
)  # fmt: skip
def test_what_is_not_text_is_refused_by_name(parse: Any, body: Any, name: str) -> None:
    with pytest.raises(UnsupportedField) as caught:
        parse(body)
    assert caught.value.name == name


def test_null_is_not_given() -> None:
    (chat,) = (endpoint for endpoint in ENDPOINTS if endpoint.name == "chat")
    nulls = {field.name: None for field in chat.body or () if not field.required}
    assert parse_chat({**ASK, **nulls}).sampling == {"max_tokens": None}
    item = {"role": "system", "content": "x"}
    assert parse_responses({"input": [{**item, "type": None}]}) == parse_responses({"input": [item]})


@pytest.mark.parametrize(
    "body",
    [
        {"guided_regex": "a", "guided_json": {}},
        {"structured_outputs": {"regex": "a", "json_object": True}},
        {"structured_outputs": {}},
        {"response_format": {"type": "json_object"}, "guided_choice": ["a"]},
    ],
)
def test_one_rule_for_an_answer(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"one rule|one of json"):
        parse_chat({**ASK, **body})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (1.0, "1.0"),
        (10**50, "an integer of more than 40 digits"),
        ("x" * 100, '"' + "x" * 60 + '…"'),
        ([1, 2, 3, 4], "[1, 2, 3, … 4 items]"),
        ({"a": {"b": {"c": 1}}}, '{"a": {"b": {…}}}'),
    ],
)
def test_values_are_shown_as_short_json(value: Any, expected: str) -> None:
    assert shown(value) == expected
