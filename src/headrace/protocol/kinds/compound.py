"""Kinds of lists, of objects, and of values that may be one kind or another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import InvalidField, UnsupportedField
from headrace.protocol.kinds.kind import INT64, Kind, Reading, Schema
from headrace.protocol.kinds.scalars import Number, OneOf
from headrace.protocol.shown import shown

MAX_DEPTH = 100
"""Levels of a JSON object that is handed on: a schema, metadata, keyword arguments of a chat template."""


@dataclass(frozen=True, slots=True)
class Json(Kind):
    """Any JSON object that is not nested too deeply for whatever reads it later, handed on as it is."""

    what: str = "an object"

    @property
    def words(self) -> str:
        """For messages."""
        return self.what

    def takes(self, value: Any) -> bool:
        """By type."""
        return isinstance(value, dict)

    def read(self, value: Any, at: str, reading: Reading) -> dict[str, Any]:
        """Also its depth."""
        if not isinstance(value, dict):
            raise InvalidField(at, shown(value), self.words)
        if not _is_flat(value, MAX_DEPTH):
            raise InvalidField(at, shown(value), f"{self.words} of at most {MAX_DEPTH} levels")
        return value

    def schema(self) -> Schema:
        """As JSON schema."""
        return {"type": "object"}


@dataclass(frozen=True, slots=True)
class Anything(Kind):
    """Any JSON value at all."""

    @property
    def words(self) -> str:
        """For messages."""
        return "any JSON value"

    def takes(self, value: Any) -> bool:
        """Always."""
        return True

    def schema(self) -> Schema:
        """As JSON schema."""
        return {}


@dataclass(frozen=True, slots=True)
class ListOf(Kind):
    """A list of one kind."""

    item: Kind
    min_length: int = 0
    max_length: int | None = None

    @property
    def words(self) -> str:
        """For messages."""
        least = f"at least {self.min_length}" if self.min_length else ""
        most = "" if self.max_length is None else f"at most {self.max_length}"
        size = " and ".join(bound for bound in (least, most) if bound)
        return f"a list{f' of {size}' * bool(size)}, each {self.item.words}"

    def takes(self, value: Any) -> bool:
        """By type."""
        return isinstance(value, list)

    def read(self, value: Any, at: str, reading: Reading) -> list[Any]:
        """Also its length and its items."""
        if not isinstance(value, list) or len(value) < self.min_length:
            raise InvalidField(at, shown(value), self.words)
        if self.max_length is not None and len(value) > self.max_length:
            raise InvalidField(at, shown(value), self.words)
        return [self.item.read(item, f"{at}[{place}]", reading) for place, item in enumerate(value)]

    def schema(self) -> Schema:
        """As JSON schema."""
        schema: Schema = {"type": "array", "items": self.item.schema()}
        if self.min_length:
            schema["minItems"] = self.min_length
        if self.max_length is not None:
            schema["maxItems"] = self.max_length
        return schema


@dataclass(frozen=True, slots=True)
class TokenIds(Kind):
    """A list of token ids, checked as a whole: there may be a million."""

    min_length: int = 0

    @property
    def words(self) -> str:
        """For messages."""
        return f"a list of {'at least one ' * bool(self.min_length)}token ids of 0 or more"

    def takes(self, value: Any) -> bool:
        """By type, and that of the first item."""
        return isinstance(value, list) and (not value or isinstance(value[0], int))

    def read(self, value: Any, at: str, reading: Reading) -> tuple[int, ...]:
        """Also its items."""
        if not isinstance(value, list) or len(value) < self.min_length:
            raise InvalidField(at, shown(value), self.words)
        if value and (set(map(type, value)) != {int} or min(value) < 0 or max(value) > INT64):
            place, wrong = next((p, i) for p, i in enumerate(value) if type(i) is not int or not 0 <= i <= INT64)
            raise InvalidField(f"{at}[{place}]", shown(wrong), "a token id of 0 or more")
        return tuple(value)

    def schema(self) -> Schema:
        """As JSON schema."""
        return {"type": "array", "items": {"type": "integer", "minimum": 0}} | (
            {"minItems": self.min_length} if self.min_length else {}
        )


@dataclass(frozen=True, slots=True)
class LogitBias(Kind):
    """Token ids, as the strings that JSON has for keys, to numbers."""

    @property
    def words(self) -> str:
        """For messages."""
        return "an object from token ids to numbers of at least -100 and at most 100"

    def takes(self, value: Any) -> bool:
        """By type."""
        return isinstance(value, dict)

    def read(self, value: Any, at: str, reading: Reading) -> dict[int, float]:
        """Also its keys and values."""
        if not isinstance(value, dict):
            raise InvalidField(at, shown(value), self.words)
        number, bias = Number(-100, 100), {}
        for key, item in value.items():
            if not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 19):
                raise InvalidField(at, shown(value), f"{self.words}; {shown(key)} is not a token id")
            bias[int(key)] = number.read(item, f"{at}.{key}", reading)
        return bias

    def schema(self) -> Schema:
        """As JSON schema."""
        return {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,18}$"},
            "additionalProperties": Number(-100, 100).schema(),
        }


@dataclass(frozen=True, slots=True)
class Either(Kind):
    """The first of several kinds that takes the value's type."""

    kinds: tuple[Kind, ...]

    @property
    def words(self) -> str:
        """For messages."""
        return ", or ".join(kind.words for kind in self.kinds)

    def takes(self, value: Any) -> bool:
        """By any of them."""
        return any(kind.takes(value) for kind in self.kinds)

    def read(self, value: Any, at: str, reading: Reading) -> Any:
        """By the first that takes it."""
        for kind in self.kinds:
            if kind.takes(value):
                return kind.read(value, at, reading)
        raise InvalidField(at, shown(value), self.words)

    def schema(self) -> Schema:
        """As JSON schema."""
        return {"anyOf": [kind.schema() for kind in self.kinds]}


@dataclass(frozen=True, slots=True)
class Tagged(Kind):
    """Objects whose field `tag` says which they are.

    Attributes:
        tag: the field. variants: by its value. refused: values that belong to the interface, with what would work.
        default: the value where the field is missing; None: it is needed.
    """

    tag: str
    variants: Mapping[str, Kind]
    refused: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None

    @property
    def words(self) -> str:
        """For messages."""
        names = ", ".join(f'"{name}"' for name in self.variants)
        return f"an object whose {self.tag} is {'one of ' * (len(self.variants) > 1)}{names}"

    def takes(self, value: Any) -> bool:
        """By type."""
        return isinstance(value, dict)

    def read(self, value: Any, at: str, reading: Reading) -> Any:
        """By the variant that the tag names."""
        if not isinstance(value, dict):
            raise InvalidField(at, shown(value), self.words)
        name = value.get(self.tag)
        if name is None:
            name = self.default
        place = f"{at}.{self.tag}" if at else self.tag
        if name is None:
            raise InvalidField(place, None, self._names)
        if not isinstance(name, str) or name not in self.variants:
            if isinstance(name, str) and name in self.refused:
                raise UnsupportedField(place, shown(name), self.refused[name])
            raise InvalidField(place, shown(name), self._names)
        return self.variants[name].read({**value, self.tag: name}, at, reading)

    @property
    def _names(self) -> str:
        return OneOf(tuple(self.variants)).words

    def schema(self) -> Schema:
        """As JSON schema."""
        return {"anyOf": [kind.schema() for kind in self.variants.values()]}


def _is_flat(value: Any, num_levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return num_levels > 0 and all(_is_flat(item, num_levels - 1) for item in inner if isinstance(item, dict | list))
