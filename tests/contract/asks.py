"""What the tests ask, again and again."""

from __future__ import annotations

from typing import Any

import openai

ASK: Any = [{"role": "user", "content": "Who are you?"}]
ANSWER = "I am the built-in model of headrace, a very small language model made to try the server."
"""The built-in model's own, at temperature 0."""

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Bern", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TIME: dict[str, Any] = {
    "type": "object",
    "properties": {"zone": {"enum": ["UTC", "CET"]}},
    "required": ["zone"],
    "additionalProperties": False,
}


def tool(name: str, parameters: dict[str, Any]) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS: Any = [tool("weather", WEATHER), tool("time", TIME)]
SCHEMAS = {"weather": WEATHER, "time": TIME}


def chat(client: openai.OpenAI, messages: Any = ASK, **fields: Any) -> Any:
    """A chat completion of at most 48 tokens; fields that the client does not know go into its extra body."""
    known = {name: fields.pop(name) for name in list(fields) if name in _CHAT}
    made: Any = client.chat.completions.create(
        **{"model": "builtin", "messages": messages, "max_tokens": 48, **known}, extra_body=fields or None
    )
    return made


def text(client: openai.OpenAI, messages: Any = ASK, **fields: Any) -> str:
    """The text of a chat completion's first choice."""
    content: str = chat(client, messages, **fields).choices[0].message.content
    return content


def complete(client: openai.OpenAI, prompt: Any = "Mira was", **fields: Any) -> Any:
    """A completion."""
    known = {name: fields.pop(name) for name in list(fields) if name in _COMPLETIONS}
    made: Any = client.completions.create(**{"model": "builtin", "prompt": prompt, **known}, extra_body=fields or None)
    return made


_COMMON = frozenset(
    (
        "max_tokens",
        "stream",
        "stream_options",
        "n",
        "stop",
        "seed",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "user",
        "extra_headers",
        "timeout",
    )
)
_CHAT = _COMMON | frozenset(
    (
        "model",
        "max_completion_tokens",
        "top_logprobs",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "metadata",
        "store",
        "service_tier",
        "reasoning_effort",
        "modalities",
    )
)
_COMPLETIONS = _COMMON | frozenset(("model", "echo", "best_of", "suffix"))
