"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headrace.protocol.body import Body, read_body
from headrace.protocol.call import Conversation, CountCall, GenerationCall, GuideRequest, Message
from headrace.protocol.kinds import Reading
from headrace.protocol.parse.common import (
    check_guide_and_tools,
    choose_tools,
    extras_of,
    guide_of,
    opening_of,
    sampling_of,
    schema_guide,
    template_kwargs,
)
from headrace.protocol.parse.openai_messages import function_tool, text_of, tool_call
from headrace.protocol.parts import ToolChoice
from headrace.protocol.table.anthropic import COUNT_TOKENS, MESSAGES

_MODES = {"auto": "auto", "any": "required", "tool": "named", "none": "none"}


def parse_messages(body: Body, *, strict: bool = False) -> GenerationCall:
    """Read a body of POST /v1/messages.

    Args:
        body: bytes, or the object in them. strict: unknown fields are errors.

    Raises:
        InvalidRequest: one of its kinds, naming the field by its path.
    """
    reading = Reading(strict)
    given = read_body(body, MESSAGES, reading)
    tools, choice = _tools(given)
    conversation = _conversation(given, tools)
    config = given.get("output_config", {})
    guide = guide_of(
        given,
        _format(config.get("format"), "output_config.format.schema"),
        _format(given.get("output_format"), "output_format.schema"),
    )
    check_guide_and_tools(guide, tools, choice)
    return GenerationCall(
        endpoint="messages",
        prompts=(conversation,),
        sampling=sampling_of(given, given["max_tokens"], "max_tokens", given.get("stop_sequences")),
        guide=guide,
        tool_choice=choice,
        include_reasoning=given.get("thinking", {}).get("display") != "omitted",
        settings=given,
        ignored_fields=tuple(reading.ignored),
        **extras_of(given),
    )


def parse_count_tokens(body: Body, *, strict: bool = False) -> CountCall:
    """Read a body of POST /v1/messages/count_tokens.

    Raises:
        InvalidRequest: one of its kinds, naming the field by its path.
    """
    reading = Reading(strict)
    given = read_body(body, COUNT_TOKENS, reading)
    tools, _ = _tools(given)
    return CountCall(given.get("model"), _conversation(given, tools), ignored_fields=tuple(reading.ignored))


def _conversation(given: Mapping[str, Any], tools: tuple[dict[str, Any], ...]) -> Conversation:
    messages = anthropic_messages(given.get("system"), given["messages"])
    last = messages[-1] if messages else {}
    goes_on = last.get("role") == "assistant" and bool(last["content"]) and "tool_calls" not in last
    thinking = given.get("thinking", {})
    enabled = {"enabled": True, "disabled": False}.get(thinking.get("type", ""))
    kwargs = template_kwargs(given, given.get("output_config", {}).get("effort"), enabled)
    if "budget_tokens" in thinking:
        kwargs.setdefault("thinking_budget", thinking["budget_tokens"])
    return Conversation(messages, tools, kwargs, **opening_of(given, messages, goes_on=goes_on))


def _format(given: Mapping[str, Any] | None, field: str) -> GuideRequest | None:
    return None if given is None else schema_guide(given["schema"], field)


def _tools(given: Mapping[str, Any]) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    tools = [function_tool({**tool, "parameters": tool["input_schema"]}) for tool in given.get("tools", ())]
    choice = given.get("tool_choice", {"type": "auto"})
    names = [choice["name"]] if choice["type"] == "tool" else None
    parallel = not choice.get("disable_parallel_tool_use", False)
    return choose_tools(tools, _MODES[choice["type"]], names, parallel, "tool_choice.name" if names else "tool_choice")


# ---------------------------------------------------------------- messages


def anthropic_messages(system: Any, given: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Checked messages to the form that chat templates expect: results of tools become messages of their own."""
    messages: list[Message] = [] if not system else [{"role": "system", "content": text_of(system)}]
    names: dict[str, str] = {}
    for message in given:
        content = message["content"]
        if isinstance(content, str) or message["role"] == "system":
            messages.append({"role": message["role"], "content": text_of(content)})
        elif message["role"] == "assistant":
            messages.append(_answer(content, names))
        else:
            messages.extend(_turn(content, names))
    return tuple(messages)


def _answer(blocks: Sequence[Mapping[str, Any]], names: dict[str, str]) -> Message:
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    message: Message = {"role": "assistant", "content": "\n".join(texts)}
    thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking"]
    if any(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    uses = [block for block in blocks if block["type"] == "tool_use"]
    if uses:
        message["tool_calls"] = [tool_call(use["id"], use["name"], use["input"]) for use in uses]
        names.update({use["id"]: use["name"] for use in uses})
    return message


def _turn(blocks: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Iterator[Message]:
    texts: list[str] = []
    for block in blocks:
        if block["type"] == "text":
            texts.append(block["text"])
            continue
        if texts:
            yield {"role": "user", "content": "\n".join(texts)}
            texts = []
        yield _result(block, names)
    if texts or not blocks:
        yield {"role": "user", "content": "\n".join(texts)}


def _result(block: Mapping[str, Any], names: Mapping[str, str]) -> Message:
    message: Message = {
        "role": "tool",
        "content": text_of(block.get("content")),
        "tool_call_id": block["tool_use_id"],
    }
    if block["tool_use_id"] in names:
        message["name"] = names[block["tool_use_id"]]
    if block.get("is_error", False):
        message["is_error"] = True
    return message
