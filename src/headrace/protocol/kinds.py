"""Kinds of values: each reads one, says in words what it takes, and describes itself as a JSON schema.

One description of a field is what is checked, what docs/api.md says and what /openapi.json says.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import InvalidField, UnsupportedField
from headrace.protocol.shown import shown

Schema = dict[str, Any]
_INT64 = 2**63 - 1
MAX_DEPTH = 100
"""Levels of a JSON object that is handed on: a schema, metadata, keyword arguments of a chat template."""


@dataclass(slots=True)
class Reading:
    """One body that is being read.

    Attributes:
        strict: unknown fields are errors.
        ignored: paths of the unknown fields.
    """

    strict: bool = False
    ignored: list[str] = field(default_factory=list)


class Kind(ABC):
    """What a value may be."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What is taken, to stand after "is not allowed: "."""

    @abstractmethod
    def takes(self, value: Any) -> bool:
        """Whether the value is of the right JSON type; its range is looked at by `read`."""

    @abstractmethod
    def schema(self) -> Schema:
        """As JSON schema."""

    def read(self, value: Any, at: str, reading: Reading) -> Any:
        """The value, normalised.

        Raises:
            InvalidField: it is not of this kind; `at` is its path.
        """
        if not self.takes(value):
            raise InvalidField(at, shown(value), self.words)
        return value


@dataclass(frozen=True, slots=True)
class Boolean(Kind):
    """True or false."""

    @property
    def words(self) -> str:
        """For messages."""
        return "true or false"

    def takes(self, value: Any) -> bool:
        """By type."""
        return isinstance(value, bool)

    def schema(self) -> Schema:
        """As JSON schema."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Integer(Kind):
    """A whole number; 5.0 is one too, as for JSON schema."""

    low: int = -_INT64
    high: int = _INT64

    @property
    def words(self) -> str:
        """For messages."""
        return "an integer" + _range(self.low, self.high)

    def takes(self, value: Any) -> bool:
        """By type."""
        if isinstance(value, float):
            return value.is_integer()
        return isinstance(value, int) and not isinstance(value, bool)

    def read(self, value: Any, at: str, reading: Reading) -> int:
        """Also its range."""
        if not self.takes(value) or not self.low <= value <= self.high:
            raise InvalidField(at, shown(value), self.words)
        return int(value)

    def schema(self) -> Schema:
        """As JSON schema."""
        return {"type": "integer"} | _bounds(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A finite number."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False

    @property
    def words(self) -> str:
        """For messages."""
        if self.low_open:
            return f"a number of more than {self.low:g}" + _range(-_INT64, self.high, " and")
        return "a number" + _range(self.low, self.high)

    def takes(self, value: Any) -> bool:
        """By type."""
        return isinstance(value, int | float) and not isinstance(value, bool)

    def read(self, value: Any, at: str, reading: Reading) -> float:
        """Also its range."""
        fits = self.takes(value) and abs(value) < 1e300 and self.low <= value <= self.high
        if not fits or (self.low_open and value == self.low):
            raise InvalidField(at, shown(value), self.words)
        return float(value)

    def schema(self) -> Schema:
        """As JSON schema."""
        bounds = _bounds(self.low, self.high)
        if self.low_open:
            bounds["exclusiveMinimum"] = bounds.pop("minimum")
        return {"type": "number"} | bounds


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """A string."""

    min_length: int = 0
    max_length: int | None = None

    @property
    def words(self) -> str:
        """For messages."""
        at_most = "" if self.max_length is None else f" of at most {self.max_length} characters"
        return f"a string{at_most}{' that is not empty' * bool(self.min_length)}"

    def takes(self, value: Any) -> bool:
        """By type."""
        return isinstance(value, str)

    def read(self, value: Any, at: str, reading: Reading) -> str:
        """Also its length."""
        fits = isinstance(value, str) and len(value) >= self.min_length
        if not fits or (self.max_length is not None and len(value) > self.max_length):
            raise InvalidField(at, shown(value), self.words)
        return str(value)

    def schema(self) -> Schema:
        """As JSON schema."""
        schema: Schema = {"type": "string"}
        if self.min_length:
            schema["minLength"] = self.min_length
        if self.max_length is not None:
            schema["maxLength"] = self.max_length
        return schema


@dataclass(frozen=True, slots=True)
class OneOf(Kind):
    """One of a few strings."""

    values: tuple[str, ...]

    @property
    def words(self) -> str:
        """For messages."""
        return (
            "one of " + ", ".join(f'"{value}"' for value in self.values)
            if len(self.values) > 1
            else (f'"{self.values[0]}"')
        )

    def takes(self, value: Any) -> bool:
        """By value, so that it can stand beside other kinds of strings."""
        return isinstance(value, str) and value in self.values

    def schema(self) -> Schema:
        """As JSON schema."""
        return {"type": "string", "enum": list(self.values)}


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
        if value and (set(map(type, value)) != {int} or min(value) < 0 or max(value) > _INT64):
            place, wrong = next((p, i) for p, i in enumerate(value) if type(i) is not int or not 0 <= i <= _INT64)
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
        return self.variants[name].read(value if self.tag in value else {**value, self.tag: name}, at, reading)

    @property
    def _names(self) -> str:
        return OneOf(tuple(self.variants)).words

    def schema(self) -> Schema:
        """As JSON schema."""
        return {"anyOf": [kind.schema() for kind in self.variants.values()]}


def _range(low: float, high: float, start: str = " of") -> str:
    bounds = [f"at least {low:g}"] * (low > -_INT64) + [f"at most {high:g}"] * (high < _INT64)
    return f"{start} {' and '.join(bounds)}" if bounds else ""


def _bounds(low: float, high: float) -> Schema:
    return {name: bound for name, bound in (("minimum", low), ("maximum", high)) if abs(bound) < _INT64}


def _is_flat(value: Any, num_levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return num_levels > 0 and all(_is_flat(item, num_levels - 1) for item in inner if isinstance(item, dict | list))
