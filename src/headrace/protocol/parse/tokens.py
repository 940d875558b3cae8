"""POST /tokenize, /detokenize, /admin/drain and /admin/profile."""

from __future__ import annotations

from headrace.errors import InvalidField
from headrace.protocol.body import Body, read_body
from headrace.protocol.call import Conversation, CountCall, DetokenizeCall
from headrace.protocol.kinds import Reading
from headrace.protocol.parse.common import opening_of, template_kwargs
from headrace.protocol.parse.openai_messages import function_tool, openai_messages
from headrace.protocol.shown import shown
from headrace.protocol.table.tokens import DETOKENIZE, DRAIN, PROFILE, TOKENIZE

DEFAULT_PROFILE_S = 2.0


def parse_tokenize(body: Body, *, strict: bool = False) -> CountCall:
    """Read a body of POST /tokenize, with a prompt or with messages.

    Raises:
        InvalidRequest: one of its kinds, naming the field by its path.
    """
    reading = Reading(strict)
    given = read_body(body, TOKENIZE, reading)
    prompt: str | Conversation
    if "messages" in given:
        if "prompt" in given:
            raise InvalidField("prompt", shown(given["prompt"]), "either prompt or messages")
        if given.get("add_special_tokens", False):
            raise InvalidField("add_special_tokens", "true", "false with messages: the chat template writes them")
        messages = openai_messages(given["messages"])
        tools = tuple(function_tool(tool["function"]) for tool in given.get("tools", ()))
        prompt = Conversation(messages, tools, template_kwargs(given, None, None), **opening_of(given, messages))
    elif "prompt" in given:
        prompt = given["prompt"]
    else:
        raise InvalidField("prompt", None, "a string in it, or a list in messages,")
    return CountCall(
        given.get("model"),
        prompt,
        given.get("add_special_tokens", True),
        given.get("return_token_strs", False),
        tuple(reading.ignored),
    )


def parse_detokenize(body: Body, *, strict: bool = False) -> DetokenizeCall:
    """Read a body of POST /detokenize.

    Raises:
        InvalidRequest: one of its kinds, naming the field by its path.
    """
    reading = Reading(strict)
    given = read_body(body, DETOKENIZE, reading)
    return DetokenizeCall(given.get("model"), given["tokens"], tuple(reading.ignored))


def parse_drain(body: Body) -> float | None:
    """Read a body of POST /admin/drain, which may be empty: the deadline in seconds, None for the server's own."""
    if not body:
        return None
    deadline_s: float | None = read_body(body, DRAIN, Reading(strict=True)).get("deadline_s")
    return deadline_s


def parse_profile(body: Body) -> float:
    """Read a body of POST /admin/profile, which may be empty: seconds to record."""
    if not body:
        return DEFAULT_PROFILE_S
    return float(read_body(body, PROFILE, Reading(strict=True)).get("duration_s", DEFAULT_PROFILE_S))
