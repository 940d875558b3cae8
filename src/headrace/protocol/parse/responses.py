"""POST /v1/responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.protocol.body import Body, read_body
from headrace.protocol.call import Conversation, GenerationCall, GuideRequest, Message
from headrace.protocol.kinds import Reading
from headrace.protocol.parse.common import (
    allowed_names,
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
from headrace.protocol.table.responses import RESPONSES

_LOGPROBS = "message.output_text.logprobs"


def parse_responses(body: Body, *, strict: bool = False) -> GenerationCall:
    """Read a body of POST /v1/responses.

    Args:
        body: bytes, or the object in them. strict: unknown fields are errors.

    Raises:
        InvalidRequest: one of its kinds, naming the field by its path.
    """
    reading = Reading(strict)
    given = read_body(body, RESPONSES, reading)
    sampling = sampling_of(given, given.get("max_output_tokens"), "max_output_tokens", given.get("stop"))
    top = given.get("top_logprobs", 0) if _LOGPROBS in given.get("include", ()) or given.get("top_logprobs") else None
    if top is not None:
        sampling["logprobs"] = top
    guide = guide_of(given, _format(given.get("text", {}).get("format")))
    tools, choice = _tools(given)
    check_guide_and_tools(guide, tools, choice)
    messages = responses_messages(given.get("instructions"), given["input"])
    kwargs = template_kwargs(given, given.get("reasoning", {}).get("effort"), None)
    return GenerationCall(
        endpoint="responses",
        prompts=(Conversation(messages, tools, kwargs, **opening_of(given, messages)),),
        sampling=sampling,
        guide=guide,
        tool_choice=choice,
        include_reasoning=given.get("include_reasoning", True),
        num_top_logprobs=top,
        settings=given,
        ignored_fields=tuple(reading.ignored),
        **extras_of(given),
    )


def _format(given: Mapping[str, Any] | None) -> GuideRequest | None:
    if given is None or given["type"] == "text":
        return None
    if given["type"] == "json_object":
        return GuideRequest("json_object", "", "text.format")
    return schema_guide(given["schema"], "text.format.schema", strict=given.get("strict", True))


def _tools(given: Mapping[str, Any]) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    tools = [function_tool(tool) for tool in given.get("tools", ())]
    parallel = given.get("parallel_tool_calls", True)
    choice = given.get("tool_choice", "auto")
    if isinstance(choice, str):
        return choose_tools(tools, choice, None, parallel, "tool_choice")
    if choice["type"] == "function":
        return choose_tools(tools, "named", [choice["name"]], parallel, "tool_choice.name")
    names = allowed_names(choice["tools"], "tool_choice.tools")
    return choose_tools(tools, choice["mode"], names, parallel, "tool_choice.tools")


# ---------------------------------------------------------------- items to messages


def responses_messages(instructions: str | None, given: str | Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Checked items to the form that chat templates expect.

    What the assistant said in one turn is several items (reasoning, message, function_call …) and becomes one message.
    """
    messages: list[Message] = [] if not instructions else [{"role": "system", "content": instructions}]
    if isinstance(given, str):
        return (*messages, {"role": "user", "content": given})
    names: dict[str, str] = {}
    turn: Message | None = None
    for item in given:
        if _is_answer(item):
            if turn is None or not _extends(turn, item):
                turn = {"role": "assistant", "content": ""}
                messages.append(turn)
            _add(turn, item, names)
        else:
            turn = None
            messages.append(_message(item, names))
    return tuple(messages)


def _is_answer(item: Mapping[str, Any]) -> bool:
    return item["type"] in ("reasoning", "function_call") or item.get("role") == "assistant"


def _extends(turn: Message, item: Mapping[str, Any]) -> bool:
    """Whether the item belongs to the same turn: calls follow text, which follows reasoning."""
    if item["type"] == "function_call":
        return True
    if item["type"] == "message":
        return not turn["content"] and "tool_calls" not in turn
    return not turn["content"] and "tool_calls" not in turn and "reasoning_content" not in turn


def _add(turn: Message, item: Mapping[str, Any], names: dict[str, str]) -> None:
    if item["type"] == "message":
        turn["content"] = text_of(item["content"])
    elif item["type"] == "function_call":
        names[item["call_id"]] = item["name"]
        turn.setdefault("tool_calls", []).append(tool_call(item["call_id"], item["name"], item["arguments"]))
    else:
        thoughts = "\n".join(part["text"] for part in item.get("content") or item.get("summary") or ())
        if thoughts:
            turn["reasoning_content"] = thoughts


def _message(item: Mapping[str, Any], names: Mapping[str, str]) -> Message:
    if item["type"] == "message":
        role = "system" if item["role"] == "developer" else item["role"]
        return {"role": role, "content": text_of(item["content"])}
    message = {"role": "tool", "content": text_of(item["output"]), "tool_call_id": item["call_id"]}
    name = item.get("name", names.get(item["call_id"]))
    return message if name is None else {**message, "name": name}
