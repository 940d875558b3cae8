"""An answer of messages and of responses is the same streamed and whole: items, reasons, usage, and events in order."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest

from tests.contract.asks import WEATHER
from tests.contract.process import Server
from tests.protocol.events import events

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
TEXTS = ["hi", "What is 36 + 47?", "Tell me a story about Mira.", "é😀", "  ", "x" * 300]
COMMON: dict[str, list[Any]] = {
    "temperature": [0, 1], "ignore_eos": [True], "top_k": [5], "repetition_penalty": [0.6], "logit_bias": [{"20": 100}],
    "skip_special_tokens": [False],
}  # fmt: skip
OWN_NAMES = ("id", "call_id", "created_at")


def ask(seed: int) -> tuple[str, dict[str, Any]]:
    """A path and a body, of what many clients send at random."""
    draw = random.Random(seed)
    path = draw.choice([MESSAGES, RESPONSES])
    body = {name: draw.choice(values) for name, values in COMMON.items() if draw.random() < 0.25}
    body |= {"model": "builtin", "seed": seed}
    text, length = draw.choice(TEXTS), draw.choice([1, 5, 60])
    if path == MESSAGES:
        tools = {"tools": [{"name": "weather", "input_schema": WEATHER}]}
        choice = draw.choice([{"type": "any"}, {"type": "auto"}, {"type": "any", "disable_parallel_tool_use": True}])
        rule = {"output_config": {"format": {"type": "json_schema", "schema": WEATHER}}}
        body |= {"max_tokens": length, "messages": [{"role": "user", "content": text}]}
        return path, body | draw.choice([{}, {"stop_sequences": [" "]}, tools | {"tool_choice": choice}, rule])
    tools = {"tools": [{"type": "function", "name": "weather", "parameters": WEATHER}]}
    rule = {"text": {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER}}}
    body |= {"max_output_tokens": length, "input": text}
    body |= draw.choice([{}, {"include": ["message.output_text.logprobs"], "top_logprobs": 1}])
    return path, body | draw.choice([{}, tools | {"tool_choice": draw.choice(["required", "auto"])}, rule])


def plain(value: Any) -> Any:
    """Without names that every answer has of its own, and without what the second asked finds cached."""
    if isinstance(value, dict):
        kept = {name: plain(item) for name, item in value.items() if name not in OWN_NAMES}
        if "input_tokens" in kept:
            cached = kept.pop("cache_read_input_tokens", 0)
            kept["input_tokens"] += cached
            kept.pop("input_tokens_details", None)
        return kept
    return [plain(item) for item in value] if isinstance(value, list) else value


def message_of(sent: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a stream's events come to."""
    first, *inner, delta, last = sent
    assert (first["type"], delta["type"], last["type"]) == ("message_start", "message_delta", "message_stop")
    blocks: list[dict[str, Any]] = []
    for event in inner:
        assert event["index"] == len(blocks) - (event["type"] != "content_block_start")
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            change = event["delta"]
            blocks[-1]["text"] = blocks[-1].get("text", "") + change.get("text", "")
            blocks[-1]["json"] += change.get("partial_json", "")
    for block in blocks:
        text = block.pop("json")
        if block["type"] == "tool_use":
            block.pop("text", None)
            block["input"] = input_of(text)
    return {**first["message"], **delta["delta"], "content": blocks, "usage": delta["usage"]}


def input_of(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:  # the length ended it
        return {"_raw": text}


def response_of(sent: list[dict[str, Any]]) -> dict[str, Any]:
    """The response at the end of a stream; its texts are what the deltas come to."""
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    texts: dict[int, str] = {}
    for event in sent:
        if event["type"] in ("response.output_text.delta", "response.function_call_arguments.delta"):
            texts[event["output_index"]] = texts.get(event["output_index"], "") + event["delta"]
    response: dict[str, Any] = sent[-1]["response"]
    for place, item in enumerate(response["output"]):
        assert texts.get(place, "") == (item["arguments"] if "arguments" in item else item["content"][0]["text"])
    return response


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 200), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_whatever_is_asked(server: Server, seeds: range) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for path, body in map(ask, seeds):
            whole = http.post(path, json=body)
            assert whole.status_code == 200, whole.text
            stream = http.post(path, json=body | {"stream": True}).content
            sent = [event.data for event in events(stream)]
            came_to = message_of(sent) if path == MESSAGES else response_of(sent)
            assert plain(came_to) == plain(whole.json()), body
