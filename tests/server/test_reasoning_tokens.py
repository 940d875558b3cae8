"""How many tokens of an answer were reasoning."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from headrace.engine.outputs import EngineOutput
from headrace.protocol import parse_chat
from headrace.protocol.write import PromptInfo, make_writer
from headrace.server.choice import Choice
from headrace.server.respond import Responder
from headrace.text import TextStream
from headrace.text.answers import AnswerParser, answer_format
from tests.server.service import tokenizer

THINKING = "<think>\nwell, so\n</think>"
START = len(tokenizer().encode("<think>")) - 1
"""Tokens of the mark before it is one: other models have a single one for it."""


def usage_of(text: str, template: str, prompt_tail: str = "") -> tuple[int, int | None]:
    """Tokens of an answer, and those of its reasoning."""
    names: Any = SimpleNamespace(chat_template=template, response_template=None)
    parser = AnswerParser(answer_format(names), prompt_tail=prompt_tail)
    ids = tokenizer().encode(text)
    choice = Choice(0, "r", TextStream(tokenizer(), skip_special_tokens=False), 3, immediate=True)
    for place, token in enumerate(ids):
        choice.take(EngineOutput("r", (token,), finish_reason="length" if place == len(ids) - 1 else None))
    call = parse_chat({"messages": [{"role": "user", "content": "hi"}], "stream": True})
    generation = cast(Any, SimpleNamespace(choices=[choice]))
    responder = Responder(
        cast(Any, None), generation, make_writer(call, "id", 0, "m"), [parser], [PromptInfo(3, 0)], None
    )
    responder.skip_given([ids])
    usage = responder.usage()
    assert usage.completion_tokens == len(ids)
    return len(ids), usage.reasoning_tokens


def test_reasoning_is_counted_with_its_marks() -> None:
    num_tokens, num_reasoning = usage_of(f"{THINKING}\n\nSo be it.", "<think><|im_end|>")
    assert num_reasoning == len(tokenizer().encode(THINKING)) - START
    assert num_reasoning < num_tokens


def test_reasoning_that_the_prompt_began() -> None:
    tail = "hi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    _, num_reasoning = usage_of("well\n</think>\nyes", "<|im_start|><think>", tail)
    assert num_reasoning == len(tokenizer().encode("well\n</think>"))


def test_an_answer_without_reasoning_has_none_of_it() -> None:
    assert usage_of("So be it.", "<think><|im_end|>")[1] == 0


def test_a_model_that_marks_none_is_not_counted() -> None:
    assert usage_of(f"{THINKING} yes", "<|im_end|>")[1] is None


def test_reasoning_that_is_cut_off_is_all_of_the_answer() -> None:
    num_tokens, num_reasoning = usage_of("<think>\nstill at it", "<think><|im_end|>")
    assert num_reasoning == num_tokens - START
