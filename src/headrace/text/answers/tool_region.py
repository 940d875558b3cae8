"""The calls inside of one region of a response template, passed on while they are written where their form allows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from headrace.protocol.parts import ContentPart, Part, ToolCallPart
from headrace.text.answers.json_calls import JsonCallReader

_PLAIN_CALL = {"type": "function", "function": "{content}"}


class ToolRegions:
    """Reads the tool_calls regions of one answer, one after the other.

    A region whose text is the call as plain JSON is read as it comes; one of another form when it is closed. What turns
    out to be no call comes back as content, with the marks around it where they are fixed strings.

    Args:
        field: as the response template has it. new_id: makes the id of a call from its index in the answer.
    """

    def __init__(self, field: Mapping[str, Any], new_id: Callable[[int], str]) -> None:
        """No region yet."""
        self._field = field
        self._new_id = new_id
        self._streams = (
            field.get("content") == "json" and field.get("transform") == _PLAIN_CALL and not field.get("content_args")
        )
        self._num_calls = 0
        self.open()

    @staticmethod
    def parsable(field: Mapping[str, Any]) -> dict[str, Any]:
        """The field for transformers' parser: malformed JSON does not raise there, `close` applies the transform."""
        if field.get("content", "text") != "json":
            return dict(field)
        names = [name for name in _placeholders(field.get("transform")) if name != "content"]
        patterns = f"{field.get('open_pattern', '')}{field.get('close_pattern', '')}"
        captured = {name: f"{{{name}}}" for name in names if f"(?P<{name}>" in patterns}
        return {
            **{key: value for key, value in field.items() if key != "transform_each"},
            "content_args": {**field.get("content_args", {}), "allow_non_json": True},
            "transform": {"captured": captured, "content": "{content}"},
        }

    def open(self) -> None:
        """A region begins."""
        self._raw = ""
        self._first = self._num_calls
        self._reader = JsonCallReader(self._first, self._new_id)

    def push(self, text: str) -> list[Part]:
        """More of the region's text."""
        self._raw += text
        return self._counted(self._reader.push(text)) if self._streams else []

    def close(self, value: Any, cut_off: bool) -> list[Part]:
        """The region ends, by its mark or with the answer; `value` is what transformers' parser made of it."""
        if not self._streams:
            calls = [call for item in self._transformed(value) if (call := _name_and_arguments(item))]
            parts: list[ToolCallPart] = []
            for index, (name, arguments) in enumerate(calls, self._num_calls):
                parts.append(ToolCallPart(index, self._new_id(index), name, ""))
                parts.append(ToolCallPart(index, None, None, arguments))
            if parts:
                return self._counted(parts)
        return [] if self._num_calls > self._first else [ContentPart(self._written(cut_off))]

    def _written(self, cut_off: bool) -> str:
        """The region as the model wrote it, marks included where they are fixed strings."""
        marks = (self._field.get("open"), None if cut_off else self._field.get("close"))
        opening, close = (mark if isinstance(mark, str) else "" for mark in marks)
        return f"{opening}{self._raw}{close}"

    def _counted(self, parts: Sequence[ToolCallPart]) -> list[Part]:
        self._num_calls = max([self._num_calls, *(part.index + 1 for part in parts)])
        return list(parts)

    def _transformed(self, value: Any) -> Iterator[Any]:
        if self._field.get("content", "text") != "json":
            yield from value if isinstance(value, list) else [value]
            return
        transform, scope = self._field.get("transform"), dict(value["captured"])
        content = value["content"]
        if transform is None:
            yield from content if isinstance(content, list) else [content]
        elif self._field.get("transform_each") or (isinstance(content, list) and transform == _PLAIN_CALL):
            for item in content if isinstance(content, list) else []:
                each = item if isinstance(item, dict) and self._field.get("transform_each") else {}
                yield _filled(transform, {**scope, **each, "content": item})
        else:
            yield _filled(transform, {**scope, "content": content})


def _placeholders(transform: Any) -> set[str]:
    if isinstance(transform, Mapping):
        return set().union(*map(_placeholders, transform.values()))
    if isinstance(transform, list):
        return set().union(*map(_placeholders, transform))
    if isinstance(transform, str) and transform.startswith("{") and transform.endswith("}"):
        return {transform[1:-1].partition(".")[0]}
    return set()


def _filled(transform: Any, scope: Mapping[str, Any]) -> Any:
    """The transform with its placeholders, such as "{content.name}", replaced; None for what is not there."""
    if isinstance(transform, Mapping):
        return {key: _filled(value, scope) for key, value in transform.items()}
    if isinstance(transform, list):
        return [_filled(value, scope) for value in transform]
    if not (isinstance(transform, str) and transform.startswith("{") and transform.endswith("}")):
        return transform
    value: Any = scope
    for key in transform[1:-1].split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _name_and_arguments(call: Any) -> tuple[str, str] | None:
    """Name and arguments (JSON text) of a call in the form of chat templates; None when it is none."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            return (function["name"], arguments) if isinstance(json.loads(arguments), dict) else None
        except ValueError:
            return None
    return (function["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, Mapping) else None
