"""From a spec to the text that llguidance compiles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.errors import InvalidGuide
from headrace.text.guides.bounds import check_lark, check_regex, check_schema, parse_json
from headrace.text.guides.spec import GuideSpec

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_WHITESPACE = r"\r?\n[ \t]{0,32}|[ \t]{1,2}"
"""Between the parts of JSON: a new line and its indentation, or up to two blanks. With unbounded whitespace a model
that likes blanks prints them until its tokens are used up, and all of it is of the grammar."""

_MAX_CHARS = 400

_WORDS = {
    "NoExtensionBias": "no answer follows it: it allows nothing, or a rule of it leads back to itself without end"
}
"""What llguidance says in a word of its own."""


def to_llguidance(spec: GuideSpec) -> str:
    """The grammar in llguidance's own form; InvalidGuide for what can be seen to be wrong without compiling."""
    try:
        return _convert(spec)
    except (ValueError, RecursionError) as error:  # UnicodeEncodeError too: half of a surrogate pair
        if isinstance(error, InvalidGuide):
            raise
        raise invalid(spec, str(error) or "it is nested too deep") from error


def invalid(spec: GuideSpec, words: str) -> InvalidGuide:
    """The error of a spec that does not compile, with the compiler's words."""
    first, *_ = [*words.split(), ""]
    return InvalidGuide(f"the guide's {spec.kind} cannot be used: {shortened(_WORDS.get(first, words))}")


def shortened(words: str) -> str:
    """In one line, and its middle left out where it is long: the reason mostly stands at one of the ends."""
    line = " ".join(words.removesuffix("<non-verbose/>").split())
    return line if len(line) <= _MAX_CHARS else f"{line[: _MAX_CHARS // 2]} … {line[-_MAX_CHARS // 2 :]}"


def json_in_lark(schema: Mapping[str, Any]) -> str:
    """A schema as a part of a Lark grammar (`%json {…}`), with the same options as a guide of that schema."""
    return "%json " + json.dumps({**schema, "x-guidance": _json_options(strict=False)}, ensure_ascii=False)


def _json_options(strict: bool) -> JsonCompileOptions:
    return {
        "whitespace_flexible": True,
        "whitespace_pattern": _WHITESPACE,
        "lenient": not strict,
        "coerce_one_of": not strict,
    }


def _convert(spec: GuideSpec) -> str:
    from llguidance import LLMatcher

    match spec.kind:
        case "json_object":
            return LLMatcher.grammar_from_json_schema({"type": "object"}, overrides=_json_options(True))
        case "json_schema":
            check_schema(spec.value)
            # The schema `true` as one that can carry options.
            schema = "{}" if spec.value.strip() == "true" else spec.value
            return LLMatcher.grammar_from_json_schema(schema, overrides=_json_options(spec.strict))
        case "regex":
            check_regex(spec.value)
            return LLMatcher.grammar_from_regex(spec.value)
        case "grammar":
            return LLMatcher.grammar_from_lark(_as_lark(spec.value))
        case "choice":
            return LLMatcher.grammar_from_lark(_choices_as_lark(spec.value))
        case "structural":
            check_lark(spec.value)
            return LLMatcher.grammar_from_lark(spec.value)


def _as_lark(text: str) -> str:
    """Lark as it is; GBNF as Lark."""
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        lark = any_to_lark(text)
    except Exception as error:  # it raises Exception itself for a rule that is missing
        raise InvalidGuide(
            f"the guide's grammar is neither Lark (without a rule named start) nor GBNF: {shortened(str(error))}"
        ) from error
    check_lark(lark)
    return lark


def _choices_as_lark(value: str) -> str:
    choices = parse_json(value)
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
        raise InvalidGuide("the choices of a guide must be a list of strings, at least one")
    return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
