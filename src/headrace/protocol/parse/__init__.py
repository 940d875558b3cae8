"""From bodies to calls, one function per endpoint."""

from __future__ import annotations

from headrace.protocol.parse.chat import parse_chat
from headrace.protocol.parse.completions import parse_completions
from headrace.protocol.parse.messages import parse_count_tokens, parse_messages
from headrace.protocol.parse.responses import parse_responses
from headrace.protocol.parse.tokens import parse_detokenize, parse_drain, parse_profile, parse_tokenize

__all__ = [
    "parse_chat",
    "parse_completions",
    "parse_count_tokens",
    "parse_detokenize",
    "parse_drain",
    "parse_messages",
    "parse_profile",
    "parse_responses",
    "parse_tokenize",
]
