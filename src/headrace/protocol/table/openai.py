"""POST /v1/chat/completions and POST /v1/completions."""

from __future__ import annotations

from headrace.protocol.fields import Field, Object, fields_of, informational, unsupported
from headrace.protocol.kinds import Boolean, Either, Integer, Json, ListOf, OneOf, Text, TokenIds
from headrace.protocol.table.continuation import CONTINUE
from headrace.protocol.table.conversation import MESSAGES, RESPONSE_FORMAT, TOOL, TOOL_CHOICE
from headrace.protocol.table.generation import (
    ABOUT_THE_CALLER,
    BEYOND,
    EFFORT,
    GUIDES,
    INCLUDE_REASONING,
    LISTS_OF_LOGPROBS,
    MAX_LOGPROBS,
    MAX_N,
    MODEL,
    NOT_TEXT,
    REASONING_EFFORTS,
    SAMPLING,
    SCHEDULING,
    STOP_KIND,
    STREAM,
    STREAM_OPTIONS_FIELD,
    TEMPLATE,
)

_STOP = Field("stop", STOP_KIND, "Strings that end the answer; they are not part of it.")
_N = Field("n", Integer(1, MAX_N), "Independent answers. Default: 1.")

_REASONING = Object(
    (
        Field("effort", OneOf(REASONING_EFFORTS), "As reasoning_effort."),
        Field("enabled", Boolean(), "Handed to the chat template as enable_thinking and thinking."),
        Field("exclude", Boolean(), "As include_reasoning: false."),
        unsupported("max_tokens", "max_tokens of the request, and effort"),
    ),
    "an object with effort, enabled and exclude",
)

CHAT = fields_of(
    MODEL,
    Field("messages", MESSAGES, "The conversation so far. The developer's role is taken as system.", required=True),
    Field(
        "max_completion_tokens",
        Integer(1),
        "Most tokens of the answer. Default: what the model's length leaves room for.",
    ),
    Field("max_tokens", Integer(1), "As max_completion_tokens."),
    STREAM,
    STREAM_OPTIONS_FIELD,
    _N,
    _STOP,
    SAMPLING,
    Field("logprobs", Boolean(), "Log-probabilities of the answer's tokens, of the model's raw distribution."),
    Field("top_logprobs", Integer(0, MAX_LOGPROBS), "Alternatives at each token; needs logprobs."),
    LISTS_OF_LOGPROBS,
    Field("tools", ListOf(TOOL), "Functions that the model may call."),
    Field("tool_choice", TOOL_CHOICE, "auto, none, required, a function by name, or allowed_tools. Default: auto."),
    Field(
        "parallel_tool_calls",
        Boolean(),
        "false: at most one call; what the model calls besides is left out. Default: true.",
    ),
    Field(
        "response_format",
        RESPONSE_FORMAT,
        "text, json_object or json_schema; every answer that ends by itself follows it.",
    ),
    GUIDES,
    EFFORT,
    Field("reasoning", _REASONING, "The same as an object."),
    INCLUDE_REASONING,
    TEMPLATE,
    SCHEDULING,
    CONTINUE,
    ABOUT_THE_CALLER,
    informational("prediction", Json(), "A hint for speed; the answer is the same."),
    NOT_TEXT,
    unsupported("audio", 'text only: modalities ["text"]'),
    unsupported("modalities", '["text"]', ["text"]),
    unsupported("web_search_options", "give a function in tools that searches"),
    unsupported("functions", "tools", []),
    unsupported("function_call", "tool_choice", "none", "auto"),
    unsupported("verbosity", '"medium", and say it in a message', "medium"),
    unsupported("echo", "false", False),
    unsupported("add_special_tokens", "false; the chat template writes them", False),
    unsupported("best_of", "n", 1),
    BEYOND,
)

_PROMPT = Either((Text(), TokenIds(), ListOf(Either((Text(), TokenIds(1))), 1)))

COMPLETIONS = fields_of(
    MODEL,
    Field("prompt", _PROMPT, "Text, token ids, or a list of texts or of lists of token ids.", required=True),
    Field("max_tokens", Integer(0), "Most tokens of the answer; 0 only with echo. Default: 16."),
    STREAM,
    STREAM_OPTIONS_FIELD,
    _N,
    Field("best_of", Integer(1, MAX_N), "Only the same as n."),
    _STOP,
    SAMPLING,
    Field(
        "logprobs", Integer(0, MAX_LOGPROBS), "Log-probabilities of the answer's tokens and of so many alternatives."
    ),
    Field(
        "echo", Boolean(), "The answer begins with the prompt; with logprobs also those of the prompt (not streamed)."
    ),
    LISTS_OF_LOGPROBS,
    Field("response_format", RESPONSE_FORMAT, "As in chat."),
    GUIDES,
    Field("add_special_tokens", Boolean(), "Those that the model expects around a text. Default: true."),
    SCHEDULING,
    CONTINUE,
    ABOUT_THE_CALLER,
    unsupported("suffix", "the model writes on from a prompt; put what follows into the prompt", ""),
    BEYOND,
)
