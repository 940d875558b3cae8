"""How a gateway asks a replica to go on with a stream that another replica began."""

from __future__ import annotations

from headrace.protocol.fields import Field, Object
from headrace.protocol.kinds import Integer, ListOf, OneOf, Text, TokenIds

_CHOICE = Object(
    (
        Field("token_ids", TokenIds(), "All that were told of in comments.", required=True),
        Field("finish_reason", OneOf(("stop", "length")), "As the comments told it; null: the answer goes on."),
    ),
    "an object with token_ids and finish_reason",
)

_CONTINUATION = Object(
    (
        Field("id", Text(1, 200), "Of the answer.", required=True),
        Field("created", Integer(0), "Of the answer, where its interface tells it."),
        Field("seed", Integer(-(2**63), 2**64 - 1), "By the header x-headrace-seed of the first replica."),
        Field("choices", ListOf(_CHOICE), "By index; of those that are missing nothing was given out.", required=True),
    ),
    "an object with id, created, seed and choices",
)

CONTINUE = Field(
    "headrace_continue",
    _CONTINUATION,
    "A stream that another replica began goes on: only what comes after the given tokens is sent. With stream: true. "
    "Gateways send it to their replicas and refuse it from clients; a server takes it from anybody who may ask for "
    "answers, and bounds it like the prompt and the answer that it stands for.",
    "internal",
)
