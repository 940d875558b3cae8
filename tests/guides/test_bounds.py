"""Hostile texts: none takes the process down, nor its memory, nor much time."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap

import pytest

from headrace.errors import InvalidGuide
from headrace.text.guides import GuideSpec, check
from headrace.text.guides.bounds import MAX_ALL_LEXEMES_CHARS, MAX_LEXEME_CHARS, check_lark, check_schema


def chain(count: int, upper: bool = False) -> str:
    name = "A" if upper else "a"
    rules = "\n".join(f"{name}{i}: {name}{i + 1}" for i in range(count))
    return f'start: {name}0\n{rules}\n{name}{count}: "a"'


def repeated(levels: int, name: str = "T") -> str:
    """Terminals that each repeat the one before ten times."""
    rules = "\n".join(f"{name}{i}: " + f"{name}{i - 1} " * 10 for i in range(1, levels + 1))
    return f'start: {name}{levels}\n{name}0: "a"?\n{rules}'


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (GuideSpec.regex("a?" * MAX_LEXEME_CHARS), f"{2 * MAX_LEXEME_CHARS} characters"),
        (GuideSpec.grammar(repeated(5)), "write it as a rule, in lower case"),
        (GuideSpec.structural(repeated(5)), "write it as a rule, in lower case"),
        (GuideSpec.grammar(f"start: /{'a?' * MAX_LEXEME_CHARS}/"), "characters"),
        (GuideSpec.grammar(f"start: T\nT: {'X ' * 2000}\nX: /a?b?/"), "terminal T has"),
        (GuideSpec.json_schema({"pattern": "a?" * MAX_LEXEME_CHARS}), "regular expression"),
        (GuideSpec.json_schema({"patternProperties": {"a?" * MAX_LEXEME_CHARS: {}}}), "regular expression"),
        (GuideSpec.json_schema({"items": [{"pattern": f"{i}" + "a?" * 2000} for i in range(20)]}), "together"),
        (GuideSpec.grammar('start: %json {"pattern": "' + "a?" * MAX_LEXEME_CHARS + '"}'), "regular expression"),
        (GuideSpec.grammar("start: %json {nonsense"), "after %json"),
        (GuideSpec.json_schema('{"items":' * 5000 + "{}" + "}" * 5000), "nested deeper"),
        (GuideSpec.json_schema('{"items":' * 200 + "{}" + "}" * 200), "nested deeper"),
        (GuideSpec.regex("(" * 2000 + "a" + ")" * 2000), "invalid regex"),
        (GuideSpec.grammar("start: " + "(" * 100_000 + '"a"' + ")" * 100_000), "cannot be used"),
        (GuideSpec.grammar("root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000), "recursion depth"),
        (
            GuideSpec.json_schema({"allOf": [{"anyOf": [{"minLength": i + j} for j in range(9)]} for i in range(12)]}),
            "",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_hostile_specs_are_refused(spec, words):
    with pytest.raises(InvalidGuide) as caught:
        check(spec)
    assert words in str(caught.value)


def test_what_is_large_and_harmless_is_accepted():
    check(GuideSpec.json_schema({"enum": [f"value {i}" for i in range(5000)]}))
    check(GuideSpec.json_schema({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(500)}}))
    check(GuideSpec.grammar(repeated(4, name="t")))
    check(GuideSpec.regex("(a?b?c?){1000}"))


def test_sizes_follow_references_and_leave_comments_and_rules_out():
    check_lark(f'start: T\nT: "{"x" * 4000}"  // {"y" * 9000}\n')
    check_lark("\n".join([f"start: {'X ' * 9000}", "X: /abc/"]))
    check_lark("start: A\nA: B\nB: A")  # a circle, which llguidance refuses
    with pytest.raises(InvalidGuide, match=f"terminal T has {MAX_LEXEME_CHARS + 2} characters"):
        check_lark(f'start: T\nT: "{"x" * MAX_LEXEME_CHARS}"')
    many = "\n".join(f'T{i}: "{"x" * 4000}"' for i in range(17))
    with pytest.raises(InvalidGuide, match=f"{MAX_ALL_LEXEMES_CHARS} are allowed"):
        check_lark(f"start: T1\n{many}")
    check_schema('{"description": "' + "x" * 100_000 + '"}')


@pytest.mark.parametrize("upper", [False, True])
def test_thousands_of_rules_in_a_chain_do_not_overflow_the_stack(upper):
    """On a stack of 8 MB this ends the process: hence in another one."""
    code = f"""
        from headrace.text.guides import GuideSpec, check
        from headrace.errors import InvalidGuide
        from tests.guides.test_bounds import chain
        try:
            check(GuideSpec.structural(chain(20_000, {upper})))
        except InvalidGuide as error:
            print(error)
        print("alive")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "alive"), done.stderr


def test_the_longest_nullable_expression_takes_little_memory(compiler):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    guide = compiler.compile(GuideSpec.regex("a?" * (MAX_LEXEME_CHARS // 2)))
    guide.mask([])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
