"""POST /v1/messages and POST /v1/messages/count_tokens."""

from __future__ import annotations

from headrace.protocol.fields import Field, Object, fields_of, informational, unsupported
from headrace.protocol.kinds import Boolean, Either, Integer, Json, ListOf, OneOf, Tagged, Text
from headrace.protocol.table.continuation import CONTINUE
from headrace.protocol.table.generation import (
    BEYOND,
    GUIDES,
    MODEL,
    SAMPLING,
    SCHEDULING,
    STREAM,
    TEMPLATE,
)

_TYPE = Field("type", Text())
_CACHE = informational("cache_control", Json(), "Prefixes are shared without being asked.")
_ONLY_TEXT = "text, tool_use, tool_result and thinking blocks"
_REFUSED_BLOCKS = dict.fromkeys(
    (
        "image",
        "document",
        "search_result",
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "container_upload",
        "tool_reference",
        "browser_state",
    ),
    _ONLY_TEXT,
)
_TEXT_BLOCK = Object(
    (
        _TYPE,
        Field("text", Text(), required=True),
        _CACHE,
        informational("citations", ListOf(Json()), "Of an earlier answer."),
    )
)
_TEXTS = Either((Text(), ListOf(Tagged("type", {"text": _TEXT_BLOCK}, _REFUSED_BLOCKS))))
_TOOL_USE = Object(
    (
        _TYPE,
        Field("id", Text(1), required=True),
        Field("name", Text(1), required=True),
        Field("input", Json(), required=True),
        _CACHE,
        informational("caller", Json(), "Of an earlier answer."),
        unsupported("toolset_name", "tools with a name and an input_schema"),
    )
)
_TOOL_RESULT = Object(
    (
        _TYPE,
        Field("tool_use_id", Text(1), required=True),
        Field("content", _TEXTS),
        Field("is_error", Boolean(), "Handed to the chat template; say it in the content as well."),
        _CACHE,
        unsupported("toolset_name", "tools with a name and an input_schema"),
    )
)
_THINKING = Object(
    (
        _TYPE,
        Field("thinking", Text(), required=True),
        informational("signature", Text(), "Reasoning is not signed."),
    )
)
_REDACTED = Object((_TYPE, informational("data", Text(), "Sealed for another model; left out of the prompt.")))

_BLOCKS = {"text": _TEXT_BLOCK, "tool_use": _TOOL_USE, "thinking": _THINKING, "redacted_thinking": _REDACTED}
_ROLE = Field("role", Text())
_MESSAGE = Tagged(
    "role",
    {
        "user": Object(
            (
                _ROLE,
                Field(
                    "content",
                    Either(
                        (
                            Text(),
                            ListOf(Tagged("type", {"text": _TEXT_BLOCK, "tool_result": _TOOL_RESULT}, _REFUSED_BLOCKS)),
                        )
                    ),
                    "Text, or blocks of text and results of tools.",
                    required=True,
                ),
            )
        ),
        "assistant": Object(
            (
                _ROLE,
                Field("content", Either((Text(), ListOf(Tagged("type", _BLOCKS, _REFUSED_BLOCKS)))), required=True),
            )
        ),
        "system": Object((_ROLE, Field("content", _TEXTS, required=True))),
    },
)

_TOOL_FIELDS = Object(
    (
        _TYPE,
        Field("name", Text(1, 128), required=True),
        Field("description", Text()),
        Field("input_schema", Json("a JSON schema"), "Of the arguments.", required=True),
        Field("strict", Boolean(), "Calls that are forced (tool_choice) always follow the schema."),
        _CACHE,
        informational("eager_input_streaming", Boolean(), "Arguments are always streamed as they are made."),
        unsupported("allowed_callers", '["direct"]', ["direct"]),
        unsupported("defer_loading", "false", False),
        unsupported("input_examples", "put them into the description", []),
    ),
    "an object with name, description and input_schema",
)
_HOSTED = "only tools of the client, with a name and an input_schema"
_HOSTED_TOOLS = dict.fromkeys(
    (
        "bash_20250124",
        "text_editor_20250124",
        "text_editor_20250429",
        "text_editor_20250728",
        "code_execution_20250522",
        "code_execution_20250825",
        "code_execution_20260120",
        "code_execution_20260521",
        "memory_20250818",
        "computer_20250124",
        "computer_toolset_20260801",
        "browser_toolset_20260801",
        "web_search_20250305",
        "web_search_20260209",
        "web_search_20260318",
        "web_fetch_20250910",
        "web_fetch_20260209",
        "web_fetch_20260309",
        "web_fetch_20260318",
        "tool_search_tool_bm25_20251119",
        "tool_search_tool_regex_20251119",
    ),
    _HOSTED,
)
_TOOL = Tagged("type", {"custom": _TOOL_FIELDS}, _HOSTED_TOOLS, default="custom")

_PARALLEL = Field(
    "disable_parallel_tool_use", Boolean(), "true: at most one call; what the model calls besides is left out."
)
_TOOL_CHOICE = Tagged(
    "type",
    {
        "auto": Object((_TYPE, _PARALLEL)),
        "any": Object((_TYPE, _PARALLEL)),
        "tool": Object((_TYPE, Field("name", Text(1), required=True), _PARALLEL)),
        "none": Object((_TYPE,)),
    },
)

_DISPLAY = Field(
    "display", OneOf(("summarized", "omitted")), "omitted leaves the thinking out; it is never summarized."
)
_THINKING_CONFIG = Tagged(
    "type",
    {
        "enabled": Object(
            (
                _TYPE,
                Field("budget_tokens", Integer(1), "Handed to the chat template as thinking_budget.", required=True),
                _DISPLAY,
            )
        ),
        "adaptive": Object((_TYPE, _DISPLAY)),
        "between_tools": Object((_TYPE,)),
        "disabled": Object((_TYPE,)),
    },
)
_FORMAT = Tagged("type", {"json_schema": Object((_TYPE, Field("schema", Json("a JSON schema"), required=True)))})
_OUTPUT_CONFIG = Object(
    (
        Field(
            "effort",
            OneOf(("low", "medium", "high", "xhigh", "max")),
            "Handed to the chat template as reasoning_effort.",
        ),
        Field("format", _FORMAT, "The answer follows this JSON schema."),
    ),
    "an object with effort and format",
)

_PROMPT = (
    MODEL,
    Field(
        "messages", ListOf(_MESSAGE, 1), "If the last is the assistant's, the answer goes on from it.", required=True
    ),
    Field("system", _TEXTS, "The system message."),
    Field("tools", ListOf(_TOOL), "Functions that the model may call."),
    Field("tool_choice", _TOOL_CHOICE, "auto, any, tool or none. Default: auto."),
    Field(
        "thinking",
        _THINKING_CONFIG,
        "enabled and disabled are handed to the chat template as enable_thinking and thinking.",
    ),
    Field("output_config", _OUTPUT_CONFIG, "Effort, and a JSON schema of the answer."),
    Field("output_format", _FORMAT, "As output_config.format."),
    _CACHE,
    informational("user_profile_id", Text(), "Of the caller."),
    informational("workspace_id", Text(), "Of the caller."),
    unsupported("speed", '"standard"', "standard"),
    unsupported("mcp_servers", "tools of the client", []),
    unsupported("context_management", "shorten the conversation in the client", {"edits": []}),
)

MESSAGES = fields_of(
    _PROMPT,
    Field("max_tokens", Integer(1), "Most tokens of the answer, thinking included.", required=True),
    STREAM,
    Field("stop_sequences", ListOf(Text(1)), "Strings that end the answer; they are not part of it."),
    SAMPLING,
    GUIDES,
    TEMPLATE,
    SCHEDULING,
    CONTINUE,
    informational("metadata", Json(), "Of the caller."),
    informational("service_tier", Text(), "There is one tier."),
    informational("diagnostics", Json(), "Nothing is stored."),
    unsupported("container", "tools of the client"),
    unsupported("inference_geo", "the machine is where it is"),
    BEYOND,
)

COUNT_TOKENS = fields_of(_PROMPT, TEMPLATE)
