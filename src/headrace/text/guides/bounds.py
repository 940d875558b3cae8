"""How large a regular expression may be: the one thing that llguidance itself does not bound.

Its limits of fuel, states and items keep every other hostile grammar that was tried to milliseconds and megabytes.
But the derivatives of a lexeme (a regular expression, a terminal of a grammar) of n optional parts take memory in the
order of n², and a terminal is expanded before anything is counted: 120 characters of Lark, five terminals that each
repeat the one before ten times, took 17 GB.
"""

from __future__ import annotations

import json
import re
from typing import Any

from headrace.errors import InvalidGuide

MAX_LEXEME_CHARS = 4_096
"""Of one regular expression; of one terminal with all that it refers to. Measured: 2,000 optional parts take 16 MB."""

MAX_ALL_LEXEMES_CHARS = 65_536
"""Of all of them in one guide."""

_MAX_JSON_DEPTH = 128  # llguidance's own

_LARK_TOKEN = re.compile(
    r"""
    (?P<comment> //[^\n]* | \#[^\n]* )
  | (?P<literal> "(?:\\.|[^"\\\n])*" | /(?:\\.|[^/\\\n])+/ )
  | (?P<json> %json\s* (?=\{) )
  | (?P<definition> [?!]?[A-Za-z_]\w* (?:\[[^\]\n]*\])? (?:\{[^}\n]*\})? (?:\.-?\d+)? [ \t]* :(?!:) )
  | (?P<name> [A-Za-z_]\w* )
    """,
    re.VERBOSE,
)
_NAME = re.compile(r"\w+")


def check_regex(pattern: str) -> None:
    """Raise InvalidGuide when a regular expression is too long."""
    if len(pattern) > MAX_LEXEME_CHARS:
        raise InvalidGuide(f"the regular expression has {len(pattern)} characters; {MAX_LEXEME_CHARS} are allowed")


def check_schema(text: str) -> None:
    """Raise InvalidGuide when a JSON schema is none, or its patterns are too long, alone or together."""
    schema = parse_json(text)
    if not isinstance(schema, dict) and schema is not True:
        raise InvalidGuide(f"a JSON schema must be an object or true, not {shown(schema)}")
    _check_total(_patterns_length(schema))


def check_lark(text: str) -> None:
    """Raise InvalidGuide when a terminal of a Lark grammar is too long once all that it refers to is put in."""
    own: dict[str, int] = {}  # characters of literals, by terminal
    refers: dict[str, list[str]] = {}
    current, position, total = "", 0, 0
    while (found := _LARK_TOKEN.search(text, position)) is not None:
        position = found.end()
        if found["json"]:
            value, position = _json_at(text, position)
            total += _patterns_length(value)
        elif found["definition"]:
            match = _NAME.search(found["definition"])
            assert match is not None
            current = match[0]
            own.setdefault(current, 0)
            refers.setdefault(current, [])
        elif found["literal"]:
            own[current] = own.get(current, 0) + len(found["literal"])
            if found["literal"][0] == "/":
                check_regex(found["literal"])
        elif found["name"] and found["name"].isupper():
            refers.setdefault(current, []).append(found["name"])
    sizes = _expanded(own, refers)
    for name, size in sizes.items():
        if name.isupper() and size > MAX_LEXEME_CHARS:
            raise InvalidGuide(
                f"terminal {name} has {size} characters with all that it refers to; {MAX_LEXEME_CHARS} are allowed: "
                "write it as a rule, in lower case"
            )
    _check_total(total + sum(size for name, size in sizes.items() if name.isupper()))


def parse_json(text: str) -> Any:
    """The JSON value of a text; InvalidGuide when it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidGuide(f"the guide's JSON cannot be read: {error}") from error
    except RecursionError as error:
        raise InvalidGuide(f"the guide's JSON is nested deeper than {_MAX_JSON_DEPTH}") from error


def shown(value: Any) -> str:
    """The beginning of a value as JSON."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]} …"


def _json_at(text: str, position: int) -> tuple[Any, int]:
    try:
        return json.JSONDecoder().raw_decode(text, position)
    except ValueError as error:
        raise InvalidGuide(f"the JSON after %json in the grammar cannot be read: {error}") from error
    except RecursionError as error:
        raise InvalidGuide(f"the JSON after %json is nested deeper than {_MAX_JSON_DEPTH}") from error


def _patterns_length(schema: Any) -> int:
    """Characters of all patterns in a schema, wherever they stand; InvalidGuide when one is too long."""
    total, left = 0, [(schema, 0)]
    while left:
        value, depth = left.pop()
        if depth > _MAX_JSON_DEPTH:
            raise InvalidGuide(f"the guide's JSON is nested deeper than {_MAX_JSON_DEPTH}")
        if isinstance(value, list):
            left += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            left += [(item, depth + 1) for item in value.values()]
            named = value.get("patternProperties")
            patterns = [value.get("pattern"), *(named if isinstance(named, dict) else ())]
            for pattern in patterns:
                if isinstance(pattern, str):
                    check_regex(pattern)
                    total += len(pattern)
    return total


def _expanded(own: dict[str, int], refers: dict[str, list[str]]) -> dict[str, int]:
    """Characters of each terminal with all that it refers to. Without recursion: terminals may be chained by thousands.

    A reference that leads back counts nothing here; llguidance refuses it in its own words.
    """
    sizes: dict[str, int] = {}
    for first in own:
        stack, open_names = [first], {first}
        while stack:
            name = stack[-1]
            if name in sizes:
                stack.pop()
                continue
            waiting = [ref for ref in refers.get(name, ()) if ref in own and ref not in sizes and ref not in open_names]
            if waiting and name.isupper():
                stack.append(waiting[0])
                open_names.add(waiting[0])
                continue
            parts = sum(sizes.get(ref, 0) for ref in refers.get(name, ())) if name.isupper() else 0
            sizes[name] = own[name] + parts
            open_names.discard(name)
            stack.pop()
    return sizes


def _check_total(length: int) -> None:
    if length > MAX_ALL_LEXEMES_CHARS:
        raise InvalidGuide(
            f"the guide's regular expressions and terminals have {length} characters together; "
            f"{MAX_ALL_LEXEMES_CHARS} are allowed"
        )
