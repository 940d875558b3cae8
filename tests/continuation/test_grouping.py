"""What is given out after some tokens does not depend on the steps in which they came."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.protocol.parts import ContentPart, Part, ReasoningPart, ToolCallPart, ToolChoice
from headrace.text import TextStream, Tokenizer
from headrace.text.answers import AnswerParser, answer_format
from headrace.text.answers.response_format import AnswerFormat
from tests.answers.test_answer_parser import FORMATS, TOOLS
from tests.text import tokenizers_for_tests as trained

FAMILIES = {"byte level": trained.byte_level, "byte fallback": trained.byte_fallback, "metaspace": trained.metaspace}
WORDS = [
    "hello world", "你好", "😀", "<tool_call>", "</tool_call>", '{"name": "weather",', '"arguments": {"city": "é"}}',
    "<think>", "</think>", "[TOOL_CALLS]", "\n", " ", "�", "stop",
]  # fmt: skip


def format_of(name: str) -> AnswerFormat:
    class Inner:
        chat_template = FORMATS[name][0]
        response_template = None

    return answer_format(Inner())


def told(tokenizer: Tokenizer, ids: list[int], sizes: list[int], stop: list[str], parser: AnswerParser) -> list[Any]:
    """What was given out after each token that ended a group: content, reasoning, calls; at last with the end."""
    stream, parts, result = TextStream(tokenizer, stop, skip_special_tokens=False), [], {}
    start = 0
    for size in sizes:
        delta = stream.push(ids[start : start + size])
        parts += parser.push(delta.text)
        start += size
        result[min(start, len(ids))] = summary(parts)
        if delta.stopped:
            break
    parts += parser.push(stream.flush().text) + parser.flush()
    return [result, summary(parts)]


def summary(parts: list[Part]) -> tuple[Any, ...]:
    calls: dict[int, list[Any]] = {}
    for part in parts:
        if isinstance(part, ToolCallPart):
            call = calls.setdefault(part.index, [part.call_id, part.name, ""])
            call[2] += part.arguments
    text = "".join(part.text for part in parts if isinstance(part, ContentPart))
    reasoning = "".join(part.text for part in parts if isinstance(part, ReasoningPart))
    return text, reasoning, tuple(map(tuple, calls.values()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["plain", "required", "named", *sorted(FORMATS)])
@given(data=st.data())
def test_groups_do_not_matter(family: str, kind: str, data: st.DataObject) -> None:
    tokenizer = Tokenizer(FAMILIES[family]())
    pieces = st.sampled_from([*WORDS, *([FORMATS[kind][1]] if kind in FORMATS else [])]).map(
        lambda text: tokenizer.encode(text, add_special_tokens=False)
    )
    some = st.integers(3, tokenizer.inner.vocab_size - 1).map(lambda token: [token])
    ids = [token for piece in data.draw(st.lists(pieces | some, min_size=1, max_size=12)) for token in piece]
    stop = data.draw(st.sampled_from([[], ["stop"], ["\n\n", "a"], ["</think>"]]))

    def parser() -> AnswerParser:
        if kind in ("required", "named"):
            return AnswerParser(AnswerFormat(), tools=TOOLS, choice=ToolChoice(kind, "weather"))
        return AnswerParser(AnswerFormat() if kind == "plain" else format_of(kind), tools=TOOLS)

    alone, end = told(tokenizer, ids, [1] * len(ids), stop, parser())
    # Of a seed: to draw and mutate each of some hundred sizes took most of the test's time.
    sizes = random.Random(data.draw(st.integers(0, 2**32))).choices(range(1, data.draw(st.integers(2, 10))), k=len(ids))
    grouped, grouped_end = told(tokenizer, ids, sizes, stop, parser())
    assert grouped_end == end
    if not stop:
        assert grouped == {count: alone[count] for count in grouped}
