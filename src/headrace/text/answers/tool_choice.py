"""The form of an answer when the client demands a call of a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.errors import InvalidRequest
from headrace.protocol.parts import ToolChoice


def tool_call_schema(tools: Sequence[Mapping[str, Any]], choice: ToolChoice) -> dict[str, Any] | None:
    """The JSON schema that an answer has to follow when calling is not the model's own choice; None when it is.

    "named": the arguments' own schema, the answer is the arguments. "required": a list of calls (of one call, unless
    `parallel`), each an object with the name and the arguments. Both are read by `AnswerParser` while they are written,
    whatever format the model was taught.

    Args:
        tools: in the form of chat templates, {"type": "function", "function": {"name", "parameters", …}}.

    Raises:
        InvalidRequest: there are no tools, or none of that name.
    """
    if choice.mode in ("auto", "none"):
        return None
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools}
    if not schemas:
        raise InvalidRequest(f"tool_choice is {choice.mode!r}, and there are no tools: give at least one in tools")
    if choice.mode == "named":
        if choice.name not in schemas:
            raise InvalidRequest(f"tool_choice names {choice.name!r}; the tools are {', '.join(map(repr, schemas))}")
        return _arguments(schemas[choice.name])
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": _arguments(schema)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, schema in schemas.items()
    ]
    # References inside of a tool's schema point into that schema, so its definitions move to the root with it.
    definitions = _lift_definitions(calls)
    items = calls[0] if len(calls) == 1 else {"anyOf": calls}
    schema: dict[str, Any] = {"type": "array", "items": items, "minItems": 1}
    if not choice.parallel:
        schema["maxItems"] = 1
    return schema | definitions


def _arguments(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if not schema:
        return {"type": "object", "additionalProperties": False}
    return {"type": "object", **schema}


def _lift_definitions(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Move each call's $defs and definitions to one root $defs, under names of their own, and turn references round."""
    lifted: dict[str, Any] = {}
    for place, call in enumerate(calls):
        arguments = call["properties"]["arguments"]
        renamed = {}
        for key in ("$defs", "definitions"):
            for name, schema in (arguments.pop(key, None) or {}).items():
                target = f"tool{place}_{name}"
                renamed[f"#/{key}/{name}"] = f"#/$defs/{target}"
                lifted[target] = schema
        renamed["#"] = f"#/$defs/tool{place}"
        if _refers(arguments, "#") or any(_refers(schema, "#") for schema in lifted.values()):
            lifted[f"tool{place}"] = arguments
        call["properties"]["arguments"] = _turned(arguments, renamed)
        for name in list(lifted):
            if name.startswith(f"tool{place}"):
                lifted[name] = _turned(lifted[name], renamed)
    return {"$defs": lifted} if lifted else {}


def _refers(schema: Any, target: str) -> bool:
    if isinstance(schema, Mapping):
        return schema.get("$ref") == target or any(_refers(value, target) for value in schema.values())
    return isinstance(schema, list) and any(_refers(item, target) for item in schema)


def _turned(schema: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(schema, Mapping):
        turned = {key: _turned(value, renamed) for key, value in schema.items()}
        if isinstance(schema.get("$ref"), str):
            turned["$ref"] = renamed.get(schema["$ref"], schema["$ref"])
        return turned
    return [_turned(item, renamed) for item in schema] if isinstance(schema, list) else schema
