"""Kinds of single values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from headrace.errors import InvalidField
from headrace.protocol.kinds.kind import INT64, Kind, Reading, Schema
from headrace.protocol.shown import shown

_FAR = 1e300
"""Numbers beyond become infinite in sums and products."""


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

    low: int = -INT64
    high: int = INT64

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
            is_far = self.takes(value) and abs(value) > INT64 <= self.high
            words = f"{self.words}, between {self.low} and {self.high}" if is_far else self.words
            raise InvalidField(at, shown(value), words)
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
            return f"a number of more than {self.low:g}" + _range(-INT64, self.high, " and")
        return "a number" + _range(self.low, self.high)

    def takes(self, value: Any) -> bool:
        """By type."""
        return isinstance(value, int | float) and not isinstance(value, bool)

    def read(self, value: Any, at: str, reading: Reading) -> float:
        """Also its range."""
        fits = self.takes(value) and abs(value) < _FAR and self.low <= value <= self.high
        if not fits or (self.low_open and value == self.low):
            is_far = self.takes(value) and abs(value) >= _FAR and math.isinf(self.high)
            raise InvalidField(at, shown(value), f"{self.words}, of a size below {_FAR:g}" if is_far else self.words)
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


def _range(low: float, high: float, start: str = " of") -> str:
    bounds = [f"at least {low:g}"] * (low > -INT64) + [f"at most {high:g}"] * (high < INT64)
    return f"{start} {' and '.join(bounds)}" if bounds else ""


def _bounds(low: float, high: float) -> Schema:
    return {name: bound for name, bound in (("minimum", low), ("maximum", high)) if abs(bound) < INT64}
