"""What every endpoint that generates reads in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.errors import InvalidField, UnsupportedField
from headrace.protocol.call import GuideRequest
from headrace.protocol.parse.continuation import continuation_of
from headrace.protocol.parts import ToolChoice
from headrace.protocol.shown import shown

_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "seed",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "stop_token_ids",
    "min_tokens",
    "ignore_eos",
)


def sampling_of(given: Mapping[str, Any], max_tokens: int | None, max_name: str, stop: Any) -> dict[str, Any]:
    """Keyword arguments of SamplingParams.

    Args:
        given: the body's fields. max_tokens: of the answer. max_name: the field that said so. stop: stop strings.
    """
    sampling = {name: given[name] for name in _SAMPLING if name in given}
    sampling["max_tokens"] = max_tokens
    if sampling.get("top_k") == -1:
        sampling["top_k"] = 0
    if stop:
        sampling["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    least = sampling.get("min_tokens", 0)
    if max_tokens is not None and least > max_tokens:
        raise InvalidField("min_tokens", shown(least), f"at most {max_name}={max_tokens}")
    return sampling


def extras_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of GenerationCall that are the same everywhere, most by the name of their field."""
    names = ("model", "stream", "skip_special_tokens", "return_token_ids", "cache_salt", "priority", "user")
    return {name: given[name] for name in names if name in given} | {"continuation": continuation_of(given)}


# ---------------------------------------------------------------- guides


def guide_of(given: Mapping[str, Any], *formats: GuideRequest | None) -> GuideRequest | None:
    """The one thing that the answer must follow; `formats` are those of the endpoint's own fields.

    Raises:
        InvalidField: there are several, or structured_outputs has none.
    """
    found = [guide for guide in formats if guide is not None]
    fields = [(name, f"guided_{name}") for name in ("json", "regex", "choice", "grammar")]
    found += [_guide(name, given[field], field) for name, field in fields if field in given]
    structured = given.get("structured_outputs")
    if structured is not None:
        inside = [
            _guide(name, value, f"structured_outputs.{name}")
            for name, value in structured.items()
            if name in ("json", "regex", "choice", "grammar") or (name == "json_object" and value)
        ]
        if not inside:
            raise InvalidField(
                "structured_outputs", shown(structured), "one of json, regex, choice, grammar, json_object"
            )
        found += inside
    if len(found) > 1:
        raise InvalidField(
            found[1].field,
            shown(found[1].value or found[1].kind),
            f"one rule for an answer, and {found[0].field} is one",
        )
    return found[0] if found else None


def _guide(name: str, value: Any, field: str) -> GuideRequest:
    if name == "json_object":
        return GuideRequest("json_object", "", field)
    if name == "json":
        return GuideRequest("json_schema", value if isinstance(value, str) else json_text(value), field)
    if name == "choice":
        return GuideRequest("choice", json_text(value), field)
    return GuideRequest("regex" if name == "regex" else "grammar", value, field)


def schema_guide(schema: Any, field: str, *, strict: bool = True) -> GuideRequest:
    """An answer that follows a JSON schema."""
    return GuideRequest("json_schema", json_text(schema), field, strict)


def json_text(value: Any) -> str:
    """As JSON."""
    return msgspec.json.encode(value).decode()


# ---------------------------------------------------------------- tools


def choose_tools(
    tools: Sequence[dict[str, Any]], mode: str, names: Sequence[str] | None, parallel: bool, field: str
) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    """The tools that the model is told of, and what it may do with them.

    Args:
        tools: given, in the form of chat templates. mode: of ToolChoice, as the client said.
        names: the one tool of "named", or the allowed ones; None: all.
        parallel: several calls are welcome. field: for messages.

    Raises:
        InvalidField: a call is forced and there is no such tool; two tools have the same name.
    """
    known = [tool["function"]["name"] for tool in tools]
    for place, name in enumerate(known):
        if name in known[:place]:
            raise InvalidField(f"tools[{place}]", shown(name), "a name of its own for each tool")
    for name in names or ():
        if name not in known:
            raise InvalidField(field, shown(name), f"one of the tools: {', '.join(known[:10]) or 'there are none'}")
    if mode == "required" and not tools:
        raise InvalidField(field, '"required"', "auto or none where there are no tools")
    if mode == "none" or not tools:
        return (), ToolChoice("none" if mode == "none" else "auto", None, parallel)
    if mode == "named":
        return tuple(tools), ToolChoice("named", (names or ("",))[0], parallel)
    allowed = tuple(tool for tool in tools if names is None or tool["function"]["name"] in names)
    return allowed, ToolChoice("required" if mode == "required" else "auto", None, parallel)


def allowed_names(tools: Sequence[Mapping[str, Any]], field: str) -> list[str]:
    """Names in the list of allowed_tools, in either form of a tool."""
    names = []
    for place, tool in enumerate(tools):
        if tool.get("type", "function") != "function":
            raise UnsupportedField(f"{field}[{place}].type", shown(tool.get("type")), '"function"')
        inner = tool.get("function", tool)
        name = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(name, str):
            raise InvalidField(f"{field}[{place}]", shown(tool), "an object that names a function")
        names.append(name)
    return names


def check_guide_and_tools(guide: GuideRequest | None, tools: Sequence[Any], choice: ToolChoice) -> None:
    """A guide rules the whole answer, so no call of a tool fits beside it.

    Raises:
        UnsupportedField: both are asked for.
    """
    if guide is not None and tools:
        raise UnsupportedField(
            guide.field,
            shown(guide.value or guide.kind),
            f'it rules the whole answer, and there are tools: tool_choice "none", '
            f"or a tool with this schema (tool_choice is {choice.mode!r})",
        )


# ---------------------------------------------------------------- chat templates


def template_kwargs(given: Mapping[str, Any], effort: str | None, enabled: bool | None) -> dict[str, Any]:
    """For the chat template; what the client put into chat_template_kwargs itself goes before.

    Templates have different names for the same switch: enable_thinking (qwen, glm, smollm), thinking (deepseek,
    granite). Names that a template does not know are without effect.
    """
    kwargs: dict[str, Any] = {}
    if effort is not None:
        kwargs["reasoning_effort"] = effort
        enabled = effort != "none" if enabled is None else enabled
    if enabled is not None:
        kwargs |= {"enable_thinking": enabled, "thinking": enabled}
    return {**kwargs, **given.get("chat_template_kwargs", {})}


def opening_of(
    given: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], *, goes_on: bool = False
) -> dict[str, bool]:
    """add_generation_prompt and continue_final_message of a conversation.

    Args:
        given: the body's fields. messages: of the conversation. goes_on: the interface's own word for the latter.

    Raises:
        InvalidField: both, or there is nothing to go on from.
    """
    goes_on = given.get("continue_final_message", goes_on)
    if not goes_on:
        return {"add_generation_prompt": given.get("add_generation_prompt", True), "continue_final_message": False}
    if given.get("add_generation_prompt"):
        raise InvalidField("continue_final_message", "true", "false, or add_generation_prompt: false with it")
    if messages[-1]["role"] != "assistant" or not messages[-1].get("content"):
        raise InvalidField("continue_final_message", "true", "false, or a last message of the assistant's with content")
    return {"add_generation_prompt": False, "continue_final_message": True}
