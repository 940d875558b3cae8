"""The objects of POST /v1/responses: response, items and their parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.protocol.call import GenerationCall
from headrace.protocol.write.answer import Block, BlockKind

_ITEM_PREFIXES: dict[BlockKind, str] = {"content": "msg", "reasoning": "rs", "call": "fc"}


def response_body(call: GenerationCall, response_id: str, created: int, model: str, status: str) -> dict[str, Any]:
    """A response but for its output, usage and error: it repeats what was asked."""
    given = call.settings
    reasoning = given.get("reasoning", {})
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": given.get("instructions"),
        "max_output_tokens": given.get("max_output_tokens"),
        "model": model,
        "parallel_tool_calls": given.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.get("effort"), "summary": None},
        "store": False,
        "temperature": given.get("temperature"),
        "text": {"format": _format(given.get("text", {}).get("format"))},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": [{"parameters": None, "strict": None, **tool} for tool in given.get("tools", ())],
        "top_p": given.get("top_p"),
        "top_logprobs": given.get("top_logprobs", 0),
        "truncation": "disabled",
        "background": False,
        "service_tier": "default",
        "user": given.get("user"),
        "metadata": given.get("metadata", {}),
    }


def _format(given: dict[str, Any] | None) -> dict[str, Any]:
    return {"type": "text"} if given is None else given


def item_id(response_id: str, place: int, kind: BlockKind) -> str:
    """The id of an item, made of the response's own."""
    return f"{_ITEM_PREFIXES[kind]}_{response_id.removeprefix('resp_')}_{place}"


def item_body(
    response_id: str, place: int, block: Block, status: str, logprobs: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """One item of the output."""
    item: dict[str, Any] = {"id": item_id(response_id, place, block.kind), "status": status}
    if block.kind == "call":
        return item | {"type": "function_call", "call_id": block.call_id, "name": block.name, "arguments": block.text}
    if block.kind == "reasoning":
        return item | {"type": "reasoning", "summary": [], "content": [part_body(block)]}
    return item | {"type": "message", "role": "assistant", "content": [part_body(block, logprobs)]}


def part_body(block: Block, logprobs: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The one part of a message or of reasoning."""
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": list(logprobs)}
