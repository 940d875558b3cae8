"""What is refused before anything waits for it, and in which words."""

from __future__ import annotations

import msgspec
import pytest

from headrace import SamplingParams
from headrace.errors import GuideTimeout, InvalidGuide, InvalidParameter
from headrace.text.guides import GuideSpec, check, json_in_lark
from headrace.text.guides.spec import MAX_SPEC_CHARS


def test_specs_are_plain_data_that_can_be_compared_hashed_and_sent():
    spec = GuideSpec.json_schema({"type": "object"}, strict=False)
    assert spec == GuideSpec("json_schema", '{"type": "object"}', False)
    assert len({spec, GuideSpec.json_schema('{"type": "object"}', strict=False), GuideSpec.json_object()}) == 2
    params = SamplingParams(guide=spec, temperature=0.5)
    sent = msgspec.msgpack.encode(params, enc_hook=dict)
    assert msgspec.msgpack.decode(sent, type=SamplingParams) == params


@pytest.mark.parametrize(
    "spec",
    [
        GuideSpec.json_object(),
        GuideSpec.json_schema({}),
        GuideSpec.json_schema(True),
        GuideSpec.json_schema('{"type": "object", "x-guidance": {"whitespace_flexible": false}}'),
        GuideSpec.regex(r"\d{3}-[a-zé]+"),
        GuideSpec.grammar('start: "a" | "b" start'),
        GuideSpec.grammar('root ::= "a" | "b" root'),
        GuideSpec.choice(["yes", "no", "“perhaps” 😀\n/\\"]),
        GuideSpec.structural('start: "<tool>" args\nargs: ' + json_in_lark({"type": "object"})),
    ],
    ids=lambda spec: f"{spec.kind}-{spec.value[:20]}",
)
def test_what_compiles_is_accepted(spec):
    check(spec)
    check(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (GuideSpec.json_schema('{"type": '), "cannot be read"),
        (GuideSpec.json_schema("[1]"), "must be an object or true, not [1]"),
        (GuideSpec.json_schema(False), "must be an object or true, not false"),
        (GuideSpec.json_schema({"type": "text"}), "Invalid type: text"),
        (GuideSpec.json_schema({"uniqueItems": True}), 'Unimplemented keys: ["uniqueItems"]'),
        (GuideSpec.json_schema({"type": "string", "format": "iri"}), "Unknown format: iri"),
        (GuideSpec.json_schema({"type": "integer", "minimum": 2, "maximum": 1}), "minimum (2) is greater than"),
        (GuideSpec.json_schema({"$ref": "#/nowhere"}), "does not exist"),
        (GuideSpec.json_schema({"$ref": "http://example.com/schema"}), "not present in a registry"),
        (GuideSpec.json_schema({"oneOf": [{"type": "string"}, {"minLength": 3}]}), "oneOf"),
        (GuideSpec.regex("(a"), "unclosed group"),
        (GuideSpec.regex("a(?=b)"), "look-ahead"),
        (GuideSpec.grammar('start: "a" missing'), 'unknown name: "missing"'),
        (GuideSpec.grammar('root ::= "a" | missing'), "missing"),
        (GuideSpec.grammar("what is this"), "neither Lark"),
        (GuideSpec.grammar(""), "grammar"),
        (GuideSpec.choice([]), "at least one"),
        (GuideSpec("choice", '{"a": 1}'), "list of strings"),
        (GuideSpec("choice", "[1]"), "list of strings"),
        (GuideSpec.choice(["\ud800"]), "surrogates"),
        (GuideSpec.regex("\ud800"), "surrogates"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_what_does_not_compile_is_refused_in_the_compilers_words(spec, words):
    for _ in range(2):  # the second time it is known
        with pytest.raises(InvalidGuide, match=r".") as caught:
            check(spec)
        assert words in str(caught.value)
        assert len(str(caught.value)) < 600


def test_what_is_not_strict_leaves_out_what_it_cannot_enforce():
    check(GuideSpec.json_schema({"type": "array", "uniqueItems": True}, strict=False))
    check(GuideSpec.json_schema({"oneOf": [{"type": "string"}, {"minLength": 3}]}, strict=False))


def test_the_form_is_checked_at_once():
    with pytest.raises(InvalidGuide, match="'yaml' is not one of json_object, json_schema"):
        GuideSpec("yaml", "")  # type: ignore[arg-type]
    with pytest.raises(InvalidGuide, match="must be text, not dict"):
        GuideSpec("json_schema", {})  # type: ignore[arg-type]
    with pytest.raises(InvalidGuide, match=f"{MAX_SPEC_CHARS + 1} characters"):
        GuideSpec.regex("a" * (MAX_SPEC_CHARS + 1))
    with pytest.raises(InvalidGuide, match="cannot be written as JSON"):
        GuideSpec.json_schema({"const": float("nan")})
    with pytest.raises(InvalidGuide, match="cannot be written as JSON"):
        GuideSpec.json_schema({"const": object()})
    with pytest.raises(InvalidParameter, match="a GuideSpec"):
        SamplingParams(guide={"type": "object"})  # type: ignore[arg-type]


def test_a_check_that_takes_too_long_is_given_up_and_not_remembered():
    spec = GuideSpec.json_schema({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3000)}})
    with pytest.raises(GuideTimeout, match="within"):
        check(spec, timeout_s=0.0)
    check(spec)
