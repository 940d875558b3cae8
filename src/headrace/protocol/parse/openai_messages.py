"""Messages and tools of OpenAI's chat interface to the form that chat templates expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.protocol.call import Message

_ROLES = {"developer": "system", "function": "tool"}


def openai_messages(given: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Checked messages; content becomes one string."""
    names: dict[str, str] = {}
    return tuple(_message(message, names) for message in given)


def _message(given: Mapping[str, Any], names: dict[str, str]) -> Message:
    role = given["role"]
    message: Message = {"role": _ROLES.get(role, role), "content": text_of(given.get("content"))}
    if role == "assistant":
        _add_answer(message, given, names)
    if role == "tool":
        message["tool_call_id"] = given["tool_call_id"]
        if given["tool_call_id"] in names:
            message["name"] = names[given["tool_call_id"]]
    if "name" in given:
        message["name"] = given["name"]
    return message


def _add_answer(message: Message, given: Mapping[str, Any], names: dict[str, str]) -> None:
    message["content"] = message["content"] or given.get("refusal", "")
    reasoning = given.get("reasoning_content") or given.get("reasoning")
    if reasoning:
        message["reasoning_content"] = reasoning
    calls = [(call.get("id"), call["function"]) for call in given.get("tool_calls", ())]
    if "function_call" in given:
        calls.append((None, given["function_call"]))
    if calls:
        message["tool_calls"] = [tool_call(call_id, call["name"], call.get("arguments", "")) for call_id, call in calls]
    names.update({call_id: call["name"] for call_id, call in calls if call_id is not None})


def tool_call(call_id: str | None, name: str, arguments: Any) -> dict[str, Any]:
    """One call of an assistant's message. Arguments are an object where they are JSON, else as they were written."""
    call = {"type": "function", "function": {"name": name, "arguments": _arguments(arguments)}}
    return call if call_id is None else {"id": call_id, **call}


def _arguments(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        decoded = msgspec.json.decode(arguments) if arguments.strip() else {}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return arguments
    return decoded if isinstance(decoded, dict) else arguments


def text_of(content: Any) -> str:
    """A string, or the parts of a list joined by line ends."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part["refusal"] if "refusal" in part else part["text"] for part in content)


def function_tool(function: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as chat templates expect it."""
    tool = {"name": function["name"], "description": function.get("description", "")}
    tool["parameters"] = function.get("parameters", {"type": "object", "properties": {}})
    if "strict" in function:
        tool["strict"] = function["strict"]
    return {"type": "function", "function": tool}
