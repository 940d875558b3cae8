"""An answer is the same streamed and whole: text, calls, reasons, log-probabilities, token ids and usage."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest

from tests.contract.asks import ASK, TOOLS, WEATHER
from tests.contract.process import Server

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TEXTS = ["hi", "What is 36 + 47?", "Tell me a story about Mira.", "é😀", "", "  ", "x" * 300]
RULES: list[dict[str, Any]] = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}}},
    {"guided_regex": "[a-z]{3}"},
    {"guided_choice": ["é", "😀😀"]},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "time"}}, "parallel_tool_calls": False},
    {"tools": TOOLS},
]
COMMON: dict[str, list[Any]] = {
    "temperature": [0, 0.5, 1, 3],
    "n": [1, 3],
    "stop": ["the", [" ", "a"], "36 + 4", "😀"],
    "repetition_penalty": [0.5, 1.3],
    "presence_penalty": [-2, 2],
    "logit_bias": [{"20": 100}, {"5": -100}],
    "min_tokens": [1],
    "ignore_eos": [True],
    "skip_special_tokens": [False],
    "return_token_ids": [True],
}


def ask(seed: int) -> tuple[str, dict[str, Any]]:
    """A path and a body, of what many clients send at random."""
    draw = random.Random(seed)
    body: dict[str, Any] = {"seed": seed, "max_tokens": draw.choice([1, 5, 40])}
    body |= {name: draw.choice(values) for name, values in COMMON.items() if draw.random() < 0.25}
    if draw.random() < 0.3:
        prompt = draw.choice([*TEXTS[:4], [5, 6, 7], ["a", "bc"]])
        return COMPLETIONS, body | {"prompt": prompt} | draw.choice([{"logprobs": 2}, {"echo": True}, {}])
    body["messages"] = [{"role": "user", "content": draw.choice(TEXTS)}]
    body |= draw.choice([{}, {"logprobs": True, "top_logprobs": 2}])
    return CHAT, body | draw.choice([{}, *RULES])


def choice_of(given: dict[str, Any]) -> dict[str, Any]:
    """What a whole choice, or the part of one, has to say."""
    message = given.get("message") or given.get("delta") or {"content": given.get("text")}
    calls = dict(enumerate(message.get("tool_calls") or ()))
    logprobs = given.get("logprobs") or {}
    return {
        "text": message.get("content") or "",
        "calls": {call.get("index", place): call["function"] for place, call in calls.items()},
        "tokens": [item["token"] for item in logprobs.get("content") or ()] or logprobs.get("tokens") or [],
        "offsets": logprobs.get("text_offset") or [],
        "ids": given.get("token_ids") or [],
        "ends": [(given["finish_reason"], given.get("stop_reason"))] if given["finish_reason"] else [],
    }


def add(choice: dict[str, Any], part: dict[str, Any]) -> None:
    for index, call in part.pop("calls").items():
        known = choice["calls"].setdefault(index, {"name": "", "arguments": ""})
        for name, text in call.items():
            known[name] += text
    for name, value in part.items():
        choice[name] = choice[name] + value


def whole(http: httpx.Client, path: str, body: dict[str, Any]) -> tuple[dict[int, Any], dict[str, Any]]:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return {item["index"]: choice_of(item) for item in answer.json()["choices"]}, answer.json()["usage"]


def streamed(http: httpx.Client, path: str, body: dict[str, Any]) -> tuple[dict[int, Any], dict[str, Any]]:
    answer = http.post(path, json=body | {"stream": True, "stream_options": {"include_usage": True}})
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    choices: dict[int, Any] = {}
    for chunk in map(json.loads, lines):
        for item in chunk["choices"]:
            empty = choice_of({"finish_reason": None, "text": ""})
            add(choices.setdefault(item["index"], empty), choice_of(item))
    return choices, json.loads(lines[-1])["usage"]


def compare(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[int, Any]:
    """Both ways; the whole one."""
    (one, usage), (other, usage_there) = whole(http, path, body), streamed(http, path, body)
    assert one == other, body
    for found in (usage, usage_there):
        del found["prompt_tokens_details"]  # the second finds what the first one left
    assert usage == usage_there, body
    return one


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 200), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_whatever_is_asked(server: Server, seeds: range) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for seed in seeds:
            compare(http, *ask(seed))


@pytest.mark.parametrize("rule", RULES[:4], ids=lambda rule: next(iter(rule)))
def test_a_guided_answer_is_whole_without_an_end_token(server: Server, rule: dict[str, Any]) -> None:
    """With ignore_eos no token but the guide ends it: its last token is text."""
    body = {"messages": ASK, "max_tokens": 300, "ignore_eos": True, "temperature": 1, "seed": 4, **rule}
    with httpx.Client(base_url=server.url, timeout=60) as http:
        choice = compare(http, CHAT, body)[0]
    if "guided_regex" in rule:
        assert len(choice["text"]) == 3
    elif "guided_choice" in rule:
        assert choice["text"] in rule["guided_choice"]
    elif "response_format" in rule:
        assert set(json.loads(choice["text"])) == set(WEATHER["required"])


def test_log_probabilities_of_a_prompt_that_is_cut_within_characters(server: Server) -> None:
    body = {"prompt": "aé😀", "echo": True, "logprobs": 1, "max_tokens": 1, "logit_bias": {"20": 100}}
    with httpx.Client(base_url=server.url, timeout=60) as http:
        given = http.post(COMPLETIONS, json=body).json()["choices"][0]
    assert given["logprobs"]["tokens"][0] == "a"
    assert given["logprobs"]["text_offset"] == [0, 1, 1, 2, 2, 2, 2, 3]
    assert given["text"] == "aé😀" + given["logprobs"]["tokens"][-1]
