"""Conversations to token ids, through the template that comes with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.errors import InvalidRequest


def encode_chat(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None,
) -> list[int]:
    """Render and encode a conversation with a transformers tokenizer.

    Raises:
        InvalidRequest: there is no template, the messages are malformed, or the template refuses them (many demand
            that roles alternate, or know no system message; the template's own words are in the message).
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidRequest(
            "the tokenizer has no chat template: send the prompt as text, or set tokenizer.chat_template "
            "(a file chat_template.jinja in the model's folder is picked up)"
        )
    checked = [_checked(place, message) for place, message in enumerate(messages)]
    if not checked:
        raise InvalidRequest("a conversation needs at least one message")
    from jinja2 import TemplateError

    try:
        ids = tokenizer.apply_chat_template(
            checked,
            tools=None if tools is None else [dict(tool) for tool in tools],
            add_generation_prompt=add_generation_prompt,
            tokenize=True,
            return_dict=False,
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise InvalidRequest(f"the chat template refuses the messages: {error}") from error
    return list(ids)


def _checked(place: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InvalidRequest(f"messages[{place}] must be an object with role and content, not {message!r}")
    if not isinstance(message.get("role"), str):
        raise InvalidRequest(f"messages[{place}] needs a role, such as user")
    if not isinstance(message.get("content"), str | list) and "tool_calls" not in message:
        raise InvalidRequest(f"messages[{place}] needs a content: a string or a list of parts")
    return dict(message)
