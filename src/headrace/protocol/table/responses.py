"""POST /v1/responses, without memory of earlier responses."""

from __future__ import annotations

from headrace.protocol.fields import Field, Object, fields_of, informational, unsupported
from headrace.protocol.kinds import Boolean, Either, Integer, Json, ListOf, OneOf, Tagged, Text
from headrace.protocol.table.continuation import CONTINUE
from headrace.protocol.table.conversation import NAME, REFUSED_PARTS
from headrace.protocol.table.generation import (
    ABOUT_THE_CALLER,
    BEYOND,
    GUIDES,
    INCLUDE_REASONING,
    MAX_LOGPROBS,
    MODEL,
    NOT_TEXT,
    REASONING_EFFORTS,
    SAMPLING,
    SCHEDULING,
    STOP_KIND,
    STREAM,
    TEMPLATE,
)

_TYPE = Field("type", Text())
_ID = informational("id", Text(), "Of an earlier response.")
_STATUS = informational("status", Text(), "Of an earlier response.")
_PHASE = informational("phase", Text(), "Of an earlier response.")
_STATELESS = "nothing is stored here: send the items themselves in input"

_TEXT = Object(
    (
        _TYPE,
        Field("text", Text(), required=True),
        informational("annotations", ListOf(Json()), "Of an earlier response."),
        informational("logprobs", ListOf(Json()), "Of an earlier response."),
        informational("prompt_cache_breakpoint", Json(), "Prefixes are shared without being asked."),
    )
)
_REFUSAL = Object((_TYPE, Field("refusal", Text(), required=True)))
_REFUSED = REFUSED_PARTS | {"input_file": "only text: send a part of type input_text"}
_TEXTS = {"input_text": _TEXT, "output_text": _TEXT, "text": _TEXT}
_CONTENT = Either((Text(), ListOf(Tagged("type", _TEXTS | {"refusal": _REFUSAL}, _REFUSED))))

_MESSAGE = Object(
    (
        _TYPE,
        Field("role", OneOf(("user", "assistant", "system", "developer")), required=True),
        Field("content", _CONTENT, required=True),
        _ID,
        _STATUS,
        _PHASE,
    )
)
_NAMESPACE = unsupported("namespace", "functions without a namespace")
_CALL = Object(
    (
        _TYPE,
        Field("call_id", Text(1), required=True),
        Field("name", Text(1), required=True),
        Field("arguments", Text(), required=True),
        _ID,
        _STATUS,
        informational("caller", Json(), "Of an earlier response."),
        unsupported("async", "false", False),
        _NAMESPACE,
    )
)
_OUTPUT = Object(
    (
        _TYPE,
        Field("call_id", Text(1), required=True),
        Field("output", Either((Text(), ListOf(Tagged("type", _TEXTS, _REFUSED)))), required=True),
        Field("name", Text(), "Handed to the chat template."),
        _ID,
        _STATUS,
        informational("caller", Json(), "Of an earlier response."),
        _NAMESPACE,
    )
)
_THOUGHT = Object((_TYPE, Field("text", Text(), required=True)))
_REASONING_ITEM = Object(
    (
        _TYPE,
        Field("content", ListOf(Tagged("type", {"reasoning_text": _THOUGHT, "text": _THOUGHT}))),
        Field("summary", ListOf(Tagged("type", {"summary_text": _THOUGHT})), "Where there is no content."),
        informational("encrypted_content", Text(), "Sealed for another model; left out of the prompt."),
        _ID,
        _STATUS,
    )
)
_REFUSED_ITEMS = {"item_reference": _STATELESS} | dict.fromkeys(
    (
        "file_search_call",
        "computer_call",
        "computer_call_output",
        "web_search_call",
        "tool_search_call",
        "tool_search_output",
        "additional_tools",
        "configuration_update",
        "compaction",
        "compaction_trigger",
        "image_generation_call",
        "code_interpreter_call",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "custom_tool_call",
        "custom_tool_call_output",
        "program",
        "program_output",
    ),
    "message, function_call, function_call_output and reasoning items",
)
_ITEM = Tagged(
    "type",
    {"message": _MESSAGE, "function_call": _CALL, "function_call_output": _OUTPUT, "reasoning": _REASONING_ITEM},
    _REFUSED_ITEMS,
    default="message",
)

_TOOL = Object(
    (
        _TYPE,
        Field("name", NAME, required=True),
        Field("description", Text()),
        Field("parameters", Json("a JSON schema"), "Of the arguments."),
        Field("strict", Boolean(), "Calls that are forced (tool_choice) always follow the schema."),
        unsupported("allowed_callers", '["direct"]', ["direct"]),
        unsupported("defer_loading", "false", False),
        unsupported("async", "false", False),
        unsupported("output_schema", "put it into the description"),
    )
)
_HOSTED = "only tools of type function, which the client runs"
_HOSTED_TOOLS = (
    "file_search",
    "computer",
    "computer_use_preview",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "mcp",
    "code_interpreter",
    "programmatic_tool_calling",
    "image_generation",
    "local_shell",
    "shell",
    "custom",
    "namespace",
    "tool_search",
    "apply_patch",
)
_REFUSED_TOOLS = dict.fromkeys(_HOSTED_TOOLS, _HOSTED)
_TOOL_CHOICE = Either(
    (
        OneOf(("none", "auto", "required")),
        Tagged(
            "type",
            {
                "function": Object((_TYPE, Field("name", Text(1), required=True))),
                "allowed_tools": Object(
                    (
                        _TYPE,
                        Field("mode", OneOf(("auto", "required")), required=True),
                        Field(
                            "tools", ListOf(Json('an object such as {"type": "function", "name": …}'), 1), required=True
                        ),
                    )
                ),
            },
            _REFUSED_TOOLS,
        ),
    )
)

_FORMAT = Tagged(
    "type",
    {
        "text": Object((_TYPE,)),
        "json_object": Object((_TYPE,)),
        "json_schema": Object(
            (
                _TYPE,
                Field("name", Text(), required=True),
                Field("schema", Json("a JSON schema"), required=True),
                Field("description", Text(), "Put it into a message as well: the model reads only messages."),
                Field(
                    "strict",
                    Boolean(),
                    "false leaves out of the schema what cannot be enforced; else that is refused. Default: true.",
                ),
            )
        ),
    },
    {"grammar": "structured_outputs.grammar"},
)
_TEXT_CONFIG = Object(
    (
        Field("format", _FORMAT, "text, json_object or json_schema."),
        unsupported("verbosity", '"medium", and say it in instructions', "medium"),
    ),
    "an object with format",
)
_REASONING = Object(
    (
        Field("effort", OneOf(REASONING_EFFORTS), "Handed to the chat template, as reasoning_effort in chat."),
        informational("summary", OneOf(("auto", "concise", "detailed")), "The reasoning itself is returned."),
        informational("generate_summary", OneOf(("auto", "concise", "detailed")), "The reasoning itself is returned."),
        informational("context", OneOf(("auto", "current_turn", "all_turns")), "The chat template decides."),
        unsupported("mode", '"standard"', "standard"),
    ),
    "an object with effort",
)
_STREAM_OPTIONS = Object(
    (informational("include_obfuscation", Boolean(), "Events are never padded."),), "an object with include_obfuscation"
)

RESPONSES = fields_of(
    MODEL,
    Field(
        "input",
        Either((Text(), ListOf(_ITEM, 1))),
        "Text, or items: messages, calls, their results, reasoning.",
        required=True,
    ),
    Field("instructions", Text(), "The system message, before input."),
    Field(
        "max_output_tokens", Integer(1), "Most tokens of the answer. Default: what the model's length leaves room for."
    ),
    STREAM,
    Field("stream_options", _STREAM_OPTIONS, "Of a stream."),
    Field("stop", STOP_KIND, "Strings that end the answer, as in chat."),
    SAMPLING,
    Field(
        "top_logprobs",
        Integer(0, MAX_LOGPROBS),
        "Alternatives at each token, where include asks for log-probabilities.",
    ),
    Field(
        "include",
        ListOf(
            OneOf(
                (
                    "message.output_text.logprobs",
                    "reasoning.encrypted_content",
                    "file_search_call.results",
                    "web_search_call.results",
                    "web_search_call.action.sources",
                    "message.input_image.image_url",
                    "computer_call_output.output.image_url",
                    "code_interpreter_call.outputs",
                )
            )
        ),
        "message.output_text.logprobs adds log-probabilities. Reasoning is returned as it is, not encrypted; "
        "the others are of tools that are not here.",
    ),
    Field("tools", ListOf(Tagged("type", {"function": _TOOL}, _REFUSED_TOOLS)), "Functions that the model may call."),
    Field("tool_choice", _TOOL_CHOICE, "auto, none, required, a function by name, or allowed_tools. Default: auto."),
    Field(
        "parallel_tool_calls",
        Boolean(),
        "false: at most one call; what the model calls besides is left out. Default: true.",
    ),
    Field("text", _TEXT_CONFIG, "What the answer must follow."),
    GUIDES,
    Field("reasoning", _REASONING, "How much the model thinks."),
    INCLUDE_REASONING,
    TEMPLATE,
    SCHEDULING,
    CONTINUE,
    ABOUT_THE_CALLER,
    informational("max_tool_calls", Integer(), "It counts calls of tools that run on a server; there are none."),
    unsupported("previous_response_id", _STATELESS),
    unsupported("conversation", _STATELESS),
    unsupported("prompt", "send the text of the prompt in input"),
    unsupported("background", "false, with stream", False),
    unsupported("background_options", "background: false"),
    unsupported("context_management", "shorten the conversation in the client", []),
    unsupported("truncation", '"disabled"', "disabled"),
    unsupported("image", "text only"),
    unsupported("access_programs", "leave it out"),
    NOT_TEXT,
    BEYOND,
)
