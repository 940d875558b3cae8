"""What a field of a settings class takes: from a text (environment, flag) and from a typed value (file)."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_WANTED = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


@dataclass(frozen=True, slots=True)
class FieldKind:
    """The type of a setting.

    Attributes:
        scalar: bool, int, float or str.
        optional: whether None is a value; it is written "none".
        several: whether it is a tuple of scalars; in the environment they are divided by commas.
    """

    scalar: type[Any]
    optional: bool = False
    several: bool = False

    @property
    def wanted(self) -> str:
        """What a value has to be, in words."""
        words = f"a list, each {_WANTED[self.scalar]}" if self.several else _WANTED[self.scalar]
        return f"{words}, or none" if self.optional else words

    def from_text(self, text: str) -> Any:
        """Read what stands in an environment variable or after a flag; raises ValueError."""
        if self.several:
            return tuple(self._scalar_from_text(part.strip()) for part in text.split(",") if part.strip())
        if self.optional and text.lower() == "none":
            return None
        return self._scalar_from_text(text)

    def from_value(self, value: Any) -> Any:
        """Take a value of a TOML or YAML file as it is, but an integer for a number; raises ValueError."""
        if self.optional and (value is None or (isinstance(value, str) and value.lower() == "none")):
            return None
        if self.several:
            if not isinstance(value, list | tuple):
                raise ValueError(f"{value!r} is not {self.wanted}")
            return tuple(self._scalar_from_value(part) for part in value)
        return self._scalar_from_value(value)

    def _scalar_from_text(self, text: str) -> Any:
        try:
            return _BOOLEANS[text.lower()] if self.scalar is bool else self.scalar(text)
        except (ValueError, KeyError):
            raise ValueError(f"{text!r} is not {self.wanted}") from None

    def _scalar_from_value(self, value: Any) -> Any:
        if self.scalar is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not self.scalar:
            raise ValueError(f"{value!r} is not {self.wanted}")
        return value


def kind_of(hint: Any) -> FieldKind:
    """The kind of a resolved type hint: a scalar, `scalar | None` or `tuple[scalar, ...]`; raises TypeError."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WANTED:
        return FieldKind(hint)
    if origin is tuple and parts[0] in _WANTED:
        return FieldKind(parts[0], several=True)
    if origin in (types.UnionType, typing.Union):
        inner = [part for part in parts if part is not type(None)]
        if len(inner) == 1 and inner[0] in _WANTED:
            return FieldKind(inner[0], optional=True)
    raise TypeError(f"{hint} is no type of a setting")


def field_kinds(settings: type[Any]) -> Mapping[str, FieldKind]:
    """The kind of every field of a settings class."""
    return {name: kind_of(hint) for name, hint in typing.get_type_hints(settings).items()}


def secret_fields(settings: type[Any]) -> frozenset[str]:
    """Fields whose value is never shown, and that have no flag: other users of a machine see command lines."""
    return frozenset(field.name for field in fields(settings) if field.metadata.get("secret"))


def attribute_docs(settings: type[Any]) -> dict[str, str]:
    """The entries of a class's google-style "Attributes:" section; several may share a line."""
    section = re.search(r"Attributes:\n(.*?)(?:\n\s*\n|\Z)", settings.__doc__ or "", re.DOTALL)
    if section is None:
        return {}
    entries = re.split(r"^ {8}(\w+): ", section.group(1), flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}
