"""What the endpoints answer, as JSON schemas: the fields that clients may count on."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_ANY_OBJECT: Schema = {"type": "object"}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _null_or(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _constant(value: str) -> Schema:
    return {"const": value}


def _object(**fields: Schema) -> Schema:
    """All of these are there, and maybe others."""
    return {"type": "object", "properties": fields, "required": list(fields)}


_USAGE = _object(
    prompt_tokens=_COUNT,
    completion_tokens=_COUNT,
    total_tokens=_COUNT,
    prompt_tokens_details=_object(cached_tokens=_COUNT),
)
_CALL = _object(id=_TEXT, type=_constant("function"), function=_object(name=_TEXT, arguments=_TEXT))
_MESSAGE = _object(role=_constant("assistant"), content=_null_or(_TEXT))
_MESSAGE["properties"] |= {"reasoning_content": _TEXT, "reasoning": _TEXT, "tool_calls": _list(_CALL)}
_STOP_REASON: Schema = {"anyOf": [_TEXT, {"type": "integer"}, {"type": "null"}]}
_CHAT_CHOICE = _object(
    index=_COUNT,
    message=_MESSAGE,
    logprobs=_null_or(_ANY_OBJECT),
    finish_reason={"enum": ["stop", "length", "tool_calls"]},
    stop_reason=_STOP_REASON,
)
_TEXT_CHOICE = _object(
    index=_COUNT,
    text=_TEXT,
    logprobs=_null_or(_ANY_OBJECT),
    finish_reason={"enum": ["stop", "length"]},
    stop_reason=_STOP_REASON,
)
_MODEL = _object(
    id=_TEXT,
    object=_constant("model"),
    created=_COUNT,
    owned_by=_TEXT,
    max_model_len=_COUNT,
    type=_constant("model"),
    display_name=_TEXT,
    created_at=_TEXT,
)
_HEALTH = _object(status=_TEXT)

ANSWERS: dict[str, Schema] = {
    "chat_answer": _object(
        id=_TEXT,
        object=_constant("chat.completion"),
        created=_COUNT,
        model=_TEXT,
        choices=_list(_CHAT_CHOICE),
        usage=_USAGE,
    ),
    "completions_answer": _object(
        id=_TEXT,
        object=_constant("text_completion"),
        created=_COUNT,
        model=_TEXT,
        choices=_list(_TEXT_CHOICE),
        usage=_USAGE,
    ),
    "responses_answer": _object(
        id=_TEXT,
        object=_constant("response"),
        created_at=_COUNT,
        model=_TEXT,
        status={"enum": ["completed", "incomplete"]},
        output=_list(_object(id=_TEXT, type={"enum": ["message", "reasoning", "function_call"]}, status=_TEXT)),
        usage=_object(
            input_tokens=_COUNT,
            input_tokens_details=_object(cached_tokens=_COUNT),
            output_tokens=_COUNT,
            output_tokens_details=_object(reasoning_tokens=_COUNT),
            total_tokens=_COUNT,
        ),
    ),
    "messages_answer": _object(
        id=_TEXT,
        type=_constant("message"),
        role=_constant("assistant"),
        model=_TEXT,
        content=_list(_object(type={"enum": ["text", "thinking", "tool_use"]})),
        stop_reason={"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]},
        stop_sequence=_null_or(_TEXT),
        usage=_object(input_tokens=_COUNT, cache_read_input_tokens=_COUNT, output_tokens=_COUNT),
    ),
    "count_tokens_answer": _object(input_tokens=_COUNT),
    "models_answer": _object(object=_constant("list"), data=_list(_MODEL)),
    "model_answer": _MODEL,
    "tokenize_answer": _object(count=_COUNT, max_model_len=_COUNT, tokens=_list(_COUNT)),
    "detokenize_answer": _object(prompt=_TEXT),
    "health_answer": _HEALTH,
    "health_live_answer": _HEALTH,
    "health_ready_answer": _HEALTH,
    "version_answer": _object(version=_TEXT),
    "load_answer": _object(
        num_running=_COUNT,
        num_waiting=_COUNT,
        num_running_tokens=_COUNT,
        num_waiting_tokens=_COUNT,
        num_cache_tokens=_null_or(_COUNT),
        kv_cache_usage_ratio=_NUMBER,
    ),
    "admin_integrity_answer": _object(ok=_FLAG),
    "admin_drain_answer": _object(draining=_FLAG, num_active=_COUNT),
}

_DETAILS = {"message": _TEXT, "code": _TEXT, "param": _null_or(_TEXT), "hint": _null_or(_TEXT)}

ERRORS: dict[str, Schema] = {
    "openai_error": _object(error=_object(**_DETAILS, type=_TEXT, request_id=_null_or(_TEXT))),
    "anthropic_error": _object(
        type=_constant("error"), error=_object(**_DETAILS, type=_TEXT), request_id=_null_or(_TEXT)
    ),
}
