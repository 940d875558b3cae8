"""Every field of docs/api.md over HTTP: supported and informational ones are taken, the others refused by name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from headrace.protocol.fields import Field
from headrace.protocol.table import ENDPOINTS
from tests.contract.asks import ASK, TOOLS
from tests.contract.process import Server, serving, simulated

SMALL: dict[str, dict[str, Any]] = {
    "chat": {"messages": ASK, "max_tokens": 1},
    "completions": {"prompt": "Mira was", "max_tokens": 1},
    "messages": {"messages": ASK, "max_tokens": 1},
    "responses": {"input": "Who are you?", "max_output_tokens": 1},
    "count_tokens": {"messages": ASK},
    "tokenize": {"prompt": "Mira was"},
    "detokenize": {"tokens": [40, 41]},
}
PATHS = {endpoint.name: endpoint.path for endpoint in ENDPOINTS}
ANTHROPIC_TOOL = {"name": "f", "input_schema": {"type": "object"}}
RESPONSES_TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
VALUES: dict[str, Any] = {
    "model": "builtin", "max_tokens": 1, "max_completion_tokens": 1, "max_output_tokens": 1, "stream": True,
    "n": 2, "best_of": 1, "stop": ["zz"], "stop_sequences": ["zz"], "temperature": 0.5,
    "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 1, "repetition_penalty": 1.1, "presence_penalty": 1,
    "frequency_penalty": -1, "logit_bias": {"5": 1}, "stop_token_ids": [5], "min_tokens": 1, "ignore_eos": True,
    "skip_special_tokens": False, "prompt_logprobs": 1, "return_tokens_as_token_ids": True, "tool_choice": "auto",
    "parallel_tool_calls": False, "response_format": {"type": "json_object"}, "guided_json": {"type": "object"},
    "structured_outputs": {"regex": "a+"}, "guided_regex": "a+", "guided_choice": ["a"], "guided_grammar": 'start: "a"',
    "reasoning_effort": "low", "include_reasoning": False, "chat_template_kwargs": {"x": 1}, "priority": 1,
    "add_generation_prompt": True, "cache_salt": "s", "return_token_ids": True, "echo": True, "suffix": "",
    "add_special_tokens": False, "system": "Be brief.", "instructions": "Be brief.", "metadata": {"a": "b"},
    "thinking": {"type": "disabled"}, "output_config": {"effort": "low"}, "include": ["message.output_text.logprobs"],
    "output_format": {"type": "json_schema", "schema": {"type": "object"}},
    "text": {"format": {"type": "text"}}, "return_token_strs": True,
    "tokens": [1], "prompt": "x", "store": True, "service_tier": "auto", "user": "u", "truncation": "disabled",
}  # fmt: skip
"""A value of each field that is all right by itself."""

OWN: dict[tuple[str, str], dict[str, Any]] = {
    ("chat", "tools"): {"tools": TOOLS},
    ("tokenize", "tools"): {"messages": ASK, "tools": TOOLS, "prompt": None},
    ("tokenize", "messages"): {"messages": ASK, "prompt": None},
    ("messages", "tools"): {"tools": [ANTHROPIC_TOOL]},
    ("count_tokens", "tools"): {"tools": [ANTHROPIC_TOOL]},
    ("responses", "tools"): {"tools": [RESPONSES_TOOL]},
    ("chat", "tool_choice"): {"tools": TOOLS, "tool_choice": "auto"},
    ("messages", "tool_choice"): {"tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "auto"}},
    ("count_tokens", "tool_choice"): {"tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "auto"}},
    ("chat", "logprobs"): {"logprobs": True},
    ("completions", "logprobs"): {"logprobs": 2},
    ("chat", "top_logprobs"): {"logprobs": True, "top_logprobs": 2},
    ("responses", "top_logprobs"): {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    ("messages", "thinking"): {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1100},
    ("messages", "metadata"): {"metadata": {"user_id": "u"}},
    ("chat", "reasoning"): {"reasoning": {"exclude": True}},
    ("completions", "reasoning"): {"reasoning": {"exclude": True}},
    ("messages", "reasoning"): {"reasoning": {"exclude": True}},
    ("responses", "reasoning"): {"reasoning": {"effort": "low", "summary": "auto"}},
}


def cases(*supports: str) -> list[Any]:
    return [
        pytest.param(endpoint.name, field, id=f"{endpoint.name}-{field.name}")
        for endpoint in ENDPOINTS
        if endpoint.name in SMALL
        for field in endpoint.body or ()
        if field.support in supports
    ]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A client of a server of one's own that refuses unknown fields."""
    with serving("builtin", "--strict-fields", *simulated()) as server, httpx.Client(base_url=server.url) as http:
        yield http


def with_value(name: str, field: Field) -> dict[str, Any]:
    """The small body with a value of the field."""
    if (name, field.name) in OWN:
        return SMALL[name] | OWN[name, field.name]
    if field.name in SMALL[name]:
        return SMALL[name]
    if field.name == "stream_options" and name == "responses":
        return SMALL[name] | {"stream": True, "stream_options": {"include_obfuscation": False}}
    if field.name == "stream_options":
        return SMALL[name] | {"stream": True, "stream_options": {"include_usage": True}}
    if field.name == "continue_final_message":
        messages = [*ASK, {"role": "assistant", "content": "I"}]
        fields = {
            "input" if name == "responses" else "messages": messages,
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
        return SMALL[name] | fields | ({"prompt": None} if name == "tokenize" else {})
    if field.name == "add_generation_prompt" and name == "tokenize":
        return {"messages": ASK, "add_generation_prompt": True}
    return SMALL[name] | {field.name: VALUES.get(field.name, "x")}


@pytest.mark.parametrize(("name", "field"), cases("supported", "informational"))
def test_what_is_known_is_taken(strict: httpx.Client, name: str, field: Field) -> None:
    body = with_value(name, field)
    answer = strict.post(PATHS[name], json=body)
    if answer.status_code == 400 and field.support == "informational":
        # Of another type than text; what is allowed is in the message.
        allowed = answer.json()["error"]["hint"]
        for value in ({}, [], True, 1):
            answer = strict.post(PATHS[name], json=body | {field.name: value})
            if answer.status_code == 200:
                break
        assert answer.status_code == 200, allowed
    assert answer.status_code == 200, answer.text
    # The built-in model's template has no place for tools.
    reads = "tools" not in body or body.get("tool_choice") in ("required", {"type": "any"})
    assert answer.headers.get("x-ignored-fields") == (None if reads else "tools")


@pytest.mark.parametrize(("name", "field"), cases("unsupported"))
def test_what_is_not_supported_is_refused_by_name(strict: httpx.Client, name: str, field: Field) -> None:
    answer = strict.post(PATHS[name], json=SMALL[name] | {field.name: {"surely": "not neutral"}})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_field", field.name)
    assert error["hint"] == field.note
    for neutral in (None, *field.neutral):
        assert strict.post(PATHS[name], json=SMALL[name] | {field.name: neutral}).status_code == 200


@pytest.mark.parametrize("name", SMALL)
def test_what_is_unknown_is_named_or_refused(server: Server, strict: httpx.Client, name: str) -> None:
    body = SMALL[name] | {"modle": "x", "ünknown": 1, "a,b": 2}
    answer = server.post(PATHS[name], body)
    assert answer.status_code == 200
    ignored = answer.headers["x-ignored-fields"]
    assert ignored.startswith("modle")
    assert len(ignored.split(",")) >= 3
    refused = strict.post(PATHS[name], json=SMALL[name] | {"modle": "x"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "unknown_field", "modle")
    assert "model" in error["hint"]


def test_a_head_stays_small_however_many_fields_are_unknown(server: Server) -> None:
    answer = server.post("/v1/chat/completions", SMALL["chat"] | {f"unknown_{n}": n for n in range(3000)})
    assert answer.status_code == 200
    assert len(answer.headers["x-ignored-fields"]) < 2048
