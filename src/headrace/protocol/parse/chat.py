"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.errors import InvalidField
from headrace.protocol.body import Body, read_body
from headrace.protocol.call import Conversation, GenerationCall, GuideRequest
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
from headrace.protocol.parse.openai_messages import function_tool, openai_messages
from headrace.protocol.parts import ToolChoice
from headrace.protocol.shown import shown
from headrace.protocol.table.openai import CHAT


def parse_chat(body: Body, *, strict: bool = False) -> GenerationCall:
    """Read a body of POST /v1/chat/completions.

    Args:
        body: bytes, or the object in them. strict: unknown fields are errors.

    Raises:
        InvalidRequest: one of its kinds, naming the field by its path.
    """
    reading = Reading(strict)
    given = read_body(body, CHAT, reading)
    name = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
    sampling = sampling_of(given, given.get(name), name, given.get("stop"))
    top = chat_logprobs(given, sampling)
    guide = guide_of(given, response_format_guide(given.get("response_format")))
    tools, choice = _tools(given)
    check_guide_and_tools(guide, tools, choice)
    thinking = given.get("reasoning", {})
    effort = given.get("reasoning_effort", thinking.get("effort"))
    messages = openai_messages(given["messages"])
    conversation = Conversation(
        messages,
        tools,
        template_kwargs(given, effort, thinking.get("enabled")),
        **opening_of(given, messages),
    )
    options = given.get("stream_options", {})
    return GenerationCall(
        endpoint="chat",
        prompts=(conversation,),
        sampling=sampling,
        guide=guide,
        tool_choice=choice,
        include_reasoning=given.get("include_reasoning", True) and not thinking.get("exclude", False),
        include_usage=options.get("include_usage", False),
        continuous_usage=options.get("continuous_usage_stats", False),
        num_top_logprobs=top,
        tokens_as_ids=given.get("return_tokens_as_token_ids", False),
        settings=given,
        ignored_fields=tuple(reading.ignored),
        **extras_of(given),
    )


def chat_logprobs(given: Mapping[str, Any], sampling: dict[str, Any]) -> int | None:
    """Alternatives at each token, or None; also written into `sampling`."""
    top = given.get("top_logprobs", 0)
    if top and not given.get("logprobs", False):
        raise InvalidField("top_logprobs", shown(top), "0, or logprobs: true with it")
    add_prompt_logprobs(given, sampling)
    if not given.get("logprobs", False):
        return None
    sampling["logprobs"] = top
    return int(top)


def add_prompt_logprobs(given: Mapping[str, Any], sampling: dict[str, Any]) -> None:
    """Write prompt_logprobs into `sampling`; they are only there when the answer is whole."""
    if "prompt_logprobs" not in given:
        return
    if given.get("stream", False):
        raise InvalidField("prompt_logprobs", shown(given["prompt_logprobs"]), "null with stream, or stream: false")
    sampling["prompt_logprobs"] = given["prompt_logprobs"]


def response_format_guide(given: Mapping[str, Any] | None) -> GuideRequest | None:
    """What response_format asks for."""
    if given is None or given["type"] == "text":
        return None
    if given["type"] == "json_object":
        return GuideRequest("json_object", "", "response_format")
    schema = given["json_schema"].get("schema")
    if schema is None:
        return GuideRequest("json_object", "", "response_format")
    strict = given["json_schema"].get("strict", True)
    return schema_guide(schema, "response_format.json_schema.schema", strict=strict)


def _tools(given: Mapping[str, Any]) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    tools = [function_tool(tool["function"]) for tool in given.get("tools", ())]
    parallel = given.get("parallel_tool_calls", True)
    choice = given.get("tool_choice", "auto")
    if isinstance(choice, str):
        return choose_tools(tools, choice, None, parallel, "tool_choice")
    if choice["type"] == "function":
        return choose_tools(tools, "named", [choice["function"]["name"]], parallel, "tool_choice.function.name")
    allowed = choice["allowed_tools"]
    names = allowed_names(allowed["tools"], "tool_choice.allowed_tools.tools")
    return choose_tools(tools, allowed["mode"], names, parallel, "tool_choice.allowed_tools.tools")
