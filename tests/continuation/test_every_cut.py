"""A stream that is cut anywhere goes on, and the client gets the bytes of an undisturbed one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.config import EngineConfig
from tests.continuation.cutting import by_choice, cut_and_continued, so_far, undisturbed
from tests.server.service import Service, in_loop, serving

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
HELLO = [{"role": "user", "content": "hello"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["city", "n"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
USAGE = {"stream_options": {"include_usage": True}}
GUIDED = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": HELLO, "max_tokens": 14, **fields}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": chat(temperature=0),
    "drawn": chat(temperature=1.0, **USAGE),
    "own seed": chat(seed=-7),
    "penalties": chat(seed=3, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.4),
    "usage in each chunk": chat(seed=1, stream_options={"include_usage": True, "continuous_usage_stats": True}),
    "token ids": chat(seed=2, return_token_ids=True),
    "logprobs": chat(seed=4, logprobs=True, top_logprobs=2),
    "multi-byte characters": chat(seed=5, logit_bias={str(token): 30 for token in range(130, 260)}, max_tokens=24),
    "several": chat(n=2, **USAGE),
    "json schema": chat(seed=6, response_format=GUIDED, max_tokens=60, **USAGE),
    "tools required": chat(seed=7, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=80),
    "tool named": chat(
        seed=8, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}, max_tokens=60
    ),
    "completions": (COMPLETIONS, {"prompt": "hello", "max_tokens": 12, **USAGE}),
    "completions, logprobs": (COMPLETIONS, {"prompt": "hello", "max_tokens": 12, "logprobs": 2, "seed": 1}),
    "completions, echo": (COMPLETIONS, {"prompt": "hello", "max_tokens": 8, "echo": True, "return_token_ids": True}),
    "completions, prompt only": (COMPLETIONS, {"prompt": "hello", "max_tokens": 0, "echo": True, **USAGE}),
    "completions, prompts": (COMPLETIONS, {"prompt": ["hello", "hello"], "n": 2, "max_tokens": 6}),
    "messages": (MESSAGES, {"messages": HELLO, "max_tokens": 14}),
    "messages, tools": (
        MESSAGES,
        {
            "messages": HELLO,
            "max_tokens": 80,
            "tools": [{"name": "weather", "input_schema": SCHEMA}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "return_token_ids": True,
        },
    ),
    "responses": (RESPONSES, {"input": "hello", "max_output_tokens": 14, "return_token_ids": True}),
    "responses, tools": (
        RESPONSES,
        {
            "input": "hello",
            "max_output_tokens": 80,
            "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        },
    ),
}


async def check_every_cut(service: Service, path: str, body: dict[str, Any]) -> int:
    """Returns how many cuts were continued."""
    whole = await undisturbed(service, path, body)
    num_continued = 0
    seen: set[bytes] = set()
    for place in whole.places():
        before, after, stream = await cut_and_continued(service, whole, place)
        if before in seen:
            continue
        seen.add(before)
        num_continued += bool(before)
        if len(whole.choices) == 1:
            assert before + after == whole.given
        else:
            assert by_choice(before + after) == by_choice(whole.given)
        if before and before != whole.given:
            assert so_far(stream) == whole.choices
    return num_continued


@pytest.mark.parametrize("name", CASES)
@in_loop
async def test_the_bytes_are_those_of_an_undisturbed_stream(name: str) -> None:
    path, body = CASES[name]
    async with serving(engine_config=EngineConfig(enable_prefix_caching=False)) as service:
        assert await check_every_cut(service, path, body) >= (1 if body.get("max_tokens") == 0 else 5)
        await service.idle()
        assert (service.app.num_active, service.app.line.num_pending, service.app.line.num_running) == (0, 0, 0)


@in_loop
async def test_a_stop_string_that_was_held_back_is_still_found() -> None:
    async with serving(engine_config=EngineConfig(enable_prefix_caching=False)) as service:
        for path, name in ((CHAT, "stop"), (MESSAGES, "stop_sequences")):
            body = {"messages": HELLO, "max_tokens": 60, "seed": 11}
            answer = (await service.client.post(CHAT, json=body)).json()["choices"][0]["message"]["content"]
            stop = [answer[20:29], answer[5:8] + "\x00"]  # one that comes, one that is only begun
            assert await check_every_cut(service, path, {**body, name: stop, "min_tokens": 2}) > 3


@in_loop
async def test_an_answer_that_ends_with_a_stop_token() -> None:
    async with serving(engine_config=EngineConfig(enable_prefix_caching=False)) as service:
        body = {"messages": HELLO, "max_tokens": 20, "seed": 12}
        first = (await service.client.post(CHAT, json={**body, "return_token_ids": True})).json()
        token = first["choices"][0]["token_ids"][10]
        assert await check_every_cut(service, CHAT, {**body, "stop_token_ids": [token]}) > 3
        assert await check_every_cut(service, CHAT, {**body, "stop_token_ids": [token], "n": 3}) > 3


@in_loop
async def test_answers_to_equal_prompts_differ_without_a_seed() -> None:
    async with serving() as service:
        whole = await undisturbed(service, COMPLETIONS, {"prompt": ["hello", "hello"], "n": 2, "max_tokens": 12})
    assert len({tuple(ids) for ids, _ in whole.choices.values()}) == 4


@in_loop
async def test_log_probabilities_of_a_response_are_those_of_the_new_tokens() -> None:
    body = {"input": "hello", "max_output_tokens": 9, "include": ["message.output_text.logprobs"], "top_logprobs": 1}
    async with serving(engine_config=EngineConfig(enable_prefix_caching=False)) as service:
        whole = await undisturbed(service, RESPONSES, body)
        place = list(whole.places())[12]
        before, after, _ = await cut_and_continued(service, whole, place)
    num_deltas = (before + after).count(b"event: response.output_text.delta")
    assert num_deltas == whole.given.count(b"event: response.output_text.delta")
    rest = whole.given[len(before) :]
    end = after.index(b"event: response.output_text.done")
    assert after[:end] == rest[: rest.index(b"event: response.output_text.done")]
    assert 0 < after[end:].count(b'"logprob":') < rest[end:].count(b'"logprob":')


@in_loop
async def test_what_cannot_go_on_is_refused() -> None:
    async with serving(max_model_len=200) as service:
        for fields, begun, message in (
            ({"max_tokens": 2}, {"token_ids": [70, 71]}, "cannot go on: it may have 2"),
            ({"stop_token_ids": [71]}, {"token_ids": [70, 71]}, "ends in the stop token 71"),
            ({}, {"token_ids": [70, 99999]}, "the model has ids 0 to"),
            ({}, {"token_ids": [99999], "finish_reason": "length"}, "the model has ids 0 to"),
        ):
            member = {"id": "chatcmpl-1", "created": 1, "seed": 1, "choices": [begun]}
            body = {"messages": HELLO, "max_tokens": 9, "stream": True, "headrace_continue": member, **fields}
            answer = await service.client.post(CHAT, json=body)
            assert (answer.status_code, message in answer.text) == (400, True), answer.text
        text = service.app.backend.tokenizer.decode([70, 71])  # type: ignore[union-attr]
        answer = await service.chat(
            stream=True, stop=[text], headrace_continue={**member, "choices": [{"token_ids": [70, 71, 72]}]}
        )
        assert (answer.status_code, "by the stop string" in answer.text) == (400, True), answer.text
        assert (service.app.line.num_pending, service.app.num_active) == (0, 0)


@in_loop
async def test_nothing_is_told_to_who_does_not_ask() -> None:
    async with serving() as service:
        answer = await service.chat(stream=True)
        whole = await service.client.post(CHAT, json=chat()[1], headers={"x-headrace-token-ids": "1"})
    assert b": headrace" not in answer.content
    assert not {"x-headrace-token-ids", "x-headrace-seed"} & {*answer.headers, *whole.headers}


@in_loop
async def test_cached_tokens_are_those_of_the_prompt_alone() -> None:
    async with serving(engine_config=EngineConfig(block_size=4)) as service:
        whole = await undisturbed(service, MESSAGES, CASES["messages"][1])
        num_prompt_tokens = (await service.client.post(MESSAGES, json=CASES["messages"][1])).json()["usage"]
        _, after, _ = await cut_and_continued(service, whole, list(whole.places())[-8])
    usage = json.loads(after.split(b"data: ")[-2].partition(b"\n")[0])["usage"]
    cached = usage["cache_read_input_tokens"]
    assert 0 < cached <= num_prompt_tokens["input_tokens"] + num_prompt_tokens["cache_read_input_tokens"]
    assert usage["input_tokens"] >= 0
    assert usage["output_tokens"] == 14
