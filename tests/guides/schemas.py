"""Schemas by the hundred, the same ones every time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

PATTERNS = ["^[a-z]{1,6}$", "^[A-Z][a-z]{0,4}$", r"^\d{3}-\d{4}$", "^(red|green|blue)[0-9]?$", "ab", r"^[^\s]{2,5}$"]
FORMATS = ["date", "time", "date-time", "ipv4", "ipv6", "uuid", "email"]
WORDS = ["name", "age", "tags", "id", "kind", "value", "left", "right", "a b", "naïve", "x-y", "note"]


def schemas(count: int, seed: int = 0) -> list[Schema]:
    """Objects for the most part, nested up to three deep, with every keyword that is enforced."""
    return [_top(random.Random(seed * 100_003 + i), i) for i in range(count)]


def _top(rng: random.Random, number: int) -> Schema:
    special = [_recursive, _shared, _union, _tagged, _tuple, _mapping, _merged]
    if number % 3 == 0:
        return special[number // 3 % len(special)](rng)
    return _object(rng, rng.randint(1, 2)) if number % 10 else _any(rng, 2)


def _any(rng: random.Random, depth: int) -> Schema:
    if depth > 0 and rng.random() < 0.5:
        return rng.choice([_object, _array, _tuple_of])(rng, depth - 1)
    return _leaf(rng)


def _leaf(rng: random.Random) -> Schema:
    leaves: list[Callable[[], Schema]] = [
        lambda: {"type": "string", "maxLength": rng.randint(1, 12)},
        lambda: {"type": "string", "minLength": 2, "maxLength": rng.randint(2, 9)},
        lambda: {"type": "string", "pattern": rng.choice(PATTERNS), "maxLength": 20},
        lambda: {"type": "string", "format": rng.choice(FORMATS)},
        lambda: {"enum": rng.sample(["red", "green", "blue", 1, 2.5, None, True, 'a"b', "你好"], rng.randint(1, 5))},
        lambda: {"const": rng.choice(["fixed", 42, False, None, ["a", 1], {"k": "v"}])},
        lambda: {"type": "integer", "minimum": rng.randint(-50, 0), "maximum": rng.randint(1, 1000)},
        lambda: {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": rng.randint(2, 99)},
        lambda: {"type": "integer", "multipleOf": rng.choice([2, 5, 10]), "minimum": 0, "maximum": 1000},
        lambda: {"type": "number", "minimum": -1.5, "maximum": rng.choice([0.25, 1, 99.5])},
        lambda: {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        lambda: {"type": "boolean"},
        lambda: {"type": ["string", "null"], "maxLength": 5},
        lambda: {"type": ["integer", "boolean"], "minimum": 0, "maximum": 9},
    ]
    return rng.choice(leaves)()


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(WORDS, rng.randint(1, 4))
    return {
        "type": "object",
        "title": "made by chance",
        "properties": {name: _any(rng, depth) for name in names},
        "required": [name for name in names if rng.random() < 0.7],
        "additionalProperties": False,
    }


def _array(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(0, 2)
    return {"type": "array", "items": _any(rng, depth), "minItems": low, "maxItems": low + rng.randint(0, 3)}


def _tuple_of(rng: random.Random, depth: int) -> Schema:
    count = rng.randint(1, 3)
    items = [_any(rng, depth) for _ in range(count)]
    return {"type": "array", "prefixItems": items, "minItems": count, "items": False}


def _tuple(rng: random.Random) -> Schema:
    return _tuple_of(rng, 1)


def _recursive(rng: random.Random) -> Schema:
    node = {
        "type": "object",
        "properties": {
            "value": _leaf(rng),
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 1},
        },
        "required": ["value"],
        "additionalProperties": False,
    }
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"}


def _shared(rng: random.Random) -> Schema:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"part": _object(rng, 0), "number": {"type": "integer", "minimum": 0, "maximum": 99}},
        "type": "object",
        "properties": {
            "first": {"$ref": "#/$defs/part"},
            "others": {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 2},
            "count": {"$ref": "#/$defs/number"},
        },
        "required": ["first", "count"],
        "additionalProperties": False,
    }


def _union(rng: random.Random) -> Schema:
    return {"anyOf": [_object(rng, 0), _leaf(rng), _array(rng, 0)]}


def _tagged(rng: random.Random) -> Schema:
    """A union told apart by a constant, as pydantic writes it."""

    def case(tag: str) -> Schema:
        properties = {"kind": {"const": tag}, rng.choice(WORDS[5:]): _leaf(rng)}
        return {"type": "object", "properties": properties, "required": ["kind"], "additionalProperties": False}

    return {"type": "object", "properties": {"item": {"oneOf": [case("circle"), case("square")]}}, "required": ["item"],
            "additionalProperties": False}  # fmt: skip


def _mapping(rng: random.Random) -> Schema:
    if rng.random() < 0.5:
        return {"type": "object", "additionalProperties": _leaf(rng), "maxProperties": 2}
    return {
        "type": "object",
        "properties": {"id": {"type": "integer", "minimum": 1, "maximum": 9}},
        "patternProperties": {"^x_[a-z]{1,3}$": _leaf(rng)},
        "required": ["id"],
        "additionalProperties": False,
    }


def _merged(rng: random.Random) -> Schema:
    parts = [{"type": "object", "properties": {name: _leaf(rng)}, "required": [name]} for name in ("left", "right")]
    return {"allOf": parts, "type": "object", "maxProperties": 2}
