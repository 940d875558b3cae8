"""Calls of tools that are written as JSON, read while they are written.

    {"name": "weather", "arguments": {"city": "Bern"}}          one call, or several in a list

The arguments are passed on as they stand, character by character, as soon as the name is known: a client sees a long
argument grow. Nothing is parsed twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from headrace.protocol.parts import ToolCallPart

_ARGUMENTS = ("arguments", "parameters")


class JsonCallReader:
    """A pushdown automaton over the characters of one JSON text.

    ::

        depth   0        1 (a list) or 0      object: "name" ─► string ─► _name
                [ ────►  { ──────────────────►        "arguments" ─► value ─► pieces

    Attributes:
        failed: the text is not what is expected; what came before stands, the rest is not looked at.
    """

    def __init__(self, first_index: int, new_id: Callable[[int], str]) -> None:
        """Read calls that are numbered from `first_index`; `new_id` makes the id of one from its index."""
        self.index = first_index
        self.failed = False
        self._new_id = new_id
        self._base = 0  # depth of the call objects' surroundings: 1 inside of a list
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._string: list[str] = []
        self._expects_key = False
        self._begin_call()

    def push(self, text: str) -> list[ToolCallPart]:
        """Take more of the text; returns what it says of calls."""
        parts: list[ToolCallPart] = []
        for character in text:
            if self.failed:
                break
            self._take(character, parts)
        self._pass_on(parts)
        return parts

    # ---------------------------------------------------------------- one character

    def _begin_call(self) -> None:
        self._key: str | None = None
        self._name: str | None = None
        self._announced = False
        self._pending: list[str] = []
        self._has_arguments = False

    def _take(self, character: str, parts: list[ToolCallPart]) -> None:
        is_argument = self._in_arguments
        if self._in_string:
            self._take_in_string(character)
        elif character == '"':
            self._in_string, self._string = True, []
        elif character in "{[":
            self._open(character)
        elif character in "}]":
            self._close(character, parts)
        elif self._depth == self._base + 1:
            self._take_between(character)
        elif self._depth <= self._base and not (character.isspace() or character == ","):
            self.failed = True
        if is_argument or self._in_arguments:  # before or after: the value's own brackets belong to it
            self._pending.append(character)

    @property
    def _in_arguments(self) -> bool:
        return self._key in _ARGUMENTS and self._depth > self._base + 1

    def _take_in_string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
            self._end_string()
            return
        if self._depth == self._base + 1:
            self._string.append(character)

    def _end_string(self) -> None:
        if self._depth != self._base + 1:
            return
        try:
            text = json.loads(f'"{"".join(self._string)}"', strict=False)
        except ValueError:  # an escape that JSON does not have
            self.failed = True
            return
        if self._expects_key:
            self._key = text
        elif self._key == "name":
            self._name = text
        elif self._key in _ARGUMENTS:  # some models write the object as a string
            self._pending.append(text)
            self._has_arguments = True

    def _take_between(self, character: str) -> None:
        if character == ":":
            self._expects_key = False
        elif character == ",":
            self._expects_key, self._key = True, None

    def _open(self, character: str) -> None:
        if self._depth == 0 and self._base == 0 and character == "[":
            self._base = 1
        elif self._depth == self._base:
            if character == "[":
                self.failed = True
            self._begin_call()
            self._expects_key = True
        elif self._key in _ARGUMENTS and self._depth == self._base + 1:
            self._has_arguments = True
        self._depth += 1

    def _close(self, character: str, parts: list[ToolCallPart]) -> None:
        if self._depth == 0:
            self.failed = True
            return
        self._depth -= 1
        if self._depth == self._base and character == "}":
            self._end_call(parts)

    # ---------------------------------------------------------------- what is passed on

    def _end_call(self, parts: list[ToolCallPart]) -> None:
        if self._name is None:
            self.failed = True
            return
        if not self._has_arguments:
            self._pending.append("{}")
        self._pass_on(parts)
        self.index += 1
        self._begin_call()

    def _pass_on(self, parts: list[ToolCallPart]) -> None:
        if self._name is None:
            return
        if not self._announced:
            self._announced = True
            parts.append(ToolCallPart(self.index, self._new_id(self.index), self._name, ""))
        if self._pending:
            parts.append(ToolCallPart(self.index, None, None, "".join(self._pending)))
            self._pending = []
