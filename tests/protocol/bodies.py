"""Bodies that are valid, with as many fields as fit together."""

from __future__ import annotations

from typing import Any

from headrace.protocol import (
    parse_chat,
    parse_completions,
    parse_count_tokens,
    parse_detokenize,
    parse_messages,
    parse_responses,
    parse_tokenize,
)

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "Weather of a city.", "parameters": SCHEMA}

CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}, {"type": "text", "text": "In Bern."}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "They want the weather.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "max_completion_tokens": 50,
    "temperature": 0.5,
    "top_p": 0.9,
    "n": 2,
    "seed": 3,
    "stop": ["\n\n"],
    "presence_penalty": 1,
    "frequency_penalty": -1.5,
    "logit_bias": {"17": -100, "18": 5},
    "logprobs": True,
    "top_logprobs": 2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "reasoning_effort": "low",
    "parallel_tool_calls": False,
    "user": "u",
    "metadata": {"a": "b"},
    "service_tier": "auto",
    "modalities": ["text"],
    "top_k": 40,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "min_tokens": 1,
    "stop_token_ids": [5],
    "ignore_eos": True,
    "priority": 2,
    "cache_salt": "s",
    "chat_template_kwargs": {"custom": 1},
}
COMPLETIONS: dict[str, Any] = {
    "model": "m",
    "prompt": ["one", [1, 2, 3]],
    "max_tokens": 5,
    "n": 2,
    "best_of": 2,
    "logprobs": 3,
    "echo": True,
    "suffix": "",
    "stop": "x",
    "guided_choice": ["a", "b"],
}
MESSAGES: dict[str, Any] = {
    "model": "m",
    "max_tokens": 2000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Rain."}]},
                {"type": "text", "text": "And?"},
            ],
        },
    ],
    "tools": [{"name": "weather", "description": "Weather of a city.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "stop_sequences": ["\n\n"],
    "temperature": 0.5,
    "top_k": 40,
    "metadata": {"user_id": "u"},
    "stream": True,
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Bern"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
    ],
    "tools": [{"type": "function", "strict": True, **FUNCTION}],
    "tool_choice": "required",
    "max_output_tokens": 40,
    "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
    "top_logprobs": 2,
    "reasoning": {"effort": "high", "summary": "auto"},
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "store": False,
    "truncation": "disabled",
    "stream": True,
}
COUNT_TOKENS = {name: MESSAGES[name] for name in ("model", "system", "messages", "tools", "tool_choice", "thinking")}
TOKENIZE = {"messages": CHAT["messages"], "tools": CHAT["tools"], "add_generation_prompt": True}

CASES = {
    "chat": (parse_chat, CHAT),
    "completions": (parse_completions, COMPLETIONS),
    "messages": (parse_messages, MESSAGES),
    "responses": (parse_responses, RESPONSES),
    "count_tokens": (parse_count_tokens, COUNT_TOKENS),
    "tokenize": (parse_tokenize, TOKENIZE),
    "detokenize": (parse_detokenize, {"model": "m", "tokens": [1, 2]}),
}
GENERATING = ("chat", "completions", "messages", "responses")
