"""What an answer has to follow: the client's own rule, or the calls of tools that it demands."""

from __future__ import annotations

import msgspec

from headrace.errors import InvalidField, InvalidRequest
from headrace.protocol.call import GenerationCall, GuideRequest
from headrace.protocol.shown import shown
from headrace.server.prompts import PromptEncoder
from headrace.text.answers import tool_call_schema
from headrace.text.guides import GuideSpec, check


async def guide_spec(call: GenerationCall, encoder: PromptEncoder) -> GuideSpec | None:
    """The rule of a call, checked in a thread; None when the model may write what it likes.

    Raises:
        InvalidField: the grammar's compiler refuses it; its words are in the message.
    """
    demanded = None if call.guide else _demanded_calls(call)
    asked = call.guide or demanded
    if asked is None:
        return None
    try:
        # A tool's schema may say more than can be enforced; a call that follows the rest of it is better than none.
        spec = GuideSpec(asked.kind, asked.value, strict=asked.strict and demanded is None)
        await encoder.in_thread(lambda: check(spec))
    except InvalidRequest as error:
        raise InvalidField(asked.field, shown(asked.value), str(error)) from error
    return spec


def _demanded_calls(call: GenerationCall) -> GuideRequest | None:
    schema = tool_call_schema(call.tools, call.tool_choice)
    if schema is None:
        return None
    return GuideRequest("json_schema", msgspec.json.encode(schema).decode(), "tools")
