"""Messages, tools and formats of POST /v1/chat/completions."""

from __future__ import annotations

from headrace.protocol.fields import Field, Object, informational, unsupported
from headrace.protocol.kinds import Boolean, Either, Json, ListOf, OneOf, Tagged, Text

NAME = Text(1, 64)
_BREAKPOINT = informational("prompt_cache_breakpoint", Json(), "Prefixes are shared without being asked.")
_CACHE = informational("cache_control", Json(), "Prefixes are shared without being asked.")

TEXT_PART = Object((Field("type", Text()), Field("text", Text(), required=True), _BREAKPOINT, _CACHE))
_REFUSAL_PART = Object((Field("type", Text()), Field("refusal", Text(), required=True)))
_TEXT_ONLY = "only text: send a part of type text"
REFUSED_PARTS = dict.fromkeys(
    ("image_url", "input_image", "input_audio", "audio_url", "video_url", "file", "image", "audio", "video"), _TEXT_ONLY
)
CONTENT = Either((Text(), ListOf(Tagged("type", {"text": TEXT_PART}, REFUSED_PARTS))))
_ANSWER_CONTENT = Either((Text(), ListOf(Tagged("type", {"text": TEXT_PART, "refusal": _REFUSAL_PART}, REFUSED_PARTS))))

_CALLED = Object(
    (Field("name", Text(1), required=True), Field("arguments", Either((Text(), Json())), "JSON text.")),
    "an object with name and arguments",
)
_CALL = Object(
    (
        Field("id", Text()),
        Field("type", Text()),
        Field("function", _CALLED, required=True),
    )
)
_CALLS = ListOf(Tagged("type", {"function": _CALL}, {"custom": "only calls of type function"}, default="function"))

_ROLE = Field("role", Text())
_CONTENT_FIELD = Field(
    "content", CONTENT, "Text, or a list of text parts, which are joined by line ends.", required=True
)
_NAME_FIELD = Field("name", Text(), "Handed to the chat template.")

MESSAGE = Tagged(
    "role",
    {
        "system": Object((_ROLE, _CONTENT_FIELD, _NAME_FIELD)),
        "developer": Object((_ROLE, _CONTENT_FIELD, _NAME_FIELD)),
        "user": Object((_ROLE, _CONTENT_FIELD, _NAME_FIELD)),
        "assistant": Object(
            (
                _ROLE,
                Field("content", _ANSWER_CONTENT),
                _NAME_FIELD,
                Field("tool_calls", _CALLS, "Handed to the chat template, the arguments as an object."),
                Field("function_call", _CALLED, "As a tool call."),
                Field("refusal", Text(), "As content, where there is none."),
                Field("reasoning_content", Text(), "Handed to the chat template."),
                Field("reasoning", Text(), "As reasoning_content."),
                informational("annotations", ListOf(Json()), "Of an earlier answer."),
                unsupported("audio", _TEXT_ONLY),
            )
        ),
        "tool": Object(
            (
                _ROLE,
                _CONTENT_FIELD,
                _NAME_FIELD,
                Field("tool_call_id", Text(), "Of the call that this is the result of.", required=True),
            )
        ),
        "function": Object((_ROLE, Field("content", CONTENT), Field("name", Text(), required=True))),
    },
)
MESSAGES = ListOf(MESSAGE, 1)

FUNCTION = Object(
    (
        Field("name", NAME, required=True),
        Field("description", Text(), "Handed to the chat template."),
        Field("parameters", Json("a JSON schema"), "Of the arguments."),
        Field("strict", Boolean(), "Calls that are forced (tool_choice) always follow the schema."),
    ),
    "an object with name, description and parameters",
)
TOOL = Tagged(
    "type",
    {"function": Object((Field("type", Text()), Field("function", FUNCTION, required=True)))},
    {"custom": "only tools of type function"},
)

_NAMED = Object(
    (Field("type", Text()), Field("function", Object((Field("name", Text(1), required=True),)), required=True))
)
_ALLOWED = Object(
    (
        Field("type", Text()),
        Field(
            "allowed_tools",
            Object(
                (
                    Field("mode", OneOf(("auto", "required")), required=True),
                    Field(
                        "tools",
                        ListOf(Json('an object such as {"type": "function", "function": {"name": …}}'), 1),
                        required=True,
                    ),
                )
            ),
            required=True,
        ),
    )
)
TOOL_CHOICE = Either(
    (
        OneOf(("none", "auto", "required")),
        Tagged("type", {"function": _NAMED, "allowed_tools": _ALLOWED}, {"custom": "only tools of type function"}),
    )
)

_SCHEMA = Object(
    (
        Field("name", Text(), required=True),
        Field("description", Text(), "Put it into a message as well: the model reads only messages."),
        Field("schema", Json("a JSON schema")),
        Field(
            "strict",
            Boolean(),
            "false leaves out of the schema what cannot be enforced; else that is refused. Default: true.",
        ),
    ),
    "an object with name and schema",
)
RESPONSE_FORMAT = Tagged(
    "type",
    {
        "text": Object((Field("type", Text()),)),
        "json_object": Object((Field("type", Text()),)),
        "json_schema": Object((Field("type", Text()), Field("json_schema", _SCHEMA, required=True))),
    },
    {"structural_tag": "text, json_object, json_schema or structured_outputs", "grammar": "structured_outputs.grammar"},
)
