"""Flags made from the fields of a settings class, so that the two cannot drift apart.

Name, type, default and help of a flag are those of the field; the help is its entry under "Attributes:" in the class's
docstring. A flag that is not given leaves no trace in the parsed arguments: what is not asked for keeps the default of
whoever builds the settings.
"""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from headrace.config.fields import FieldKind, attribute_docs, kind_of, secret_fields

_COLLECTED: Mapping[Any, Callable[[Any], Any]] = {Mapping: dict, tuple: tuple}
"""What becomes of the list of a flag that may be given several times, by the origin of the field's type."""


def add_field_flags(
    parser: argparse._ActionsContainer,
    settings: type[Any],
    aliases: Mapping[str, Sequence[str]] | None = None,
    *,
    without: Collection[str] = (),
) -> None:
    """Add a flag for every field of a dataclass but secrets; `aliases` gives further flags by field name.

    Args:
        parser: what gets them. settings: the dataclass. aliases: further flags of a field.
        without: fields that have their flag already.
    """
    hints = typing.get_type_hints(settings)
    helps = attribute_docs(settings)
    left_out = {*without, *secret_fields(settings)}
    for field in fields(settings):
        if field.name in left_out:
            continue
        flags = ["--" + field.name.replace("_", "-"), *(aliases or {}).get(field.name, ())]
        options = _options(field.name, hints[field.name])
        several = "; may be given several times" if options.get("action") == "append" else ""
        text = helps.get(field.name, "").rstrip(".") + several + _default_note(field)
        parser.add_argument(*flags, dest=field.name, default=argparse.SUPPRESS, help=text.replace("%", "%%"), **options)


def given_fields(arguments: argparse.Namespace, settings: type[Any]) -> dict[str, Any]:
    """The fields of a settings class that were given as flags, ready for its constructor."""
    given = {field.name: getattr(arguments, field.name) for field in fields(settings) if field.name in arguments}
    for name, hint in typing.get_type_hints(settings).items():
        collect = _COLLECTED.get(typing.get_origin(hint))
        if name in given and collect is not None:
            given[name] = collect(given[name])
    return given


def _options(name: str, hint: Any) -> dict[str, Any]:
    """What argparse needs to know of a field."""
    if typing.get_origin(hint) is Mapping:
        parts = typing.get_args(hint)
        return {"action": "append", "type": _pair(*parts), "metavar": "=".join(_metavar(part) for part in parts)}
    kind = kind_of(hint)
    if kind.scalar is bool and name.startswith("no_"):
        return {"action": "store_const", "const": True}  # BooleanOptionalAction takes --no-x for the off of --x
    if kind.scalar is bool:
        return {"action": argparse.BooleanOptionalAction}
    if kind.several:
        return {"action": "append", "type": kind.scalar, "metavar": _metavar(kind.scalar)}
    return {"type": _reader(kind), "metavar": _metavar(kind.scalar)}


def _metavar(kind: type[Any]) -> str:
    return {int: "N", float: "X", str: "TEXT"}[kind]


def _reader(kind: FieldKind) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind.from_text(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


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
