"""Conversations to text, through the template that comes with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.errors import InvalidParameter, InvalidRequest


def render_chat(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """The text of a conversation, special tokens written out, by a transformers tokenizer's template.

    Args:
        tokenizer: of transformers. messages: each with "role" and what the template reads, mostly "content".
        add_generation_prompt: end with the opening of the assistant's answer.
        continue_final_message: leave the last message open, for the answer to go on with it.
        tools: JSON schemas of the functions that the model may call.
        template_kwargs: further variables of the template, such as enable_thinking.

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
    reserved = _RESERVED & (template_kwargs or {}).keys()
    if reserved:
        name = sorted(reserved)[0]
        raise InvalidParameter(
            f"chat_template_kwargs.{name}", (template_kwargs or {})[name], "it has a field of its own"
        )
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            checked,
            tools=None if tools is None else [dict(tool) for tool in tools],
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tokenize=False,
            **(template_kwargs or {}),
        )
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise InvalidRequest(f"the chat template refuses the messages: {error}") from error
    return text


_RESERVED = frozenset(
    {
        "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize",
        "continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict",
        "return_assistant_tokens_mask", "tokenizer_kwargs", "sanitize_control_tokens",
    }
)  # fmt: skip
"""Arguments of transformers' own function, which are no variables of a template."""


def _checked(place: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InvalidRequest(f"messages[{place}] must be an object with role and content, not {message!r}")
    if not isinstance(message.get("role"), str):
        raise InvalidRequest(f"messages[{place}] needs a role, such as user")
    if not isinstance(message.get("content"), str | list) and "tool_calls" not in message:
        raise InvalidRequest(f"messages[{place}] needs a content: a string or a list of parts")
    return dict(message)
