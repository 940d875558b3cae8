"""Flags made from the fields of a settings class, so that the two cannot drift apart.

Name, type, default and help of a flag are those of the field; the help is its entry under "Attributes:" in the class's
docstring. A flag that is not given leaves no trace in the parsed arguments: what is not asked for keeps the default of
whoever builds the settings.
"""

from __future__ import annotations

import argparse
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any


def add_field_flags(
    parser: argparse._ActionsContainer, settings: type[Any], aliases: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Add a flag for every field of a dataclass; `aliases` gives further flags by field name."""
    hints = typing.get_type_hints(settings)
    helps = _attribute_docs(settings.__doc__ or "")
    for field in fields(settings):
        flags = ["--" + field.name.replace("_", "-"), *(aliases or {}).get(field.name, ())]
        options = _options(hints[field.name])
        several = "; may be given several times" if options.get("action") == "append" else ""
        text = helps.get(field.name, "").rstrip(".") + several + _default_note(field)
        parser.add_argument(*flags, dest=field.name, default=argparse.SUPPRESS, help=text.replace("%", "%%"), **options)


def given_fields(arguments: argparse.Namespace, settings: type[Any]) -> dict[str, Any]:
    """The fields of a settings class that were given as flags, ready for its constructor."""
    given = {field.name: getattr(arguments, field.name) for field in fields(settings) if field.name in arguments}
    for name, hint in typing.get_type_hints(settings).items():
        if name in given and typing.get_origin(hint) is Mapping:
            given[name] = dict(given[name])
    return given


def _options(hint: Any) -> dict[str, Any]:
    """What argparse needs to know of a type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if origin is tuple:
        return {"action": "append", "type": parts[0], "metavar": _metavar(parts[0])}
    if origin is Mapping:
        return {"action": "append", "type": _pair(*parts), "metavar": "=".join(_metavar(part) for part in parts)}
    if origin in (types.UnionType, typing.Union):
        (inner,) = (part for part in parts if part is not type(None))
        return {"type": _or_none(inner), "metavar": _metavar(inner)}
    return {"type": hint, "metavar": _metavar(hint)}


def _metavar(kind: type[Any]) -> str:
    return {int: "N", float: "X", str: "TEXT"}[kind]


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = f"{kind.__name__} or none"  # argparse shows it: "invalid int or none value: 'x'"
    return parse


def _pair(key: Callable[[str], Any], value: Callable[[str], Any]) -> Callable[[str], tuple[Any, Any]]:
    def parse(text: str) -> tuple[Any, Any]:
        left, equals, right = text.partition("=")
        if not equals:
            raise ValueError(text)
        return key(left), value(right)

    parse.__name__ = "KEY=VALUE"
    return parse


def _default_note(field: Field[Any]) -> str:
    if field.default is MISSING or field.default in (None, ()):
        return ""
    default = {True: "on", False: "off"}[field.default] if isinstance(field.default, bool) else field.default
    return f" (default: {default})"


def _attribute_docs(docstring: str) -> dict[str, str]:
    """The entries of a google-style "Attributes:" section; several may share a line."""
    section = re.search(r"Attributes:\n(.*?)(?:\n\s*\n|\Z)", docstring, re.DOTALL)
    if section is None:
        return {}
    entries = re.split(r"^ {8}(\w+): ", section.group(1), flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}
