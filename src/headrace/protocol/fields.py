"""What a field of a body is to headrace, and objects made of fields.

Every field of every endpoint is in one of five classes, and in the tables of `headrace.protocol.table`:

    supported       it does what the interface says
    informational   taken, without effect on the answer by its nature (`user`, `metadata`, `store` …)
    unsupported     known, and refused by name with what would work, unless its value asks for nothing (`neutral`)
    internal        what the parts of headrace say to each other; clients have no use for it
    (unknown)       in no table: taken and reported in the header x-ignored-fields; refused under strict_fields

null means "not given" wherever a field is not required, as in the official clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal

from headrace.errors import InvalidField, UnknownField, UnsupportedField
from headrace.protocol.kinds import Anything, Kind, Reading, Schema
from headrace.protocol.shown import shown

Support = Literal["supported", "informational", "unsupported", "internal"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a body.

    Attributes:
        name: on the wire.
        kind: of its value.
        note: what it does here, for docs/api.md; of an unsupported field: what would work.
        support: its class.
        required: it may be neither missing nor null.
        neutral: values of an unsupported field that ask for nothing.
    """

    name: str
    kind: Kind
    note: str = ""
    support: Support = "supported"
    required: bool = False
    neutral: tuple[Any, ...] = ()

    def schema(self) -> Schema:
        """As JSON schema, with null where that is the same as not given."""
        if self.support == "unsupported":
            return {"enum": [None, *self.neutral], "description": f"Not supported: {self.note}"}
        schema = self.kind.schema() if self.required else {"anyOf": [self.kind.schema(), {"type": "null"}]}
        if self.note:
            schema = schema | {"description": self.note}
        return schema


def informational(name: str, kind: Kind, note: str) -> Field:
    """A field without effect on the answer."""
    return Field(name, kind, note, "informational")


def unsupported(name: str, instead: str, *neutral: Any) -> Field:
    """A field that is refused, with what would work, unless its value is neutral."""
    return Field(name, Anything(), instead, "unsupported", neutral=neutral)


@dataclass(frozen=True)
class Object(Kind):
    """An object of fields.

    Attributes:
        fields: that there are. what: in words.
        open: unknown fields are kept and handed on, not reported as ignored.
    """

    fields: tuple[Field, ...]
    what: str = "an object"
    open: bool = False
    _by_name: Mapping[str, Field] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the fields."""
        object.__setattr__(self, "_by_name", {item.name: item for item in self.fields})

    @property
    def words(self) -> str:
        """For messages."""
        return self.what

    def takes(self, value: Any) -> bool:
        """By type."""
        return isinstance(value, dict)

    def read(self, value: Any, at: str, reading: Reading) -> dict[str, Any]:
        """Only the fields that are given, normalised."""
        if not isinstance(value, dict):
            raise InvalidField(at or "the body", shown(value), self.words)
        start = f"{at}." if at else ""
        result: dict[str, Any] = {}
        for name, item in value.items():
            known = self._by_name.get(name)
            if known is None:
                self._unknown(name, item, start, reading, result)
            elif item is not None or known.required:
                if known.support != "unsupported":
                    result[name] = known.kind.read(item, start + name, reading)
                elif not _is_neutral(item, known.neutral):
                    raise UnsupportedField(start + name, shown(item), known.note)
        for name in self._required:
            if name not in result:
                raise InvalidField(start + name, None, self._by_name[name].kind.words)
        return result

    def _unknown(self, name: str, item: Any, start: str, reading: Reading, result: dict[str, Any]) -> None:
        if self.open:
            result[name] = item
        elif reading.strict:
            near = get_close_matches(name, self._by_name, n=1)
            raise UnknownField(start + name[:60], start + near[0] if near else None)
        else:
            reading.ignored.append(start + name)

    @cached_property
    def _required(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.fields if item.required)

    def schema(self) -> Schema:
        """As JSON schema."""
        schema: Schema = {"type": "object", "properties": {item.name: item.schema() for item in self.fields}}
        if self._required:
            schema["required"] = list(self._required)
        return schema

    def with_fields(self, *more: Field) -> Object:
        """These fields and more; a later one of the same name takes the place of an earlier one."""
        merged = {item.name: item for item in (*self.fields, *more)}
        return Object(tuple(merged.values()), self.what, self.open)

    def __iter__(self) -> Iterator[Field]:
        """The fields."""
        return iter(self.fields)


def fields_of(*groups: Field | Iterable[Field]) -> Object:
    """A body of these fields."""
    flat: list[Field] = []
    for group in groups:
        flat.extend([group] if isinstance(group, Field) else group)
    return Object(tuple(flat), "a JSON object")


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    return any(type(value) is type(item) and value == item for item in neutral)
