"""What an answer must be, as a caller says it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from headrace.errors import InvalidGuide

GuideKind = Literal["json_object", "json_schema", "regex", "grammar", "choice", "structural"]

MAX_SPEC_CHARS = 262_144
"""Longest text of a guide. It also bounds how deep its rules can refer to each other, and with it the stack."""


@dataclass(frozen=True, slots=True)
class GuideSpec:
    """What an answer must be. Plain data: it can be compared, hashed and sent.

    Attributes:
        kind: json_object: any JSON object. json_schema: JSON of a schema. regex: the whole answer matches (Rust's
            syntax, without look-around). grammar: Lark, as llguidance has it, or GBNF. choice: one of a few strings.
            structural: Lark that headrace itself wrote, for calls of tools.
        value: the schema or the list of choices as JSON text, the expression, or the grammar; empty for json_object.
        strict: of json_schema: a keyword that is not enforced is refused. Without it such keywords are left out, and
            `oneOf` is taken for `anyOf`: an answer may then break these parts of its schema.

    Raises:
        InvalidGuide: a kind that there is not, or a text that is too long.
    """

    kind: GuideKind
    value: str = ""
    strict: bool = True

    def __post_init__(self) -> None:
        """Check the form; the content is for `check`."""
        if self.kind not in get_args(GuideKind):
            raise InvalidGuide(f"guide kind {self.kind!r} is not one of {', '.join(get_args(GuideKind))}")
        if not isinstance(self.value, str):
            raise InvalidGuide(f"the {self.kind} of a guide must be text, not {type(self.value).__name__}")
        if len(self.value) > MAX_SPEC_CHARS:
            raise InvalidGuide(
                f"the {self.kind} of this guide has {len(self.value)} characters; {MAX_SPEC_CHARS} are allowed"
            )

    @classmethod
    def json_object(cls) -> GuideSpec:
        """Any JSON object."""
        return cls("json_object")

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str, strict: bool = True) -> GuideSpec:
        """JSON of a schema, given as Python data or as JSON text; InvalidGuide for what JSON cannot hold."""
        return cls("json_schema", schema if isinstance(schema, str) else _as_json("schema", schema), strict)

    @classmethod
    def regex(cls, pattern: str) -> GuideSpec:
        """An answer that the regular expression matches as a whole."""
        return cls("regex", pattern)

    @classmethod
    def grammar(cls, text: str) -> GuideSpec:
        """An answer of a context-free grammar, in Lark or GBNF."""
        return cls("grammar", text)

    @classmethod
    def choice(cls, choices: Sequence[str]) -> GuideSpec:
        """One of several strings."""
        return cls("choice", _as_json("list of choices", list(choices)))

    @classmethod
    def structural(cls, lark: str) -> GuideSpec:
        """A Lark grammar that was not written by a caller."""
        return cls("structural", lark)


def _as_json(what: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidGuide(f"the {what} of a guide cannot be written as JSON: {error}") from error
