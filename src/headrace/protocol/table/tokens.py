"""POST /tokenize and /detokenize in vLLM's shapes, and the bodies of /admin."""

from __future__ import annotations

from headrace.protocol.fields import Field, fields_of, unsupported
from headrace.protocol.kinds import Boolean, ListOf, Number, Text, TokenIds
from headrace.protocol.table.conversation import MESSAGES, TOOL
from headrace.protocol.table.generation import MODEL, TEMPLATE

TOKENIZE = fields_of(
    MODEL,
    Field("prompt", Text(), "A text; either this or messages."),
    Field("messages", MESSAGES, "A conversation; either this or prompt."),
    Field("tools", ListOf(TOOL), "With messages."),
    Field("add_special_tokens", Boolean(), "Those that the model expects around a text. Default: true for a prompt."),
    Field("return_token_strs", Boolean(), "Also each token as text."),
    TEMPLATE,
)

DETOKENIZE = fields_of(
    MODEL,
    Field("tokens", TokenIds(), "Token ids.", required=True),
    unsupported("skip_special_tokens", "false", False),
)

DRAIN = fields_of(
    Field(
        "deadline_s",
        Number(0, 86400),
        "Seconds after which what still runs is cancelled. Default: the server's setting.",
    ),
)

PROFILE = fields_of(
    Field("duration_s", Number(0, 60, low_open=True), "Seconds to record. Default: 2."),
)
