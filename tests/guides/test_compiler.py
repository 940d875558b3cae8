"""From a spec and a tokenizer to masks: by the text they let through."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from headrace import assets
from headrace.errors import GuideTimeout, InvalidGuide, InvalidRequest
from headrace.text import Tokenizer
from headrace.text.guides import GuideCompiler, GuideSpec, json_in_lark
from tests.guides.answers import EOS, PERSON, VOCAB_SIZE, accepts, ids_of, random_answer
from tests.text.tokenizers_for_tests import byte_fallback, byte_level, metaspace


@pytest.mark.parametrize(
    ("spec", "yes", "no"),
    [
        (GuideSpec.regex("ab?c"), ["ac", "abc"], ["", "a", "abcd", "xac"]),
        (GuideSpec.choice(["yes", "yes please", "no"]), ["yes", "yes please", "no"], ["y", "yesno", "nope"]),
        (GuideSpec.choice(["naïve 😀", 'a"b\\c/d\ne']), ["naïve 😀", 'a"b\\c/d\ne'], ["naive 😀"]),
        (GuideSpec.choice([""]), [""], ["a"]),
        (GuideSpec.grammar('start: "(" start ")" | "x"'), ["x", "((x))"], ["((x)", "()"]),
        (GuideSpec.grammar('root ::= "(" root ")" | [0-9]+'), ["12", "((7))"], ["((7)", "x"]),
        (GuideSpec.json_object(), ["{}", '{"a": [1, {"b": null}]}'], ["[]", "1", '"a"', "{"]),
        (PERSON, ['{"name": "x", "age": 3}', '{\n  "name": "",\n  "age": -1\n}'], ['{"name": "x"}', '{"age":1}']),
        (GuideSpec.json_schema({"type": "object"}), ['{"any": 1}'], ["1"]),
        (GuideSpec.json_schema({"const": "a b"}), ['"a b"'], ['"a  b"', "a b"]),
        (
            GuideSpec.structural('start: "<call>" call "</call>"\ncall: ' + json_in_lark({"type": "integer"})),
            ["<call>12</call>"],
            ["<call>x</call>", "<call>12"],
        ),
    ],
    ids=lambda value: f"{value.kind}-{value.value[:15]}" if isinstance(value, GuideSpec) else None,
)
def test_what_a_guide_lets_through(compiler, tokenizer, spec, yes, no):
    assert [text for text in yes if not accepts(compiler, tokenizer, spec, text)] == []
    assert [text for text in no if accepts(compiler, tokenizer, spec, text)] == []


@pytest.mark.parametrize("blanks", ["", " ", "  ", "\n", "\n    ", "\r\n\t", "\n" + " " * 32])
def test_blanks_between_the_parts_of_json(compiler, tokenizer, blanks):
    assert accepts(compiler, tokenizer, PERSON, f'{{{blanks}"name"{blanks}:{blanks}"x",{blanks}"age": 1{blanks}}}')


@pytest.mark.parametrize("blanks", ["   ", "\n\n", " \n", "\n" + " " * 33, "\t\t\t"])
def test_blanks_are_bounded(compiler, tokenizer, blanks):
    assert not accepts(compiler, tokenizer, PERSON, f'{{"name":{blanks}"x", "age": 1}}')
    inside = GuideSpec.structural("start: " + json_in_lark({"type": "array", "items": {"type": "integer"}}))
    assert accepts(compiler, tokenizer, inside, "[ 1, 2]")
    assert not accepts(compiler, tokenizer, inside, f"[{blanks}1]")


def test_a_schemas_own_options_do_not_take_the_bounds_off(compiler, tokenizer):
    schema = {"type": "array", "items": {"type": "integer"}, "x-guidance": {"whitespace_pattern": r"[ ]+"}}
    assert not accepts(compiler, tokenizer, GuideSpec.json_schema(schema), "[" + " " * 20 + "1]")


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize("seed", range(5))
def test_random_answers_are_of_their_guides(make, seed):
    tokenizer = Tokenizer(make())
    compiler = GuideCompiler(tokenizer, tokenizer.vocab_size + 7)
    tokens, complete = random_answer(compiler.compile(GuideSpec.regex(r"[a-z ]{3}x\d+(é|日本)?")), seed)
    assert complete
    text = tokenizer.decode(tokens)
    # The decoder of SentencePiece takes a space from the front.
    assert re.fullmatch(r"[a-z ]{2,3}x\d+(é|日本)?", text), text
    tokens, complete = random_answer(compiler.compile(PERSON), seed)
    assert complete
    jsonschema.validate(json.loads(tokenizer.decode(tokens)), json.loads(PERSON.value))


def test_the_builtin_models_tokenizer_has_guides():
    tokenizer = Tokenizer(assets.path("builtin"))
    tokens, complete = random_answer(GuideCompiler(tokenizer, tokenizer.vocab_size).compile(PERSON), 1)
    assert complete
    jsonschema.validate(json.loads(tokenizer.decode(tokens)), json.loads(PERSON.value))


def test_no_special_token_and_no_id_without_a_text_is_part_of_a_text(compiler, tokenizer):
    allowed = ids_of(compiler.compile(GuideSpec.regex(r"(.|\n)*")).mask([]))
    assert len(allowed) > 200
    assert not {0, 1, EOS} & set(allowed)
    assert max(allowed) < tokenizer.vocab_size < VOCAB_SIZE


@pytest.mark.parametrize("change", [-100, -1, 0, 1, 31, 32, 33])
def test_masks_have_the_models_width(tokenizer, change):
    vocab_size = tokenizer.vocab_size + change
    mask = GuideCompiler(tokenizer, vocab_size).compile(GuideSpec.regex("(.|\n)*")).mask([])
    assert mask.bits.shape == (-(-vocab_size // 32),)
    assert max(ids_of(mask)) < vocab_size
    assert mask.is_complete


def test_a_tokenizer_that_guides_cannot_be_made_for_is_named():
    with pytest.raises(InvalidRequest, match=r"guides cannot be made for this model's tokenizer .*Metaspace"):
        GuideCompiler(Tokenizer(metaspace()), 300).compile(GuideSpec.json_object())

    class Slow:
        def encode(self, text: str, **_: object) -> list[int]:
            return [0]

        def decode(self, ids: list[int], **_: object) -> str:
            return ""

    with pytest.raises(InvalidRequest, match=r"need a fast tokenizer.*Slow is none"):
        GuideCompiler(Tokenizer(Slow()), 300).compile(GuideSpec.json_object())


def test_a_tokenizer_may_be_loaded_with_the_first_guide(tokenizer):
    loaded = []

    def load() -> Tokenizer:
        loaded.append(tokenizer)
        return tokenizer

    compiler = GuideCompiler(load, VOCAB_SIZE)
    assert not loaded
    for text in ("a", "b"):
        compiler.compile(GuideSpec.regex(text))
    assert len(loaded) == 1


def test_what_does_not_compile_is_refused(compiler):
    with pytest.raises(InvalidGuide, match="unclosed group"):
        compiler.compile(GuideSpec.regex("(a"))


def test_what_was_compiled_last_is_kept(tokenizer):
    compiler = GuideCompiler(tokenizer, VOCAB_SIZE, max_cached=3)
    for pattern in "abcabd":
        compiler.compile(GuideSpec.regex(pattern))
    assert compiler.num_cached == 3
    compiler = GuideCompiler(tokenizer, VOCAB_SIZE, max_cached_chars=100)
    for i in range(5):
        compiler.compile(GuideSpec.regex(f"{i}" * 40))
    assert compiler.num_cached == 2
    compiler.compile(GuideSpec.regex("x" * 400))
    assert compiler.num_cached == 1  # the last one, whatever its size


def test_compiling_has_a_time_limit(tokenizer):
    compiler = GuideCompiler(tokenizer, VOCAB_SIZE, timeout_s=0.0)
    with pytest.raises(GuideTimeout, match="within 0 s"):
        compiler.compile(GuideSpec.json_schema({"properties": {f"p{i}": {"type": "string"} for i in range(2000)}}))
